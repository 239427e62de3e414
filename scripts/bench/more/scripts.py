"""One counter, raised by a script from many clients through three nodes, one of which is killed meanwhile.

Each client asks one node, and the next one when its connection breaks. What a kill cuts off counts as unknown: the counter may
hold it or not. All else is exact: each number is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster

MUST = "a counter raised by a script, 64 clients on three nodes, a node killed: each increment counted once, or told unknown"
LIMIT_S = 120
WHAT = "a counter raised by a script through three nodes, one of them killed: told wrongly"
SCRIPT = b"local n = (redis.call('GET', KEYS[1]) or 0) + 1 redis.call('SET', KEYS[1], n) return n"
COUNTER = b"counter"
# The first words of replies after which nothing has happened, so that the client asks again.
REFUSALS = (b"-TRYAGAIN", b"-CLUSTERDOWN", b"-LOADING")


@dataclass
class Counting:
    """What all clients together were told. numbers: by acknowledged scripts.  unknown: scripts of whose end nothing was told."""

    ports: list[int]
    numbers: list[int] = field(default_factory=list)
    unknown: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    is_over: bool = False


def run(clients: int = 64, seconds: float = 10.0) -> Verdict:
    """seconds: of counting; a third of it after the leader was killed."""
    with cluster("--resp-port", "0") as nodes:
        return asyncio.run(_measure(nodes, clients, seconds))


async def _measure(nodes: Cluster, clients: int, seconds: float) -> Verdict:
    counting = Counting(nodes.resp_ports)
    began = time.perf_counter()
    tasks = [asyncio.create_task(_count(counting, number)) for number in range(clients)]
    await asyncio.sleep(seconds * 2 / 3)
    before, before_s = len(counting.numbers), time.perf_counter() - began
    leader = await asyncio.to_thread(nodes.led_by)
    nodes.kill(leader)
    await asyncio.sleep(seconds / 3)
    counting.is_over = True
    await asyncio.gather(*tasks)
    survivors = [port for child, port in zip(nodes.children, nodes.resp_ports, strict=True) if child is not leader]
    counter = await _value(survivors[0])
    return judge(counting, counter, before / before_s)


def judge(counting: Counting, counter: int, rate: float) -> Verdict:
    """Judge by what clients were told and what the counter is. rate: scripts a second before the kill."""
    told, unknown = len(counting.numbers), counting.unknown
    twice = told - len(set(counting.numbers))
    missing = max(0, told - counter) + max(0, counter - told - unknown)
    passed = told > 0 and not (twice or missing or counting.wrong)
    words = f"{told} scripts, {rate:.0f}/s before the kill, {unknown} unknown, {counting.refused} asked again; counter {counter}"
    figures = {"scripts": told, "rate": round(rate), "wrong": twice + missing + len(counting.wrong), "unknown": unknown}
    return Verdict(words + (f"; {counting.wrong[0]}" if counting.wrong else ""), passed, figures)


def shown(figures: dict[str, Any]) -> str:
    """How many went wrong, of how many, and how fast they were."""
    return f"{figures['wrong']} of {figures['scripts']:,} ({figures['unknown']} unknown; {figures['rate']:,} scripts a second)"


async def _count(counting: Counting, number: int) -> None:
    """Raise the counter, time and again, through one node, and through the next one when that has gone."""
    while not counting.is_over:
        port = counting.ports[number % len(counting.ports)]
        number += 1
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while not counting.is_over:
                    writer.write(_request(b"EVAL", SCRIPT, b"1", COUNTER))
                    counting.unknown += 1
                    reply = await reader.readline()
                    if not reply:
                        break
                    counting.unknown -= not reply.startswith(b"-OUTCOMEUNKNOWN")
                    if reply.startswith(b":"):
                        counting.numbers.append(int(reply[1:]))
                    elif reply.startswith(REFUSALS):
                        counting.refused += 1
                    elif not reply.startswith(b"-OUTCOMEUNKNOWN"):
                        counting.wrong.append(reply.decode(errors="replace").strip())
            finally:
                writer.close()
        # Who finds a node gone does not ask it as fast as a machine can.
        await asyncio.sleep(0.02)


async def _value(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request(b"READWRITE") + _request(b"GET", COUNTER))
    await reader.readline()
    await reader.readline()
    value = await reader.readline()
    writer.close()
    return int(value)


def _request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
