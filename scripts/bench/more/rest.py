"""REST GET and PUT against an empty Flask view, 16 keep-alive connections, interleaved in one run.

A PUT keeps three nodes busy, the empty view is one process: whoever else uses the machine slows the PUT more. So only
turns count in which the machine was ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.bench.harness import NODE, Verdict, cluster, machine_cpu_s, median, process_cpu_s, rounded, spread
from scripts.bench.load import Connection, get, open_all, pump, put, request

MUST = "REST GET >= 0.7 x, PUT >= 0.5 x an empty Flask view, 16 connections (min / median / max of the turns)"
LIMIT_S = 400
WHAT = "REST GET / PUT at 16 connections, against an empty Flask view on the same waitress"
CONNECTIONS = 16
KEYS = 500
VALUE = "x" * 100
# A turn counts when others used less than this many cores; when no turn is that quiet, all count.
QUIET_CORES = 0.25
TURNS_PER_REPEAT_MAX = 4
# What is measured, against what, and the least median.
AGAINST = {"GET": ("empty GET", 0.7), "PUT leader": ("empty PUT", 0.5), "PUT follower": ("empty PUT", 0.5)}


@dataclass(frozen=True)
class _Turn:
    rates: dict[str, float]
    others_cores: float


def run(repeats: int = 7, seconds: float = 1.5) -> Verdict:
    """GETs go to a follower, PUTs to the leader and to that follower: all must hold."""
    with cluster() as nodes, _empty_view() as (empty_url, empty_pid):
        leader = nodes.led_by()
        urls = [empty_url, leader.url, nodes.others(leader)[0].url]
        pids = [os.getpid(), empty_pid, *map(nodes.pid, nodes.children)]
        turns, errors = asyncio.run(_measure(urls, pids, repeats, seconds))
    quiet = [turn for turn in turns if turn.others_cores < QUIET_CORES]
    judged = quiet or turns
    ratios = {
        name: [turn.rates[name] / turn.rates[against] for turn in judged] for name, (against, _) in AGAINST.items()
    }
    medians = {name: median(values) for name, values in ratios.items()}
    passed = not errors and all(medians[name] >= least for name, (_, least) in AGAINST.items())
    rates = {name: median([turn.rates[name] for turn in judged]) for name in turns[0].rates}
    told = "; ".join(f"{name} {spread(values)} ({rates[name]:.0f}/s)" for name, values in ratios.items())
    told += f"; empty view {rates['empty GET']:.0f}/s; {len(quiet)} of {len(turns)} turns were undisturbed"
    puts = ("PUT leader", "PUT follower")
    figures = {
        "get_ratio": round(medians["GET"], 3),
        "put_ratio": round(min(medians[name] for name in puts), 3),
        "put_per_s": [round(pick(rates[name] for name in puts)) for pick in (min, max)],
    }
    details = {
        "ratios": ratios,
        "median_rates": rates,
        "turns": [{**turn.rates, "others_cores": turn.others_cores} for turn in turns],
    }
    return Verdict(told + (f"; {errors[0]}" if errors else ""), passed, figures, details)


def shown(figures: dict[str, Any]) -> str:
    """The medians; a PUT's is the lower one of the leader and a follower."""
    least, most = map(rounded, figures["put_per_s"])
    return f"{figures['get_ratio']:.1f} x / {figures['put_ratio']:.2f} x ({least} to {most} PUT/s)"


async def _measure(
    urls: Sequence[str], pids: Sequence[int], repeats: int, seconds: float
) -> tuple[list[_Turn], list[str]]:
    """Turns until ``repeats`` of them were quiet, but not for ever."""
    empty, leader, follower = [await open_all([url], CONNECTIONS) for url in urls]
    gets = itertools.cycle([get(f"rest:{number}") for number in range(KEYS)])
    puts = itertools.cycle([put(f"rest:{number}", VALUE) for number in range(KEYS)])
    plan: dict[str, tuple[list[Connection], Iterator[bytes]]] = {
        "empty GET": (empty, itertools.cycle([request("GET", "/empty")])),
        "GET": (follower, gets),
        "empty PUT": (empty, itertools.cycle([request("PUT", "/empty", {"value": VALUE})])),
        "PUT leader": (leader, puts),
        "PUT follower": (follower, puts),
    }
    # Warm up, and fill the keys.
    for connections, requests in reversed(plan.values()):
        await pump(connections, requests, 0.5)
    turns: list[_Turn] = []
    errors: list[str] = []
    quiet = 0
    while quiet < repeats and len(turns) < repeats * TURNS_PER_REPEAT_MAX:
        rates: dict[str, float] = {}
        before_s, began = _others_s(pids), time.monotonic()
        for name, (connections, requests) in plan.items():
            tally = await pump(connections, requests, seconds)
            rates[name] = tally.rate
            errors += tally.bad
        turns.append(_Turn(rates, round((_others_s(pids) - before_s) / (time.monotonic() - began), 2)))
        quiet += turns[-1].others_cores < QUIET_CORES
    return turns, errors


def _others_s(pids: Sequence[int]) -> float:
    return machine_cpu_s() - sum(map(process_cpu_s, pids))


@contextlib.contextmanager
def _empty_view() -> Iterator[tuple[str, int]]:
    """The yardstick in a process of its own: its address and its pid."""
    command = [sys.executable, str(NODE), "empty"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.stdin.close()
        process.wait(15)
        process.stdout.close()
