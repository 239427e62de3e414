"""Leader kills under load. Clients never retry; what goes through a surviving node waits and succeeds.

Every client owns one connection, one counter and some keys. A request that a kill cuts off counts as unknown: the
counter may hold it or not. Everything else is exact.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from cacheflow.cli.launcher import Child
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, get, put, request

MUST = "20 leader kills under load, clients never retry: no failure through survivors; acked <= counter <= acked + cut"
LIMIT_S = 480
SHORT = {"kills": 10}
WHAT = "leader kills under load, clients that never retry, on the survivors"
CLIENTS_PER_NODE = 6
# Answers each client gets between the restart and the next kill.
PROGRESS = 20


@dataclass
class _Client:
    number: int
    node: Child
    acknowledged: int = 0
    cut: int = 0
    answers: int = 0
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


def run(kills: int = 20) -> Verdict:
    """Each kill hits the present leader; it is restarted before the next."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes, kills))


async def _measure(nodes: Cluster, kills: int) -> Verdict:
    clients = [_Client(number, nodes.children[number % 3]) for number in range(3 * CLIENTS_PER_NODE)]
    stopping = asyncio.Event()
    serving = {child.node_id: asyncio.Event() for child in nodes.children}
    for event in serving.values():
        event.set()
    tasks = [asyncio.create_task(_work(client, serving[client.node.node_id], stopping)) for client in clients]
    for _ in range(kills):
        await _progress(clients, tasks)
        leader = await asyncio.to_thread(nodes.led_by)
        serving[leader.node_id].clear()
        nodes.kill(leader)
        await _progress([client for client in clients if client.node is not leader], tasks)
        nodes.restart(leader)
        await asyncio.to_thread(nodes.wait_ready)
        serving[leader.node_id].set()
    await _progress(clients, tasks)
    stopping.set()
    await asyncio.gather(*tasks)
    wrong = [found for client in clients if (found := await _wrong_counter(client))]
    failures = [f"{client.node.node_id}: {failure}" for client in clients for failure in client.failures]
    answers, cut = sum(client.answers for client in clients), sum(client.cut for client in clients)
    told = f"{kills} kills, {answers} answers, {cut} cut, {len(failures)} failures, {len(wrong)} wrong counters"
    longest_s = max(client.longest_s for client in clients)
    told += f", longest wait {longest_s:.2f} s"
    for first in (failures + wrong)[:2]:
        told += f"; {first}"
    figures = {
        "kills": kills,
        "answers": answers,
        "failures": len(failures),
        "wrong_counters": len(wrong),
        "longest_s": round(longest_s, 3),
    }
    details = {"cut": cut, "failures": failures[:20], "wrong_counters": wrong}
    return Verdict(told, not failures and not wrong, figures, details)


def shown(figures: dict[str, Any]) -> str:
    """What failed, of how many answers."""
    text = f"{figures['failures']:,} failures of {figures['answers']:,}, longest wait {figures['longest_s']:.2f} s"
    text += f", {figures['wrong_counters']} wrong counters" if figures["wrong_counters"] else ""
    return f"{text} ({figures['kills']} kills)"


async def _work(client: _Client, serving: asyncio.Event, stopping: asyncio.Event) -> None:
    """Counter, write, counter, read, ... over one connection; over a new one once the killed node serves again."""
    counter = request("POST", f"/cache/counter:{client.number}/incr", {"delta": 1, "initial": 0})
    turns = [
        counter,
        put(f"kills:{client.number}", "x" * 100),
        counter,
        get(f"kills:{client.number}"),
        counter,
        get(f"kills:{client.number}", "?consistency=linearizable"),
    ]
    while not stopping.is_set():
        await serving.wait()
        try:
            connection = await Connection.open(client.node.url)
        except OSError:
            # Killed between the event and the connect.
            await asyncio.sleep(0.05)
            continue
        turn = 0
        while connection.is_open and not stopping.is_set():
            sent = turns[turn % len(turns)]
            turn += 1
            reply = await connection.ask(sent)
            client.longest_s = max(client.longest_s, reply.took_s)
            if reply.status == 0 and not serving.is_set():
                client.cut += sent is counter
            elif reply.status in (200, 201) or (reply.status == 404 and turn <= 4):
                client.answers += 1
                client.acknowledged += sent is counter
            else:
                client.failures.append(f"{reply.status} after {reply.took_s:.2f} s {reply.body[:200]!r}")
                client.cut += sent is counter
        connection.close()


async def _progress(clients: list[_Client], tasks: list[asyncio.Task[None]]) -> None:
    """Wait until each of the clients got answers since now."""
    wanted = {client.number: client.answers + PROGRESS for client in clients}
    async with asyncio.timeout(60):
        while any(client.answers < wanted[client.number] for client in clients):
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)


async def _wrong_counter(client: _Client) -> str | None:
    connection = await Connection.open(client.node.url)
    reply = await connection.ask(get(f"counter:{client.number}", "?consistency=linearizable"))
    connection.close()
    value = reply.json().get("value", 0) if reply.status in (200, 404) else -1
    if client.acknowledged <= value <= client.acknowledged + client.cut:
        return None
    return f"counter {client.number}: {value}, acknowledged {client.acknowledged}, cut {client.cut}"
