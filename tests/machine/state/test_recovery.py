"""The entry that begins a recovered cluster: all versions are raised, and nothing else of the contents changes."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver
from machine.mixed_log import mixed_log

from cacheflow.machine.effects import RECOVERED
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import REVISION_MAX, CacheMachine
from cacheflow.machine.state.entries import VERSION

A = ["a", "1", "h:1", "h:2", True, False]
B = ["b", "1", "h:3", "h:4", True, False]


def recovery(cluster_id: str = "new", rows: Any = (A,), replaced: Any = ("old",)) -> c.Command:
    return c.recover(cluster_id, [list(row) for row in rows], list(replaced))


def test_every_version_is_another_one_afterwards(driver: Driver) -> None:
    driver.one(c.members("old", [A, B]))
    version = driver.one(c.set_("k", b"v", 1))[1]
    driver.one(c.set_("gone", b"v", 1))
    removed = driver.one(c.delete("gone"))[1]
    assert driver.one(recovery()) == [c.OK, removed + c.RECOVERY_RAISE]
    entry = driver.machine.lookup("k", 0)
    assert entry is not None and entry[VERSION] == version + c.RECOVERY_RAISE
    for before in (version, removed):
        assert driver.one(c.set_("k", b"x", 1, when=c.IF_VERSION, version=before))[0] == c.PRECONDITION
        assert driver.one(c.delete("k", before))[0] == c.PRECONDITION
    assert driver.one(c.set_("k", b"x", 1, when=c.IF_VERSION, version=entry[VERSION]))[0] == c.OK
    assert driver.one(c.set_("next", b"v", 1))[1] > c.RECOVERY_RAISE + removed


def test_members_of_before_are_out_and_the_old_cluster_is_remembered(driver: Driver) -> None:
    driver.one(c.members("old", [A, B]))
    for member in ("a", "b"):
        driver.one(c.open_session(member, "1", 1, "x"))
    before = driver.machine.digest
    driver.one(recovery())
    machine = driver.machine
    assert machine.digest != before
    assert (machine.cluster_id, list(machine.members), list(machine.replaced)) == ("new", ["a"], ["old"])
    assert list(machine.removed) == [("b", "1")]
    assert [session.member_id for _, session in machine.sessions] == ["a"]
    driver.one(recovery("newer", [A], ["old", "new"]))
    assert list(driver.copy().machine.replaced) == ["old", "new"]
    for number in range(c.REPLACED_MAX + 5):
        driver.one(recovery(f"c{number}", [A], [f"before{number}"]))
    assert len(machine.replaced) == c.REPLACED_MAX and next(reversed(machine.replaced)) == "before36"


def test_the_entry_of_a_cluster_that_has_begun_changes_nothing(driver: Driver) -> None:
    driver.one(c.members("old", [A]))
    driver.one(c.set_("k", b"v", 1))
    answer = driver.one(recovery())
    before = driver.machine.contents_digest(), driver.machine.digest
    assert driver.one(recovery()) == answer
    assert driver.machine.digest == before[1]


@pytest.mark.parametrize(
    "command",
    [
        recovery(""),
        recovery("new", [A, A]),
        recovery("new", [["a"]]),
        recovery(replaced=[]),
        recovery(replaced=[5]),
        recovery(replaced=[""]),
        recovery(replaced=["x"] * (c.REPLACED_MAX + 1)),
        (c.RECOVER, "new", [A], "old"),
        (c.RECOVER, "new", [A]),
    ],
)
def test_a_recovery_of_another_shape_does_nothing(driver: Driver, command: c.Command) -> None:
    before = driver.machine.digest
    assert driver.one(command)[0] == c.MALFORMED
    assert driver.machine.digest == before and driver.machine.contents.revision == 0


def test_there_is_an_end_of_revisions_and_no_exception() -> None:
    machine = CacheMachine()
    machine.contents.revision = REVISION_MAX
    commands = [recovery("c1"), recovery("c2"), c.set_("k", b"v", 1)]
    [(_, _, results)] = machine.apply(2, c.encode_entry(1, [c.encode_block(0, 0, 0, commands)]))
    assert [result[0] for result in results] == [c.OK, c.MALFORMED, c.OK]
    assert machine.contents.revision < c.INT64_MAX


@pytest.mark.parametrize("seed", range(6))
def test_all_that_follows_is_as_after_a_restore(seed: int) -> None:
    """Order of eviction, condemnations and their pass, counts and expiries go on as they were, on every replica alike."""
    log = mixed_log(seed, 260, removals=0.3, many=120)
    one = CacheMachine()
    index = 1
    for payload in log[:180]:
        index += 1
        one.apply(index, payload)
    order, swept = [key for key, _ in one.contents.items.ordered()], one.contents.swept
    living = {key: one.lookup(key, one.now_ms) for key in order}
    counts = one.contents.count_of(None), one.contents.bytes_used, len(one.contents.condemned.present)
    index += 1
    stamp = one.now_ms
    one.apply(index, c.encode_entry(stamp, [c.encode_block(0, 0, 0, [recovery()])]))
    assert one.contents.effects[-1][0] == RECOVERED
    if one.contents.swept == swept and len(order) == len(one.contents.raw):
        assert [key for key, _ in one.contents.items.ordered()] == order
        assert counts == (one.contents.count_of(None), one.contents.bytes_used, len(one.contents.condemned.present))
    for key, _ in one.contents.items.ordered():
        before, now = living[key], one.lookup(key, one.now_ms)
        assert (before is None) == (now is None)
        if before is not None and now is not None:
            assert now == (*before[:VERSION], before[VERSION] + c.RECOVERY_RAISE, *before[VERSION + 1 :])
    other = CacheMachine.restore(one.snapshot())
    for payload in log[180:]:
        index += 1
        assert one.apply(index, payload) == other.apply(index, payload)
    assert one.contents_digest() == other.contents_digest() and one.digest == other.digest
    assert one.outlook() == other.outlook()
