"""Clients' sockets polled past the loop: what their protocols may count on, and what others must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import select
import socket
import struct
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from cacheflow.net import listener as listening
from cacheflow.net import loop as looping
from cacheflow.net import poller as polling
from cacheflow.net.listener import Listener
from cacheflow.net.loop import NodeLoop
from cacheflow.net.poller import Poller
from cacheflow.net.transport import HIGH_WATER_BYTES, KEPT_BYTES_MIN, LOW_WATER_BYTES, Arrival, SocketTransport
from cacheflow.net.unsent import KERNEL_BYTES_MAX

DEADLINE_S = 10.0
MEGABYTES = bytes(range(256)) * (16 * 1024)

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll here")


class Recorder(asyncio.Protocol):
    """What a protocol is told. on_data: what it does then.  keeps: whether it stays when the other side has said all."""

    def __init__(self, on_data: Callable[[Recorder, bytes], None] | None = None, keeps: bool = True) -> None:
        self.transport: SocketTransport
        self.received = b""
        self.told: list[str] = []
        self.lost: list[Exception | None] = []
        self._on_data = on_data
        self._keeps = keeps

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SocketTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._on_data is not None:
            self._on_data(self, data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self._keeps

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Party:
    """A poller and the clients that tests connect to it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self.loop, lambda work: work())
        self.turns = 0
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Some systems give a connection so much that it takes megabytes before anybody reads.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)

    def connect(self, protocol: Recorder, answer_many: polling.AnswerMany = list) -> socket.socket:
        """The client's end."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.connect(self._listener.getsockname())
        client.setblocking(False)
        self._clients.append(client)
        served, _ = self._listener.accept()
        served.setblocking(False)
        self.poller.adopt(served, lambda: protocol, answer_many)
        return client

    async def read(self, client: socket.socket, count: int) -> bytes:
        """Exactly so many bytes, less at the end."""
        data = b""
        while len(data) < count:
            piece = await self.loop.sock_recv(client, count - len(data))
            if not piece:
                break
            data += piece
        return data

    @contextlib.contextmanager
    def counted_turns(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
        """How many events each of the poller's turns takes."""
        taken: list[int] = []
        receive, turn = self.poller._receive, self.poller._turn

        def counted(ready: list[tuple[int, int]]) -> int:
            taken[-1] += len(ready)
            return receive(ready)

        def begun() -> None:
            taken.append(0)
            turn()

        monkeypatch.setattr(self.poller, "_receive", counted)
        self.loop.remove_reader(self.poller.epoll.fileno())
        self.loop.add_reader(self.poller.epoll.fileno(), begun)
        yield taken

    async def end(self) -> None:
        self.poller.close()
        await asyncio.sleep(0)
        for each in (*self._clients, self._listener):
            each.close()


def party(test: Callable[..., Awaitable[None]]) -> Callable[[pytest.MonkeyPatch], None]:
    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        async def timed() -> None:
            async with asyncio.timeout(DEADLINE_S):
                here = Party()
                try:
                    await test(here, monkeypatch)
                finally:
                    await here.end()

        asyncio.run(timed())

    run.__name__ = test.__name__
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def echo(protocol: Recorder, data: bytes) -> None:
    protocol.transport.write(data)


