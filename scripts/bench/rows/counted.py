"""One counter, clients with their default settings, and a network between that loses answers and delivers requests late.

What is lost, the client sends again; what is late, comes when the client has its answer from another try, or has given up. Beside
it others write as fast as told, each write with an Idempotency-Key of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from cacheflow.client.client import CacheClient
from cacheflow.errors import NotCommitted, OutcomeUnknown
from scripts.bench.harness import Cluster, Verdict, cluster, stacks_of
from scripts.bench.load import ANSWER_TIMEOUT_S, Connection, Tally, get, open_all, pump, put

MUST = "one counter, default clients, answers lost, 3,000 other writes a second: each increment counted once, or told unknown"
LIMIT_S = 240
SHORT = {"seconds": 5.0, "writes_per_s": 500.0, "late_s": 2.0}
WHAT = "increments by default clients whose answers get lost, beside many other writes: counted twice, or not at all"
COUNTER = "counted"
CLIENTS = 4
THREADS_PER_CLIENT = 2
# Of the requests: the answer is lost, the request is late.
LOST = 0.1
LATE = 0.05
# Seconds for a request, however late: what a node takes for an outcome (--request-timeout), twice.
DELIVERED_S = 20.0
# Seconds that the row may take beside counting and late requests: its last answers, and those of a client's last call.
REST_S = ANSWER_TIMEOUT_S + DELIVERED_S
# The connections of the other writers: as many as one node's threads, so that the rate is theirs.
LOAD_CONNECTIONS = 48


@dataclass
class Counted:
    """What became of the increments of all clients."""

    numbers: list[int] = field(default_factory=list)
    unknown: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def run(seconds: float = 60.0, writes_per_s: float = 3000.0, late_s: float = 8.0) -> Verdict:
    """seconds: of counting.  late_s: how late a request comes at most."""
    with cluster() as nodes:
        return asyncio.run(_measure(nodes, seconds, writes_per_s, late_s))


class LossyProxy:
    """Ports before the nodes that lose answers and deliver requests late. Not safe for concurrent use."""

    def __init__(self, random: Random, late_s: float) -> None:
        self.lost = self.late = 0
        # The requests that a node has never answered.
        self.unanswered: list[str] = []
        self._random = random
        self._late_s = late_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._awaited: dict[int, tuple[str, float]] = {}

    async def listen(self, url: str) -> str:
        """Return the URL of a new port before ``url``."""
        parts = urlsplit(url)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._carry(str(parts.hostname), parts.port or 0, reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def delivered(self) -> None:
        """Return when nothing late is on its way any more."""
        await asyncio.gather(*self._tasks)

    def standing(self) -> list[str]:
        """Return the requests that this proxy has handed on and not seen answered, each with its age."""
        now_s = time.monotonic()
        return [f"{what}, {now_s - since_s:.1f} s" for what, since_s in self._awaited.values()]

    async def _carry(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind = await asyncio.open_connection(host, port)
        try:
            while sent := await _message(reader):
                fate = self._random.random()
                if fate < LATE:
                    self.late += 1
                    task = asyncio.create_task(self._deliver(host, port, sent, self._random.uniform(0, self._late_s)))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    return
                behind.write(sent)
                answer = await self._answer_to(sent, port, behind_reader)
                if fate < LATE + LOST:
                    self.lost += 1
                    return
                if not answer:
                    return
                writer.write(answer)
        finally:
            behind.close()

    async def _deliver(self, host: str, port: int, sent: bytes, late_s: float) -> None:
        await asyncio.sleep(late_s)
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(sent)
            await self._answer_to(sent, port, reader)
        finally:
            writer.close()

    async def _answer_to(self, sent: bytes, port: int, reader: asyncio.StreamReader) -> bytes:
        """Return the answer of the node on ``port`` to ``sent``; nothing when it has hung up, or never answers."""
        number = next(self._numbers)
        head = sent.partition(b"\r\n\r\n")[0].decode("latin-1")
        self._awaited[number] = (f"{head!r} to port {port}", time.monotonic())
        try:
            async with asyncio.timeout(DELIVERED_S):
                return await _message(reader)
        except TimeoutError:
            self.unanswered.append(f"no answer within {DELIVERED_S:g} s: {head!r} to port {port}")
            return b""
        finally:
            del self._awaited[number]


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Return one request or answer as it came; nothing when the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return head if at < 0 else head + await reader.readexactly(int(lower[at + 17 :].partition(b"\r\n")[0]))


async def _measure(nodes: Cluster, seconds: float, writes_per_s: float, late_s: float) -> Verdict:
    urls = [child.url for child in nodes.children]
    proxy = LossyProxy(Random(1), late_s)
    before = [await proxy.listen(url) for url in urls]
    counted = Counted()
    stopping = threading.Event()
    clients = [CacheClient(before[number % 3 :] + before[: number % 3], discover=False) for number in range(CLIENTS)]
    # Not of the event loop's pool: that has as many threads as the machine has cores and four, and is joined without a deadline.
    counting = [
        threading.Thread(target=_count, args=(client, counted, stopping), name=f"counting-{number}", daemon=True)
        for number, client in enumerate(clients * THREADS_PER_CLIENT)
    ]
    connections: list[Connection] = []
    doing = "opening connections"
    try:
        async with asyncio.timeout(seconds + late_s + REST_S):
            connections += await open_all(urls, LOAD_CONNECTIONS)
            for thread in counting:
                thread.start()
            doing = "writing"
            load = await pump(connections, _others(), seconds, pause_s=LOAD_CONNECTIONS / writes_per_s)
            stopping.set()
            doing = "ending the clients' last calls"
            while any(thread.is_alive() for thread in counting):
                await asyncio.sleep(0.05)
            for client in clients:
                client.close()
            doing = "delivering what is late"
            await proxy.delivered()
            # What a node still has on its way.
            await asyncio.sleep(1)
            doing = "reading the counter"
            connection = await Connection.open(urls[0])
            reply = await connection.ask(get(COUNTER, "?consistency=linearizable"))
            connection.close()
    except TimeoutError:
        standing = _standing(counting, connections, proxy)
        raise RuntimeError("\n".join((f"hung while {doing}", *standing, *stacks_of(nodes)))) from None
    finally:
        # Whatever has happened: nobody counts on, and hangs the process.
        stopping.set()
        for connection in connections:
            connection.close()
    counted.failures += proxy.unanswered
    return judge(counted, int(json.loads(reply.body)["value"]), load, proxy.lost, proxy.late)


def _standing(counting: Sequence[threading.Thread], connections: Sequence[Connection], proxy: LossyProxy) -> list[str]:
    """Return where everybody in this process stands: threads that count, other writers, requests in the proxy."""
    frames = sys._current_frames()
    told = []
    for thread in counting:
        stack = traceback.format_stack(frames[thread.ident]) if thread.ident in frames else ["has ended"]
        told.append(f"{thread.name}: {''.join(stack)}")
    told += [
        f"another writer: {waited_s:.1f} s without an answer" for each in connections if (waited_s := each.waited_s)
    ]
    return told + [f"in the proxy: {request}" for request in proxy.standing()]


def judge(counted: Counted, value: int, load: Tally, lost: int, late: int) -> Verdict:
    """Say whether the counter's ``value`` is what the clients were told."""
    done, twice = len(counted.numbers), len(counted.numbers) - len(set(counted.numbers))
    # An increment that was told as done and is not in the counter, or one in it that nobody can have made.
    missing, surplus = max(done - value, 0), max(value - done - counted.unknown, 0)
    told = f"{done} increments answered, {counted.unknown} unknown, {counted.refused} refused; the counter is {value}"
    told += f"; {lost} answers lost, {late} requests late; {load.rate:.0f} other writes a second, {load.errors} failed"
    for failure in counted.failures[:2]:
        told += f"; {failure}"
    figures = {
        "answered": done,
        "unknown": counted.unknown,
        "wrong": twice + missing + surplus,
        "lost": lost,
        "late": late,
        "others_per_s": round(load.rate),
    }
    right = not (twice or missing or surplus or counted.failures)
    return Verdict(told, right and lost > 0 and counted.unknown < done, figures, {"failures": counted.failures[:20]})


