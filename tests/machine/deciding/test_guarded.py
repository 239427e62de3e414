"""GUARDED: commands that take place only when nothing has changed since."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c

WRITE = c.set_("k", b"new", 1)


def test_commands_run_when_every_key_is_at_its_version(driver: Driver) -> None:
    driver.put("a", "b")
    conditions = [("a", 1, 0), ("b", 2, 0), ("none", 0, 0), ("a", 1, 0)]
    commands = [WRITE, c.append("k", b"er"), c.get("k"), c.delete("a"), c.get("a")]
    assert driver.one(c.guarded(conditions, commands)) == [
        c.OK,
        [[c.OK, 3, True, 0], [c.OK, 4, 5, 0], [c.OK, b"newer", 1, None, 4, 0], [c.OK, 5], [c.MISSING]],
    ]


@pytest.mark.parametrize(
    ("conditions", "position"),
    [
        ([("a", 2, 0)], 0),
        ([("a", 0, 0)], 0),
        ([("none", 1, 0)], 0),
        ([("a", 1, 0), ("none", 0, 0), ("b", 1, 0), ("a", 9, 0)], 2),
        ([("a", 1, 0), ("a", 2, 0)], 1),
    ],
)
def test_the_first_key_that_is_not_stops_them_all(
    driver: Driver, conditions: list[tuple[str, int, int]], position: int
) -> None:
    driver.put("a", "b")
    assert driver.one(c.guarded(conditions, [WRITE])) == [c.PRECONDITION, position]
    assert driver.machine.contents.effects == []
    assert driver.live() == ["a", "b"]


def test_no_condition_and_no_command_hold_and_do_nothing(driver: Driver) -> None:
    assert driver.one(c.guarded([], [])) == [c.OK, []]
    assert driver.one(c.guarded([], [WRITE])) == [c.OK, [[c.OK, 1, True, 0]]]


def test_a_command_that_fails_leaves_the_others_alone(driver: Driver) -> None:
    commands = [c.set_("k", b"x", 1), c.count("k", 1), c.set_("k", b"", 9), c.noop(), c.append("k", b"y")]
    status, results = driver.one(c.guarded([("k", 0, 0)], commands))
    assert status == c.OK
    assert [one[0] for one in results] == [c.OK, c.NOT_AN_INTEGER, c.MALFORMED, c.MALFORMED, c.OK]
    assert driver.machine.contents.raw["k"][0] == b"xy"


def test_a_key_past_its_expiry_counts_as_absent(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(1000)), ttl_ms=5)
    driver.put("late", ttl_ms=5)
    assert driver.one(c.guarded([("late", 1001, 5)], [WRITE]), at=6) == [c.PRECONDITION, 0]
    driver.put("late", ttl_ms=5)
    driver.put(*(f"k{number:04}" for number in range(1000)), ttl_ms=4)
    assert driver.one(c.guarded([("late", 0, 0)], [WRITE]), at=11)[0] == c.OK


def test_a_use_is_no_change_and_a_new_expiry_is(driver: Driver) -> None:
    driver.put("a")
    driver.run(c.get("a"))
    assert driver.one(c.guarded([("a", 1, 0)], []))[0] == c.OK
    _, _, expires_at_ms = driver.one(c.touch("a", 10**6))
    assert driver.one(c.guarded([("a", 1, 0)], [])) == [c.PRECONDITION, 0]
    assert driver.one(c.guarded([("a", 1, expires_at_ms + 1)], [])) == [c.PRECONDITION, 0]
    assert driver.one(c.guarded([("a", 1, expires_at_ms)], []))[0] == c.OK
    driver.run(c.expire("a", c.TTL_NONE))
    assert driver.one(c.guarded([("a", 1, expires_at_ms)], [])) == [c.PRECONDITION, 0]


def test_a_key_that_came_back_is_a_change(driver: Driver) -> None:
    driver.put("a", "b")
    driver.run(c.delete("b"), c.set_("b", b"x", 1))
    assert driver.one(c.guarded([("b", 2, 0)], [])) == [c.PRECONDITION, 0]


def test_atomic_commands_take_place_all_or_none(driver: Driver) -> None:
    driver.put("a")
    commands = [WRITE, c.count("a", 1)]
    result = driver.one(c.guarded([("a", 1, 0)], commands, atomic=True))
    assert result[:2] == [c.ABORTED, 1] and result[2][0] == c.NOT_AN_INTEGER
    assert driver.live() == ["a"]
    assert driver.one(c.guarded([("a", 2, 0)], commands, atomic=True)) == [c.PRECONDITION, 0]
    assert driver.one(c.guarded([("a", 1, 0)], [WRITE, c.delete("a")], atomic=True))[0] == c.OK
    assert driver.live() == ["k"]


def test_of_two_in_one_entry_with_the_same_condition_one_wins(driver: Driver) -> None:
    driver.put("a")
    both = driver.run(*[c.guarded([("a", 1, 0)], [c.append("a", b"y")])] * 2)
    assert both == [[c.OK, [[c.OK, 2, 2, 0]]], [c.PRECONDITION, 0]]


def test_conditions_are_no_use_of_their_keys(cache: Driver) -> None:
    cache.put("a", "b")
    cache.one(c.guarded([("a", 1, 0)], []))
    assert cache.order() == ["a", "b"]


@pytest.mark.parametrize("inner", [c.batch([]), c.guarded([], []), c.idempotent("x", WRITE), c.delete_prefix("")])
def test_it_holds_commands_on_one_key_only(driver: Driver, inner: c.Command) -> None:
    assert driver.one(c.guarded([], [inner]))[1][0][0] == c.MALFORMED


@pytest.mark.parametrize(
    "command",
    [
        (c.GUARDED, [], []),
        (c.GUARDED, [], [], 0),
        (c.GUARDED, [], [], False, 0),
        (c.GUARDED, {}, [], False),
        (c.GUARDED, [], {}, False),
        (c.GUARDED, [None], [], False),
        (c.GUARDED, [["a", 1]], [], False),
        (c.GUARDED, [["a", 1, 1, 1]], [], False),
        (c.GUARDED, [["", 0, 0]], [], False),
        (c.GUARDED, [["k" * 1027, 0, 0]], [], False),
        (c.GUARDED, [[1, 0, 0]], [], False),
        (c.GUARDED, [["a", -1, 0]], [], False),
        (c.GUARDED, [["a", 0, -1]], [], False),
        (c.GUARDED, [["a", True, 0]], [], False),
        (c.GUARDED, [["a", 0, False]], [], False),
        (c.GUARDED, [["a", "1", 0]], [], False),
        (c.GUARDED, [["a", 1, None]], [], False),
        # The shape is judged before the versions are.
        (c.GUARDED, [["a", 7, 0], None], [], False),
        (c.GUARDED, [["a", 0, 0]] * 10_001, [], False),
        (c.GUARDED, [], [[c.GET, "k"]] * 10_001, False),
    ],
)
def test_a_wrong_shape_is_malformed(driver: Driver, command: Any) -> None:
    assert driver.one(command)[0] == c.MALFORMED
