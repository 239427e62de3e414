"""Memory of a whole node that is filled and cleared again and again: what is cleared must be freed as fast as it comes.

Each write also leaves its entry in the log, which is in memory until a snapshot covers it. So the node is compared with one that
is filled as often with the same keys, and never cleared.
"""

from __future__ import annotations

import asyncio
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, fill, request
from scripts.bench.more.memory import resident_at_rest, resident_bytes

MUST = "clear and refill 25 x 100,000 keys: a node's memory above the empty one <= 1.3 x that of as many fillings without a clear"
LIMIT_S = 600
WHAT = "memory of a node that is filled and cleared 25 times / that holds one filling (100,000 keys)"
MOST = 1.3


def run(rounds: int = 25, items: int = 100_000) -> Verdict:
    """One node; the next filling begins as soon as the clear is answered."""
    found = {}
    for clears in (False, True):
        with cluster("--max-items", str(10 * items), nodes=1) as nodes:
            empty = resident_at_rest(nodes)
            found[clears] = asyncio.run(_rounds(nodes, rounds, items, clears)) - empty
    ratio = found[True] / found[False]
    told = f"{ratio:.2f} x: {found[True] / 2**20:.0f} MiB over {rounds} rounds, {found[False] / 2**20:.0f} MiB without clears"
    details = {"without_bytes": found[False], "most_bytes": found[True]}
    return Verdict(told, ratio <= MOST, {"ratio": round(ratio, 2)}, details)


def shown(figures: dict[str, Any]) -> str:
    """The ratio."""
    return f"x {figures['ratio']:.2f}"


async def _rounds(nodes: Cluster, rounds: int, items: int, clears: bool) -> int:
    """The most resident bytes at the end of a filling."""
    most = 0
    connection = await Connection.open(nodes.urls[0])
    for _ in range(rounds):
        if clears:
            reply = await connection.ask(request("DELETE", "/cache?all=true"))
            if reply.status != 200:
                raise RuntimeError(f"a clear: {reply.status} {reply.body[:200]!r}")
        await fill(nodes.urls[0], items)
        most = max(most, resident_bytes(nodes.pid(nodes.children[0])))
    connection.close()
    return most