def shown(figures: dict[str, Any]) -> str:
    """How many were wrong, of how many."""
    return (
        f"{figures['wrong']:,} of {figures['answered']:,} ({figures['lost']:,} answers lost, {figures['late']:,} requests late, "
        f"{figures['unknown']:,} told unknown; {figures['others_per_s']:,} other writes a second)"
    )


def _count(client: CacheClient, counted: Counted, stopping: threading.Event) -> None:
    """Increment until the end. Lists are appended to by all threads, which is atomic."""
    unknown = refused = 0
    while not stopping.is_set():
        try:
            counted.numbers.append(client.incr(COUNTER, initial=0))
        except OutcomeUnknown:
            unknown += 1
        except NotCommitted:
            refused += 1
            time.sleep(0.05)
        except Exception as error:
            counted.failures.append(repr(error))
            break
    with _LOCK:
        counted.unknown += unknown
        counted.refused += refused


# Guards the counts of Counted.
_LOCK = threading.Lock()


def _others() -> Iterator[bytes]:
    """Yield the other writes, each with a key of its own for idempotency."""
    whole = put("other:000000", "x" * 100)
    head, _, body = whole.partition(b"\r\n\r\n")
    for number in itertools.count():
        key = b"other:%06d" % (number % 1000)
        yield head.replace(b"other:000000", key) + b"\r\nIdempotency-Key: other-%d\r\n\r\n" % number + body
