"""What the reading thread serves by itself, and requests that are put aside while they wait."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.errors import OutcomeUnknown
from cacheflow.net.unfinished import Unfinished
from cacheflow.rest.app import RestApp
from cacheflow.rest.request.waiting import AT_ONCE_BYTES_MAX, at_once
from cacheflow.rest.server import reading_thread
from cacheflow.rest.server.reading_thread import ReadingChannel
from cacheflow.rest.server.serving import HttpServer

LARGE = b"x" * (AT_ONCE_BYTES_MAX + 1)


@pytest.fixture
def server(app: RestApp) -> Iterator[HttpServer]:
    with HttpServer(app, "127.0.0.1", 0, threads=2, at_once=at_once) as server:
        yield server


@pytest.fixture
def threads(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which the views ask where the node stands: once an answer."""
    seen: list[str] = []
    position = store.position

    def noted() -> Any:
        seen.append(threading.current_thread().name)
        return position()

    monkeypatch.setattr(store, "position", noted)
    return seen


@pytest.mark.parametrize(
    ("path", "body_bytes", "short"),
    [
        ("/cache/k", 0, True),
        ("/cache/_batch", AT_ONCE_BYTES_MAX, True),
        ("/cache/k", AT_ONCE_BYTES_MAX + 1, False),
        ("/cache", 0, False),
        ("/livez", 0, False),
    ],
)
def test_short_is_a_small_request_about_keys(path: str, body_bytes: int, short: bool) -> None:
    assert at_once(path, body_bytes) is short


def test_short_requests_cross_no_thread_and_long_ones_do(server: HttpServer, threads: list[str]) -> None:
    assert ask(server.port, "PUT", "/cache/k", b"x").status == 201
    assert ask(server.port, "GET", "/cache/k").status == 200
    assert set(threads) == {"http"}
    threads.clear()
    assert ask(server.port, "PUT", "/cache/k", LARGE).status == 200
    assert ask(server.port, "GET", "/nodes/list").status == 200
    assert all(name.startswith("waitress-") for name in threads) and len(threads) == 2


def test_a_long_request_behind_a_short_one_goes_on_in_a_thread_too(server: HttpServer, threads: list[str]) -> None:
    with Connection(server.port) as connection:
        # At once, so that the second one is placed by the thread that has answered the first; and one after the other.
        connection.send(request("PUT", "/cache/k", b"x") + request("PUT", "/cache/k", LARGE))
        assert [connection.reply().status for _ in range(2)] == [201, 200]
        connection.send(request("PUT", "/cache/k", b"x"))
        assert connection.reply().status == 200
        connection.send(request("PUT", "/cache/k", LARGE))
        assert connection.reply().status == 200
    assert [name.startswith("waitress-") for name in threads] == [False, True, False, True]


def test_waiting_requests_hold_no_thread(server: HttpServer, store: FakeStore) -> None:
    store.blocked = threading.Event()
    waiting = [Connection(server.port) for _ in range(20)]
    for number, connection in enumerate(waiting):
        connection.send(request("PUT", f"/cache/k{number}", b"x" if number % 2 else LARGE))
    until(lambda: store.waiting == 20, "all wait, though there are two threads")
    assert ask(server.port, "GET", "/livez").status == 200
    assert ask(server.port, "GET", "/cache/k1").status == 404
    store.blocked.set()
    for number, connection in enumerate(waiting):
        assert connection.reply().json["key"] == f"k{number}"
        connection.socket.close()


