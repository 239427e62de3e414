"""Newcomers in a full LFU cache: each must be readable right after its set, however often the others were used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from scripts.bench.harness import Verdict, cluster
from scripts.bench.load import batch, get, open_all, put

MUST = "100 new keys into a full LFU cache: 100 readable right after their set"
LIMIT_S = 120
# It takes seconds: the short form is the whole.
SHORT: dict[str, float] = {}
WHAT = "new keys in a full LFU cache that are readable right after their set"
ITEMS = 500
NEWCOMERS = 100


def run() -> Verdict:
    """The cache holds 500 keys that were all used five times through the log."""
    with cluster("--eviction", "lfu", "--max-items", str(ITEMS)) as nodes:
        return asyncio.run(_measure(nodes.urls))


async def _measure(urls: Sequence[str]) -> Verdict:
    connections = await open_all(urls, 3)
    names = [f"old:{number}" for number in range(ITEMS)]
    await connections[0].ask(batch([{"op": "set", "key": name, "value": "x"} for name in names]))
    for turn in range(5):
        await connections[turn % 3].ask(batch([{"op": "get", "key": name} for name in names]))
    readable = 0
    for number in range(NEWCOMERS):
        connection = connections[number % 3]
        written = await connection.ask(put(f"new:{number}", "y"))
        readable += written.status == 201 and (await connection.ask(get(f"new:{number}", "?peek"))).status == 200
    figures = {"readable": readable, "newcomers": NEWCOMERS}
    return Verdict(f"{readable} of {NEWCOMERS} readable", readable == NEWCOMERS, figures)


def shown(figures: dict[str, Any]) -> str:
    """How many of how many."""
    return f"{figures['readable']} of {figures['newcomers']}"
