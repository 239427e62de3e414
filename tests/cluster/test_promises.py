"""The checks of real histories find what they are there for."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from cluster.access import Refused
from cluster.histories import Count, Epoch, Histories, Lease
from cluster.partitions import isolated, ring
from cluster.promises import Judge, counted_wrong
from simulation.linearizability import Operation


class Memory:
    """A node with these contents. (An ``Access``.)"""

    name = "memory"

    def __init__(self, contents: dict[str, str | int]) -> None:
        self.contents = contents
        self.refusals = 1

    def get(self, key: str, *, linearizable: bool) -> tuple[str | int | None, int]:
        if linearizable and self.refusals:
            self.refusals -= 1
            raise Refused("not now")
        return self.contents.get(key), 1 if key in self.contents else 0

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        raise NotImplementedError

    def cas(self, key: str, value: str, version: int) -> bool:
        raise NotImplementedError

    def delete(self, key: str) -> bool:
        raise NotImplementedError

    def incr(self, key: str) -> int:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def violations(
    registers: list[Operation], counts: list[Count], contents: dict[str, str | int], at_the_end: dict[str, str | int]
) -> list[str]:
    histories, epoch = Histories(), Epoch(0)
    epoch.registers = {"r": registers}
    epoch.counters = {"c": counts}
    judge = Judge(histories)
    judge.judge(epoch, [Memory(contents)])
    judge.final(Memory(at_the_end))
    return histories.violations


def history() -> tuple[list[Operation], list[Count]]:
    """Return two writes and two increments of known outcome, and one of each of unknown outcome."""
    registers = [Operation("set", 1, 2, "a"), Operation("set", 3, 4, "b"), Operation("set", 5, inf, "perhaps")]
    return registers, [Count(1, 1, 2, 1), Count(1, 3, 4, 2), Count(1, 5)]


@pytest.mark.parametrize(("value", "number"), [("b", 2), ("perhaps", 3)])
def test_what_was_acknowledged_and_what_is_unknown_may_be_there(value: str, number: int) -> None:
    contents: dict[str, str | int] = {"r": value, "c": number}
    assert violations(*history(), contents, contents) == []


@pytest.mark.parametrize("now", [{"r": "a", "c": 2}, {"c": 2}, {"r": "b", "c": 1}, {"r": "b", "c": 4}])
def test_a_lost_write_a_lost_increment_and_one_too_many_are_found(now: dict[str, str | int]) -> None:
    assert violations(*history(), now, now)


@pytest.mark.parametrize("later", [{"r": "a", "c": 2}, {"c": 2}, {"r": "b"}, {"r": "b", "c": 4}])
def test_what_is_lost_only_after_an_epoch_was_judged_is_found_at_the_end(later: dict[str, str | int]) -> None:
    assert violations(*history(), {"r": "b", "c": 2}, later)


def test_an_unknown_write_may_still_happen_after_the_epoch_was_judged() -> None:
    assert violations(*history(), {"r": "b", "c": 2}, {"r": "perhaps", "c": 3}) == []


@pytest.mark.parametrize(
    "counts",
    [
        [Count(1, 1, 2, 1), Count(1, 1, 2, 1)],
        [Count(1, 1, 2, 2), Count(1, 3, 4, 1)],
        [Count(1, 1, 2, 1), Count(0, 3, 4, 0)],
        [Count(1, 1, 2, 3)],
        [Count(1, 1, 2, 1), Count(1, 3, 4, 2), Count(1, 5, 6, 2)],
    ],
    ids=["twice the same", "backwards", "a read of the past", "more than were tried", "an old number again"],
)
def test_a_counter_that_cannot_be_is_found(counts: list[Count]) -> None:
    assert counted_wrong(counts)


@pytest.mark.parametrize(
    ("there", "asked", "wrong"),
    [(True, 3.0, False), (True, 13.0, True), (False, 3.0, True), (False, 13.0, False)],
)
def test_a_lease_that_ends_early_or_late_is_found(there: bool, asked: float, wrong: bool) -> None:
    histories = Histories()
    Judge(histories).lease(Lease("l", 0.0, 0.1, 10.0), there, asked, asked + 0.1, "a read", exact=True)
    assert bool(histories.violations) == wrong


def test_a_call_that_hangs_is_found() -> None:
    histories = Histories()
    with histories.epoch() as epoch:
        assert histories.turn(0.01) is epoch
    assert histories.violations


def test_in_a_ring_everybody_sees_a_majority_and_no_two_the_same() -> None:
    for count in (3, 4, 5, 6, 7):
        names = [f"n{number}" for number in range(count)]
        cut = ring(names, Random(count))
        seen = [frozenset(other for other in names if (other, name) not in cut) for name in names]
        assert all(len(each) > count // 2 for each in seen)
        assert len(set(seen)) == count, "also of three: one in the middle sees all"


def test_an_isolated_node_sees_nobody_and_the_others_see_each_other() -> None:
    assert isolated("a", ["a", "b", "c"]) == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
