"""Replicated writes through POST /cache/_batch of 100."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from scripts.bench.harness import Verdict, cluster, median, rounded, spread
from scripts.bench.load import Reply, Tally, batch, open_all, pump

MUST = "replicated writes through POST /cache/_batch of 100, three nodes: >= 20,000 operations/s"
LIMIT_S = 180
WHAT = "writes in batches of 100 through `POST /cache/_batch`, spread over the nodes and through the leader alone"
OPS = 100
KEYS = 1000
VALUE = "x" * 100


def run(repeats: int = 5, seconds: float = 3.0, connections: int = 8) -> Verdict:
    """Judged by the median rate with the connections spread over all nodes; through the leader alone beside it."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes.urls, nodes.led_by().url, repeats, seconds, connections))


async def _measure(urls: Sequence[str], leader_url: str, repeats: int, seconds: float, connections: int) -> Verdict:
    source = random.Random(1)
    names = [f"batch:{number}" for number in range(KEYS)]
    requests = itertools.cycle(
        [batch([{"op": "set", "key": key, "value": VALUE} for key in source.choices(names, k=OPS)]) for _ in range(100)]
    )
    ways = {"all nodes": await open_all(urls, connections), "leader": await open_all([leader_url], connections)}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    p50_ms: dict[str, float] = {}
    bad: list[str] = []
    for turn in range(repeats + 1):
        for way, opened in ways.items():
            tally = Tally()

            def note(reply: Reply, tally: Tally = tally) -> None:
                # Counted, not parsed: every operation must have succeeded.
                good = reply.status == 200 and reply.body.count(b'"status":20') == OPS
                tally.note(reply if good else reply._replace(status=-reply.status))

            tally.elapsed_s = (await pump(opened, requests, seconds if turn else 0.5, note=note)).elapsed_s
            bad += tally.bad
            if turn:
                rates[way].append(tally.rate * OPS)
                p50_ms[way] = tally.p(0.5)
    told = "; ".join(f"{way} {spread(values, 0)} ops/s" for way, values in rates.items())
    medians = {way: median(values) for way, values in rates.items()}
    return Verdict(
        told + (f"; bad: {bad[0]}" if bad else ""),
        medians["all nodes"] >= 20_000 and not bad,
        {"least_per_s": round(min(medians.values())), "most_per_s": round(max(medians.values()))},
        {"ops_per_s": rates, "request_p50_ms": p50_ms},
    )


def shown(figures: dict[str, Any]) -> str:
    """The medians of both ways."""
    return f"{rounded(figures['least_per_s'])} to {rounded(figures['most_per_s'])} operations/s"
