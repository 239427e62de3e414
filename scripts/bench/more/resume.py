"""Writes resume: as ``failover``, with enough kills for what is rare, and a bound for that, too."""

from __future__ import annotations

import asyncio

from cacheflow.cli.bench import percentile
from scripts.bench.harness import Verdict, cluster
from scripts.bench.more import failover

MUST = "writes resume after kill -9 of the leader: <= 1 s median, <= 2 s p99 of 200 kills"
LIMIT_S = 1800
WHAT = "writes resume after `kill -9` of the leader, many kills"
MEDIAN_S, P99_S = 1.0, 2.0


def run(kills: int = 200) -> Verdict:
    """One cluster; every kill hits the leader that the one before has made."""
    with cluster() as nodes:
        took_s = sorted(asyncio.run(failover.measure(nodes, kills)))
    median, p99 = percentile(took_s, 0.5), percentile(took_s, 0.99)
    told = f"median {median:.3f} s, p99 {p99:.3f} s, max {took_s[-1]:.3f} s of {kills} kills"
    return Verdict(told, median <= MEDIAN_S and p99 <= P99_S, failover.figures(took_s), {"took_s": took_s})


shown = failover.shown
