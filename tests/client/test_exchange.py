"""One exchange with one node, over sockets that a test answers byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

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


def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_deadline() -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
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
