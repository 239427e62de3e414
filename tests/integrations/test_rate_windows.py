"""The rules of rate limits' windows against slow and obvious models, and hits that are decided together."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cacheflow.integrations.rate_windows import (
    GROUPS_MAX,
    Counts,
    Found,
    Rule,
    counts,
    entries,
    moving,
    sliding,
    together,
)

PERIOD_MS = 10_000
# Hits in their order: milliseconds since the one before, and how many.
HITS = some.lists(some.tuples(some.integers(0, 2 * PERIOD_MS), some.integers(1, 4)), max_size=40)


class Key:
    """A window's key in a cluster: a state, and until when it lives by the cluster's clock."""

    def __init__(self) -> None:
        self.state: Any = None
        self.ends_ms = 0.0

    def hit(self, rule: Rule, now_ms: float, limit: int, *amounts: int) -> list[bool]:
        fits, hit = together(rule, self.found(now_ms), limit, PERIOD_MS, amounts)
        if hit is not None:
            self.state = hit.state
            self.ends_ms = self.ends_ms if hit.lives_ms is None else now_ms + hit.lives_ms
        return fits

    def found(self, now_ms: float) -> Found:
        if now_ms >= self.ends_ms:
            self.state = None
            return Found(None, 0)
        return Found(self.state, 2 * PERIOD_MS - (self.ends_ms - now_ms))


@given(HITS, some.integers(1, 8))
def test_a_moving_window_lets_through_what_a_list_of_moments_would(hits: list[tuple[int, int]], limit: int) -> None:
    key, now_ms = Key(), 0
    moments: list[int] = []
    for since_ms, amount in hits:
        now_ms += since_ms
        within = [at for at in moments if at > now_ms - PERIOD_MS]
        fits = len(within) + amount <= limit
        assert key.hit(moving, now_ms, limit, amount) == [fits]
        moments += [now_ms] * (amount if fits else 0)
        assert sum(n for _, n in entries(key.found(now_ms), PERIOD_MS)) == len(within) + (amount if fits else 0)


@given(HITS, some.integers(1, 12))
def test_a_sliding_window_counter_lets_through_what_redis_would(hits: list[tuple[int, int]], limit: int) -> None:
    key, now_ms = Key(), 0
    begin_ms, previous, current = -math.inf, 0, 0
    for since_ms, amount in hits:
        now_ms += since_ms
        if now_ms >= begin_ms + 2 * PERIOD_MS:
            begin_ms, previous, current = -math.inf, 0, 0
        elif now_ms >= begin_ms + PERIOD_MS:
            begin_ms, previous, current = begin_ms + PERIOD_MS, current, 0
        share = previous * (begin_ms + PERIOD_MS - now_ms) / PERIOD_MS if previous else 0
        fits = math.floor(share) + current + amount <= limit
        assert key.hit(sliding, now_ms, limit, amount) == [fits]
        if fits:
            begin_ms = now_ms if begin_ms == -math.inf else begin_ms
            current += amount


@given(
    some.lists(some.integers(1, 4), min_size=1, max_size=10), some.integers(0, 2 * PERIOD_MS - 1), some.integers(1, 12)
)
@pytest.mark.parametrize("rule", [moving, sliding])
def test_hits_together_are_as_many_one_by_one(rule: Rule, amounts: list[int], now_ms: int, limit: int) -> None:
    one, other = Key(), Key()
    for key in (one, other):
        key.hit(rule, 0, limit, 1)
    assert one.hit(rule, now_ms, limit, *amounts) == [other.hit(rule, now_ms, limit, amount)[0] for amount in amounts]
    assert (one.state, one.ends_ms) == (other.state, other.ends_ms)


def test_a_high_limit_has_bounded_groups_and_lets_nothing_through_too_early() -> None:
    key, limit = Key(), 5000
    for now_ms in range(0, PERIOD_MS, 2):
        assert key.hit(moving, now_ms, limit, 1) == [True]
    assert len(key.state) <= GROUPS_MAX + 1
    assert key.hit(moving, PERIOD_MS - 1, limit, 1) == [False]
    # One hit was at 0; those at 2 to 10 are one group, and none of them goes before the last.
    assert key.hit(moving, PERIOD_MS + 3, limit, 2) == [False]
    assert key.hit(moving, PERIOD_MS + PERIOD_MS // GROUPS_MAX, limit, 1) == [True]
    huge = Key()
    assert huge.hit(moving, 0, 10**6, 1) == [True]
    assert huge.hit(moving, 5, 10**6, 10**6 - 1) == [True]
    assert huge.hit(moving, 6, 10**6, 1) == [False]


def test_a_clock_that_is_behind_lets_nothing_through_twice() -> None:
    key = Key()
    key.hit(moving, 0, 3, 1)
    key.hit(moving, 500, 3, 1)
    assert key.hit(moving, 400, 3, 1, 1) == [True, False]
    assert entries(key.found(500), PERIOD_MS) == [[0, 1], [500, 2]]


def test_the_counts_of_two_windows_end_one_after_the_other() -> None:
    key = Key()
    assert counts(key.found(0), PERIOD_MS) == Counts(0, 0, 0, 0)
    key.hit(sliding, 0, 10, 4)
    assert counts(key.found(1000), PERIOD_MS) == Counts(0, 0, 4, 19_000)
    assert counts(key.found(12_000), PERIOD_MS) == Counts(4, 8000, 0, 18_000)
    key.hit(sliding, 12_000, 10, 2)
    assert counts(key.found(13_000), PERIOD_MS) == Counts(4, 7000, 2, 17_000)
    assert counts(key.found(40_000), PERIOD_MS) == Counts(0, 0, 0, 0)