def test_a_request_that_waits_goes_on_when_the_server_is_told_to_and_not_before(
    server: HttpServer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[Callable[[], None]] = []
    monkeypatch.setattr(store, "submit", lambda batch, done: wakes.append(done(store.run(batch))))
    with Connection(server.port) as connection:
        connection.send(request("PUT", "/cache/k", b"x"))
        until(lambda: len(wakes) == 1, "the outcome is known")
        # The reading thread is awake, more than once.
        for _ in range(3):
            assert ask(server.port, "GET", "/livez").status == 200
        connection.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.socket.recv(1)
        connection.socket.settimeout(10)
        wakes[0]()
        assert connection.reply().status == 201


def test_what_the_cluster_refuses_after_the_wait_is_told_with_its_key(server: HttpServer, store: FakeStore) -> None:
    store.failure = OutcomeUnknown("no answer came in time")
    told = ask(server.port, "PUT", "/cache/some%20key", b"x")
    assert (told.status, told.json["outcome"], told.json["key"]) == (504, "unknown", "some key")
    store.failure = None
    ask(server.port, "PUT", "/cache/k", b"x")
    told = ask(server.port, "DELETE", "/cache/k", headers='If-Match: "7"\r\n')
    assert (told.status, told.json["version"]) == (412, 1)


def test_a_request_may_wait_twice(server: HttpServer) -> None:
    ask(server.port, "PUT", "/cache/k", b"x")
    put = ask(server.port, "PUT", "/cache/k", b"y", 'If-Match: "1", "5"\r\n')
    assert (put.status, put.headers["etag"]) == (200, '"2"')


def test_a_client_that_leaves_while_its_request_waits_costs_nothing(
    app: RestApp, server: HttpServer, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.blocked = threading.Event()
    with caplog.at_level(logging.WARNING):
        with Connection(server.port) as leaving:
            leaving.send(request("PUT", "/cache/k", b"x"))
            until(lambda: store.waiting == 1, "the write waits")
        store.blocked.set()
        until(lambda: app.services.gate.waiting == 0, "its place is free")
        assert ask(server.port, "GET", "/cache/k").status == 200
    assert not caplog.records


def test_pipelined_requests_wait_one_after_the_other(server: HttpServer, store: FakeStore) -> None:
    with Connection(server.port) as connection:
        requests = [request("PUT", f"/cache/k{n}", LARGE if n % 3 == 2 else b"x") for n in range(9)]
        connection.send(b"".join(requests))
        assert [connection.reply().json["version"] for _ in range(9)] == list(range(1, 10))


def test_a_client_that_takes_nothing_does_not_stop_the_others(server: HttpServer, store: FakeStore) -> None:
    value = b"v" * 90_000
    ask(server.port, "PUT", "/cache/large", value)
    # Together more than waitress keeps for one connection (16 MiB) before whoever writes has to wait.
    with Connection(server.port) as greedy:
        greedy.send(request("GET", "/cache/large?raw") * 250)
        for _ in range(20):
            assert ask(server.port, "GET", "/cache/large?raw").body == value
        for _ in range(250):
            assert greedy.reply().body == value


def test_an_answer_over_the_high_watermark_does_not_stop_the_others(server: HttpServer, store: FakeStore) -> None:
    ask(server.port, "PUT", "/cache/large", b"v" * 90_000)
    ops = b",".join([b'{"op":"get","key":"large"}'] * 160)
    batch = request("POST", "/cache/_batch", b'{"ops":[' + ops + b"]}", "Content-Type: application/json\r\n")
    with Connection(server.port) as greedy:
        greedy.send(batch * 2)
        for _ in range(20):
            assert ask(server.port, "GET", "/cache/other").status == 404
        for _ in range(2):
            assert len(greedy.reply().json["results"]) == 160


def test_a_request_put_aside_is_answered_before_the_server_stops(server: HttpServer, store: FakeStore) -> None:
    store.blocked = threading.Event()
    with Connection(server.port) as running, Connection(server.port) as idle:
        running.send(request("PUT", "/cache/k", b"x"))
        until(lambda: store.waiting == 1, "the write waits")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.is_closed(), "the end has begun"
        store.blocked.set()
        reply = running.reply()
        assert (reply.status, reply.headers["connection"]) == (201, "close")
        stopping.join(10)
        assert not stopping.is_alive()


def test_an_answer_that_comes_after_the_end_is_dropped(app: RestApp, store: FakeStore) -> None:
    store.blocked = threading.Event()
    server = HttpServer(app, "127.0.0.1", 0, at_once=at_once)
    server.start()
    with Connection(server.port) as running:
        running.send(request("PUT", "/cache/k", b"x"))
        until(lambda: store.waiting == 1, "the write waits")
        server.stop(drain_s=0.0)
        assert running.is_closed()
    store.blocked.set()
    until(lambda: app.services.gate.waiting == 0, "the write has settled")


@pytest.mark.parametrize("leaves", ["early", "late"])
def test_who_is_gone_is_freed_without_the_garbage_collector(server: HttpServer, store: FakeStore, leaves: str) -> None:
    asked = request("PUT", "/cache/k", b"x") + request("GET", "/cache/k") + request("PUT", "/cache/k", LARGE)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            with Connection(server.port) as connection:
                connection.send(asked)
                for _ in range(1 if leaves == "early" else 3):
                    connection.reply()
        # Each of the two threads knows the connection that it has served last.
        until(lambda: len(channels()) <= 2, "no other connection is kept")
    finally:
        gc.enable()


def channels() -> list[ReadingChannel]:
    return [each for each in gc.get_objects() if type(each) is ReadingChannel]


def test_a_client_that_resets_its_connection_when_it_is_refused_leaves_nothing_in_the_log(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            connection = Connection(server.port)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.send(request("GET", "/livez") + b"GET\r\n\r\n")
            connection.socket.close()
        assert ask(server.port, "GET", "/livez").status == 200
    assert not caplog.records


def _late(server: HttpServer) -> list[ReadingChannel]:
    return [each for each in server._channels() if each.total_outbufs_len and not each.requests]


def test_a_client_that_resets_its_connection_in_a_long_answer_leaves_nothing_in_the_log(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    ask(server.port, "PUT", "/cache/large", b"v" * 90_000)
    ops = b",".join([b'{"op":"get","key":"large"}'] * 160)
    batch = request("POST", "/cache/_batch", b'{"ops":[' + ops + b"]}", "Content-Type: application/json\r\n")
    with caplog.at_level(logging.WARNING):
        with Connection(server.port) as connection:
            connection.send(batch)
            until(lambda: bool(_late(server)), "an answer waits for its client")
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: not _late(server), "it is closed")
        assert ask(server.port, "GET", "/livez").status == 200
    assert not caplog.records


def test_what_stands_behind_a_write_that_is_turned_away_late_is_answered(app: RestApp, store: FakeStore) -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    full = threading.Event()
    budget = Unfinished()

    def turn_away(method: str, path: str) -> bytes | None:
        return refusal if full.is_set() and method == "PUT" else None

    with HttpServer(app, "127.0.0.1", 0, threads=4, at_once=at_once, turn_away=turn_away, unfinished=budget) as server:
        ask(server.port, "PUT", "/cache/large", b"v" * 90_000)
        full.set()
        ops = b",".join([b'{"op":"get","key":"large"}'] * 160)
        batch = request("POST", "/cache/_batch", b'{"ops":[' + ops + b"]}", "Content-Type: application/json\r\n")
        with Connection(server.port) as late:
            late.send(batch)
            until(lambda: bool(_late(server)), "an answer waits for its client")
            (channel,) = _late(server)
            put = request("PUT", "/cache/k", b"x" * 90_000)
            channel.received(put[:80_000])
            channel.received(put[80_000:] + request("GET", "/cache/none"))
            assert channel.held
            assert budget.bytes == 90_000
            assert len(late.reply().json["results"]) == 160
            assert late.reply().status == 503
            assert late.reply().status == 404
            until(lambda: budget.bytes == 0, "it counts no more")


def test_a_server_that_cannot_accept_tries_again_only_after_a_pause(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading_thread, "_ACCEPTED_AGAIN_S", 0.3)
    [one] = server._servers
    accept, tries = one.accept, []

    def fail() -> Any:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept()

    monkeypatch.setattr(one, "accept", fail)
    assert ask(server.port, "GET", "/cache/k").status == 404
    assert tries[1] - tries[0] >= 0.3 and tries[2] - tries[1] >= 0.3
    assert len(caplog.messages) == 2
    assert all("Too many open files; too many files need a higher limit" in each for each in caplog.messages)
