"""More than the cluster can take: 256 connections, reads and writes, for a minute."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster, rounded
from scripts.bench.load import Connection, get, open_all, pump, put, request

MUST = "256 connections, reads and writes, 60 s: no leader change, no error but 503 with Retry-After"
LIMIT_S = 240
WHAT = "256 connections reading and writing for a minute: all nodes / the leader alone"
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
    told = "; ".join(f"{way}: {each}" for way, each in found.items())
    told += f"; terms {before} -> {after}" + (f"; bad: {bad[0]}" if bad else "")
    passed = before == after and not any(each["errors"] for each in found.values())
    ways = [found["all nodes"], found["leader"]]
    figures: dict[str, Any] = {name: [each[name] for each in ways] for name in ("per_s", "turned_away", "errors")}
    figures |= {"leader_changed": before != after}
    return Verdict(told, passed, figures, {**found, "terms": [before, after], "bad": bad})


def shown(figures: dict[str, Any]) -> str:
    """Both ways: the rate, who was turned away with 503 and Retry-After, and what else went wrong."""
    rates = " / ".join(rounded(per_s) for per_s in figures["per_s"])
    refused = " / ".join(f"{count:,}" for count in figures["turned_away"])
    errors = " / ".join(f"{count:,}" for count in figures["errors"])
    changed = "the leader changed" if figures["leader_changed"] else "no leader change"
    return f"{rates} requests/s, {changed}; 503 with Retry-After: {refused}, other errors: {errors}"


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
