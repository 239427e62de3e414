"""How long a failover takes: from kill -9 of the leader to the first write that a survivor acknowledges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from cacheflow.cli.bench import percentile
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, put

MUST = "first write accepted after kill -9 of the leader, through a survivor: median <= 1 s"
LIMIT_S = 300
WHAT = "first write accepted after `kill -9` of the leader, through a survivor"


def run(kills: int = 20) -> Verdict:
    """One PUT is sent right after each kill and waits for its answer."""
    with cluster() as nodes:
        took_s = sorted(asyncio.run(measure(nodes, kills)))
    median, p99 = percentile(took_s, 0.5), percentile(took_s, 0.99)
    told = f"median {median:.2f} s, p99 {p99:.2f} s, fastest {took_s[0]:.2f} s of {kills} kills"
    return Verdict(told, median <= 1.0, figures(took_s), {"took_s": took_s})


def figures(took_s: Sequence[float]) -> dict[str, Any]:
    """The few that are kept, of times in ascending order."""
    median, p99 = percentile(took_s, 0.5), percentile(took_s, 0.99)
    return {"kills": len(took_s), "median_s": round(median, 3), "p99_s": round(p99, 3)}


def shown(figures: dict[str, Any]) -> str:
    """The median and what is rare."""
    return f"median {figures['median_s']:.2f} s, p99 {figures['p99_s']:.2f} s of {figures['kills']} kills"


async def measure(nodes: Cluster, kills: int) -> list[float]:
    """Seconds from each kill to the first acknowledged write; the node is back before the next one."""
    took_s = []
    for turn in range(kills):
        leader = nodes.led_by()
        survivor = await Connection.open(nodes.others(leader)[turn % 2].url)
        before = await survivor.ask(put("failover", turn))
        killed_at = time.perf_counter()
        nodes.kill(leader)
        after = await survivor.ask(put("failover", -turn))
        took_s.append(time.perf_counter() - killed_at)
        if before.status not in (200, 201) or after.status not in (200, 201):
            raise RuntimeError(f"kill {turn}: {before.status}, then {after.status} {after.body[:200]!r}")
        survivor.close()
        nodes.restart(leader)
        await asyncio.to_thread(nodes.wait_ready)
    return took_s
