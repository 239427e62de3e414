"""Histogram: how long something took, counted in plain integers."""

from __future__ import annotations

import pytest

from cacheflow.measuring.histogram import BOUNDS_S, BUCKETS, Histogram, quantile_of


def test_a_duration_is_in_the_first_bucket_whose_bound_is_above_it() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.9e-6, 1e-6, 3e-6, 1.0, 3600.0):
        histogram.note(seconds)
    filled = {i: count for i, count in enumerate(histogram.counts) if count}
    assert filled == {0: 2, 1: 1, 2: 1, 20: 1, BUCKETS - 1: 1}
    assert BOUNDS_S[19] < 1.0 < BOUNDS_S[20]
    assert histogram.count == 6
    assert histogram.sum_s == pytest.approx(3601.0, abs=1e-3)


def test_many_equal_durations_are_counted_at_once() -> None:
    histogram = Histogram()
    histogram.note(0.002, times=50)
    assert histogram.count == 50
    assert histogram.sum_s == pytest.approx(0.1)


def test_a_quantile_lies_in_the_bucket_of_its_rank() -> None:
    histogram = Histogram()
    histogram.note(0.0001, times=98)
    histogram.note(0.5, times=2)
    median, last = histogram.quantile(0.5), histogram.quantile(0.99)
    assert median is not None and 64e-6 <= median <= 128e-6
    assert last is not None and 0.26 <= last <= 0.53


def test_a_quantile_of_nothing_is_none_and_of_the_longest_ones_the_last_bound() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.note(1e9)
    assert histogram.quantile(0.5) == BOUNDS_S[-1]


def test_a_quantile_between_two_looks_is_that_of_their_difference() -> None:
    histogram = Histogram()
    histogram.note(0.5, times=1000)
    before = list(histogram.counts)
    histogram.note(0.0001, times=10)
    lately = quantile_of([now - then for now, then in zip(histogram.counts, before, strict=True)], 0.99)
    assert lately is not None and lately <= 128e-6
