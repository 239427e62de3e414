"""Two of three nodes gone, 256 clients that go on writing: reads, health and metrics still answer.

Twice: with the leader killed, and with both followers frozen so that the leader stays without a majority. The writers
send again at once, whatever Retry-After says: the worst that clients do.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from cacheflow.cli.bench import percentile
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Reply, Tally, get, open_all, pump, put, request

MUST = "no leader, 256 PUT clients: p99 of GET, /livez, /metrics <= 100 ms; surplus PUTs get 503 + Retry-After at once"
LIMIT_S = 240
WHAT = "no leader and 256 writers that come back at once: GET, `/livez`, `/metrics`"
WRITERS = 256
P99_MS = 100.0
AT_ONCE_S = 1.0
# What may wait for the cluster ends with the request timeout.
WAITED_OUT_S = 9.0


def run(seconds: float = 20.0, pause_s: float = 0.0) -> Verdict:
    """pause_s: how long a writer waits before it sends again; 1 is what Retry-After asks for."""
    found: dict[str, Any] = {}
    for way in ("leader killed", "followers frozen"):
        with cluster() as nodes:
            found[way] = asyncio.run(_measure(nodes, way, seconds, pause_s))
    worst_ms = max(each["p99_ms"][kind] for each in found.values() for kind in each["p99_ms"])
    bad = [text for each in found.values() for text in each["bad"]]
    passed = (
        worst_ms <= P99_MS
        and not bad
        and all(each["refused"] and each["slow_refusals"] == 0 for each in found.values())
    )
    told = "; ".join(
        f"{way}: p99 ms {each['p99_ms']}, {each['refused']} refused "
        f"(p50 {each['refused_p50_ms']}, p99 {each['refused_p99_ms']} ms)"
        for way, each in found.items()
    )
    return Verdict(told + (f"; bad: {bad[0]}" if bad else ""), passed, {"p99_ms": worst_ms}, found)


def shown(figures: dict[str, Any]) -> str:
    """The worst of all three."""
    return f"p99 {figures['p99_ms']:.0f} ms"


async def _measure(nodes: Cluster, way: str, seconds: float, pause_s: float) -> dict[str, Any]:
    leader = nodes.led_by()
    followers = nodes.others(leader)
    left = followers[0] if way == "leader killed" else leader
    (first,) = await open_all([left.url], 1)
    await first.ask(put("noleader", "x" * 100))
    for child in nodes.others(left):
        if way == "leader killed":
            nodes.kill(child)
        else:
            nodes.freeze(child)
    writers = await open_all([left.url], WRITERS)
    kinds = {"GET": get("noleader"), "/livez": request("GET", "/livez"), "/metrics": request("GET", "/metrics")}
    probes = {kind: await open_all([left.url], 2) for kind in kinds}
    puts = Tally()
    slow: list[float] = []

    def note(reply: Reply) -> None:
        # A write that waited for a leader ends as 503 or 504 after the timeout; the surplus at once.
        puts.note(reply if reply.status != 504 else reply._replace(status=201))
        if reply.status == 503 and AT_ONCE_S < reply.took_s < WAITED_OUT_S:
            slow.append(reply.took_s)

    writing = asyncio.create_task(
        pump(writers, itertools.cycle([put("noleader", "y" * 100)]), seconds, pause_s=pause_s, note=note)
    )
    tallies = await asyncio.gather(
        *(pump(probes[kind], itertools.cycle([kinds[kind]]), seconds, pause_s=0.02) for kind in kinds)
    )
    await writing
    refused = sorted(took_s for took_s in puts.turned_away_s if took_s < WAITED_OUT_S)
    named = dict(zip(kinds, tallies, strict=True))
    return {
        "p99_ms": {kind: tally.p(0.99) for kind, tally in named.items()},
        "p50_ms": {kind: tally.p(0.5) for kind, tally in named.items()},
        "refused": len(refused),
        "slow_refusals": len(slow),
        "refused_p50_ms": round(percentile(refused, 0.5) * 1000, 1),
        "refused_p99_ms": round(percentile(refused, 0.99) * 1000, 1),
        "put_statuses": {str(status): count for status, count in puts.statuses.items()},
        "bad": [*puts.bad, *(text for tally in tallies for text in tally.bad)],
    }
