"""Clients' ports behind TLS, with the clients polled past the loop and as asyncio's transports: they see what plain ones see."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable

import pytest
from fakes.certificates import Authority

from cacheflow.net.ports import ListeningPorts
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.tls.session import Session
from cacheflow.net.transport import Arrival

DEADLINE_S = 20.0
Test = Callable[["Party"], Awaitable[None]]


class Echo(asyncio.Protocol):
    """Sends back what comes; pauses reading while its answers are not taken; at the end of input says so and closes."""

    def __init__(self, service: Service) -> None:
        self.transport: asyncio.Transport
        self.service = service
        self.pauses = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.service.received += len(data)
        self.transport.write(data)
        if data.endswith(b"QUIT\n"):
            self.transport.close()

    def pause_writing(self) -> None:
        self.pauses += 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.transport.write(b"END")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.open.discard(self)


class Service:
    """Echoes. Input that comes from several clients at once is answered as one row."""

    name = "resp"
    tls_only = b"-ERR TLS only\r\n"

    def __init__(self) -> None:
        self.open: set[Echo] = set()
        self.made: list[weakref.ref[Echo]] = []
        self.received = 0
        self.rows = 0

    def connect(self) -> asyncio.Protocol:
        echo = Echo(self)
        self.open.add(echo)
        self.made.append(weakref.ref(echo))
        return echo

    def end_overdue(self) -> None:
        return

    def limit_values(self, bytes_max: int) -> None:
        return

    def answer_many(self, arrived: list[Arrival]) -> list[Arrival]:
        self.rows += 1
        return list(arrived)

    async def drain(self) -> None:
        for echo in list(self.open):
            echo.transport.close()

    def metrics(self) -> dict[str, float]:
        return {}


class Party:
    """An open port and the way to it."""

    def __init__(self, authority: Authority, ports: ListeningPorts, service: Service, port: int) -> None:
        self.authority, self.ports, self.service, self.port = authority, ports, service, port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.authority.trusted(), server_hostname="localhost"
        )

    async def in_thread(self, work: Callable[[ssl.SSLSocket], object]) -> object:
        """The result of ``work`` with a blocking client, in a thread."""

        def run() -> object:
            sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
            with self.authority.trusted().wrap_socket(sock, server_hostname="localhost") as client:
                return work(client)

        return await asyncio.to_thread(run)


def party(test: Test) -> Callable[[Authority, bool], None]:
    @pytest.mark.parametrize("direct", [True, False])
    def run(authority: Authority, direct: bool) -> None:
        async def timed() -> None:
            handshakes = Handshakes(authority.certificates())
            handshakes.start()
            complaints: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            ports, service = ListeningPorts(handshakes=handshakes, direct=direct), Service()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    port = await ports.open(service, "127.0.0.1", 0)
                    await test(Party(authority, ports, service, port))
            finally:
                await ports.close()
                handshakes.stop()
                await asyncio.sleep(0.01)
            assert not complaints, complaints
            assert not service.open

        asyncio.run(timed())

    run.__name__ = test.__name__
    return run


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@party
async def test_what_is_sent_comes_back(party: Party) -> None:
    reader, writer = await party.connect()
    for size in (1, 2, 479, 480, 16383, 16384, 16385, 100_000):
        data = random.Random(size).randbytes(size)
        writer.write(data)
        assert await reader.readexactly(size) == data
    writer.close()


@party
async def test_megabytes_come_back_whole_however_slowly_they_are_taken(party: Party) -> None:
    data = random.Random(1).randbytes(24_000_000)
    reader, writer = await party.connect()
    writer.transport.set_write_buffer_limits(high=1 << 30)
    writer.write(data)
    await until(lambda: party.service.open)
    (echo,) = party.service.open
    await until(lambda: echo.pauses)
    # What nobody takes is not read without end.
    await asyncio.sleep(0.05)
    assert party.service.received < 20_000_000
    assert await reader.readexactly(len(data)) == data
    writer.close()


@party
async def test_an_answer_leaves_whole_before_its_connection_closes(party: Party) -> None:
    data = random.Random(2).randbytes(3_000_000) + b"QUIT\n"
    reader, writer = await party.connect()
    writer.write(data[:-5])
    taken = await reader.readexactly(len(data) - 5)
    writer.write(data[-5:])
    # A clean end: the other side has said that this was all.
    assert taken + await reader.read() == data
    writer.close()


@party
async def test_the_end_is_told_by_tls_before_the_socket_ends(party: Party) -> None:
    def work(client: ssl.SSLSocket) -> bytes:
        client.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        client.sendall(b"helloQUIT\n")
        said = b""
        while data := client.recv(100):
            said += data
        return said

    assert await party.in_thread(work) == b"helloQUIT\n"


@party
async def test_a_client_that_says_it_is_done_in_tls_alone_is_answered(party: Party) -> None:
    def work(client: ssl.SSLSocket) -> None:
        client.sendall(b"last")
        with contextlib.suppress(ssl.SSLError), socket.socket(fileno=os.dup(client.fileno())) as raw:
            raw.settimeout(DEADLINE_S)
            with contextlib.suppress(ssl.SSLError):
                client._sslobj.shutdown()  # type: ignore[attr-defined]
            # The socket stays open, and yet the other side ends the connection.
            while raw.recv(4096):
                pass

    await party.in_thread(work)
    await until(lambda: not party.service.open)


@party
async def test_what_comes_with_the_handshake_is_answered(party: Party) -> None:
    # All in one segment: the last leg of the handshake and a request behind it.
    session = Session(party.authority.trusted(), server_side=False, host="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", party.port)
    session.shake(b"")
    writer.write(session.output())
    while not session.shake(await reader.read(65536)):
        writer.write(session.output())
    writer.write(session.output() + session.encrypt(b"early bird"))
    plain = session.early
    while plain != b"early bird":
        plain += session.decrypt(await reader.read(65536))
    writer.close()


@party
async def test_many_clients_at_once_get_each_its_own(party: Party) -> None:
    clients = await asyncio.gather(*(party.connect() for _ in range(50)))
    for turn in range(5):
        for number, (_, writer) in enumerate(clients):
            writer.write(b"%03d:%d\n" % (number, turn))
        for number, (reader, _) in enumerate(clients):
            assert await reader.readline() == b"%03d:%d\n" % (number, turn)
    for _, writer in clients:
        writer.close()


@party
async def test_a_pipeline_in_many_records_is_answered_in_order(party: Party) -> None:
    reader, writer = await party.connect()
    lines = [b"%d\n" % number for number in range(20_000)]
    for line in lines:
        writer.write(line)
    assert await reader.readexactly(sum(map(len, lines))) == b"".join(lines)
    writer.close()


@party
async def test_plain_words_are_told_what_is_spoken_and_reach_no_protocol(party: Party) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", party.port)
    writer.write(b"PING\r\n")
    assert await reader.read() == Service.tls_only
    writer.close()
    assert not party.service.made


@party
async def test_noise_behind_the_handshake_ends_that_connection_alone(party: Party) -> None:
    other_reader, other_writer = await party.connect()

    def work(client: ssl.SSLSocket) -> None:
        os.write(client.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        # The other side says why it hangs up.
        with pytest.raises(ssl.SSLError, match=r"(?i)alert.bad.record.mac"):
            client.recv(1)

    await party.in_thread(work)
    await until(lambda: len(party.service.open) == 1)
    other_writer.write(b"still here")
    assert await other_reader.readexactly(10) == b"still here"
    other_writer.close()


@party
async def test_a_client_that_vanishes_is_forgotten_with_its_session(party: Party) -> None:
    gc.disable()
    try:
        for _ in range(5):
            _, writer = await party.connect()
            writer.transport.abort()
        await until(lambda: len(party.service.made) == 5 and not party.service.open)
        await asyncio.sleep(0.05)
        if party.ports._direct:
            # Without the garbage collector: nothing refers to itself.
            assert not [made for made in party.service.made if made() is not None]
    finally:
        gc.enable()


@party
async def test_closing_the_ports_ends_everybody_also_those_in_the_handshake(party: Party) -> None:
    # A writer that nobody keeps hangs up.
    reader, writer = await party.connect()
    half, half_writer = await asyncio.open_connection("127.0.0.1", party.port)
    # The client has shaken hands before the server has read the last leg: a connection ended in between is reset.
    await until(lambda: party.service.open)
    await party.ports.close()
    assert await reader.read() == b""
    party.ports._handshakes.stop()  # type: ignore[union-attr]
    # One that the port has not accepted yet is reset.
    with contextlib.suppress(ConnectionResetError):
        assert await half.read() == b""
    writer.close()
    half_writer.close()
