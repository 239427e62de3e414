"""The application behind a real waitress: threads, connections, the end."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.errors import ConfigError
from cacheflow.rest.app import RestApp
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.serving import HttpServer, _QueueWarning

JSON = "Content-Type: application/json\r\n"


@pytest.fixture(params=["in threads", "at once"])
def server(app: RestApp, request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    short = at_once if request.param == "at once" else lambda *_: False
    with HttpServer(app, "127.0.0.1", 0, refusal_headers=app.services.raft_headers, at_once=short) as server:
        yield server


def test_a_value_goes_there_and_back(server: HttpServer) -> None:
    put = ask(server.port, "PUT", "/cache/k", b'{"value": "v", "ttl": 5}', JSON)
    assert (put.status, put.json) == (201, {"key": "k", "version": 1, "ttl": 5.0})
    get = ask(server.port, "GET", "/cache/k")
    assert (get.status, get.json["value"], get.headers["etag"]) == (200, "v", '"1"')
    assert "server" not in get.headers
    assert ask(server.port, "HEAD", "/cache/k").headers["content-length"] == get.headers["content-length"]
    not_modified = ask(server.port, "GET", "/cache/k", headers='If-None-Match: "1"\r\n')
    assert (not_modified.status, not_modified.body) == (304, b"")


def test_keys_cross_the_wire_apart(server: HttpServer, store: FakeStore) -> None:
    paths = ["a/b", "a//b", "a%252Fb", "a/b/", "/a", "..", "a/../b", "./a", "a+b", "a%20b", "a;b", "a%3Fb", "%C3%A9"]
    for path in paths:
        assert ask(server.port, "PUT", f"/cache/{path}", b"x").status == 201
    assert len(store.entries) == len(paths)
    for path in ("%FF", "%FE", "%zz", "%00"):
        assert ask(server.port, "PUT", f"/cache/{path}", b"x").status == 400
    assert len(store.entries) == len(paths)


def test_a_chunked_body_is_a_body(server: HttpServer, store: FakeStore) -> None:
    with Connection(server.port) as connection:
        connection.send(
            request("PUT", "/cache/k", headers="Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert connection.reply().status == 201
    assert store.entries["k"][0] == b"abcde"


def test_a_large_value_goes_there_and_back(app: RestApp, server: HttpServer) -> None:
    value = bytes(range(256)) * 390
    assert ask(server.port, "PUT", "/cache/k", value).status == 201
    assert ask(server.port, "GET", "/cache/k?raw").body == value


@pytest.mark.parametrize("slow", [False, True])
def test_an_idle_connection_does_not_keep_its_last_answer(server: HttpServer, slow: bool) -> None:
    put = json.dumps({"value": "x" * 90_000}).encode()
    reads = json.dumps({"ops": [{"op": "get", "key": "k"}] * (90 if slow else 1)}).encode()
    with Connection(server.port) as connection:
        assert connection.send(request("PUT", "/cache/k", put, JSON)).reply().status == 201
        [channel] = server._channels()
        for _ in range(2):
            connection.send(request("POST", "/cache/_batch", reads, JSON))
            if slow:
                until(lambda: channel.total_outbufs_len, "the socket does not take all of it")
            assert len(connection.reply().body) > 90_000
            until(lambda: not channel.total_outbufs_len and channel.outbufs[0].buf is None, "it is dropped")


def test_pipelined_requests_are_answered_in_order(server: HttpServer, store: FakeStore) -> None:
    with Connection(server.port) as connection:
        connection.send(b"".join(request("PUT", f"/cache/k{n}", b"%d" % n) for n in range(50)))
        assert [connection.reply().json["key"] for _ in range(50)] == [f"k{n}" for n in range(50)]
        connection.send(b"".join(request("GET", f"/cache/k{n}?raw") for n in range(50)))
        assert [connection.reply().body for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_a_hundred_idle_connections_do_not_stop_service(server: HttpServer) -> None:
    idle = [Connection(server.port) for _ in range(150)]
    try:
        for connection in idle[:75]:
            connection.send(b"GET /cache/k HT")
        assert ask(server.port, "GET", "/livez").body == b"ok"
    finally:
        for connection in idle:
            connection.socket.close()


def test_no_stack_trace_crosses_the_wire(server: HttpServer, store: FakeStore) -> None:
    store.failure = RuntimeError("secret")
    reply = ask(server.port, "PUT", "/cache/k", b"x")
    assert (reply.status, reply.headers["content-type"]) == (500, "application/problem+json")
    assert b"Traceback" not in reply.body
    assert b"secret" not in reply.body


# Without a leader


def test_waiting_writes_leave_room_for_reads_and_the_surplus_is_told_at_once(
    app: RestApp, server: HttpServer, store: FakeStore
) -> None:
    ask(server.port, "PUT", "/cache/k", b"v")
    store.blocked = threading.Event()
    connections = [Connection(server.port) for _ in range(256)]
    try:
        for number, connection in enumerate(connections):
            connection.send(request("PUT", f"/cache/k{number}", b"x"))
        until(lambda: app.services.gate.refused == 128, "all that may not wait are refused")
        until(lambda: (app.services.gate.waiting, store.waiting) == (128, 128), "the others wait")
        begin = time.monotonic()
        assert ask(server.port, "GET", "/cache/k?raw").body == b"v"
        for path in ("/livez", "/metrics", "/cluster/status", "/nodes/list"):
            assert ask(server.port, "GET", path).status == 200
        linearizable = ask(server.port, "GET", "/cache/k?consistency=linearizable")
        assert time.monotonic() - begin < 2
        assert (linearizable.status, linearizable.headers["retry-after"]) == (503, "1")
        assert linearizable.json["type"] == "urn:cacheflow:overloaded"
        store.blocked.set()
        statuses = [connection.reply().status for connection in connections]
        assert (statuses.count(201), statuses.count(503)) == (128, 128)
        assert app.services.gate.waiting == 0
    finally:
        store.blocked.set()
        for connection in connections:
            connection.socket.close()


def test_a_write_that_fails_leaves_the_gate(app: RestApp, server: HttpServer, store: FakeStore) -> None:
    store.failure = RuntimeError("x")
    for _ in range(40):
        assert ask(server.port, "PUT", "/cache/k", b"x").status == 500
    assert app.services.gate.waiting == 0


# Start and end


def test_a_taken_port_is_one_clear_line(app: RestApp, server: HttpServer) -> None:
    with pytest.raises(ConfigError) as refused:
        HttpServer(app, "127.0.0.1", server.port)
    assert str(refused.value) == (
        f"port = {server.port}: another process listens on 127.0.0.1:{server.port}; stop it or give another --port"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_ours_is_named(app: RestApp, host: str) -> None:
    with pytest.raises(ConfigError, match=f"host = '{host}'"):
        HttpServer(app, host, 0)


def test_a_name_with_several_addresses_is_served_on_all_at_one_port(app: RestApp) -> None:
    with HttpServer(app, "localhost", 0) as server:
        for *_, address in socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM):
            connection = http.client.HTTPConnection(str(address[0]), server.port, timeout=10)
            try:
                connection.request("GET", "/livez")
                assert connection.getresponse().status == 200
            except OSError as error:
                assert ":" in str(address[0]), error  # this machine has no IPv6
            finally:
                connection.close()


def test_stop_lets_running_requests_end_and_accepts_no_more(app: RestApp, store: FakeStore) -> None:
    store.blocked = threading.Event()
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    with Connection(server.port) as running, Connection(server.port) as idle:
        running.send(request("PUT", "/cache/k", b"x"))
        until(lambda: store.waiting == 1, "the write runs")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            Connection(server.port)
        store.blocked.set()
        assert running.reply().status == 201
        assert running.is_closed()
        stopping.join(10)
        assert not stopping.is_alive()
    with HttpServer(app, "127.0.0.1", server.port) as again:
        assert ask(again.port, "GET", "/livez").status == 200


def test_stop_does_not_wait_longer_than_told(app: RestApp, store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store.blocked = threading.Event()
    server = HttpServer(app, "127.0.0.1", 0, threads=4)
    server.start()
    with Connection(server.port) as running:
        running.send(request("PUT", "/cache/k", b"x"))
        until(lambda: store.waiting == 1, "the write runs")
        begin = time.monotonic()
        server.stop(drain_s=0.2)
        assert time.monotonic() - begin < 3
        assert running.is_closed()
        store.blocked.set()
    assert "1 HTTP connections were cut" in caplog.text


def test_a_server_that_never_started_can_be_stopped(app: RestApp) -> None:
    server = HttpServer(app, "127.0.0.1", 0)
    server.stop()
    server.stop()
    HttpServer(app, "127.0.0.1", server.port).stop()


def test_a_full_queue_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    moments = [0.0, 1.0, 59.0, 60.5, 61.0]
    warning = _QueueWarning(clock=iter(moments).__next__)
    with caplog.at_level(logging.WARNING):
        for _ in moments:
            warning.warning("Task queue depth is %d", 500)
    assert len(caplog.records) == 2
    assert "500 requests wait" in caplog.text


def test_what_is_json_on_the_wire_is_utf_8(server: HttpServer) -> None:
    ask(server.port, "PUT", "/cache/k", json.dumps({"value": "Grüße 🙂"}).encode(), JSON)
    assert "Grüße 🙂".encode() in ask(server.port, "GET", "/cache/k").body


def test_a_stopping_server_answers_what_is_sent_and_says_that_it_closes(app: RestApp) -> None:
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(request)
        assert b"connection: close" not in connection.recv(65536).lower()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: server._servers[0].draining, "draining")
        connection.sendall(request)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
    stopping.join(10)
    assert not stopping.is_alive()


def test_two_threads_never_send_to_one_client_at_once(server: HttpServer) -> None:
    """The next request of a pipeline may be answered by one thread while the poll loop still believes that there is none."""
    with Connection(server.port) as connection:
        connection.send(request("GET", "/livez")).reply()
        (channel,) = server._servers[0].active_channels.values()
        with channel.outbuf_lock:
            channel.outbufs[-1].append(b"one answer")
            channel.total_outbufs_len += len(b"one answer")
            # The poll loop waits for no room in the socket, and what it had begun before sends nothing.
            with ThreadPoolExecutor(1) as poll_loop:
                assert not poll_loop.submit(channel.writable).result(10)
                poll_loop.submit(channel.handle_write).result(10)
            assert channel.total_outbufs_len == len(b"one answer")
        channel.server.sockets.look_again(channel.socket.fileno())
        channel.server.pull_trigger()
        connection.socket.settimeout(10)
        assert connection.socket.recv(100) == b"one answer"


def test_a_thread_that_finds_its_client_gone_leaves_the_socket_to_the_poll_loop(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(request("GET", "/livez")).reply()
        (channel,) = server._servers[0].active_channels.values()
        # The poll loop, which notices as well, closes it behind this lock.
        with channel.outbuf_lock:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.socket.close()
            channel.request = channel.parser_class(channel.adj)
            for _ in range(3):
                channel.send_continue()
                assert channel.socket is not None
    until(lambda: channel.socket is None, "closed")


def test_a_connection_that_was_closed_with_an_answer_in_it_sends_nothing(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection(server.port) as connection:
        connection.send(request("GET", "/livez")).reply()
        (channel,) = server._servers[0].active_channels.values()
        with channel.outbuf_lock:
            channel.outbufs[-1].append(b"a short answer")
            channel.total_outbufs_len += 14
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.socket.close()
        until(lambda: channel.socket is None, "closed")
    # The poll may have told that the socket can be read and written: reading has closed it.
    channel.handle_write()
    assert not caplog.records
