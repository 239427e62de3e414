"""Sockets: the HTTP server's poll asks only those connections what they wait for whose wishes can have changed."""

from __future__ import annotations

import contextlib
import errno
import http.client
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rest.wire import Connection, request

from cacheflow.rest.server import reading_thread, serving
from cacheflow.rest.server.serving import HttpServer
from cacheflow.rest.server.sockets import Sockets

IDLE = 50
REQUESTS = 20


def _answer(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@contextlib.contextmanager
def _idle_connections(port: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in range(IDLE):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            if number % 2:
                sock.sendall(b"GET /half HTTP/1.1\r\n")
        yield


@pytest.mark.parametrize("at_once", [True, False], ids=["served by the reading thread", "served by the pool"])
def test_connections_of_which_nothing_comes_are_not_asked_when_others_are_served(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Counting(reading_thread.ReadingChannel):
        def readable(self) -> bool:
            asked.append(id(self))
            return super().readable()

    monkeypatch.setattr(reading_thread.ReadingServer, "channel_class", Counting)
    # The look at deadlines, once a second, asks them all.
    monkeypatch.setattr(reading_thread.ReadingServer, "maintenance", lambda *_: None)
    with HttpServer(_answer, "127.0.0.1", 0, threads=2, at_once=lambda *_: at_once) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)

        def ask() -> None:
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"

        with _idle_connections(server.port):
            # Now all are accepted.
            while len(set(asked)) < IDLE:
                ask()
            asked.clear()
            for _ in range(REQUESTS):
                ask()
            # A poll of waitress' own would have asked each of them for each request, and twice.
            assert len(asked) < REQUESTS * 10
        client.close()


def test_the_end_of_a_request_in_the_pool_is_seen_at_the_wake_up_that_tells_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wake = reading_thread.ReadingServer.pull_trigger

    def pull_trigger(server: reading_thread.ReadingServer) -> None:
        wake(server)
        # The poll loop has looked, and waits again, before the thread of the pool goes on.
        time.sleep(0.1)

    monkeypatch.setattr(reading_thread.ReadingServer, "pull_trigger", pull_trigger)
    # Nothing but wake-ups and input ends a poll.
    monkeypatch.setattr(serving, "_LOOP_INTERVAL_S", 60)
    with HttpServer(_answer, "127.0.0.1", 0, threads=1) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)
        for _ in range(3):
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"
            time.sleep(0.2)
        client.close()


def test_an_urgent_byte_does_not_keep_the_poll_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []
    poll = Sockets.poll

    def counting(sockets: Sockets, timeout_s: float) -> None:
        turns.append(timeout_s)
        poll(sockets, timeout_s)

    monkeypatch.setattr(Sockets, "poll", counting)
    with HttpServer(_answer, "127.0.0.1", 0, threads=1) as server, Connection(server.port) as client:
        assert client.send(request("GET", "/")).reply().status == 200
        client.socket.send(b"x", socket.MSG_OOB)
        turns.clear()
        time.sleep(0.2)
        assert len(turns) < 20
        assert client.send(request("GET", "/")).reply().status == 200


class _Refusing:
    """An epoll that takes nothing more while ``refuses`` is true, as where fs.epoll.max_user_watches is reached."""

    def __init__(self) -> None:
        self.refuses = False
        self._epoll = select.epoll()

    def __getattr__(self, name: str) -> Any:
        if self.refuses and name in ("register", "modify", "unregister"):
            return self._refuse
        return getattr(self._epoll, name)

    def _refuse(self, *_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class _Idle:
    """A connection of which nothing comes."""

    accepting = False
    requests_lock = None

    def __init__(self, sockets: Sockets) -> None:
        self.ends = socket.socketpair()
        self._fileno = self.ends[0].fileno()
        self.sockets = sockets
        self.reads, self.writes, self.closed = True, False, False
        sockets[self._fileno] = self

    def readable(self) -> bool:
        return self.reads

    def writable(self) -> bool:
        return self.writes

    def handle_close(self) -> None:
        self.closed = True
        del self.sockets[self._fileno]
        for end in self.ends:
            end.close()


@pytest.fixture
def refusing() -> Iterator[tuple[Sockets, _Refusing]]:
    sockets, epoll = Sockets(), _Refusing()
    sockets._epoll.close()
    sockets._epoll = epoll  # type: ignore[assignment]
    yield sockets, epoll
    for each in list(sockets.values()):
        each.handle_close()
    sockets.close()


def test_a_connection_that_the_system_does_not_watch_is_closed_and_the_others_are_asked(
    refusing: tuple[Sockets, _Refusing],
) -> None:
    sockets, epoll = refusing
    known = _Idle(sockets)
    sockets.poll(0)
    new, epoll.refuses = _Idle(sockets), True
    known.writes = True
    sockets.look_again(known._fileno)
    sockets.poll(0)
    assert new.closed and known.closed and not sockets
    epoll.refuses = False
    later = _Idle(sockets)
    sockets.poll(0)
    assert not later.closed and later._fileno in sockets._wanted


def test_a_listening_socket_that_the_system_does_not_watch_is_asked_again(
    refusing: tuple[Sockets, _Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets, epoll = refusing
    monkeypatch.delattr(_Idle, "requests_lock")
    epoll.refuses = True
    listening = _Idle(sockets)
    sockets.poll(0)
    assert not listening.closed and not sockets._wanted
    epoll.refuses = False
    sockets.poll(0)
    assert listening._fileno in sockets._wanted
