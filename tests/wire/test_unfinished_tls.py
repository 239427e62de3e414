"""Long uploads over TLS, on each front: they count, wait and end as plain ones do."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from fakes.certificates import Authority
from wire.fake_store import FakeStore
from wire.resp_client import pack
from wire.turns import endless

from cacheflow.net import unfinished
from cacheflow.net.ports import ListeningPorts
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import WirePort
from cacheflow.wire.resp.service import resp_port

MIB: Final = 1024 * 1024
DEADLINE_S: Final = 30.0

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="asyncio's transports have no part in the budget")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("uploads") / "ca")


def upload_of(protocol: str, size: int) -> tuple[bytes, bytes]:
    """(a request with a value of ``size`` bytes, the reply)."""
    if protocol == "resp":
        return pack("SET", "k", bytes(size)), b"+OK\r\n"
    return b"set k 0 0 %d\r\n%b\r\n" % (size, bytes(size)), b"STORED\r\n"


class Party:
    """A port behind TLS, and threads with blocking clients."""

    def __init__(self, authority: Authority, ports: ListeningPorts, port: int, pool: ThreadPoolExecutor) -> None:
        self.ports, self.budget = ports, ports.unfinished
        self._authority, self._port, self._pool = authority, port, pool

    def connected(self) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", self._port), DEADLINE_S)
        return self._authority.trusted().wrap_socket(sock, server_hostname="localhost")

    async def client(self) -> ssl.SSLSocket:
        client: ssl.SSLSocket = await self.in_thread(self.connected)
        return client

    def in_thread(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.01)


def on_a_loop(test: Callable[[Party, str, pytest.MonkeyPatch], Awaitable[None]]) -> Callable[..., None]:
    @pytest.mark.parametrize("protocol", ["resp", "memcached"])
    def run(protocol: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        async def timed() -> None:
            handshakes = Handshakes(authority.certificates())
            handshakes.start()
            ports = ListeningPorts(handshakes=handshakes)
            make: Callable[..., WirePort] = resp_port if protocol == "resp" else memcached_port
            service = make(FakeStore(), value_bytes_max=MIB, access=None, connections_max=100, slices=endless())
            try:
                with ThreadPoolExecutor(32) as pool:
                    async with asyncio.timeout(DEADLINE_S):
                        port = await ports.open(service, "127.0.0.1", 0)
                        await test(Party(authority, ports, port, pool), protocol, monkeypatch)
            finally:
                await ports.close()
                handshakes.stop()

        asyncio.run(timed())

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_uploads_end_one_after_the_other(party: Party, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    party.budget.bytes_max = 400_000
    request, reply = upload_of(protocol, 300_000)

    def upload() -> bytes:
        with party.connected() as client:
            for begin in range(0, len(request), 50_000):
                client.sendall(request[begin : begin + 50_000])
            return client.recv(100)

    assert await asyncio.gather(*(party.in_thread(upload) for _ in range(16))) == [reply] * 16
    assert party.budget.bytes == party.budget._waiting == party.budget.ended == 0


@on_a_loop
async def test_the_silent_are_ended_and_others_go_on(
    party: Party, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    party.budget.bytes_max = 400_000
    request, reply = upload_of(protocol, 300_000)
    halves = [await party.client() for _ in range(4)]
    sent = [party.in_thread(half.sendall, request[:250_000]) for half in halves]
    await party.until(lambda: party.budget.full)
    client = await party.client()
    await party.in_thread(client.sendall, request)
    assert await party.in_thread(client.recv, 100) == reply
    await asyncio.gather(*sent, return_exceptions=True)
    assert party.budget.ended >= 2
    for each in (client, *halves):
        each.close()
    await party.until(lambda: party.budget.bytes == party.budget._waiting == 0)


@on_a_loop
async def test_who_waits_is_noticed_when_it_leaves_and_answered_when_it_has_sent_all(
    party: Party, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    party.budget.bytes_max = 400_000
    long, _ = upload_of(protocol, 500_000)
    request, reply = upload_of(protocol, 100_000)
    first, leaving, closing = [await party.client() for _ in range(3)]
    await party.in_thread(first.sendall, long[:450_000])
    await party.until(lambda: party.budget.bytes > 400_000)
    await party.in_thread(leaving.sendall, request[:90_000])
    await party.until(lambda: party.budget._waiting == 1)
    leaving.close()
    await party.until(lambda: party.budget._waiting == 0 and party.budget._turn is None)
    # The turn comes back with the next piece.
    await party.in_thread(first.sendall, long[450_000:480_000])
    await party.until(lambda: party.budget._turn is not None)
    await party.in_thread(closing.sendall, request)
    await party.until(lambda: party.budget._waiting == 1)
    closing.shutdown(socket.SHUT_WR)
    # (Behind the shutdown Python's client has no TLS any more: what comes is seen as records.)
    answer = await party.in_thread(closing.recv, 100)
    assert len(answer) > len(reply)
    await party.in_thread(first.sendall, long[480_000:])
    assert await party.in_thread(first.recv, 100) == reply
    for each in (first, closing):
        each.close()
