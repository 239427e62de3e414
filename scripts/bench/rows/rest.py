"""REST GET and PUT against an empty Flask view, 16 keep-alive connections, interleaved in one run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench import empty_view
from scripts.bench.harness import Verdict, cluster, spread
from scripts.bench.load import get, open_all, pump, put, request

MUST = "REST GET >= 0.7 x, PUT >= 0.5 x an empty Flask view, 16 connections (min / median / max of the repeats)"
LIMIT_S = 300
CONNECTIONS = 16
KEYS = 500
VALUE = "x" * 100


def run(repeats: int = 7, seconds: float = 2.0) -> Verdict:
    """PUT is judged through a follower as well as through the leader: the worse median counts."""
    with cluster() as nodes, _empty_view() as empty_url:
        leader = nodes.led_by()
        urls = [empty_url, leader.url, nodes.others(leader)[0].url]
        return asyncio.run(_measure(urls, repeats, seconds))


async def _measure(urls: Sequence[str], repeats: int, seconds: float) -> Verdict:
    empty, leader, follower = [await open_all([url], CONNECTIONS) for url in urls]
    gets = itertools.cycle([get(f"rest:{number}") for number in range(KEYS)])
    puts = itertools.cycle([put(f"rest:{number}", VALUE) for number in range(KEYS)])
    empty_gets = itertools.cycle([request("GET", "/empty")])
    empty_puts = itertools.cycle([request("PUT", "/empty", {"value": VALUE})])
    plan = {
        "empty GET": (empty, empty_gets),
        "GET": (follower, gets),
        "empty PUT": (empty, empty_puts),
        "PUT leader": (leader, puts),
        "PUT follower": (follower, puts),
    }
    rates: dict[str, list[float]] = {name: [] for name in plan}
    p99_ms: dict[str, float] = {}
    errors: list[str] = []
    # The first turn warms up and fills the keys.
    for turn in range(repeats + 1):
        for name, (connections, requests) in plan.items():
            tally = await pump(connections, requests, seconds if turn else 0.5)
            errors += tally.bad
            if turn:
                rates[name].append(tally.rate)
                p99_ms[name] = tally.p(0.99)
    ratios = {
        name: [rate / against for rate, against in zip(rates[name], rates[yardstick], strict=True)]
        for name, yardstick in (("GET", "empty GET"), ("PUT leader", "empty PUT"), ("PUT follower", "empty PUT"))
    }
    medians = {name: sorted(values)[len(values) // 2] for name, values in ratios.items()}
    shown = "; ".join(
        f"{name} {spread(values)} ({sorted(rates[name])[repeats // 2]:.0f}/s)" for name, values in ratios.items()
    )
    shown += f"; empty view {sorted(rates['empty GET'])[repeats // 2]:.0f}/s"
    passed = medians["GET"] >= 0.7 and medians["PUT leader"] >= 0.5 and medians["PUT follower"] >= 0.5 and not errors
    return Verdict(
        shown + (f"; errors: {errors[0]}" if errors else ""),
        passed,
        {"ratios": ratios, "rates": rates, "last_p99_ms": p99_ms},
    )


@contextlib.contextmanager
def _empty_view() -> Iterator[str]:
    """The yardstick in a process of its own; its address."""
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, empty_view.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(15)
        process.stdout.close()
