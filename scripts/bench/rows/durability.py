"""kill -9 under load, of one node after the other and of all at once: what was acknowledged must still be there.

Every client writes rising numbers to keys of its own; a key may hold the last acknowledged number or a later one
whose answer the kill cut off. (kill -9 leaves the page cache alone: what only a power cut shows is tested by the
journal's fault injection.)
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from cacheflow.cli.launcher import Child
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, get, put

MUST = "acknowledged writes missing after kill -9 of any node, or of all nodes at once, under load: 0"
LIMIT_S = 400
SHORT = {"rounds": 3}
WHAT = "acknowledged writes missing after `kill -9` under load, of one node after the other and of all at once"
CLIENTS_PER_NODE = 8
KEYS_PER_CLIENT = 20
# How long the load runs before each kill.
LOAD_S = 1.5


def run(rounds: int = 5) -> Verdict:
    """A round kills each node once and all nodes once."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes, rounds))


async def _measure(nodes: Cluster, rounds: int) -> Verdict:
    acknowledged: dict[str, int] = {}
    acks = 0
    missing: list[str] = []
    numbers = itertools.count(1)
    victims: list[list[Child]] = [[child] for child in nodes.children] + [list(nodes.children)]
    for turn, killed in enumerate(victims * rounds):
        writers = [
            asyncio.create_task(_write(nodes.urls[client % 3], client, numbers, acknowledged))
            for client in range(3 * CLIENTS_PER_NODE)
        ]
        await asyncio.sleep(LOAD_S)
        for child in killed:
            nodes.kill(child)
        # Writers on killed nodes end by themselves, the others go on for a moment without the killed one.
        await asyncio.sleep(0.5)
        for child in killed:
            nodes.restart(child)
        await asyncio.to_thread(nodes.wait_ready)
        for writer in writers:
            writer.cancel()
        acks += sum(count for count in await asyncio.gather(*writers) if count)
        who = "all" if len(killed) > 1 else killed[0].node_id
        missing += [f"turn {turn} ({who} killed): {found}" for found in await _missing(nodes, acknowledged)]
    told = (
        f"{len(victims) * rounds} kills ({rounds} of all at once), {acks} acknowledged writes, {len(missing)} missing"
    )
    figures = {"kills": len(victims) * rounds, "of_all": rounds, "acks": acks, "missing": len(missing)}
    return Verdict(told + (f"; {missing[0]}" if missing else ""), not missing, figures, {"missing": missing[:50]})


def shown(figures: dict[str, Any]) -> str:
    """How many are missing, of how many."""
    return f"{figures['missing']:,} of {figures['acks']:,} ({figures['kills']} kills, {figures['of_all']} of them of all at once)"


async def _write(url: str, client: int, numbers: itertools.count[int], acknowledged: dict[str, int]) -> int:
    """Until cancelled or cut; how many writes were acknowledged."""
    acks = 0
    connection = await Connection.open(url)
    try:
        for turn in itertools.count():
            key, number = f"durable:{client}:{turn % KEYS_PER_CLIENT}", next(numbers)
            reply = await connection.ask(put(key, number))
            if reply.status == 0:
                break
            if reply.status in (200, 201):
                acknowledged[key] = number
                acks += 1
    except asyncio.CancelledError:
        pass
    finally:
        connection.close()
    return acks


async def _missing(nodes: Cluster, acknowledged: dict[str, int]) -> list[str]:
    """What any node does not hold: every key is read locally on each, after one linearizable read there."""
    lost = []
    for child in nodes.children:
        connection = await Connection.open(child.url)
        await connection.ask(get("durable:0:0", "?consistency=linearizable"))
        for key, number in acknowledged.items():
            reply = await connection.ask(get(key))
            value = reply.json()["value"] if reply.status == 200 else None
            if value is None or value < number:
                lost.append(f"{child.node_id} has {key} = {value}, acknowledged {number}")
        connection.close()
    return lost
