"""One exchange with one node, over sockets that a test answers byte by byte."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cacheflow.client import timed
from cacheflow.client.exchange import Answer, NoAnswer, NodeHttp, NotSent, Request

READ = Request("GET", "/", None, {}, write=False)


def no_trust() -> ssl.SSLContext:
    raise AssertionError("nothing here is in TLS")


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[NodeHttp]:
    """Yield a node whose answer to its only request ``answer`` sends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield NodeHttp(f"http://127.0.0.1:{listener.getsockname()[1]}", no_trust)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    ],
    ids=["body", "header", "first line", "nothing yet", "chunk"],
)
def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_deadline(head: bytes) -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while not ended.wait(0.05):
            connection.sendall(b"x")

    with answering(drip) as node:
        bound = threading.Timer(8, ended.set)
        bound.start()
        began = time.monotonic()
        try:
            with pytest.raises(NoAnswer):
                node.exchange(READ, 0.3)
            assert not ended.is_set()
        finally:
            bound.cancel()
            ended.set()
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_an_answer_on_a_connection_that_ends_with_it_is_one(head: bytes) -> None:
    with answering(lambda connection: connection.sendall(head + b"x" * 100_000)) as node:
        assert node.exchange(READ, 10).body == b"x" * 100_000
        assert not node._idle


def test_a_long_answer_comes_whole_and_its_connection_is_kept() -> None:
    kept = threading.Event()

    def long(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n")
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc")
        kept.wait(10)

    with answering(long) as node:
        try:
            assert node.exchange(READ, 10).body == b"x" * 1_000_000
            assert node.exchange(READ, 10).body == b"abcde"
            answer: Answer = node.exchange(READ._replace(method="HEAD"), 10)
            assert (answer.status, answer.body) == (404, b"")
            with pytest.raises(NoAnswer):
                node.exchange(READ, 0.2)
            assert not node._idle
        finally:
            kept.set()


def test_an_answer_that_ends_early_is_none() -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc"
    with answering(lambda connection: connection.sendall(short)) as node, pytest.raises(NoAnswer):
        node.exchange(READ, 10)


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example"])
def test_a_name_that_no_host_can_have_is_a_node_that_cannot_be_reached(host: str) -> None:
    with pytest.raises(NotSent):
        NodeHttp(f"http://{host}:80", no_trust).exchange(READ, 1)


def test_a_name_that_is_looked_up_for_ever_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ended = [], threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "slow.example" and not named.get("flags"):
            asked.append(host)
            ended.wait(8)
            return real("127.0.0.1", *arguments, **named)
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as node:
        named = NodeHttp(node.url.replace("127.0.0.1", "slow.example"), no_trust)
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(NotSent, match="name"):
                named.exchange(READ, 0.1)
            assert time.monotonic() - began < 5
        # Those who could not wait have left one look-up behind, which the next one waits for.
        assert len(asked) == 1
        ended.set()
        assert named.exchange(READ, 10).status == 200
        assert len(asked) <= 2


def test_in_a_forked_child_nobody_waits_for_the_parents_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    parent, real = os.getpid(), socket.getaddrinfo

    def slow(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "slow.example" and not named.get("flags"):
            if os.getpid() == parent:
                ended.wait(8)
            host = "127.0.0.1"
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as node:
        named = NodeHttp(node.url.replace("127.0.0.1", "slow.example"), no_trust)
        with pytest.raises(NotSent, match="name"):
            named.exchange(READ, 0.1)
        child = os.fork()
        if not child:
            os._exit(0 if named.exchange(READ, 5).status == 200 else 1)
        _, status = os.waitpid(child, 0)
        ended.set()
        assert os.waitstatus_to_exitcode(status) == 0


def test_a_look_up_that_ends_strangely_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[BaseException] = [MemoryError()]
    real, start = socket.getaddrinfo, threading.Thread.start

    def looked_up(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "strange.example" and not named.get("flags"):
            if faults:
                raise faults.pop()
            host = "127.0.0.1"
        return real(host, *arguments, **named)

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "cacheflow-names" and faults:
            raise faults.pop()
        start(thread)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as node:
        named = NodeHttp(node.url.replace("127.0.0.1", "strange.example"), no_trust)
        with pytest.raises(MemoryError):
            named.exchange(READ, 10)
        # Ctrl-C, or an alarm of the application.
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        faults.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            named.exchange(READ, 10)
        assert named.exchange(READ, 10).status == 200


def test_who_drops_a_node_unclosed_leaves_no_socket_to_the_garbage_collector() -> None:
    held: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        held.append(connection.dup())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    gc.disable()
    try:
        with answering(answer) as node:
            dropped = NodeHttp(node.url, no_trust)
            assert dropped.exchange(READ, 10).status == 200
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del dropped
            held[0].settimeout(10)
            assert held[0].recv(1) == b""
    finally:
        gc.enable()
        for connection in held:
            connection.close()


def test_an_address_that_takes_no_connection_leaves_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given_s: list[float] = []
    real, connected = socket.getaddrinfo, timed._connected

    def first_takes_none(place: timed.Place, timeout_s: float) -> socket.socket:
        given_s.append(timeout_s)
        if len(given_s) == 1:
            raise TimeoutError
        return connected(place, timeout_s)

    monkeypatch.setattr(timed, "_connected", first_takes_none)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: real(*arguments, **named) * 2)
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as node:
        assert node.exchange(READ, 60).status == 200
    assert given_s[0] <= timed.CONNECT_TIMEOUT_S_MAX / 2 < given_s[1] <= timed.CONNECT_TIMEOUT_S_MAX
