"""What a server must not swallow: requests framed two ways, without end, too large, too slow."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, Reply, ask, request, until

from cacheflow.rest.app import RestApp
from cacheflow.rest.server.serving import HttpServer
from cacheflow.rest.server.strict_http import StrictChannel

DEADLINE_S = 1.0
SMUGGLED = b"PUT /cache/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"


@pytest.fixture
def server(app: RestApp) -> Iterator[HttpServer]:
    with HttpServer(
        app, "127.0.0.1", 0, request_deadline_s=DEADLINE_S, refusal_headers=app.services.raft_headers
    ) as server:
        yield server


def refused(connection: Connection, status: int) -> Reply:
    reply = connection.reply()
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.headers["connection"] == "close"
    assert reply.headers["x-served-by"] == "n1"
    assert reply.json["status"] == status
    assert connection.is_closed()
    return reply


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"transfer-ENCODING: chunked\r\ncontent-LENGTH: 4\r\n",
        b"Transfer-Encoding:\tchunked\r\nContent-Length: 0\r\n",
        b"Transfer-Encoding:\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked,\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: -4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Content-Length : 4\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"Transfer\nEncoding: chunked\r\n",
    ],
)
def test_ambiguous_framing_is_refused_and_nothing_behind_it_runs(
    server: HttpServer, store: FakeStore, framing: bytes
) -> None:
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n0\r\n\r\n" + SMUGGLED)
        refused(connection, 400)
    assert not store.entries


@pytest.mark.parametrize("version", [b"1.0", b"1.2", b"2.0"])
def test_other_versions_have_no_transfer_encoding(server: HttpServer, store: FakeStore, version: bytes) -> None:
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/" + version + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
        refused(connection, 400)
    assert not store.entries


def test_a_coding_that_is_not_known_is_501(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(request("PUT", "/cache/k", headers="Transfer-Encoding: gzip\r\n"))
        refused(connection, 501)


@pytest.mark.parametrize("broken", [b"xyz\r\nabc\r\n", b"3\r\nabcde\r\n0\r\n\r\n", b"-1\r\n"])
def test_broken_chunks_are_refused(server: HttpServer, store: FakeStore, broken: bytes) -> None:
    with Connection(server.port) as connection:
        connection.send(request("PUT", "/cache/k", headers="Transfer-Encoding: chunked\r\n") + broken)
        refused(connection, 400)
    assert not store.entries


@pytest.mark.parametrize(
    "target", [b"/cache/a#b", b"/cache/a\tb", b"/cache/a\x00b", b"http://[x/cache/a", b"/cache/\xff", b"/cache/a b"]
)
def test_targets_that_would_lose_a_part_are_refused(server: HttpServer, store: FakeStore, target: bytes) -> None:
    with Connection(server.port) as connection:
        connection.send(b"PUT " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        refused(connection, 400)
    assert not store.entries


def test_a_header_over_16_kib_is_431(server: HttpServer) -> None:
    assert ask(server.port, "GET", "/livez", headers=f"X-Long: {'x' * 16_000}\r\n").status == 200
    with Connection(server.port) as connection:
        connection.send(request("GET", "/livez", headers=f"X-Long: {'x' * 17_000}\r\n"))
        refused(connection, 431)


def test_a_header_without_end_is_431(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * 100_000)
        refused(connection, 431)


def test_a_body_over_the_cap_is_413_even_to_a_client_that_sends_it_all_first(server: HttpServer) -> None:
    size = 17 * 1024 * 1024
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        connection.send(bytes(size))
        connection.socket.shutdown(socket.SHUT_WR)
        refused(connection, 413)


def test_a_chunked_body_over_the_cap_is_413(app: RestApp) -> None:
    with HttpServer(app, "127.0.0.1", 0, body_bytes_max=1000, refusal_headers=app.services.raft_headers) as server:
        with Connection(server.port) as connection:
            connection.send(request("PUT", "/cache/k", headers="Transfer-Encoding: chunked\r\n"))
            connection.send(b"400\r\n" + bytes(1024) + b"\r\n")
            connection.socket.shutdown(socket.SHUT_WR)
            refused(connection, 413)
        assert ask(server.port, "PUT", "/cache/k", bytes(1000)).status == 201


def test_who_asks_before_sending_a_body_too_large_is_told_at_once(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        connection.socket.shutdown(socket.SHUT_WR)
        refused(connection, 413)


def test_expect_continue_is_answered(server: HttpServer, store: FakeStore) -> None:
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert connection.reply().status == 100
        connection.send(b"x")
        assert connection.reply().status == 201


def test_what_has_no_body_to_wait_for_is_answered_at_once(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        for length in (b"", b"Content-Length: 0\r\n"):
            connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + length + b"\r\n")
            assert connection.reply().status == 200


def drip(connection: Connection, data: bytes) -> None:
    """Send ``data`` a byte at a time until the server has an answer to that."""
    connection.socket.settimeout(0.05)
    deadline = time.monotonic() + 10
    for byte in data:
        assert time.monotonic() < deadline
        connection.socket.sendall(bytes([byte]))
        try:
            if connection.socket.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
    connection.socket.settimeout(10)


TRICKLING = [
    b"",
    b"GET /cache/k HTTP/1.1\r\nX-Slow: ",
    b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
    b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n270F\r\n",
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /cache/k HT",
]


def test_a_request_that_trickles_is_408_after_the_deadline_however_busy_it_looks(
    server: HttpServer, store: FakeStore
) -> None:
    def trickle(begin: bytes) -> float:
        began = time.monotonic()
        with Connection(server.port) as connection:
            connection.send(begin)
            if begin.startswith(b"GET /livez"):
                assert connection.reply().status == 200
            drip(connection, b"x" * 1000)
            connection.socket.shutdown(socket.SHUT_WR)
            refused(connection, 408)
        return time.monotonic() - began

    with ThreadPoolExecutor(len(TRICKLING)) as threads:
        for took_s in threads.map(trickle, TRICKLING):
            assert DEADLINE_S <= took_s < DEADLINE_S + 4
    assert not store.entries


def test_an_idle_connection_is_not_a_slow_request(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        assert connection.send(request("GET", "/livez")).reply().status == 200
        time_over = time.monotonic() + DEADLINE_S + 1.5
        until(lambda: time.monotonic() > time_over, "longer than the deadline and a round of maintenance")
        assert connection.send(request("GET", "/livez")).reply().status == 200


def test_an_answer_that_nobody_takes_does_not_hold_its_connection(server: HttpServer, store: FakeStore) -> None:
    store.entries["k"] = (bytes(30_000_000), 1, None, 1, 0)
    with Connection(server.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(request("GET", "/cache/k?raw") * 3)
        until(lambda: bool(_channels(server)), "the connection is accepted")
        [channel] = _channels(server)
        until(lambda: channel.total_outbufs_len > 0, "the answer is under way")
        until(lambda: channel not in _channels(server), "the connection is cut")
    assert ask(server.port, "GET", "/livez").status == 200


def test_the_time_to_take_an_answer_begins_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(environ: Any, start_response: Any) -> list[bytes]:
        for channel in _channels(serving):
            channel.last_activity -= 100.0  # as long ago the request came
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    flush = StrictChannel._flush_some

    def looked_at_before(channel: StrictChannel, do_close: bool = True) -> bool:
        channel.enforce(time.monotonic(), time.time(), 60.0)
        return flush(channel, do_close)

    monkeypatch.setattr(StrictChannel, "_flush_some", looked_at_before)
    with HttpServer(slow, "127.0.0.1", 0, request_deadline_s=60.0) as serving:
        assert ask(serving.port, "GET", "/").body == b"done"


def test_a_refused_client_that_goes_on_for_ever_is_cut(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheflow.rest.server.strict_http._LINGER_S", 0.1)
    with Connection(server.port) as connection:
        connection.send(b"PUT /cache/k HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.reply().status == 400
        until(lambda: not _channels(server), "the connection is cut")


def test_too_many_connections_make_room_by_ending_idle_ones(app: RestApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheflow.rest.server.strict_http._IDLE_WHEN_FULL_S", 0.0)
    with HttpServer(app, "127.0.0.1", 0, connections_max=20) as server:
        idle = [Connection(server.port) for _ in range(40)]
        try:
            assert ask(server.port, "GET", "/livez").status == 200
        finally:
            for connection in idle:
                connection.socket.close()


def _channels(server: HttpServer) -> list[Any]:
    return server._channels()
