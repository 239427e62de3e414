"""The machine knows which disks were members, also after a restore."""

from __future__ import annotations

from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import REMOVED_KEPT


def row(node_id: str, incarnation: str) -> list[object]:
    return [node_id, incarnation, "h:1", "h:2", True, False]


def test_who_leaves_is_remembered_with_its_disk_and_who_comes_back_is_not(driver: Driver) -> None:
    driver.one(c.members("cluster", [row("a", "1"), row("b", "1")]))
    assert not driver.machine.removed
    driver.one(c.members("cluster", [row("a", "1")]))
    driver.one(c.members("cluster", [row("a", "2"), row("b", "2")]))
    assert list(driver.copy().machine.removed) == [("b", "1"), ("a", "1")]
    driver.one(c.members("cluster", [row("a", "1"), row("b", "2")]))
    assert list(driver.machine.removed) == [("b", "1"), ("a", "2")]
    assert driver.copy().machine.contents_digest() == driver.machine.contents_digest()


def test_only_the_latest_are_remembered(driver: Driver) -> None:
    for number in range(REMOVED_KEPT + 3):
        driver.one(c.members("cluster", [row("a", str(number))]))
    removed = list(driver.machine.removed)
    assert (len(removed), removed[0], removed[-1]) == (REMOVED_KEPT, ("a", "2"), ("a", str(REMOVED_KEPT + 1)))
