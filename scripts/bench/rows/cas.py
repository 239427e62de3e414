"""Batches that compare-and-set the same key at once: exactly one wins, also inside one log entry."""

from __future__ import annotations

import asyncio
from typing import Any

from scripts.bench.harness import Verdict, cluster
from scripts.bench.load import Connection, Reply, batch, open_all, put

MUST = "two batches that compare-and-set the same key in one log entry: one wins"
LIMIT_S = 120
# It takes seconds: the short form is the whole.
SHORT: dict[str, float] = {}
WHAT = "batches that compare-and-set the same key at once, also in one log entry: without exactly one winner"


def run(rounds: int = 500) -> Verdict:
    """Two contenders on one node, two on two nodes and six on all, in turn, each with the same version."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes.urls, rounds))


async def _measure(urls: list[str], rounds: int) -> Verdict:
    connections = await open_all(urls, 6)
    fields = [connections[0::3], connections[:2], connections]
    one_entry = 0
    wrong: list[str] = []
    for turn in range(rounds):
        contenders = fields[turn % 3]
        version = (await connections[0].ask(put("cas", turn))).json()["version"]
        replies = await asyncio.gather(
            *(_compare_and_set(connection, number, version) for number, connection in enumerate(contenders))
        )
        statuses = sorted(reply.json()["results"][0]["status"] for reply in replies)
        if statuses != [200] + [412] * (len(contenders) - 1):
            wrong.append(f"round {turn}: {statuses}")
        one_entry += len({reply.header("X-Raft-Index") for reply in replies}) == 1
    told = f"{rounds} rounds, in {one_entry} all answered at one log index: {len(wrong)} without exactly one winner"
    passed = not wrong and one_entry > 0
    figures = {"rounds": rounds, "one_entry": one_entry, "wrong": len(wrong)}
    return Verdict(told + (f"; {wrong[0]}" if wrong else ""), passed, figures, {"wrong": wrong[:20]})


def shown(figures: dict[str, Any]) -> str:
    """How many went wrong, of how many."""
    return f"{figures['wrong']} of {figures['rounds']} rounds ({figures['one_entry']} in one entry)"


async def _compare_and_set(connection: Connection, number: int, version: int) -> Reply:
    return await connection.ask(batch([{"op": "cas", "key": "cas", "value": f"by {number}", "version": version}]))
