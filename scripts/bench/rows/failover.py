"""How long a failover takes: from kill -9 of the leader to the first write that a survivor acknowledges."""

from __future__ import annotations

import asyncio
import time

from cacheflow.bench import percentile
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, put

MUST = "first write accepted after kill -9 of the leader, through a survivor: median <= 1 s"
LIMIT_S = 300


def run(kills: int = 20) -> Verdict:
    """One PUT is sent right after each kill and waits for its answer."""
    with cluster() as nodes:
        took_s = sorted(asyncio.run(measure(nodes, kills)))
    median, p99 = percentile(took_s, 0.5), percentile(took_s, 0.99)
    shown = f"median {median:.2f} s, p99 {p99:.2f} s, fastest {took_s[0]:.2f} s of {kills} kills"
    return Verdict(shown, median <= 1.0, {"took_s": took_s})


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
