"""A cluster that changes over to TLS: members name each other by addresses that fit only some of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.client.client import CacheClient
from cacheflow.errors import NotCommitted
from cacheflow.rest.server.serving import TLS_ONLY


@pytest.fixture
def secured() -> Iterator[str]:
    """The address, without TLS, of a port that speaks HTTPS only."""

    def answer() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                client.sendall(TLS_ONLY)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_node_that_speaks_https_only_has_not_read_the_request_and_another_is_asked(secured: str) -> None:
    with FakeNode(FakeState()) as node, CacheClient([secured, node.url], timeout_s=5, discover=False) as client:
        assert [client.incr("n", initial=0) for _ in range(3)] == [1, 2, 3]
        assert client["n"] == 3


def test_where_all_speak_https_only_that_is_said_soon(secured: str) -> None:
    began = time.monotonic()
    with CacheClient(secured, timeout_s=30, discover=False) as client:
        with pytest.raises(NotCommitted, match="HTTPS only: ask for https://"):
            client.set("k", "v")
        with pytest.raises(NotCommitted, match="HTTPS only: ask for https://"):
            client.get("k")
    assert time.monotonic() - began < 15
