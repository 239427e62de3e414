"""A machine that was restored at any moment goes on as the one that was not."""

from __future__ import annotations

from random import Random

import pytest
from machine.driver import Driver
from machine.mixed_log import mixed_log

from cacheflow.machine import machine
from cacheflow.machine.eviction import use_order
from cacheflow.machine.state import contents, expiry, removals


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a short log passes each of them again and again."""
    monkeypatch.setattr(machine, "REMOVED_PER_ENTRY_MAX", 3)
    monkeypatch.setattr(machine, "EXPIRED_PER_ENTRY_MAX", 4)
    monkeypatch.setattr(contents, "RETIRED_AT_ONCE", 3)
    monkeypatch.setattr(contents, "WHOLE_LOT_MIN", 9)
    monkeypatch.setattr(removals, "LOT_KEYS_MAX", 12)
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", 8)
    monkeypatch.setattr(expiry, "STALE_ALLOWED", 4)


@pytest.mark.parametrize("seed", range(12))
def test_restoring_changes_nothing_that_follows(seed: int) -> None:
    random = Random(seed)
    live, restored = Driver(), Driver()
    for payload in mixed_log(seed, 150, removals=0.1, many=25):
        assert live.apply(payload) == restored.apply(payload)
        assert live.machine.digest == restored.machine.digest
        assert live.machine.contents_digest() == restored.machine.contents_digest()
        assert live.machine.outlook() == restored.machine.outlook()
        if random.random() < 0.15:
            restored = random.choice([live, restored]).copy()
