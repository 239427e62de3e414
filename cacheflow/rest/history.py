"""History: what a node has measured of itself in the last hour, a sample every few seconds, for the page's plots.

1. A sample is the same metrics that ``/metrics`` shows, read once: nothing is counted for the history alone.
2. A counter becomes a rate, and a histogram the quantiles of what it has counted since the sample before.
3. What is not known is no number: a node that was stopped or suspended for a while leaves a gap, over which no line may lead.
4. Samples lie in rings of plain numbers, all of the same length, and there are at most SERIES_MAX: the memory is bounded.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from operator import add, sub
from typing import Final

from cacheflow.measuring.histogram import BUCKETS, quantile_of
from cacheflow.measuring.metrics import Metrics, parted
from cacheflow.net.slices import Breaks
from cacheflow.rest.answers import json_bytes

logger = logging.getLogger(__name__)

# Seconds between two samples, and how many are kept: an hour of them.
EVERY_S: Final = 5
PLACES: Final = 720
# A sample that comes later than this has a gap before it: one that ought to have come between is missing.
LATE_S: Final = 2.0 * EVERY_S
# Peers' series are not kept beyond these: a cluster may have a thousand.
SERIES_MAX: Final = 100
# Decimal places of what is kept: rates and milliseconds need no more.
_DECIMALS: Final = 3
_UNKNOWN: Final = math.nan

# The gauges that are kept as they are, each under its own name.
_GAUGES: Final = ("items", "bytes", "max_items", "max_bytes", "applied_index")
# Series by the counters whose common rate they are, in things a second.
_RATES: Final = {
    "reads": ("hits_total", "misses_total"),
    "hits": ("hits_total",),
    "misses": ("misses_total",),
    "writes": ("sets_total", "deletes_total"),
    "evictions": ("evicted_total",),
    "expiries": ("expired_total",),
}
# Series by the histogram of which they are the 99th percentile, in ms.
_LONGEST: Final = {
    "flush_p99_ms": "journal_flush_seconds",
    "hold_p99_ms": "loop_turn_seconds",
    "commit_p99_ms": "entry_commit_seconds",
}
_REQUESTS: Final = "request_seconds"
_LAG: Final = "peer_lag"
# The name of a series: its own, and the peer's where there is one for each.
Name = tuple[str, str]


class History:
    """The samples of the last hour of one node. One thread calls ``look``; any may call ``as_json``.

    measure: returns the node's metrics as they are now.  wall: returns seconds since 1970.  clock: returns monotonic seconds.
    """

    def __init__(
        self,
        measure: Callable[[], Metrics],
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()  # guards the rings
        self._rings = Rings()
        # Counts of the sample before, and when it was taken by both clocks; the counts are None behind a gap.
        self._before: Counts | None = None
        self._wall_s = -math.inf
        self._clock_s = 0.0
        self._failed = False

    def look(self) -> None:
        """Take a sample if the next one is due. Never raises. Called about once a second."""
        wall_s = self._wall()
        if 0 <= wall_s - self._wall_s < EVERY_S:
            return
        try:
            self._sample(wall_s)
            self._failed = False
        except Exception:
            # The node is more than its history.
            if not self._failed:
                logger.exception("no sample of this node could be taken (said once)")
            self._failed = True

    def _sample(self, wall_s: float) -> None:
        measured = self._measure()
        clock_s = self._clock()
        counts = Counts(measured)
        was_late = wall_s - self._wall_s > LATE_S
        before = None if was_late else self._before
        values = {(name, ""): measured[name] for name in _GAUGES if name in measured}
        values |= counts.lags
        if before is not None and clock_s > self._clock_s:
            values |= counts.since(before, clock_s - self._clock_s)
        with self._lock:
            if wall_s < self._wall_s:
                # The clock was set back: what is kept would lie in the future.
                self._rings = Rings()
            elif was_late and self._before is not None:
                self._rings.add(self._wall_s + EVERY_S, {})
            self._rings.add(wall_s, values)
        self._before, self._wall_s, self._clock_s = counts, wall_s, clock_s

    def as_json(self, since_s: float | None = None) -> bytes:
        """Return the samples as JSON, oldest first: their times, and for each series a number or null a sample.

        since_s: only samples that are later than this moment; all of them if it is in the future, or None.
        """
        now_s = self._wall()
        with self._lock:
            times, series = self._rings.copied(-math.inf if since_s is None or since_s > now_s else since_s)
        # The node's loop would wait for the interpreter while this thread works.
        breaks = Breaks()
        plain: list[bytes] = []
        lags: list[bytes] = []
        for (name, peer), values in sorted(series.items()):
            text = json_bytes(peer or name) + b":" + json_bytes([_plain(value) for value in values])
            (lags if peer else plain).append(text)
            breaks.give_way()
        if lags:
            plain.append(b'"lag":{' + b",".join(lags) + b"}")
        head = json_bytes({"now": round(now_s, _DECIMALS), "every": EVERY_S, "times": [*map(_plain, times)]})
        return head[:-1] + b',"series":{' + b",".join(plain) + b"}}"


class Counts:
    """What of a node's metrics, ``measured``, is compared with an earlier sample's.

    lags: how many entries each peer is behind, which needs no comparing.
    """

    def __init__(self, measured: Metrics) -> None:
        self.lags: dict[Name, float] = {}
        self._totals = {
            name: sum(measured[counter] for counter in counters)
            for name, counters in _RATES.items()
            if measured.keys() >= set(counters)
        }
        self._buckets: dict[str, list[int]] = {}
        # By front, and under "" those of all fronts together.
        self._requests: dict[str, list[int]] = {}
        for named, value in measured.items():
            name, labels = parted(named)
            if name == _LAG:
                self.lags["lag", labels.get("peer", "")] = value
            elif name == _REQUESTS:
                for front in ("", labels.get("front", "")):
                    sums = self._requests.get(front, [0] * BUCKETS)
                    self._requests[front] = [*map(add, sums, value.counts)]
        for name, histogram_name in _LONGEST.items():
            if histogram_name in measured:
                self._buckets[name] = measured[histogram_name].counts.copy()

    def since(self, before: Counts, passed_s: float) -> dict[Name, float]:
        """Return the values of a sample that tell what has happened since the sample ``before``, ``passed_s`` seconds earlier."""
        found: dict[Name, float] = {}
        for name, total in self._totals.items():
            found[name, ""] = _rate(total - before._totals.get(name, total), passed_s)
        for name, counts in self._buckets.items():
            found[name, ""] = _quantile_ms(_difference(counts, before._buckets.get(name)), 0.99)
        for front, counts in self._requests.items():
            end = f"_{front}" if front else ""
            made = _difference(counts, before._requests.get(front))
            found[f"requests{end}", ""] = _rate(sum(made), passed_s)
            found[f"p50_ms{end}", ""], found[f"p99_ms{end}", ""] = _quantile_ms(made, 0.5), _quantile_ms(made, 0.99)
        return found


class Rings:
    """The latest PLACES samples: times, and for each series a number a sample, which is NaN where it is not known."""

    def __init__(self) -> None:
        self._added = 0
        self._times = _ring()
        self._series: dict[Name, array[float]] = {}
        # The number of the latest sample that had a number for the series.
        self._told: dict[Name, int] = {}

    def add(self, time_s: float, values: Mapping[Name, float]) -> None:
        """Keep a sample, taken at ``time_s``, in the place of the oldest."""
        place = self._added % PLACES
        for name, ring in [*self._series.items()]:
            ring[place] = _UNKNOWN
            if self._added - self._told[name] >= PLACES:
                # A peer that is gone, for one: nothing is left of it.
                del self._series[name], self._told[name]
        for name, value in values.items():
            if not math.isfinite(value):
                continue
            if name not in self._series:
                # The node's own are not many, and more of them come with each front that is asked for the first time.
                if name[1] and len(self._series) >= SERIES_MAX:
                    continue
                self._series[name] = _ring()
            self._series[name][place] = round(value, _DECIMALS)
            self._told[name] = self._added
        self._times[place] = round(time_s, _DECIMALS)
        self._added += 1

    def copied(self, since_s: float) -> tuple[list[float], dict[Name, list[float]]]:
        """Return (times, numbers by series) of the samples later than ``since_s``, oldest first."""
        places = [place for place in self._oldest_first() if self._times[place] > since_s]
        return [self._times[place] for place in places], {
            name: [ring[place] for place in places] for name, ring in self._series.items()
        }

    def _oldest_first(self) -> Iterator[int]:
        return (number % PLACES for number in range(max(0, self._added - PLACES), self._added))


def _ring() -> array[float]:
    return array("d", [_UNKNOWN]) * PLACES


def _plain(value: float) -> float | int | None:
    """Return ``value`` as JSON has it: null for what is not known, and no fraction where there is none."""
    if math.isnan(value):
        return None
    return int(value) if value == int(value) else value


def _rate(difference: float, passed_s: float) -> float:
    return difference / passed_s if difference >= 0 else _UNKNOWN


def _difference(counts: list[int], before: list[int] | None) -> list[int]:
    return counts if before is None else [*map(sub, counts, before)]


def _quantile_ms(counts: list[int], share: float) -> float:
    found = quantile_of(counts, share)
    return _UNKNOWN if found is None else found * 1000
