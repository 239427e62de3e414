"""Sockets: the HTTP server's poll asks only those connections what they wait for whose wishes can have changed."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cacheflow.rest.server import reading_thread, serving
from cacheflow.rest.server.serving import HttpServer

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
    with HttpServer(_answer, "127.0.0.1", 0, threads=2, at_once=lambda *_: at_once) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)

        def ask() -> None:
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"

        with _idle_connections(server.port):
            # Now all are accepted. (The look at deadlines asks them all, but once a second.)
            while len(set(asked)) < IDLE:
                ask()
            asked.clear()
            for _ in range(REQUESTS):
                ask()
            # A poll of waitress' own would have asked each of them for each request, and twice.
            assert len(asked) < REQUESTS * IDLE / 2
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