def reset(client: socket.socket) -> None:
    """Close so that the other side gets an error."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@party
async def test_bytes_come_and_go(here: Party, _: pytest.MonkeyPatch) -> None:
    clients = [here.connect(Recorder(echo)) for _ in range(100)]
    for number, client in enumerate(clients):
        client.send(b"%03d" % number)
    for number, client in enumerate(clients):
        assert await here.read(client, 3) == b"%03d" % number


@party
async def test_a_client_that_does_not_read_pauses_its_writer_and_gets_everything_later(
    here: Party, _: pytest.MonkeyPatch
) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    sent = b""
    while not protocol.told:
        protocol.transport.write(MEGABYTES)
        sent += MEGABYTES
    assert protocol.told == ["pause"]
    assert protocol.transport.get_write_buffer_size() > HIGH_WATER_BYTES
    protocol.transport.write(b"end")
    assert await here.read(client, len(sent) + 3) == sent + b"end"
    await until(lambda: protocol.told == ["pause", "resume"])
    assert protocol.transport.get_write_buffer_size() <= LOW_WATER_BYTES


@party
async def test_a_long_piece_behind_a_short_one_of_the_same_round_is_not_copied(
    here: Party, _: pytest.MonkeyPatch
) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    piece = bytes(KEPT_BYTES_MIN)
    here.poller.holds = True
    protocol.transport.write(b"short")
    protocol.transport.write(piece)
    here.poller.holds = False
    assert any(kept is piece for kept in protocol.transport._pieces)
    assert await here.read(client, 5 + len(piece)) == b"short" + piece


@party
async def test_the_kernel_takes_little_for_a_client_that_does_not_read(here: Party, _: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    listener = Listener(here.loop, Recorder, "resp", accepted.append)
    await listener.open("127.0.0.1", 0)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.connect(listener.address)
        await until(lambda: bool(accepted))
        with accepted[0] as served:
            taken = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    taken += served.send(MEGABYTES)
            # What it has not sent, a segment over it, and what it has sent into the client's own buffer.
            assert taken <= 2 * KERNEL_BYTES_MAX + 128 * 1024
    await listener.close()


@party
async def test_clients_that_come_at_once_are_accepted_a_few_a_turn(here: Party, patch: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    for seconds, first in ((0.0, 1), (60.0, 16)):
        patch.setattr(listening, "_ACCEPTING_S", seconds)
        listener = Listener(here.loop, Recorder, "resp", accepted.append)
        await listener.open("127.0.0.1", 0)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(listener.address))
            # A turn by hand: the loop has none while this function runs.
            listener._accept()
            assert len(accepted) == first
            await until(lambda: len(accepted) == 20)
            while accepted:
                accepted.pop().close()
        await listener.close()


@party
async def test_close_sends_what_is_left_first(here: Party, _: pytest.MonkeyPatch) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    protocol.transport.write(MEGABYTES)
    protocol.transport.close()
    protocol.transport.write(b"more")
    assert protocol.transport.is_closing() and protocol.lost == []
    assert await here.read(client, len(MEGABYTES) + 1) == MEGABYTES
    await until(lambda: protocol.lost == [None])
    assert protocol.told == ["pause"]


@party
async def test_the_end_is_told_once_and_in_a_later_turn(here: Party, _: pytest.MonkeyPatch) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    protocol.transport.write(MEGABYTES)
    protocol.transport.abort()
    protocol.transport.abort()
    protocol.transport.close()
    assert protocol.lost == [] and protocol.transport.get_write_buffer_size() == 0
    await asyncio.sleep(0)
    assert protocol.lost == [None]
    assert len(await here.read(client, len(MEGABYTES))) < len(MEGABYTES)
    assert not here.poller.transports and not here.poller.readers


@party
async def test_who_has_said_all_may_still_listen(here: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, other = Recorder(), Recorder(keeps=False)
    client, short = here.connect(protocol), here.connect(other)
    client.send(b"last words")
    for each in (client, short):
        each.shutdown(socket.SHUT_WR)
    await until(lambda: protocol.told == other.told == ["eof"])
    assert protocol.received == b"last words" and await here.read(short, 1) == b""
    with here.counted_turns(monkeypatch) as turns:
        protocol.transport.resume_reading()
        protocol.transport.write(b"answer")
        assert await here.read(client, 6) == b"answer"
    assert turns == [] and protocol.lost == []
    protocol.transport.close()
    assert await here.read(client, 1) == b""


@party
async def test_who_pauses_gets_nothing_until_it_resumes_and_costs_nothing(
    here: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    protocol.transport.pause_reading()
    client.send(b"early")
    other = here.connect(Recorder(echo))
    with here.counted_turns(monkeypatch) as turns:
        other.send(b"x")
        assert await here.read(other, 1) == b"x"
        reset(client)
        other.send(b"y")
        assert await here.read(other, 1) == b"y"
    assert protocol.received == b"" and protocol.lost == [] and sum(turns) == 2
    protocol.transport.resume_reading()
    await until(lambda: len(protocol.lost) == 1)
    assert isinstance(protocol.lost[0], ConnectionResetError)


@party
async def test_a_client_that_breaks_off_is_lost_with_its_error(here: Party, _: pytest.MonkeyPatch) -> None:
    protocols = [Recorder(), Recorder()]
    idle, stuck = (here.connect(protocol) for protocol in protocols)
    protocols[1].transport.pause_reading()
    while protocols[1].told == []:
        protocols[1].transport.write(MEGABYTES)
    reset(idle)
    reset(stuck)
    await until(lambda: all(protocol.lost for protocol in protocols))
    assert all(isinstance(protocol.lost[0], OSError) for protocol in protocols)
    protocols[0].transport.write(b"nobody")
    assert here.poller.transports == {}


@party
async def test_a_protocol_that_stumbles_takes_only_its_connection(here: Party, _: pytest.MonkeyPatch) -> None:
    def broken(protocol: Recorder, data: bytes) -> None:
        raise RuntimeError("a bug")

    bad, good = Recorder(broken), Recorder(echo)
    first, second = here.connect(bad), here.connect(good)
    logging.getLogger("cacheflow.net.poller").disabled = True
    try:
        first.send(b"x")
        second.send(b"y")
        assert await here.read(second, 1) == b"y" and await here.read(first, 1) == b""
    finally:
        logging.getLogger("cacheflow.net.poller").disabled = False
    assert bad.lost == [None]


@party
async def test_who_was_ended_in_the_same_round_gets_nothing_any_more(here: Party, _: pytest.MonkeyPatch) -> None:
    protocols: list[Recorder] = []

    def end_all_others(protocol: Recorder, data: bytes) -> None:
        for other in protocols:
            if other is not protocol:
                other.transport.abort()

    protocols += [Recorder(end_all_others) for _ in range(5)]
    clients = [here.connect(protocol) for protocol in protocols]
    for client in clients:
        client.send(b"x")
    await until(lambda: any(protocol.received for protocol in protocols))
    assert sum(len(protocol.received) for protocol in protocols) == 1


@party
async def test_answers_of_one_round_keep_their_order(here: Party, _: pytest.MonkeyPatch) -> None:
    def answer(protocol: Recorder, data: bytes) -> None:
        for piece in (b"a", b"", b"b" * 10_000, b"c"):
            protocol.transport.write(piece)
        if data == b"q":
            protocol.transport.close()

    clients = [here.connect(Recorder(answer)) for _ in range(3)]
    for client in clients:
        client.send(b"q")
    for client in clients:
        assert await here.read(client, 20_000) == b"a" + b"b" * 10_000 + b"c"


@party
async def test_what_comes_at_once_is_shown_together_and_the_rest_goes_its_own_way(
    here: Party, _: pytest.MonkeyPatch
) -> None:
    shown: list[list[bytes]] = []

    def answer_many(arrived: list[Arrival]) -> list[Arrival]:
        shown.append([data for _, data, _ in arrived])
        if any(data == b"?" for _, data, _ in arrived):
            raise RuntimeError("a bug")
        for _, data, transport in arrived:
            if data == b"m":
                transport.write(b"many")
        return [arrival for arrival in arrived if arrival[1] != b"m"]

    protocols = [Recorder(echo) for _ in range(3)]
    clients = [here.connect(protocol, answer_many) for protocol in protocols]
    for client, word in zip(clients, (b"m", b"one", b"m"), strict=True):
        client.send(word)
    assert [await here.read(client, count) for client, count in zip(clients, (4, 3, 4), strict=True)] == [
        *(b"many", b"one", b"many")
    ]
    assert [protocol.received for protocol in protocols] == [b"", b"one", b""]
    assert shown == [[b"m", b"one", b"m"]]
    logging.getLogger("cacheflow.net.poller").disabled = True
    try:
        for client in clients:
            client.send(b"?")
        assert [await here.read(client, 1) for client in clients] == [b"?"] * 3
    finally:
        logging.getLogger("cacheflow.net.poller").disabled = False
    clients[0].send(b"m")
    assert await here.read(clients[0], 1) == b"m" and len(shown) == 2


@party
async def test_a_turn_is_bounded_and_everybody_has_one(here: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "EVENTS_A_POLL", 4)
    monkeypatch.setattr(polling, "COST_A_TURN", 8 * polling.COST_OF_EVENT)
    protocols = [Recorder(echo) for _ in range(40)]
    clients = [here.connect(protocol) for protocol in protocols]
    flood = b"x" * polling.RECEIVE_BYTES * 4
    with here.counted_turns(monkeypatch) as turns:
        for client in clients[:3]:
            client.send(flood)
        for client in clients[3:]:
            client.send(b"y")
        await until(lambda: all(protocol.received for protocol in protocols))
        assert max(turns) <= 12


@party
async def test_a_turn_is_bounded_however_fast_answers_are_taken(here: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "ROOM_A_TURN", 1024 * 1024)
    answer = bytes(HIGH_WATER_BYTES + 1)
    sent: Counter[SocketTransport] = Counter()

    class Spring(Recorder):
        """Has always more to say."""

        def data_received(self, data: bytes) -> None:
            self.resume_writing()

        def resume_writing(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.write(answer)

    protocols = [Spring() for _ in range(6)]
    clients = [here.connect(protocol) for protocol in protocols]

    def taking_all(transport: SocketTransport) -> Callable[[bytes | bytearray], int]:
        def send(data: bytes | bytearray) -> int:
            sent[transport] += len(data)
            return len(data)

        return send

    for protocol in protocols:
        monkeypatch.setattr(protocol.transport, "_socket_send", taking_all(protocol.transport))
    here.loop.remove_reader(here.poller.epoll.fileno())
    for client in clients:
        client.send(b"x")
    most = 0
    for _ in range(200):
        before = sent.total()
        here.poller._turn()
        most = max(most, sent.total() - before)
    # One that has its turn says what it has begun.
    assert most <= polling.ROOM_A_TURN + 3 * len(answer)
    assert min(sent.values()) > max(sent.values()) // 2
    for protocol in protocols:
        protocol.transport.abort()


@party
async def test_who_is_gone_is_freed_without_the_garbage_collector(here: Party, _: pytest.MonkeyPatch) -> None:
    protocols = [Recorder()]
    client = here.connect(protocols[0])
    kept = weakref.ref(protocols[0])
    client.close()
    gc.disable()
    try:
        await until(lambda: "eof" in protocols[0].told)
        protocols[0].transport.close()
        await until(lambda: bool(protocols[0].lost))
        await asyncio.sleep(0)
        protocols.clear()
        assert kept() is None
    finally:
        gc.enable()


@party
async def test_whom_the_kernel_cannot_watch_is_closed_and_forgotten(
    here: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """An epoll object that takes nobody more."""

        def __init__(self, real: select.epoll) -> None:
            self._real = real

        def register(self, descriptor: int, events: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    there, late = Recorder(), Recorder()
    client = here.connect(there)
    there.transport.pause_reading()
    monkeypatch.setattr(here.poller, "epoll", Full(here.poller.epoll))
    refused = here.connect(late)
    there.transport.resume_reading()
    for each in (client, refused):
        assert await here.read(each, 1) == b""
    await until(lambda: bool(there.lost and late.lost))
    assert not here.poller.transports and not here.poller.readers
    client = here.connect(Recorder())
    assert await here.read(client, 1) == b""


@party
async def test_its_end_is_the_end_of_whoever_is_left(here: Party, _: pytest.MonkeyPatch) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    here.poller.close()
    assert await here.read(client, 1) == b"" and protocol.lost == [None]
    here.poller = Poller(here.loop, lambda work: work())


@party
async def test_both_addresses_are_known_while_it_is_connected(here: Party, _: pytest.MonkeyPatch) -> None:
    protocol = Recorder()
    client = here.connect(protocol)
    ask = protocol.transport.get_extra_info
    assert (ask("peername"), ask("sockname")) == (client.getsockname(), client.getpeername())
    assert ask("cipher", "none") == "none"
    reset(client)
    await until(lambda: bool(protocol.lost))
    assert ask("peername") is None


def test_a_turn_whose_time_is_used_up_has_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "TURN_S", -1.0)
    monkeypatch.setattr(polling, "EVENTS_A_POLL", 3)
    rounds: list[int] = []

    async def talk() -> None:
        here = Party()
        recorders = [Recorder() for _ in range(10)]
        try:
            for client in [here.connect(recorder) for recorder in recorders]:
                client.send(b"x")
            with here.counted_turns(monkeypatch) as taken:
                async with asyncio.timeout(DEADLINE_S):
                    await until(lambda: all(recorder.received for recorder in recorders))
            rounds.extend(taken)
        finally:
            await here.end()

    with asyncio.Runner(loop_factory=NodeLoop) as runner:
        runner.run(talk())
    assert max(rounds) == 3 and sum(rounds) == 10


@party
async def test_long_pipelines_of_many_clients_are_several_rounds(here: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []

    def counted(arrived: list[Arrival]) -> list[Arrival]:
        handed.append(sum(len(data) for _, data, _ in arrived))
        return list(arrived)

    recorders = [Recorder() for _ in range(40)]
    for client in [here.connect(recorder, counted) for recorder in recorders]:
        client.send(bytes(polling.RECEIVE_BYTES))
    await until(lambda: all(len(recorder.received) == polling.RECEIVE_BYTES for recorder in recorders))
    assert len(handed) > 5 and max(handed) < polling.RECEIVED_A_ROUND + 2 * polling.RECEIVE_BYTES
