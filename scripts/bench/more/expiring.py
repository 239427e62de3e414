"""Mass expiry: two thirds of a million keys that end in one second are gone soon, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cacheflow.cli.launcher import ask
from scripts.bench.harness import Verdict, cluster
from scripts.bench.load import ITEMS_A_BATCH, VALUE, Connection, batch, fill, get, key_of

MUST = "655,000 keys that expire in one second among 10^6: gone and uncounted <= 5 s, GET p99 <= 3 x that of before"
LIMIT_S = 600
WHAT = "655,000 of 10^6 keys expire in one second: all gone after / GET p99 meanwhile against before"
GONE_S = 5.0
P99_RATIO = 3.0
# Before and after the end that GETs are timed, and the pause between two.
WATCHED_S = 4.0
EVERY_S = 0.002
# The time for the filling, by keys.
FILLED_PER_S = 8_000


def run(expiring: int = 655_000, others: int = 345_000) -> Verdict:
    """One node; one client's GETs, one after the other."""
    with cluster("--max-items", str(2 * (expiring + others)), nodes=1) as nodes:
        return asyncio.run(_measure(nodes.urls[0], expiring, others))


def shown(figures: dict[str, Any]) -> str:
    """Both figures."""
    return f"{figures['gone_s']:.1f} s / x {figures['p99_ratio']:.1f}"


async def _measure(url: str, expiring: int, others: int) -> Verdict:
    await fill(url, others)
    ends = time.monotonic() + expiring / FILLED_PER_S + 2 * WATCHED_S
    connection = await Connection.open(url)
    for start in range(0, expiring, ITEMS_A_BATCH):
        keys = [f"ends:{number}" for number in range(start, min(start + ITEMS_A_BATCH, expiring))]
        left = ends - time.monotonic()
        reply = await connection.ask(
            batch([{"op": "set", "key": key, "value": VALUE, "ttl": left + number / expiring} for number, key in enumerate(keys)])
        )  # fmt: skip
        if reply.status != 200:
            raise RuntimeError(f"a batch of the filling: {reply.status} {reply.body[:200]!r}")
    if time.monotonic() > ends - WATCHED_S:
        raise RuntimeError("the filling took too long for this row")
    await asyncio.sleep(ends - WATCHED_S - time.monotonic())
    before = await _gets(connection, others, ends - 0.2)
    watched = asyncio.create_task(_gets(connection, others, ends + 1.0 + WATCHED_S))
    gone_s = await asyncio.to_thread(_gone_s, url, others, ends + 1.0)
    during = await watched
    connection.close()
    p99s = [_p99(times) for times in (before, during)]
    ratio = p99s[1] / p99s[0]
    told = f"gone after {gone_s:.1f} s; GET p99 {p99s[0] * 1000:.1f} ms before, {p99s[1] * 1000:.1f} ms meanwhile (x {ratio:.1f})"
    figures = {"gone_s": round(gone_s, 1), "p99_ratio": round(ratio, 1)}
    return Verdict(told, gone_s <= GONE_S and ratio <= P99_RATIO, figures, {"p99_s": p99s})


async def _gets(connection: Connection, items: int, until: float) -> list[float]:
    times: list[float] = []
    number = 0
    while (began := time.monotonic()) < until:
        number = (number + 7919) % items
        await connection.ask(get(key_of(number)))
        times.append(time.monotonic() - began)
        await asyncio.sleep(EVERY_S)
    return times


def _gone_s(url: str, left: int, ended: float) -> float:
    """Seconds after ``ended`` at which the node counts ``left`` keys."""
    while time.monotonic() < ended + 60.0:
        status, metrics = ask(url, "/metrics?format=json")
        if status == 200 and metrics["items"] <= left:
            break
        time.sleep(0.05)
    return max(0.0, time.monotonic() - ended)


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]
