"""More than the cluster can take: 256 connections, reads and writes, for a minute."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, get, open_all, pump, put, request

MUST = "256 connections, reads and writes, 60 s: no leader change, no error but 503 with Retry-After"
LIMIT_S = 240
CONNECTIONS = 256
KEYS = 2000


def run(seconds: float = 60.0) -> Verdict:
    """Half of the time all nodes share the load, then the leader has it alone. Half of the requests are writes."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes, seconds / 2))


async def _measure(nodes: Cluster, seconds: float) -> Verdict:
    before = await _terms(nodes)
    leader = nodes.led_by()
    found: dict[str, Any] = {}
    bad: list[str] = []
    for way, urls in (("all nodes", nodes.urls), ("leader", [leader.url])):
        connections = await open_all(urls, CONNECTIONS)
        tally = await pump(connections, _mix(), seconds)
        bad += tally.bad
        found[way] = {
            "per_s": round(tally.rate),
            "turned_away": len(tally.turned_away_s),
            "errors": tally.errors,
            "p50_ms": tally.p(0.5),
            "p99_ms": tally.p(0.99),
        }
        for connection in connections:
            connection.close()
    after = await _terms(nodes)
    shown = "; ".join(f"{way}: {each}" for way, each in found.items())
    shown += f"; terms {before} -> {after}" + (f"; bad: {bad[0]}" if bad else "")
    passed = before == after and not any(each["errors"] for each in found.values())
    return Verdict(shown, passed, {**found, "terms": [before, after], "bad": bad})


def _mix() -> Iterator[bytes]:
    source = random.Random(1)
    keys = [f"overload:{number}" for number in range(KEYS)]
    built = [get(source.choice(keys)) for _ in range(500)] + [put(source.choice(keys), "x" * 100) for _ in range(500)]
    source.shuffle(built)
    return itertools.cycle(built)


async def _terms(nodes: Cluster) -> list[int]:
    terms = []
    for url in nodes.urls:
        connection = await Connection.open(url)
        terms.append((await connection.ask(request("GET", "/cluster/status"))).json()["term"])
        connection.close()
    return terms
