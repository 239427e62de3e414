"""Settings that change under load: limits, policy, who votes; and a voter that is killed and replaced; what others notice.

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

from cacheflow.cli.launcher import Child, ask
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, Tally, fill, get, key_of, open_all, put, request

MUST = (
    "limits from 10^6 to 10^5 and back, policy changed at 10^5, replicas 2 to 4 to 2, a voter killed and replaced, under load: "
    "0 failed, digests equal, no pause over 100 ms"
)
LIMIT_S = 1800
WHAT = (
    "limits from 10^6 items to 10^5 and back, policy to LFU and back at 10^5, replicas 2 to 4 to 2, a voter killed and replaced, "
    "under load: longest SET / GET, failures"
)
PAUSE_MS_MAX = 100.0
# Connections of each kind to each node, and the pause of each between two requests.
CONNECTIONS = 2
EVERY_S = 0.004
# Seconds that a step is watched once what it began is done, and the most until that.
WATCHED_S = 3.0
DONE_WITHIN_S = 120.0
# Seconds of silence after which a voter is replaced.
REPLACE_AFTER_S = 3.0
# Seconds in which all nodes must have applied the same once nobody writes.
EQUAL_WITHIN_S = 10.0

Change = dict[str, Any]


def run(items: int = 1_000_000) -> Verdict:
    """Five nodes, of which three vote."""
    few = items // 10
    steps: list[tuple[str, Change | None]] = [
        ("nothing", {}),
        (f"max_items {few}", {"max_items": few}),
        ("eviction lfu", {"eviction": "lfu"}),
        ("eviction lru", {"eviction": "lru"}),
        (f"max_items {items}", {"max_items": items}),
        ("max_value_bytes", {"max_value_bytes": 2 * 1024 * 1024}),
        ("replicas 4", {"replicas": 4}),
        ("replicas 2", {"replicas": 2}),
        ("a voter killed", None),
    ]
    flags = ("--max-items", str(items), "--replicas", "2", "--replace-after", str(REPLACE_AFTER_S))
    with cluster(*flags, nodes=5) as nodes:
        return asyncio.run(_measure(nodes, items, steps))


def shown(figures: dict[str, Any]) -> str:
    """The longest pauses and the failures."""
    return f"{figures['set_ms']:.0f} / {figures['get_ms']:.0f} ms, {figures['failed']} failed"


async def _measure(nodes: Cluster, items: int, steps: list[tuple[str, Change | None]]) -> Verdict:
    await fill(nodes.urls[0], items)
    told, longest, failed = [], [0.0, 0.0], 0
    for name, change in steps:
        sets, gets = await _step(nodes, items, change)
        pauses = [max(tally.latencies_s, default=0.0) * 1000 for tally in (sets, gets)]
        failed += sum(tally.errors + len(tally.turned_away_s) for tally in (sets, gets))
        told.append(f"{name}: {pauses[0]:.0f} / {pauses[1]:.0f} ms in {sets.elapsed_s:.1f} s")
        if change != {}:
            longest = [max(pair) for pair in zip(longest, pauses, strict=True)]
        for bad in (*sets.bad, *gets.bad):
            told.append(bad)
    equal = await _equal(nodes)
    passed = not failed and equal and max(longest) <= PAUSE_MS_MAX
    told.append(f"{failed} failed; digests {'equal' if equal else 'NOT EQUAL'}")
    figures = {"set_ms": round(longest[0]), "get_ms": round(longest[1]), "failed": failed, "equal": equal}
    return Verdict("longest SET / GET: " + "; ".join(told), passed, figures)


async def _step(nodes: Cluster, items: int, change: Change | None) -> tuple[Tally, Tally]:
    """The load of one step, from before the change until some time after all of it is done. None: a voter is killed."""
    victim = await asyncio.to_thread(_voter, nodes) if change is None else None
    urls = [child.url for child in nodes.children if child is not victim]
    connections = await open_all(urls, 2 * CONNECTIONS * len(urls))
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
    if victim is not None:
        await asyncio.to_thread(_kill, nodes, victim)
    elif change:
        await asyncio.to_thread(_change, nodes, change)
    await asyncio.sleep(WATCHED_S)
    over.set()
    await asyncio.gather(*loads)
    for connection in connections:
        connection.close()
    if victim is not None:
        # It comes back as a spare, so that all five are compared. Here, because a node ends with the thread that has started it.
        nodes.restart(victim)
        await asyncio.to_thread(nodes.wait_answer, victim, "/readyz")
        if victim.node_id in _voters(nodes.urls[0]):
            raise RuntimeError(f"{victim.node_id} votes again")
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
        while not _is_done(url, reply):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} is not done with {change} after {DONE_WITHIN_S:g} s")
            time.sleep(0.05)


def _voter(nodes: Cluster) -> Child:
    """A node that votes and does not lead."""
    voters = _voters(nodes.urls[0])
    return next(child for child in nodes.others(nodes.led_by()) if child.node_id in voters)


def _voters(url: str) -> set[str]:
    """The ids of the members that vote and are up, as the node at ``url`` knows them."""
    return {member["id"] for member in ask(url, "/nodes/list")[1] if member["voter"] and member["status"] == "up"}


def _kill(nodes: Cluster, victim: Child) -> None:
    """Kill a voter; return once another member votes in its place."""
    nodes.kill(victim)
    url = nodes.led_by().url
    deadline = time.monotonic() + DONE_WITHIN_S
    while len(voters := _voters(url)) < 3 or victim.node_id in voters:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{victim.node_id} is not replaced after {DONE_WITHIN_S:g} s")
        time.sleep(0.05)


async def _patched(url: str, change: Change) -> dict[str, Any]:
    connection = await Connection.open(url)
    reply = await connection.ask(request("PATCH", "/cluster/settings", change))
    connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{change}: {reply.status} {reply.body[:200]!r}")
    settings: dict[str, Any] = reply.json()
    return settings


def _is_done(url: str, settings: dict[str, Any]) -> bool:
    """True if the node at ``url`` has these settings, no more items than they allow, and as many voters as they say."""
    status, found = ask(url, "/cluster/settings")
    if status != 200 or found["version"] < settings["version"]:
        return False
    status, metrics = ask(url, "/metrics?format=json")
    most = settings["max_items"]
    return (
        status == 200 and (most is None or metrics["items"] <= most) and len(_voters(url)) == settings["replicas"] + 1
    )


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
