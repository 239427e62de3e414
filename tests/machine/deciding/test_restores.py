"""Restores in the machine: everything is replaced, each item counts once, and no version of before comes back."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver, assert_invariants

from cacheflow.machine.deciding.restores import RESTORED_AT_ONCE_MAX, REVISION_GAP, REVISION_MAX
from cacheflow.machine.language import commands as c


def item(key: str, data: bytes = b"new", expires_at_ms: int = 0) -> list[Any]:
    return [key, data, 1, None, expires_at_ms]


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.put("a", "b", "old")
    return driver


def begin(driver: Driver, items: int, restore_id: str = "r", revision: int = 0, online: bool = False) -> c.Result:
    latest = driver.machine.restoring
    return driver.one(c.restore_begin(restore_id, latest.id if latest else "", items, revision, online))


def test_a_restore_replaces_everything(driver: Driver) -> None:
    driver.put("\x011in another database")
    begin(driver, 2)
    assert driver.live() == []
    assert driver.one(c.restore_items("r", 0, [item("a"), item("c")])) == [c.OK, 2]
    assert driver.one(c.restore_end("r")) == [c.OK]
    assert driver.live() == ["a", "c"]
    driver.work_off()
    assert driver.live() == ["a", "c"]
    assert_invariants(driver.machine)


def test_no_version_of_before_meets_another_value(driver: Driver) -> None:
    """Neither one of this cluster nor one of the cluster of the backup."""
    for revision in (0, 10**9):
        before = driver.machine.contents.revision
        status, raised = begin(driver, 1, f"r{revision}", revision)
        driver.one(c.restore_items(f"r{revision}", 0, [item("a")]))
        version = driver.one(c.get("a"))[4]
        assert status == c.OK
        assert version > raised >= max(before, revision) + REVISION_GAP


def test_each_step_counts_once(driver: Driver) -> None:
    assert begin(driver, 3) == begin(driver, 3)
    assert driver.one(c.restore_items("r", 0, [item("a"), item("b")])) == [c.OK, 2]
    assert driver.one(c.restore_items("r", 0, [item("a"), item("b")])) == [c.PRECONDITION, 2]
    assert driver.one(c.restore_items("r", 1, [item("b"), item("c")])) == [c.PRECONDITION, 2]
    assert driver.one(c.restore_end("r")) == [c.PRECONDITION, 2]
    driver.put("mine")
    assert begin(driver, 3)[0] == c.OK
    assert driver.live() == ["a", "b", "mine"]
    assert driver.one(c.restore_items("r", 2, [item("c")])) == [c.OK, 3]
    assert driver.one(c.restore_end("r")) == driver.one(c.restore_end("r")) == [c.OK]


def test_nothing_comes_after_a_later_restore_has_begun(driver: Driver) -> None:
    begin(driver, 2, "first")
    driver.one(c.restore_items("first", 0, [item("first")]))
    begin(driver, 1, "second")
    assert driver.one(c.restore_items("first", 1, [item("late")])) == [c.PRECONDITION, -1]
    assert driver.one(c.restore_end("first", given_up=True)) == [c.PRECONDITION, -1]
    driver.one(c.restore_items("second", 0, [item("second")]))
    driver.one(c.restore_end("second"))
    assert driver.one(c.restore_items("second", 1, [item("late")])) == [c.PRECONDITION, -1]
    assert driver.live() == ["second"]


def test_a_restore_that_comes_late_changes_nothing(driver: Driver) -> None:
    late = c.restore_begin("late", "", 1, 0, False)
    begin(driver, 1)
    driver.one(c.restore_items("r", 0, [item("a")]))
    assert driver.one(late) == [c.PRECONDITION, -1]
    driver.one(c.restore_end("r"))
    assert driver.one(late) == [c.PRECONDITION, -1]
    assert driver.live() == ["a"]
    assert not driver.machine.is_closed


def test_what_is_written_meanwhile_stays(driver: Driver) -> None:
    begin(driver, 1, online=True)
    driver.put("a", data=b"mine")
    driver.one(c.restore_items("r", 0, [item("a")]))
    assert driver.one(c.get("a"))[1] == b"mine"


def test_what_is_over_does_not_come_back(driver: Driver) -> None:
    driver.run(at=1000)
    begin(driver, 3)
    driver.one(
        c.restore_items("r", 0, [item("over", expires_at_ms=1000), item("soon", expires_at_ms=1001), item("for ever")])
    )
    assert driver.live() == ["for ever", "soon"]
    driver.run(at=1001)
    assert driver.live() == ["for ever"]


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_a_smaller_cache_keeps_the_most_useful(driver: Driver, policy: str) -> None:
    driver.one(c.configure({"policy": policy, "max_items": 2, "max_bytes": 2048}))
    begin(driver, 4)
    too_large = item("large", b"x" * 3000)
    assert driver.one(c.restore_items("r", 0, [item("a"), item("b"), too_large, item("c")])) == [c.OK, 4]
    assert driver.one(c.restore_end("r")) == [c.OK]
    assert driver.live() == ["b", "c"]
    assert_invariants(driver.machine)


def test_clients_are_kept_out_unless_it_is_online(driver: Driver) -> None:
    def is_closed() -> list[bool]:
        return [each.machine.is_closed for each in (driver, driver.copy())]

    begin(driver, 1, "on", online=True)
    assert is_closed() == [False, False]
    begin(driver, 1, "off")
    assert is_closed() == [True, True]
    driver.one(c.restore_end("off", given_up=True))
    assert is_closed() == [False, False]
    assert driver.machine.restoring is not None and driver.machine.restoring.ended


def test_a_snapshot_knows_how_far_it_is(driver: Driver) -> None:
    begin(driver, 3)
    driver.one(c.restore_items("r", 0, [item("a")]))
    copy = driver.copy()
    assert copy.machine.outlook() == driver.machine.outlook()
    for each in (driver, copy):
        assert each.one(c.restore_items("r", 1, [item("b"), item("c")])) == [c.OK, 3]
        assert each.one(c.restore_end("r")) == [c.OK]
    assert copy.machine.contents_digest() == driver.machine.contents_digest()


def test_a_restore_changes_the_digest_of_who_applies_it(driver: Driver) -> None:
    digests = [driver.machine.digest]
    for command in (c.restore_begin("r", "", 0, 0, False), c.restore_end("r")):
        driver.one(command)
        digests.append(driver.machine.digest)
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    "command",
    [
        c.restore_items("r", 0, []),
        c.restore_items("r", 0, [item("a")] * (RESTORED_AT_ONCE_MAX + 1)),
        c.restore_items("r", 0, [item("a"), ["b"]]),
        c.restore_items("r", 0, [item("a"), item("k" * 2000)]),
        c.restore_items("r", 0, [item(f"{number}") for number in range(5)]),
        c.restore_items("r", None, [item("a")]),  # type: ignore[arg-type]
        c.restore_begin("", "r", 1, 0, False),
        c.restore_begin("x", "r", -1, 0, False),
        c.restore_begin("x", "r", 1, REVISION_MAX, False),
        (c.RESTORE_BEGIN, "x", "r", 1, 0, 0),
        (c.RESTORE_BEGIN, "x", None, 1, 0, False),
        (c.RESTORE_END, "r", 1),
    ],
)
def test_what_is_malformed_changes_nothing(driver: Driver, command: c.Command) -> None:
    begin(driver, 4)
    revision = driver.machine.contents.revision
    assert driver.one(command)[0] == c.MALFORMED
    assert driver.machine.contents.revision == revision
    assert driver.machine.restoring is not None and driver.machine.restoring.done == 0


def test_restores_are_no_commands_on_one_key(driver: Driver) -> None:
    """Neither a batch nor a client's retry may carry them."""
    for inner in (c.restore_begin("r", "", 1, 0, False), c.restore_end("r")):
        for command in (c.batch([inner]), c.idempotent("key", inner)):
            driver.one(command)
            assert driver.machine.restoring is None
