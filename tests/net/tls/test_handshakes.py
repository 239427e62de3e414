"""The thread in which hands are shaken: with honest clients, with slow ones, and with those that are none."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.certificates import Authority

from cacheflow.net.tls import handshakes as module
from cacheflow.net.tls.handshakes import Door, Handshakes
from cacheflow.net.tls.session import Session

PATIENCE_S = 10.0
REFUSAL = b"-ERR TLS only\r\n"
# A fatal alert.
NOT_NOW = b"\x15\x03\x03\x00\x02\x02\x50"


class Bench:
    """Handshakes, one door, and what came through it."""

    def __init__(self, authority: Authority, **named: float) -> None:
        self.handshakes = Handshakes(authority.certificates(), **named)  # type: ignore[arg-type]
        self.door = self.handshakes.door("resp", REFUSAL)
        self.came: queue.Queue[tuple[socket.socket, Session | None]] = queue.Queue()

    def knock(self, door: Door | None = None) -> socket.socket:
        """The client's end of a new connection."""
        theirs, ours = socket.socketpair()
        theirs.settimeout(PATIENCE_S)
        self.handshakes.take(door or self.door, ours, lambda sock, session: self.came.put((sock, session)))
        return theirs

    def next(self) -> tuple[socket.socket, Session | None]:
        return self.came.get(timeout=PATIENCE_S)


@pytest.fixture
def bench(authority: Authority) -> Iterator[Bench]:
    bench = Bench(authority, deadline_s=5.0)
    bench.handshakes.start()
    yield bench
    bench.handshakes.stop()
    while not bench.came.empty():
        bench.came.get()[0].close()


