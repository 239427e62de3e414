"""Settings that change under load: a limit lowered to a tenth and raised again, another policy and back; what others notice.

Clients read and write on all nodes at a moderate rate, each request after a short pause, so that the longest answer tells for how
long a node stood still and not how long its queue was. A step lasts until what it began is done on every node, and some seconds
more.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from cacheflow.cli.launcher import ask
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, Tally, fill, get, key_of, open_all, put, request

MUST = "limits from 10^6 to 10^5 and back, policy changed at 10^5, under load: 0 failed, digests equal, no pause over 100 ms"
LIMIT_S = 900
WHAT = (
    "limits from 10^6 items to 10^5 and back, policy to LFU and back at 10^5, under load: longest SET / GET, failures"
)
PAUSE_MS_MAX = 100.0
# Connections of each kind to each node, and the pause of each between two requests.
CONNECTIONS = 2
EVERY_S = 0.004
# Seconds that a step is watched once what it began is done, and the most until that.
WATCHED_S = 3.0
DONE_WITHIN_S = 120.0
# Seconds in which all nodes must have applied the same once nobody writes.
EQUAL_WITHIN_S = 10.0

Change = dict[str, Any]


def run(items: int = 1_000_000) -> Verdict:
    """Three nodes."""
    few = items // 10
    steps: list[tuple[str, Change]] = [
        ("nothing", {}),
        (f"max_items {few}", {"max_items": few}),
        ("eviction lfu", {"eviction": "lfu"}),
        ("eviction lru", {"eviction": "lru"}),
        (f"max_items {items}", {"max_items": items}),
        ("max_value_bytes", {"max_value_bytes": 2 * 1024 * 1024}),
    ]
    with cluster("--max-items", str(items)) as nodes:
        return asyncio.run(_measure(nodes, items, steps))


def shown(figures: dict[str, Any]) -> str:
    """The longest pauses and the failures."""
    return f"{figures['set_ms']:.0f} / {figures['get_ms']:.0f} ms, {figures['failed']} failed"


async def _measure(nodes: Cluster, items: int, steps: list[tuple[str, Change]]) -> Verdict:
    await fill(nodes.urls[0], items)
    told, longest, failed = [], [0.0, 0.0], 0
    for name, change in steps:
        sets, gets = await _step(nodes, items, change)
        pauses = [max(tally.latencies_s, default=0.0) * 1000 for tally in (sets, gets)]
        failed += sum(tally.errors + len(tally.turned_away_s) for tally in (sets, gets))
        told.append(f"{name}: {pauses[0]:.0f} / {pauses[1]:.0f} ms in {sets.elapsed_s:.1f} s")
        if change:
            longest = [max(pair) for pair in zip(longest, pauses, strict=True)]
        for bad in (*sets.bad, *gets.bad):
            told.append(bad)
    equal = await _equal(nodes)
    passed = not failed and equal and max(longest) <= PAUSE_MS_MAX
    told.append(f"{failed} failed; digests {'equal' if equal else 'NOT EQUAL'}")
    figures = {"set_ms": round(longest[0]), "get_ms": round(longest[1]), "failed": failed, "equal": equal}
    return Verdict("longest SET / GET: " + "; ".join(told), passed, figures)


async def _step(nodes: Cluster, items: int, change: Change) -> tuple[Tally, Tally]:
    """The load of one step, from before the change until some time after all of it is done."""
    connections = await open_all(nodes.urls, 2 * CONNECTIONS * len(nodes.urls))
    over = asyncio.Event()
    began = time.monotonic()
    half = len(connections) // 2
    tallies = (Tally(), Tally())
    loads = [
        asyncio.create_task(_load(connection, requests, tally, over))
        for tally, requests, some in (
            (tallies[0], _requests(lambda key: put(key, "y" * 100), items), connections[:half]),
            (tallies[1], _requests(get, items), connections[half:]),
        )
        for connection in some
    ]
    await asyncio.sleep(WATCHED_S / 3)
    if change:
        await asyncio.to_thread(_change, nodes, change)
    await asyncio.sleep(WATCHED_S)
    over.set()
    await asyncio.gather(*loads)
    for connection in connections:
        connection.close()
    for tally in tallies:
        tally.elapsed_s = time.monotonic() - began
    return tallies


def _requests(make: Callable[[str], bytes], items: int) -> Iterator[bytes]:
    random = Random(7)
    return (make(key_of(random.randrange(items))) for _ in itertools.count())


async def _load(connection: Connection, requests: Iterator[bytes], tally: Tally, over: asyncio.Event) -> None:
    while not over.is_set():
        tally.note(await connection.ask(next(requests)))
        await asyncio.sleep(EVERY_S)


def _change(nodes: Cluster, change: Change) -> None:
    """Change the settings through one node, and return once every node has, and has done what follows from them."""
    reply = asyncio.run(_patched(nodes.urls[-1], change))
    deadline = time.monotonic() + DONE_WITHIN_S
    for url in nodes.urls:
        while not _is_done(url, reply["version"], reply["max_items"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} is not done with {change} after {DONE_WITHIN_S:g} s")
            time.sleep(0.05)


async def _patched(url: str, change: Change) -> dict[str, Any]:
    connection = await Connection.open(url)
    reply = await connection.ask(request("PATCH", "/cluster/settings", change))
    connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{change}: {reply.status} {reply.body[:200]!r}")
    settings: dict[str, Any] = reply.json()
    return settings


def _is_done(url: str, version: int, max_items: int | None) -> bool:
    status, settings = ask(url, "/cluster/settings")
    if status != 200 or settings["version"] < version:
        return False
    status, metrics = ask(url, "/metrics?format=json")
    return status == 200 and (max_items is None or metrics["items"] <= max_items)


async def _equal(nodes: Cluster) -> bool:
    """Whether all nodes come to the same digest at the same index now that nobody writes."""
    deadline = time.monotonic() + EQUAL_WITHIN_S
    while True:
        found = [await asyncio.to_thread(ask, url, "/cluster/digest") for url in nodes.urls]
        if all(status == 200 for status, _ in found) and len({answer["index"] for _, answer in found}) == 1:
            return len({answer["digest"] for _, answer in found}) == 1
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
