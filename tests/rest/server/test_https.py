"""The HTTP server behind TLS: the same answers, and nothing waits for a handshake."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.certificates import Authority
from rest.wire import Connection, ask, request, until

from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.tls.session import Session
from cacheflow.rest.app import RestApp
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.serving import TLS_ONLY, HttpServer

JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("https") / "ca")


@pytest.fixture(params=["in threads", "at once"])
def server(app: RestApp, authority: Authority, request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    short = at_once if request.param == "at once" else lambda *_: False
    handshakes = Handshakes(authority.certificates())
    handshakes.start()
    secure = handshakes.secure("http", TLS_ONLY)
    headers = app.services.raft_headers
    with HttpServer(app, "127.0.0.1", 0, refusal_headers=headers, at_once=short, secure=secure) as server:
        yield server
    handshakes.stop()


class Secured(Connection):
    """A connection with TLS in the hands of a test."""

    def __init__(self, port: int, authority: Authority) -> None:
        super().__init__(port)
        self.socket = authority.trusted().wrap_socket(self.socket, server_hostname="localhost")


def https(server: HttpServer, authority: Authority) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("localhost", server.port, timeout=10, context=authority.trusted())


def test_a_value_goes_there_and_back(server: HttpServer, authority: Authority) -> None:
    with Secured(server.port, authority) as connection:
        assert connection.send(request("PUT", "/cache/k", b'{"value": "v"}', JSON)).reply().status == 201
        for _ in range(20):
            assert connection.send(request("GET", "/cache/k")).reply().json["value"] == "v"


@pytest.mark.parametrize("size", [1, 16_000, 16_384, 99_999])
def test_bodies_of_any_length_go_there_and_back(server: HttpServer, authority: Authority, size: int) -> None:
    body = b"x" * size
    with Secured(server.port, authority) as connection:
        assert connection.send(request("PUT", "/cache/k", body)).reply().status == 201
        assert connection.send(request("GET", "/cache/k?raw=true")).reply().body == body


def test_a_request_in_single_bytes_is_a_request(server: HttpServer, authority: Authority) -> None:
    with Secured(server.port, authority) as connection:
        for byte in request("GET", "/livez"):
            connection.send(bytes([byte]))
        assert connection.reply().status == 200


def test_pipelined_requests_are_answered_in_order(server: HttpServer, authority: Authority) -> None:
    with Secured(server.port, authority) as connection:
        connection.send(request("PUT", "/cache/k", b"x") + b"".join(request("GET", f"/nothing{n}") for n in range(50)))
        assert connection.reply().status == 201
        assert [connection.reply().status for _ in range(50)] == [404] * 50


def test_answers_that_nobody_reads_wait_and_come_whole(server: HttpServer, authority: Authority) -> None:
    body = b"y" * 90_000
    with Secured(server.port, authority) as writer, Secured(server.port, authority) as reader:
        assert writer.send(request("PUT", "/cache/k", body)).reply().status == 201
        reader.send(request("GET", "/cache/k?raw=true") * 60)
        time.sleep(0.3)
        # Others are served meanwhile.
        assert writer.send(request("GET", "/livez")).reply().status == 200
        for _ in range(60):
            assert reader.reply().body == body


def test_what_comes_with_the_handshake_is_answered(server: HttpServer, authority: Authority) -> None:
    session = Session(authority.trusted(), server_side=False, host="localhost")
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        session.shake(b"")
        raw.sendall(session.output())
        while not session.shake(raw.recv(65536)):
            raw.sendall(session.output())
        raw.sendall(session.output() + session.encrypt(request("GET", "/livez")))
        plain = session.early
        while b"\r\n\r\n" not in plain:
            data = raw.recv(65536)
            assert data, "the server hung up"
            plain += session.decrypt(data)
    assert plain.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("when", ["with the handshake", "with the request", "later"])
def test_a_client_that_says_in_tls_alone_that_it_is_done_is_answered_and_let_go(
    server: HttpServer, authority: Authority, when: str
) -> None:
    session = Session(authority.trusted(), server_side=False, host="localhost")
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        done = session.shake(b"")
        while not done:
            raw.sendall(session.output())
            done = session.shake(raw.recv(65536))
        said = session.output()
        if when != "with the handshake":
            raw.sendall(said)
            until(lambda: bool(server._channels()), "the handshake is over")
            said = b""
        said += session.encrypt(request("GET", "/livez"))
        if when == "later":
            raw.sendall(said)
            time.sleep(0.1)
            said = b""
        raw.sendall(said + session.farewell())
        answer = b""
        while data := raw.recv(65536):
            answer += session.decrypt(data)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and session.ended


def test_a_record_in_pieces_is_waited_for(server: HttpServer, authority: Authority) -> None:
    session = Session(authority.trusted(), server_side=False, host="localhost")
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session.shake(b"")
        raw.sendall(session.output())
        while not session.shake(raw.recv(65536)):
            raw.sendall(session.output())
        raw.sendall(session.output())
        record = session.encrypt(request("GET", "/livez"))
        for begin in range(0, len(record), 20):
            raw.sendall(record[begin : begin + 20])
            time.sleep(0.02)
        plain = session.early
        while b"\r\n\r\n" not in plain:
            data = raw.recv(65536)
            assert data, "the server hung up"
            plain += session.decrypt(data)
    assert plain.startswith(b"HTTP/1.1 200")


def test_the_application_knows_who_asks_and_that_it_is_https(authority: Authority) -> None:
    seen: list[tuple[object, object]] = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        seen.append((environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]))
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    handshakes = Handshakes(authority.certificates())
    handshakes.start()
    with HttpServer(app, "127.0.0.1", 0, secure=handshakes.secure("http", TLS_ONLY)) as server:
        connection = https(server, authority)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    handshakes.stop()
    assert seen == [("127.0.0.1", "https")]


def test_plain_http_is_told_that_https_is_spoken(server: HttpServer) -> None:
    reply = ask(server.port, "GET", "/livez")
    assert reply.status == 400 and "https://" in reply.json["detail"]
    assert reply.headers["connection"] == "close" and reply.headers["content-type"] == "application/problem+json"


def test_a_refused_request_is_told_why_before_the_end(server: HttpServer, authority: Authority) -> None:
    with Secured(server.port, authority) as connection:
        connection.send(b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.reply().status == 400
        assert connection.is_closed()


def test_hanging_handshakes_hold_nobody_up(server: HttpServer, authority: Authority) -> None:
    hanging = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(100)]
    for each in hanging[:50]:
        each.sendall(b"\x16\x03\x01\x02")
    began = time.monotonic()
    with Secured(server.port, authority) as connection:
        assert connection.send(request("GET", "/livez")).reply().status == 200
    assert time.monotonic() - began < 2
    for each in hanging:
        each.close()


def test_a_client_that_leaves_is_forgotten(server: HttpServer, authority: Authority) -> None:
    def channels() -> int:
        return len(server._channels())

    before = channels()
    for farewell in (True, False):
        connection = Secured(server.port, authority)
        connection.send(request("GET", "/livez")).reply()
        until(lambda: channels() == before + 1, "a channel")
        if farewell:
            connection.socket.close()
        else:
            socket.socket(fileno=connection.socket.detach()).close()
        until(lambda: channels() == before, "no channel")


def test_small_answers_leave_at_once(server: HttpServer, authority: Authority) -> None:
    with Secured(server.port, authority) as connection:
        connection.send(request("GET", "/livez")).reply()
        (channel,) = server._channels()
        assert channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_threads_that_send_and_the_one_that_reads_share_a_session(server: HttpServer, authority: Authority) -> None:
    bodies = [bytes([number]) * 70_000 for number in range(8)]

    def work(number: int) -> None:
        with Secured(server.port, authority) as connection:
            for _ in range(10):
                assert connection.send(request("PUT", f"/cache/k{number}", bodies[number])).reply().status in (200, 201)
                assert connection.send(request("GET", f"/cache/k{number}?raw=true")).reply().body == bodies[number]
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))


def test_older_and_unknown_clients_are_refused(server: HttpServer, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        Secured(server.port, stranger)
