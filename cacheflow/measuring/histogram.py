"""Histogram: how long something took, counted in plain integers.

The hot paths of a node note into it: one observation is a shift and two additions, and nothing is rendered until somebody asks.
Its buckets are fixed, so that the histograms of several nodes and moments can be added and subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Bucket i holds durations below 2^i microseconds: from one microsecond to half a minute; the last one holds all longer ones.
# Powers of two, because an integer's bit length finds the bucket without a search.
BUCKETS: Final = 27
# The upper bound of each bucket but the last one, in seconds.
BOUNDS_S: Final = tuple((1 << i) / 1e6 for i in range(BUCKETS - 1))


class Histogram:
    """Counts durations by their length. One thread notes, any thread may read: what it reads may lack the latest ones.

    counts: the number of durations in each bucket.  sum_s: all of them together, in seconds.
    """

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sum_s = 0.0

    def note(self, seconds: float, times: int = 1) -> None:
        """Count ``times`` durations of ``seconds`` seconds each."""
        bucket = int(seconds * 1e6).bit_length()
        self.counts[bucket if bucket < BUCKETS else -1] += times
        self.sum_s += seconds * times

    @property
    def count(self) -> int:
        """The number of durations that were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return a duration in seconds which the part ``share`` (0 to 1) of all durations does not exceed; None without any.

        It is an estimate: durations are taken to be spread evenly over their bucket, as Prometheus does.
        """
        return quantile_of(self.counts, share)


def quantile_of(counts: Sequence[int], share: float) -> float | None:
    """Return the same as ``Histogram.quantile`` for the counts of a histogram's buckets, or of two histograms' difference."""
    rank = share * sum(counts)
    below = 0
    for i, count in enumerate(counts):
        if count and below + count >= rank:
            # Nothing is known of the length of the longest ones but that it is over the last bound.
            if i == BUCKETS - 1:
                return BOUNDS_S[-1]
            low = BOUNDS_S[i - 1] if i else 0.0
            return low + (BOUNDS_S[i] - low) * max(0.0, rank - below) / count
        below += count
    return None
