"""A machine that was restored at any moment goes on as the one that was not."""

from __future__ import annotations

from random import Random

import pytest
from machine.driver import Driver, assert_invariants
from machine.mixed_log import mixed_log

from cacheflow.machine.eviction import lfu, use_order
from cacheflow.machine.language import commands as c
from cacheflow.machine.state import contents, expiry


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a short log passes each of them again and again."""
    monkeypatch.setattr(contents, "EXPIRED_PER_ENTRY_MAX", 4)
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 9)
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 5)
    monkeypatch.setattr(contents, "EVICTED_PER_ENTRY_MAX", 3)
    monkeypatch.setattr(contents, "SWEPT_AT_ONCE", 3)
    monkeypatch.setattr(contents, "SWEPT_FOR_ROOM_MAX", 7)
    monkeypatch.setattr(lfu, "LINK_KEYS_MAX", 6)
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", 8)
    monkeypatch.setattr(expiry, "BLOCK_KEYS_MAX", 8)


@pytest.mark.parametrize("seed", range(12))
def test_restoring_changes_nothing_that_follows(seed: int) -> None:
    random = Random(seed)
    live, restored = Driver(), Driver()
    for payload in mixed_log(seed, 150, removals=0.1, many=25):
        assert live.apply(payload) == restored.apply(payload)
        assert live.machine.digest == restored.machine.digest
        assert live.machine.contents_digest() == restored.machine.contents_digest()
        assert live.machine.outlook() == restored.machine.outlook()
        assert_invariants(live.machine)
        if random.random() < 0.15:
            restored = random.choice([live, restored]).copy()


def test_a_damaged_entry_does_nothing_to_what_waits_to_be_removed(driver: Driver) -> None:
    driver.put(*(f"k{number}" for number in range(20)))
    driver.put(*(f"late{number}" for number in range(20)), ttl_ms=5)
    driver.one(c.delete_prefix("k"))
    driver.run(at=driver.at_ms + 5)
    restored = driver.copy()
    swept = driver.machine.contents.swept
    for one in (driver, restored):
        one.apply(b"damaged")
        assert one.machine.contents.swept == swept
    assert driver.machine.contents_digest() == restored.machine.contents_digest()