def until(condition: object, what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def closed(sock: socket.socket) -> bool:
    """Whether the other end of a non-blocking socket, which has said nothing, is closed."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def ended(sock: socket.socket) -> bytes:
    """What came until the end of the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(4096):
            said += data
    return said


def test_a_client_comes_through_and_both_can_talk(bench: Bench, authority: Authority) -> None:
    client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    sock, session = bench.next()
    assert session is not None
    client.sendall(b"PING")
    sock.settimeout(PATIENCE_S)
    plain = session.early
    while plain != b"PING":
        plain += session.decrypt(sock.recv(4096))
    sock.sendall(session.encrypt(b"PONG"))
    assert client.recv(4) == b"PONG"
    assert bench.door.done == 1 and not bench.door.half_open
    client.close()
    sock.close()


def test_five_hundred_come_at_once_and_all_come_through(bench: Bench, authority: Authority) -> None:
    context = authority.trusted()
    ends = [bench.knock() for _ in range(500)]

    clients: list[ssl.SSLSocket] = []

    def shake(some: list[socket.socket]) -> None:
        clients.extend(context.wrap_socket(end, server_hostname="localhost") for end in some)

    threads = [threading.Thread(target=shake, args=(ends[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in ends:
        sock, session = bench.next()
        assert session is not None
        sock.close()
    for thread in threads:
        thread.join()
    assert (bench.door.done, bench.door.failed, len(clients)) == (500, 0, 500)
    for client in clients:
        client.close()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"*1\r\n", b"\x00\x00\x01\x00", b"\x80"])
def test_who_speaks_no_tls_is_told_what_is_spoken_here(bench: Bench, words: bytes) -> None:
    client = bench.knock()
    client.sendall(words)
    assert ended(client) == REFUSAL
    until(lambda: bench.door.plain == 1)
    assert bench.door.failed == 0 and bench.came.empty()
    client.close()


def test_a_door_that_takes_plain_connections_hands_them_over_untouched(bench: Bench) -> None:
    door = bench.handshakes.door("raft", None, peers=True)
    client = bench.knock(door)
    client.sendall(b"\x00\x00\x01\x00hello")
    sock, session = bench.next()
    assert session is None and sock.recv(100) == b"\x00\x00\x01\x00hello"
    assert door.plain == 1
    client.close()
    sock.close()


def test_a_client_that_does_not_trust_the_certificate_is_one_line(
    bench: Bench, other_authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with pytest.raises(ssl.SSLCertVerificationError):
            other_authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    until(lambda: bench.door.failed == 5)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1 and "unknown ca" in lines[0] and "resp port" in lines[0]
    assert bench.handshakes.metrics()['tls_handshakes_failed_total{port="resp"}'] == 5


def test_a_handshake_that_hangs_ends_at_its_deadline_and_holds_nobody_up(authority: Authority) -> None:
    bench = Bench(authority, deadline_s=0.5)
    bench.handshakes.start()
    silent, begun = bench.knock(), bench.knock()
    began = time.monotonic()
    begun.sendall(b"\x16\x03\x01\x02\x00\x01")
    client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    assert time.monotonic() - began < 0.45
    assert ended(silent) == ended(begun) == b""
    assert 0.4 < time.monotonic() - began < 5
    until(lambda: bench.door.failed == 2)
    client.close()
    bench.handshakes.stop()


def test_a_byte_now_and_then_does_not_prolong_it(authority: Authority) -> None:
    bench = Bench(authority, deadline_s=0.5)
    bench.handshakes.start()
    slow = bench.knock()
    began = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in b"\x16\x03\x01\x02\x00" + bytes(1000):
            slow.send(bytes([byte]))
            assert time.monotonic() - began < PATIENCE_S
            time.sleep(0.01)
    assert time.monotonic() - began < 5
    bench.handshakes.stop()


def test_the_oldest_half_open_one_makes_room(authority: Authority) -> None:
    bench = Bench(authority, half_open_max=10)
    bench.handshakes.start()
    hanging = [bench.knock() for _ in range(30)]
    client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    until(lambda: bench.door.failed == 21)
    until(lambda: len(bench.door.half_open) == 9)
    for each in hanging[:21]:
        assert ended(each) == b""
    bench.handshakes.stop()
    for each in hanging[21:]:
        assert ended(each) == b""
    client.close()


def test_who_says_too_much_before_hands_are_shaken_is_cut_off(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    client = bench.knock()
    # Records of a handshake message that claims to be longer than OpenSSL takes offence at.
    record = b"\x16\x03\x03\x10\x00" + b"\x01\x01\xff\xff" + bytes(4092)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            client.sendall(record)
    ended(client)
    until(lambda: bench.door.failed == 1)
    until(lambda: f"more than {module.HANDSHAKE_BYTES_MAX} bytes" in caplog.text)


def test_noise_ends_connections_and_nothing_else(bench: Bench, authority: Authority) -> None:
    chance = random.Random(3)
    for _ in range(2000):
        client = bench.knock()
        begin = chance.choice([b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01"])
        with contextlib.suppress(OSError):
            client.sendall(begin + chance.randbytes(chance.randint(0, 300)))
        client.close()
    until(lambda: bench.door.failed == 2000)
    client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    bench.next()[0].close()
    assert not bench.door.half_open
    client.close()


def test_a_node_shakes_hands_as_the_dialer(bench: Bench, authority: Authority) -> None:
    door = bench.handshakes.door("raft", None, peers=True)
    theirs = bench.knock(door)
    dialed: queue.Queue[Session | Exception] = queue.Queue()
    theirs.setblocking(False)
    bench.handshakes.dial(
        theirs, "127.0.0.1", lambda _, session: dialed.put(session or OSError()), lambda error, _: dialed.put(error)
    )
    sock, session = bench.next()
    found = dialed.get(timeout=PATIENCE_S)
    assert session is not None and isinstance(found, Session), found
    assert session.decrypt(found.encrypt(b"hello")) == b"hello"
    sock.close()
    theirs.close()


@pytest.mark.parametrize(("words", "heard"), [(b"", False), (b"-ERR what?\r\n", True)])
def test_a_dialer_learns_whether_the_other_side_has_said_a_word(bench: Bench, words: bytes, heard: bool) -> None:
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    told: queue.Queue[tuple[Exception, bool]] = queue.Queue()
    bench.handshakes.dial(ours, "x", lambda *_: None, lambda error, heard: told.put((error, heard)))
    theirs.settimeout(PATIENCE_S)
    assert theirs.recv(1) == b"\x16"
    theirs.sendall(words)
    theirs.close()
    error, said = told.get(timeout=PATIENCE_S)
    assert said is heard and isinstance(error, OSError)


def test_a_dialer_that_has_ended_harms_nobody(bench: Bench, authority: Authority) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    bench.handshakes.dial(ours, "x", gone, gone)
    theirs.close()
    client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
    bench.next()[0].close()
    client.close()


def test_where_descriptors_are_few_half_open_ones_are_fewer_and_the_fullest_door_makes_room(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (80, 80))
    bench = Bench(authority)
    other = bench.handshakes.door("memcached", REFUSAL)
    bench.handshakes.start()
    quiet = [bench.knock(other) for _ in range(3)]
    hanging = [bench.knock() for _ in range(25)]
    until(lambda: bench.door.failed + bench.door.turned_away == 8 and not bench.handshakes._new)
    until(lambda: len(bench.door.half_open) + len(other.half_open) == 20)
    assert (len(bench.door.half_open), len(other.half_open)) == (17, 3)
    bench.handshakes.stop()
    for each in (*hanging, *quiet):
        each.close()


def told(sock: socket.socket) -> bytes:
    """What there is to read on a socket that does not wait."""
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


def test_those_that_wait_for_the_thread_are_bounded_too(authority: Authority) -> None:
    """A flood is accepted faster than hands are shaken, and must not take the descriptors of everybody else."""
    bench = Bench(authority, half_open_max=5)
    busy, goes_on = threading.Event(), threading.Event()

    def hold() -> ssl.SSLContext:
        busy.set()
        assert goes_on.wait(PATIENCE_S)
        return bench.handshakes.certificates.in_force.clients

    slow = Door("slow", hold, REFUSAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resource.getrlimit", lambda _: (80, 80))
        bench.handshakes.start()
    first = bench.knock(slow)
    first.send(b"\x16")
    assert busy.wait(PATIENCE_S)
    dialed, ours = socket.socketpair()
    ours.setblocking(False)
    bench.handshakes.dial(ours, "x", lambda *_: None, lambda *_: None)
    flood = [bench.knock() for _ in range(100)]
    for each in (*flood, dialed):
        each.setblocking(False)
    # Of 80 descriptors a fourth, and the dialed one is among those that wait.
    turned_away = [each for each in flood if told(each) == NOT_NOW]
    assert len(turned_away) == 81 and all(map(closed, turned_away)) and not closed(dialed)
    assert bench.handshakes.metrics()['tls_handshakes_failed_total{port="resp"}'] == 81
    goes_on.set()
    bench.handshakes.stop()
    for each in (first, *flood, dialed):
        each.close()


def test_a_connection_whose_taker_has_ended_is_closed(bench: Bench, authority: Authority) -> None:
    theirs, ours = socket.socketpair()
    theirs.settimeout(PATIENCE_S)

    def gone(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    bench.handshakes.take(bench.door, ours, gone)
    client = authority.trusted().wrap_socket(theirs, server_hostname="localhost")
    assert client.recv(1) == b""
    client.close()


def test_a_new_certificate_is_for_who_comes_now(bench: Bench, authority: Authority) -> None:
    def serial() -> object:
        with authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost") as client:
            found = client.getpeercert()
            assert found is not None
            return found["serialNumber"]

    before = serial()
    assert serial() == before
    authority.node()
    assert serial() == before
    bench.handshakes.certificates.reload()
    assert serial() != before


def test_it_can_be_started_again_and_leaves_nothing(authority: Authority) -> None:
    bench = Bench(authority)
    before = threading.active_count()
    for _ in range(3):
        bench.handshakes.start()
        assert len(bench.handshakes.descriptors()) >= 2
        client = authority.trusted().wrap_socket(bench.knock(), server_hostname="localhost")
        bench.next()[0].close()
        client.close()
        bench.handshakes.stop()
        bench.handshakes.stop()
        assert bench.handshakes.descriptors() == []
    assert threading.active_count() == before


def test_a_thread_that_has_ended_before_it_is_woken_can_be_stopped(bench: Bench) -> None:
    thread = bench.handshakes._thread
    assert thread is not None
    # As when the thread looks just before ``stop`` wakes it.
    bench.handshakes._stopping = True
    bench.handshakes._poke()
    thread.join(PATIENCE_S)
    bench.knock().close()
    bench.handshakes.stop()


def test_the_end_of_the_certificate_is_looked_at_now_and_then(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    bench = Bench(authority)
    looked = threading.Event()
    bench.handshakes.certificates.look = looked.set  # type: ignore[method-assign]
    bench.handshakes.start()
    assert looked.wait(PATIENCE_S)
    bench.handshakes.stop()


@pytest.mark.parametrize(("first", "answer"), [(b"\x16\x03\x01", NOT_NOW), (b"", NOT_NOW), (b"*1\r\n", b"")])
def test_who_is_turned_away_is_told_in_the_language_of_its_own(bench: Bench, first: bytes, answer: bytes) -> None:
    theirs, ours = socket.socketpair()
    theirs.settimeout(PATIENCE_S)
    theirs.send(first)
    bench.handshakes._all_half_open_max = 0
    bench.handshakes.take(bench.door, ours, lambda *_: None)
    assert theirs.recv(100) == answer
    theirs.close()
