"""Many clients that begin long requests: what they keep together, who goes on, and who is ended."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
from wire.fake_store import FakeStore
from wire.resp_client import pack
from wire.turns import endless

from cacheflow.net import unfinished
from cacheflow.net.ports import ListeningPorts
from cacheflow.net.unfinished import COUNTED_BYTES_MIN, UNFINISHED_BYTES_MAX
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import WirePort
from cacheflow.wire.resp.connection import RespConnection
from cacheflow.wire.resp.service import resp_port

MIB: Final = 1024 * 1024
CLIENTS: Final = 220
# What may come of one client between two looks at it.
PIECE: Final = 24 * 1024
DEADLINE_S: Final = 30.0

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="asyncio's transports have no part in the budget")


def set_of(protocol: str, size: int, key: str = "k") -> tuple[bytes, bytes]:
    """(a request with a value of ``size`` bytes, the reply)."""
    if protocol == "resp":
        return pack("SET", key, bytes(size)), b"+OK\r\n"
    if protocol == "transaction":
        queued = pack("SET", key, bytes(size // 8)) * 8
        return pack("MULTI") + queued + pack("EXEC"), b"+OK\r\n" + b"+QUEUED\r\n" * 8 + b"*8\r\n" + b"+OK\r\n" * 8
    return b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), size, bytes(size)), b"STORED\r\n"


class Served:
    """A port of each protocol over one store."""

    def __init__(self) -> None:
        self.ports = ListeningPorts()
        self.budget = self.ports.unfinished
        self.store = FakeStore()
        self.numbers: dict[str, int] = {}
        self.services: list[WirePort] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.most_kept = 0

    async def open(self) -> None:
        settings: dict[str, Any] = {"value_bytes_max": MIB, "access": None, "connections_max": 1000}
        for name, make in (("resp", resp_port), ("memcached", memcached_port)):
            self.services.append(make(self.store, slices=endless(), **settings))
            self.numbers[name] = await self.ports.open(self.services[-1], "127.0.0.1", 0)
        self.numbers["transaction"] = self.numbers["resp"]

    def kept(self) -> int:
        """The bytes of requests that all connections keep, by what their buffers hold."""
        size = 0
        for service in self.services:
            for connection in service._connections:
                size += len(connection._input) + len(connection._pieces)
                if isinstance(connection, RespConnection):
                    exact = connection._parser._exact
                    words = [*exact._arguments, *(word for _, words in connection.queue or () for word in words)]
                    size += len(exact._buffer) + sum(map(len, words))
        self.most_kept = max(self.most_kept, size)
        return size

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look at what is kept all the while."""
        until_s = time.monotonic() + DEADLINE_S
        self.kept()
        while not condition():
            assert time.monotonic() < until_s, (self.budget.bytes, self.kept(), self.budget._waiting)
            await asyncio.sleep(0.01)
            self.kept()

    async def client(self, protocol: str) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.numbers[protocol]))
        return sock

    async def begin(self, protocol: str, data: bytes) -> socket.socket:
        """A client that sends ``data`` as far as it is taken, while the test goes on."""
        sock = await self.client(protocol)

        async def send() -> None:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(sock, data)

        self.tasks.append(asyncio.create_task(send()))
        return sock

    async def asked(self, sock: socket.socket, request: bytes, reply: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request)
        await self.replied(sock, reply)

    async def replied(self, sock: socket.socket, reply: bytes) -> None:
        got = b""
        while len(got) < len(reply):
            data = await asyncio.get_running_loop().sock_recv(sock, 65_536)
            assert data, got
            got += data
        assert got == reply


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    await served.open()
    async with asyncio.timeout(2 * DEADLINE_S):
        try:
            yield served
        finally:
            for task in served.tasks:
                task.cancel()
            await served.ports.close()


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """For requests of each kind."""

    @pytest.mark.parametrize("protocol", ["resp", "memcached", "transaction"])
    def run(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < 3 * CLIENTS:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3 * CLIENTS), hard))

        async def with_ports() -> None:
            async with serving() as served:
                await test(served, protocol, monkeypatch)

        asyncio.run(with_ports())

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_many_halves_keep_no_more_than_the_budget_and_short_requests_pass(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    whole, _ = set_of(protocol, MIB)
    clients = [await served.begin(protocol, whole[: MIB * 98 // 100]) for _ in range(CLIENTS)]
    # Those that are over it wait, and nothing comes any more.
    await served.until(lambda: served.budget.bytes > UNFINISHED_BYTES_MAX)
    for _ in range(20):
        request, reply = set_of(protocol, 20_000)
        with await served.client(protocol) as other:
            began_s = time.monotonic()
            await served.asked(other, request, reply)
            assert time.monotonic() - began_s < 5.0
        await served.until(lambda: True)
    await asyncio.sleep(0.3)
    assert served.kept() > UNFINISHED_BYTES_MAX // 2
    # One goes on, and all others have sent what is not counted, and a piece.
    assert served.most_kept < UNFINISHED_BYTES_MAX + CLIENTS * (COUNTED_BYTES_MIN + PIECE) + MIB
    assert served.budget.ended == 0
    for client in clients:
        client.close()
    await served.until(lambda: served.budget.bytes == 0)
    assert served.kept() == 0


@on_a_loop
async def test_uploads_end_one_after_the_other_however_little_there_is_for_all(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    served.budget.bytes_max = 400_000
    clients = []
    for number in range(30):
        request, reply = set_of(protocol, 300_000, f"k{number}")
        clients.append((await served.begin(protocol, request), reply))
    for client, reply in clients:
        await served.replied(client, reply)
        served.kept()
        client.close()
    assert served.budget.bytes == served.budget._waiting == 0
    assert served.budget.ended == 0


@on_a_loop
async def test_the_silent_are_ended_over_the_budget_and_others_go_on(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    served.budget.bytes_max = 400_000
    request, reply = set_of(protocol, 300_000)
    halves = [await served.begin(protocol, request[:250_000]) for _ in range(6)]
    client = await served.begin(protocol, request)
    await served.replied(client, reply)
    # The last ones are within the budget and may take their time.
    await served.until(lambda: served.budget.bytes <= served.budget.bytes_max)
    assert 4 <= served.budget.ended <= 6
    assert served.store.lookup("k") is not None
    for half in halves:
        half.close()


@on_a_loop
async def test_who_has_sent_something_that_a_slow_node_has_not_read_is_not_ended(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 1.0)
    served.budget.bytes_max = 400_000
    request, reply = set_of(protocol, 300_000)
    first = await served.begin(protocol, request[:250_000])
    await served.until(lambda: served.budget.bytes > 240_000)
    second = await served.begin(protocol, request[:250_000])
    await served.until(lambda: served.budget.bytes > 480_000)
    first.send(request[250_000:260_000])
    time.sleep(1.5)
    # The node's loop looks at its timers before its clients.
    poller = served.ports._poller
    assert poller is not None
    poller._end_overdue()
    await served.asked(first, request[260_000:], reply)
    assert served.budget.ended == 1
    second.close()


@on_a_loop
async def test_who_goes_away_while_it_waits_keeps_nothing(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    served.budget.bytes_max = 400_000
    request, reply = set_of(protocol, 900_000)
    first = await served.begin(protocol, request[:800_000])
    await served.until(lambda: served.budget.bytes > 700_000)
    # (The end of a client is behind all that it has sent, so it is seen when the kernel has taken that.)
    others = [await served.begin(protocol, request[:150_000]) for _ in range(20)]
    await served.until(lambda: served.budget._waiting == 20)
    for number, client in enumerate(others):
        if number % 2:
            # A reset instead of an end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    await served.until(lambda: served.budget._waiting == 0 and served.budget.bytes < 900_000)
    await served.until(lambda: sum(service.connections for service in served.services) == 1)
    await served.asked(first, request[800_000:], reply)


@on_a_loop
async def test_who_has_sent_all_and_shut_its_side_is_answered(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    served.budget.bytes_max = 400_000
    first_request, first_reply = set_of(protocol, 500_000)
    first = await served.begin(protocol, first_request[:450_000])
    await served.until(lambda: served.budget.bytes > 400_000)
    request, reply = set_of(protocol, 150_000)
    second = await served.begin(protocol, request)
    await served.until(lambda: served.tasks[-1].done() and served.budget._waiting == 1)
    second.shutdown(socket.SHUT_WR)
    await served.replied(second, reply)
    await served.asked(first, first_request[450_000:], first_reply)


def test_long_lines_of_keys_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    line = b"get" + b" nothing" * 4900 + b" " * 200_000

    async def run() -> None:
        async with serving() as served:
            served.budget.bytes_max = MIB
            clients = [await served.begin("memcached", line) for _ in range(60)]
            await served.until(lambda: served.budget._waiting > 40)
            await asyncio.gather(*served.tasks)
            await asyncio.sleep(0.3)
            assert served.kept() < MIB + 60 * (COUNTED_BYTES_MIN + PIECE) + MIB
            await asyncio.gather(*(served.asked(client, b"\r\n", b"END\r\n") for client in clients))
            assert served.budget.bytes == served.budget._waiting == 0

    asyncio.run(run())


def test_a_transaction_counts_what_it_keeps_and_not_what_is_refused() -> None:
    async def run() -> None:
        async with serving() as served:
            client = await served.client("resp")
            await served.asked(client, pack("MULTI"), b"+OK\r\n")
            queued = pack("SET", "k", bytes(MIB - 100))
            refusal = b"-ERR a transaction has at most "
            replies = b""
            while refusal not in replies:
                await asyncio.get_running_loop().sock_sendall(client, queued)
                replies = await asyncio.get_running_loop().sock_recv(client, 65_536)
            assert served.budget.bytes <= served.kept() + MIB
            counted = served.budget.bytes
            for _ in range(3):
                await asyncio.get_running_loop().sock_sendall(client, queued)
                await asyncio.get_running_loop().sock_recv(client, 65_536)
            assert served.budget.bytes == counted
            client.close()
            await served.until(lambda: served.budget.bytes == 0)

    asyncio.run(run())


def test_transactions_that_never_end_and_are_never_silent_do_not_keep_the_others_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unfinished, "LONG_S", 1.0, raising=False)

    async def run() -> None:
        async with serving() as served:
            served.budget.bytes_max = 800_000
            queued = pack("MULTI") + pack("SET", "other", bytes(300_000))
            clients = [await served.begin("resp", queued) for _ in range(4)]
            await served.until(lambda: served.budget._waiting >= 1)

            async def speak(client: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(client, pack("PING"))
                        await asyncio.sleep(0.02)

            served.tasks += [asyncio.create_task(speak(client)) for client in clients]
            request, reply = set_of("resp", 300_000)
            upload = await served.begin("resp", request)
            await served.replied(upload, reply)
            for client in clients:
                client.close()

    asyncio.run(run())
