"""A fresh machine for every test, and one for each policy where the policy matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine.driver import Driver, assert_invariants

from cacheflow.machine.eviction import use_order
from cacheflow.machine.language import commands as c


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short that a few keys are many segments of the order of use."""
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", 8)


@pytest.fixture
def driver() -> Iterator[Driver]:
    one = Driver()
    yield one
    assert_invariants(one.machine)


@pytest.fixture(params=["lru", "lfu"])
def policy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def cache(policy: str, driver: Driver) -> Driver:
    """A driver whose machine follows each policy in turn."""
    driver.one(c.configure({"policy": policy}))
    return driver
