"""No change of leader under full load: minutes of SETs, GETs and evictions from many connections to all nodes.

On a machine with fewer cores than nodes and load generators, every process waits for a core: a leader that cannot send in
time is what would cost it its leadership.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cacheflow.cli.launcher import Child, ask
from scripts.bench.harness import Cluster, Verdict, cluster, rounded
from scripts.bench.load import fill
from scripts.bench.loadgen import LoadGenerator, Measured

MUST = "leader changes in 5 minutes of full read and write load: 0 (same leader, same term, no error)"
LIMIT_S = 900
WHAT = "five minutes of reads and writes at full load with evictions: leader changes, errors"
CONNECTIONS = 64
PIPELINE = 4
ITEMS = 100_000
# A third of the keys fit.
KEYS = 3 * ITEMS
# The generators' time is told in windows, so that one that hangs is noticed before the end.
WINDOW_S = 30.0


def run(seconds: float = 300.0) -> Verdict:
    """Three nodes with default settings but for the number of items; each load goes to all of them at once."""
    with cluster("--max-items", str(ITEMS), "--resp-port", "0") as nodes, contextlib.closing(LoadGenerator()) as load:
        asyncio.run(fill(nodes.urls[0], ITEMS))
        before = [_standing(child) for child in nodes.children]
        began = time.monotonic()
        windows = []
        while (left := seconds - (time.monotonic() - began)) > 0:
            windows.append(_both(load, nodes, min(left, WINDOW_S)))
        after = [_standing(child) for child in nodes.children]
    changes = [
        now["leader_changes_total"] - then["leader_changes_total"] for then, now in zip(before, after, strict=True)
    ]
    terms = sorted({each["term"] for each in (*before, *after)})
    leaders = sorted({each["leader"] for each in (*before, *after)})
    evicted = min(now["evicted_total"] - then["evicted_total"] for then, now in zip(before, after, strict=True))
    gets, sets = zip(*windows, strict=True)
    told = (
        f"{max(changes):.0f} changes in {seconds:g} s; terms {', '.join(map(str, terms))}; led by {', '.join(leaders)}; "
        f"{_told(gets, 'GETs')}, {_told(sets, 'SETs')}; {evicted:.0f} evicted"
    )
    passed = max(changes) == 0 and len(terms) == len(leaders) == 1 and evicted > 0
    # An error ends the load generator, and so the row.
    figures = {"changes": max(changes), "errors": 0, "gets_per_s": _per_s(gets), "sets_per_s": _per_s(sets)}
    details = {"changes": changes, "terms": terms, "leaders": leaders, "evicted": evicted}
    return Verdict(told, passed, figures, details)


def shown(figures: dict[str, Any]) -> str:
    """Both counts, and the load."""
    rates = f"{rounded(figures['gets_per_s'])} GETs/s, {rounded(figures['sets_per_s'])} SETs/s"
    return f"{figures['changes']:.0f}, {figures['errors']} ({rates})"


def _both(load: LoadGenerator, nodes: Cluster, seconds: float) -> tuple[Measured, Measured]:
    """GETs and SETs at once. An error reply is an error here."""
    ports = nodes.resp_ports

    def go(operation: str) -> Measured:
        return load.run(
            "resp", operation, ports, connections=CONNECTIONS, pipeline=PIPELINE, seconds=seconds, keys=KEYS
        )

    with ThreadPoolExecutor(2) as threads:
        gets, sets = threads.map(go, ("get", "set"))
    return gets, sets


def _standing(child: Child) -> dict[str, Any]:
    """Who leads, in which term, and what the node has counted. Raises RuntimeError when it does not say."""
    found: dict[str, Any] = {}
    for path in ("/metrics?format=json", "/cluster/status"):
        status, answer = ask(child.url, path, timeout_s=10.0)
        if status != 200:
            raise RuntimeError(f"{child.node_id} answers {path} with {status}")
        found |= answer
    return found


def _per_s(windows: tuple[Measured, ...]) -> float:
    return round(sum(window.per_s for window in windows) / len(windows))


def _told(windows: tuple[Measured, ...], what: str) -> str:
    return f"{_per_s(windows):.0f} {what}/s (longest {max(window.max_us for window in windows) / 1000:.0f} ms)"
