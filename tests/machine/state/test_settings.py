"""CONFIGURE and MEMBERS: what takes effect, and what is refused as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.state.settings import Member, Settings

ROW: list[Any] = ["a", "1", "h:1", "h:2", True, False]


def test_a_new_machine_has_no_limits_and_knows_that_nobody_set_any(driver: Driver) -> None:
    assert driver.machine.settings == Settings("lru", None, None, None)
    assert not driver.machine.configured


def test_the_first_node_decides_and_later_changes_are_commands(driver: Driver) -> None:
    assert driver.one(c.configure({"policy": "lfu", "max_items": 9}, only_if_unset=True)) == [c.OK, True]
    assert driver.one(c.configure({"max_items": 5}, only_if_unset=True)) == [c.OK, False]
    assert driver.one(c.configure({"max_bytes": 1024, "replicas": 0})) == [c.OK, True]
    assert driver.machine.settings == Settings("lfu", 9, 1024, 0)
    driver.one(c.configure({"max_items": None}))
    assert driver.machine.settings.max_items is None


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "fifo"},
        {"policy": None},
        {"policy": []},
        {"max_items": 0},
        {"max_items": True},
        {"max_items": 1.0},
        {"max_items": "5"},
        {"max_bytes": 1023},
        {"max_bytes": 2**63},
        {"replicas": None},
        {"replicas": 9},
        {"replicas": -1},
        {"unknown": 1},
        {"": 1},
        [],
        None,
    ],
)
def test_a_bad_setting_spoils_the_whole_command(driver: Driver, changes: Any) -> None:
    if type(changes) is dict:
        changes = {"max_items": 7, **changes}
    assert driver.one(c.configure(changes))[0] == c.MALFORMED
    assert driver.machine.settings == Settings()
    assert driver.one((c.CONFIGURE, 0, {}))[0] == c.MALFORMED


def test_the_member_table_is_replaced_as_a_whole(driver: Driver) -> None:
    assert driver.one(c.members("cluster", [ROW, ["b", "", "", "", False, True]])) == [c.OK]
    assert driver.machine.cluster_id == "cluster"
    assert driver.machine.members == {"a": Member(*ROW), "b": Member("b", "", "", "", False, True)}
    driver.one(c.members("cluster", [ROW]))
    assert list(driver.machine.members) == ["a"]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [None],
        [ROW[:4]],
        [[*ROW, 1]],
        [[1, *ROW[1:]]],
        [["", *ROW[1:]]],
        [["a", 1, *ROW[2:]]],
        [["a", "1", b"h", "h", True, False]],
        [["a", "1", "h", "h" * 257, True, False]],
        [[*ROW[:4], 1, False]],
        [[*ROW[:4], False, 0]],
        [[*ROW[:4], True, True]],
        [ROW[:5]],
        [ROW, ROW],
        [[[], *ROW[1:]]],
        [[str(number), *ROW[1:]] for number in range(1001)],
    ],
)
def test_a_bad_member_spoils_the_whole_table(driver: Driver, rows: Any) -> None:
    assert driver.one(c.members("cluster", rows))[0] == c.MALFORMED
    assert driver.machine.members == {}
    assert driver.one(c.members("", []))[0] == c.MALFORMED


def test_both_are_among_the_effects(driver: Driver) -> None:
    digests = [driver.machine.digest]
    for command in (c.configure({}), c.members("cluster", [ROW])):
        driver.one(command)
        digests.append(driver.machine.digest)
    assert len(set(digests)) == 3
