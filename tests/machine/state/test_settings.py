"""CONFIGURE and MEMBERS: what takes effect, and what is refused as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.state import contents
from cacheflow.machine.state.settings import Member, Settings

ROW: list[Any] = ["a", "1", "h:1", "h:2", True, False]


def test_a_new_machine_has_no_limits_and_knows_that_nobody_set_any(driver: Driver) -> None:
    assert driver.machine.settings == Settings("lru", None, None, None, 1024 * 1024, 0, "", 0)


def test_the_first_node_decides_and_later_changes_are_commands(driver: Driver) -> None:
    first = driver.one(c.configure({"policy": "lfu", "max_items": 9}, version=0), at=1000)
    assert first == [c.OK, "lfu", 9, None, None, 1024 * 1024, 1, "", 1000]
    assert driver.one(c.configure({"max_items": 5}, version=0)) == [c.PRECONDITION, 1]
    second = driver.one(c.configure({"max_bytes": 1024, "replicas": 0, "max_value_bytes": 5}, by="ann"), at=2000)
    assert second == [c.OK, "lfu", 9, 1024, 0, 5, 2, "ann", 2000]
    assert driver.machine.settings == Settings("lfu", 9, 1024, 0, 5, 2, "ann", 2000)
    driver.one(c.configure({"max_items": None}))
    assert driver.machine.settings.max_items is None


def test_of_two_changes_of_the_same_version_one_takes_place(driver: Driver) -> None:
    driver.one(c.configure({}, version=0))
    results = driver.run(c.configure({"max_items": 7}, version=1), c.configure({"max_items": 8}, version=1))
    assert [result[0] for result in results] == [c.OK, c.PRECONDITION]
    assert results[1] == [c.PRECONDITION, 2]
    assert driver.machine.settings.max_items == 7


def test_what_changes_nothing_is_no_change(driver: Driver) -> None:
    driver.one(c.configure({"max_items": 7}, by="ann"), at=1000)
    digest = driver.machine.digest
    assert driver.one(c.configure({"max_items": 7}, by="bob"), at=2000)[-3:] == [1, "ann", 1000]
    assert driver.one(c.configure({}, by="bob"))[-3:] == [1, "ann", 1000]
    assert driver.machine.digest == digest
    # But the first of all always counts: until then nobody has decided anything.
    other = Driver()
    assert other.one(c.configure({}, version=0))[-3] == 1


def test_a_snapshot_has_the_settings_and_who_changed_them_when(driver: Driver) -> None:
    for changes in ({"max_items": 7, "replicas": 2}, {"policy": "lfu", "max_value_bytes": 77}):
        driver.one(c.configure(changes, by="ann"), at=1234)
    copy = driver.copy()
    assert copy.machine.settings == driver.machine.settings
    assert copy.machine.contents_digest() == driver.machine.contents_digest()
    # Also of a cluster in which nobody has set any.
    assert Driver().copy().machine.settings == Settings()


@pytest.mark.parametrize(("limits", "entries", "left"), [({"max_items": 10}, 5, 10), ({"max_bytes": 1024}, 4, 15)])
def test_a_lowered_limit_evicts_a_bounded_number_an_entry_while_writes_go_on(
    cache: Driver, limits: dict[str, Any], entries: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "EVICTED_PER_ENTRY_MAX", 5)
    keys = [f"k{number:02}" for number in range(40)]
    cache.put(*keys)
    assert cache.run(*[c.configure({**limits, "replicas": number}) for number in range(3)])[0][0] == c.OK
    # Nothing goes in the entry itself, however many changes are in it.
    assert len(cache.order()) == 40 and cache.machine.next_due_ms() == 0
    cache.put("new")
    # Five in their turn, and one for the room of the new one.
    assert cache.live() == [*keys[6:], "new"]
    copy = cache.copy()
    for one in (cache, copy):
        assert one.work_off() == entries
        assert len(one.order()) == left
    assert copy.machine.digest == cache.machine.digest
    cache.put("newest", data=b"")
    assert len(cache.order()) == left


def test_a_limit_that_is_raised_again_ends_the_evictions(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "EVICTED_PER_ENTRY_MAX", 5)
    cache.put(*[f"k{number:02}" for number in range(40)])
    cache.one(c.configure({"max_items": 10}))
    cache.run()
    cache.one(c.configure({"max_items": 40}))
    assert cache.work_off() == 0
    assert len(cache.order()) == 30


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
        {"max_value_bytes": None},
        {"max_value_bytes": 0},
        {"max_value_bytes": 64 * 1024 * 1024 + 1},
        {"version": 5},
        {"changed_by": "x"},
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
    for version, by in [(-1, ""), (True, ""), ("1", ""), (None, None), (None, b""), (None, "x" * 65)]:
        assert driver.one((c.CONFIGURE, version, by, {}))[0] == c.MALFORMED
    assert driver.one((c.CONFIGURE, None, {}))[0] == c.MALFORMED
    assert driver.machine.settings == Settings()


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
