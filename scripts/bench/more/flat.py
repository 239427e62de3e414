"""What one SET costs a node, by how many items it holds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster, median, process_cpu_s, spread
from scripts.bench.load import VALUE, fill, key_of, open_all, pump, put

MUST = "cost of one SET from 10^3 to 10^6 items: flat within 20 % (CPU of the node, min / median / max of the turns)"
LIMIT_S = 900
WHAT = "what one SET costs a node that holds 10^3, 10^4, 10^5 and 10^6 items, CPU time"
WITHIN = 0.2
CONNECTIONS = 16
SIZES = (1_000, 10_000, 100_000, 1_000_000)
REQUESTS = 20_000


def run(repeats: int = 5, seconds: float = 2.0) -> Verdict:
    """One node for each size, all up at once; they take turns, so that what else the machine does hits all alike."""
    with contextlib.ExitStack() as stack:
        nodes = {size: stack.enter_context(cluster("--max-items", str(size), nodes=1)) for size in SIZES}
        costs_us, bad = asyncio.run(_measure(nodes, repeats, seconds))
    medians = {size: median(costs) for size, costs in costs_us.items()}
    apart = max(medians.values()) / min(medians.values()) - 1
    told = "; ".join(f"{size} items {spread(costs, 0)} µs" for size, costs in costs_us.items())
    told += f"; {100 * apart:.0f} % apart" + (f"; {bad[0]}" if bad else "")
    figures = {"median_us": list(medians.values()), "apart": round(apart, 3)}
    return Verdict(told, not bad and apart <= WITHIN, figures, {"costs_us": costs_us})


def shown(figures: dict[str, Any]) -> str:
    """The median of each size, and how far they are apart."""
    medians = ", ".join(f"{median_us:.0f}" for median_us in figures["median_us"])
    return f"{medians} µs, {100 * figures['apart']:.0f} % apart"


async def _measure(nodes: dict[int, Cluster], repeats: int, seconds: float) -> tuple[dict[int, list[float]], list[str]]:
    source = random.Random(1)
    connections, requests = {}, {}
    for size, node in nodes.items():
        await fill(node.urls[0], size)
        connections[size] = await open_all(node.urls, CONNECTIONS)
        built = [put(key_of(source.randrange(size)), VALUE) for _ in range(REQUESTS)]
        requests[size] = itertools.cycle(built)
        await pump(connections[size], requests[size], 0.5)
    costs_us: dict[int, list[float]] = {size: [] for size in nodes}
    bad: list[str] = []
    for _ in range(repeats):
        for size, node in nodes.items():
            pid = node.pid(node.children[0])
            before_s = process_cpu_s(pid)
            tally = await pump(connections[size], requests[size], seconds)
            bad += tally.bad
            costs_us[size].append(round((process_cpu_s(pid) - before_s) / len(tally.latencies_s) * 1e6, 1))
    return costs_us, bad
