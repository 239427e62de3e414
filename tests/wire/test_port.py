"""A wire port on a loop of its own: how many it lets in, what it counts, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from fakes.users import MemoryAccess
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.memcached_client import port as memcached
from wire.resp_client import port as resp

from cacheflow.access.roles import Role
from cacheflow.errors import ConfigError
from cacheflow.machine.language import commands
from cacheflow.net.ports import ListeningPorts
from cacheflow.wire import port
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import CONNECTIONS_MAX, DESCRIPTORS_KEPT, connections_allowed

DEADLINE_S = 10.0


def on_a_loop(test: Callable[[ListeningPorts], Awaitable[None]]) -> Callable[[bool], None]:
    """With the clients' sockets polled past the loop, and as transports of the loop."""

    @pytest.mark.parametrize("direct", [True, False])
    def run(direct: bool) -> None:
        async def timed() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await test(ListeningPorts(direct=direct))

        asyncio.run(timed())

    run.__name__ = test.__name__
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@on_a_loop
async def test_who_comes_over_the_limit_is_told_so_and_others_come_in_when_one_leaves(ports: ListeningPorts) -> None:
    service = memcached(FakeStore(), connections_max=2)
    number = await ports.open(service, "127.0.0.1", 0)
    first = await asyncio.open_connection("127.0.0.1", number)
    second = await asyncio.open_connection("127.0.0.1", number)
    await until(lambda: service.connections == 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    assert await reader.read() == b"ERROR Too many open connections\r\n"
    writer.close()
    for stream_reader, stream_writer in (first, second):
        stream_writer.write(b"mn\r\nget a\r\n")
        assert await stream_reader.readexactly(9) == b"MN\r\nEND\r\n"
    first[1].close()
    await until(lambda: service.connections == 1)
    third = await asyncio.open_connection("127.0.0.1", number)
    third[1].write(b"mn\r\n")
    assert await third[0].readexactly(4) == b"MN\r\n"
    assert ports.metrics() == {
        "unsent_bytes": 0,
        "unsent_bytes_max": 64 * 1024 * 1024,
        "unsent_ended_total": 0,
        "unfinished_bytes": 0,
        "unfinished_bytes_max": 64 * 1024 * 1024,
        "unfinished_ended_total": 0,
        'wire_connections{port="memcached"}': 2,
        'wire_connections_max{port="memcached"}': 2,
        'wire_accepted_total{port="memcached"}': 3,
        'wire_refused_total{port="memcached"}': 1,
        'wire_overdue_total{port="memcached"}': 0,
        'wire_requests_total{port="memcached"}': 5,
        **service.times.metrics(),
    }
    await ports.close()


def test_those_who_come_at_once_are_accepted_a_few_a_turn() -> None:
    async def come() -> None:
        ports = ListeningPorts(direct=True)
        service = memcached(FakeStore(), connections_max=100)
        number = await ports.open(service, "127.0.0.1", 0)
        clients = [socket.create_connection(("127.0.0.1", number)) for _ in range(60)]
        seen = [0]
        while service.accepted < len(clients):
            await asyncio.sleep(0)
            seen.append(service.accepted)
        assert max(now - before for before, now in itertools.pairwise(seen)) <= 16
        for client in clients:
            client.close()
        await ports.close()

    asyncio.run(come())


@on_a_loop
async def test_what_is_under_way_is_answered_before_the_end_and_the_silent_are_closed(ports: ListeningPorts) -> None:
    store = FakeStore()
    store.held = True
    service = memcached(store)
    number = await ports.open(service, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    silent, _ = await asyncio.open_connection("127.0.0.1", number)
    writer.write(b"delete k\r\n")
    await until(lambda: store.waiting == 1)
    ending = asyncio.create_task(ports.close())
    assert await silent.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)
    assert not ending.done()
    store.release()
    assert await reader.read() == b"NOT_FOUND\r\n"
    await ending
    assert service.connections == 0


@on_a_loop
async def test_the_connections_of_a_user_who_was_taken_out_are_answered_and_closed(ports: ListeningPorts) -> None:
    store, access = FakeStore(), MemoryAccess(("a", Role.WRITE, b"a" * 22), ("b", Role.WRITE, b"b" * 22))
    store.held = True
    service = memcached_port(store, value_bytes_max=1000, access=access, connections_max=8)
    number = await ports.open(service, "127.0.0.1", 0)

    async def come(token: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"set x 0 0 24\r\nx %b\r\n" % token)
        assert await reader.readline() == b"STORED\r\n"
        return reader, writer

    (busy, writes), (silent, _), (other, others), (late, sends) = [
        await come(each * 22) for each in (b"a", b"a", b"b", b"a")
    ]
    writes.write(b"delete k\r\n")
    await until(lambda: store.waiting == 1)
    access.people.pop(0)
    assert access.reload()
    service.recheck()
    assert await silent.read() == b""
    sends.write(b"delete k\r\n")
    assert await late.read() == b""
    store.release()
    assert await busy.read() == b"NOT_FOUND\r\n"
    others.write(b"mn\r\n")
    assert await other.readline() == b"MN\r\n" and service.connections == 1 and store.waiting == 0
    await ports.close()


@on_a_loop
async def test_who_is_not_answered_in_a_moment_is_cut_off(ports: ListeningPorts) -> None:
    store = FakeStore()
    store.held = True
    service = memcached(store)
    number = await ports.open(service, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(b"delete k\r\n")
    await until(lambda: store.waiting == 1)
    began_s = asyncio.get_running_loop().time()
    await ports.close()
    assert port.DRAIN_S <= asyncio.get_running_loop().time() - began_s < port.DRAIN_S + 2
    assert service.connections == 0 and not await reader.read()
    store.release()


@on_a_loop
async def test_a_port_that_is_taken_names_its_flag(ports: ListeningPorts) -> None:
    service = memcached(FakeStore())
    number = await ports.open(service, "127.0.0.1", 0)
    with pytest.raises(ConfigError, match=f"memcached port {number} on 127.0.0.1 is taken.*--memcached-port"):
        await ports.open(service, "127.0.0.1", number)
    await ports.close()


@on_a_loop
async def test_clients_that_ask_at_once_get_each_what_it_asked_for(ports: ListeningPorts) -> None:
    store = FakeStore()
    for number in range(8):
        store.apply([commands.set_(f"k{number}", b"%d" % number, 0)])
    service = memcached(store)
    number = await ports.open(service, "127.0.0.1", 0)
    clients = [await asyncio.open_connection("127.0.0.1", number) for _ in range(8)]
    await until(lambda: service.connections == 8)
    for turn in range(3):
        for at, (_, writer) in enumerate(clients):
            writer.write(b"get k%d\r\n" % ((at + turn) % 8))
        for at, (reader, _) in enumerate(clients):
            wanted = (at + turn) % 8
            assert await reader.readexactly(22) == b"VALUE k%d 0 1\r\n%d\r\nEND\r\n" % (wanted, wanted)
    assert service.requests == 24
    await ports.close()


@pytest.mark.parametrize(
    ("soft", "ports", "allowed"),
    [
        (DESCRIPTORS_KEPT + 640, 1, 640),
        (DESCRIPTORS_KEPT + 640, 2, 320),
        (64, 1, 16),
        (10**6, 1, CONNECTIONS_MAX),
        (resource.RLIM_INFINITY, 2, CONNECTIONS_MAX),
    ],
)
def test_descriptors_decide_how_many_may_connect(
    soft: int, ports: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert connections_allowed(ports) == allowed


@pytest.mark.parametrize("protocol", ["memcached", "resp"])
def test_who_has_begun_a_request_and_does_not_end_it_is_closed_in_time(protocol: str) -> None:
    now_s = 0.0
    halves = {"memcached": b"set a 0 0 10\r\n12345", "resp": b"*2\r\n$3\r\nGET\r\n$10\r\nabc"}
    wholes = {"memcached": b"mn\r\n", "resp": b"PING\r\n"}
    makes = {"memcached": memcached, "resp": resp}
    service = makes[protocol](FakeStore())
    service._clock = lambda: now_s
    half, idle, busy = [Client(cast(Connection, service.connect())) for _ in range(3)]
    half.send(halves[protocol])
    for _ in range(13):
        service.end_overdue()
        now_s += 5.0
        assert idle.closed is busy.closed is False
        # A request after the other, each begun when it is looked at.
        busy.send(wholes[protocol] + halves[protocol] if not busy.protocol.is_due else b"")
        if busy.protocol.is_due:
            busy.send({"memcached": b"67890\r\n", "resp": b"defghij\r\n"}[protocol])
            busy.send(wholes[protocol] + halves[protocol])
    assert half.transport.aborted
    assert service.overdue


@pytest.mark.parametrize("protocol", ["memcached", "resp"])
def test_who_shows_no_token_is_closed_in_time(protocol: str) -> None:
    service = {"memcached": memcached, "resp": resp}[protocol](FakeStore(), b"secret")
    now_s = 0.0
    service._clock = lambda: now_s
    client = Client(cast(Connection, service.connect()))
    service.end_overdue()
    now_s = port.REQUEST_DEADLINE_S - 1
    service.end_overdue()
    assert not client.closed
    now_s += 1
    service.end_overdue()
    assert client.closed


@pytest.mark.parametrize("make", [memcached, resp])
def test_a_connections_attributes_fit_the_dictionary_that_all_of_them_share(make: Callable[..., port.WirePort]) -> None:
    connection = make(FakeStore()).connect()
    # CPython 3.11 shares one dictionary's keys among the objects of a class that have at most 29 attributes outside of slots.
    assert 0 < len(vars(connection)) <= 29
