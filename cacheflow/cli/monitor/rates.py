"""What a node has done between two of its answers: counts a second, and how long things took then.

1. The time between the two is that node's own: nodes answer at different moments, and one that hung has a longer step.
2. A node that was restarted counts from zero again. Nothing is known of that step then, and nothing negative is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cacheflow.cli.monitor.answers import Answered, number, whole
from cacheflow.measuring.histogram import BUCKETS, quantile_of

# The fronts whose requests are shown, in the order of their columns.
FRONTS: Final = ("http", "resp", "memcached")
_COUNTERS: Final = ("hits_total", "misses_total", "sets_total", "deletes_total", "evicted_total", "expired_total")
# The metric of requests, and its labels: front, command and outcome. One outcome is the node's fault.
_REQUESTS: Final = "request_seconds{"
_LABEL: Final = re.compile(r'\b([a-z]+)="((?:[^"\\]|\\.)*)"')
_ERROR: Final = "error"

Metrics = Mapping[str, Any]


def rates(now: Answered, before: Answered | None) -> dict[str, Any]:
    """Return what a node has done between its answers ``before`` and ``now``; None in place of each figure that is unknown."""
    step_s = 0.0 if before is None else now.at_s - before.at_s
    metrics, earlier = now.metrics, {} if before is None else before.metrics
    if step_s <= 0 or _restarted(metrics, earlier):
        earlier = {}
    counted = {name: _difference(metrics, earlier, name) for name in _COUNTERS}
    hits = counted["hits_total"]
    reads = _both(hits, counted["misses_total"])

    def per_s(count: float | None) -> float | None:
        return None if count is None else count / step_s

    requests = _requests(metrics)
    errors = [name for name, _, outcome in requests if outcome == _ERROR]
    failed = _buckets(metrics, earlier, errors) if errors else [0]
    return {
        "step_s": step_s if earlier else None,
        "reads_per_s": per_s(reads),
        "writes_per_s": per_s(_both(counted["sets_total"], counted["deletes_total"])),
        "hit_ratio": hits / reads if hits is not None and reads else None,
        "evicted_per_s": per_s(counted["evicted_total"]),
        "expired_per_s": per_s(counted["expired_total"]),
        "errors_per_s": per_s(sum(failed) if requests and earlier and failed is not None else None),
        "fronts": {
            front: _front(_buckets(metrics, earlier, [name for name, at, _ in requests if at == front]), step_s)
            for front in FRONTS
            if any(at == front for _, at, _ in requests)
        },
        "loop_p99_s": quantile(_buckets(metrics, earlier, ["loop_turn_seconds"]), 0.99),
        "flush_p99_s": quantile(_buckets(metrics, earlier, ["journal_flush_seconds"]), 0.99),
        "unsent_bytes": whole(metrics.get("unsent_bytes")),
    }


def totals(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all nodes of a cluster have done together. steps: the rates of each node.

    Reads, requests and errors are added up. Writes, and what was evicted and has expired, are the same on every node, which
    applies all of them: the largest of each counts.
    """
    hits = [(step["hit_ratio"], step["reads_per_s"]) for step in steps if step["hit_ratio"] is not None]
    reads = sum(weight for _, weight in hits)
    return {
        **{name: _sum(*(step[name] for step in steps)) for name in ("reads_per_s", "errors_per_s")},
        **{
            name: max((step[name] for step in steps if step[name] is not None), default=None)
            for name in ("writes_per_s", "evicted_per_s", "expired_per_s")
        },
        "hit_ratio": sum(ratio * weight for ratio, weight in hits) / reads if reads else None,
        "fronts": {
            front: {"requests_per_s": _sum(*(step["fronts"][front]["requests_per_s"] for step in those))}
            for front in FRONTS
            if (those := [step for step in steps if front in step["fronts"]])
        },
    }


def _requests(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return (name of a metric, front, outcome) of each histogram of requests at the fronts that are shown."""
    found = []
    for name in metrics:
        if name.startswith(_REQUESTS):
            labels = dict(_LABEL.findall(name))
            if labels.get("front") in FRONTS:
                found.append((name, labels["front"], labels.get("outcome", "")))
    return found


def _front(counts: Sequence[int] | None, step_s: float) -> dict[str, Any]:
    """Return how many requests a second a front has answered, and how long they took, from the ``counts`` of their lengths."""
    return {
        "requests_per_s": None if counts is None else sum(counts) / step_s,
        "p50_s": quantile(counts, 0.5),
        "p99_s": quantile(counts, 0.99),
    }


def _restarted(metrics: Metrics, earlier: Metrics) -> bool:
    """True if a node counts from zero again: any of its counters has gone down, or its process is another one."""
    started = [number(each.get("process_start_time_seconds")) for each in (metrics, earlier)]
    if None not in started and started[0] != started[1]:
        return True
    return any((count := _difference(metrics, earlier, name)) is not None and count < 0 for name in _COUNTERS)


def _difference(metrics: Metrics, earlier: Metrics, name: str) -> float | None:
    now, before = number(metrics.get(name)), number(earlier.get(name))
    return None if now is None or before is None else now - before


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _sum(*counts: float | None) -> float | None:
    """Return the sum of those counts that are known; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _buckets(metrics: Metrics, earlier: Metrics, names: Sequence[str]) -> list[int] | None:
    """Return how many durations of each length the histograms called ``names`` have counted together between two answers.

    Returns None if that is unknown. A histogram that was not there before has counted nothing before.
    """
    if not earlier:
        return None
    found: list[int] | None = None
    for name in names:
        now = _counts(metrics.get(name))
        if now is None:
            continue
        before = _counts(earlier.get(name)) or [0] * BUCKETS
        # A reader may see the sum of a moment and the count of the next one; less than nothing was never counted.
        step = [max(one - other, 0) for one, other in zip(now, before, strict=True)]
        found = step if found is None else [one + other for one, other in zip(found, step, strict=True)]
    return found


def _counts(histogram: Any) -> list[int] | None:
    """Return the count of each bucket of ``histogram``, as a node's JSON has it; None if it is no histogram."""
    told = histogram.get("buckets") if isinstance(histogram, dict) else None
    if not isinstance(told, list) or len(told) > BUCKETS:
        return None
    counts = [whole(each) for each in told]
    known = [count for count in counts if count is not None and count >= 0]
    return known + [0] * (BUCKETS - len(known)) if len(known) == len(told) else None


def quantile(counts: Sequence[int] | None, share: float) -> float | None:
    """Return a duration in seconds that the part ``share`` of those in ``counts`` does not exceed; None if that is unknown."""
    return None if counts is None else quantile_of(counts, share)
