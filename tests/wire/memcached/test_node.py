"""The memcached port of real nodes, in processes of their own."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import NodeProcess, wait_for
from fakes.embedded import three_nodes
from fakes.users import access_of

from cacheflow.wire.memcached.connection import memcached_port

TOKEN = "a token of many letters"


class Client:
    """A socket that asks and gets so many lines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._lines = self._socket.makefile("rb")

    def ask(self, said: bytes, lines: int = 1) -> bytes:
        self._socket.sendall(said)
        return b"".join(self._lines.readline() for _ in range(lines))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(1, tmp_path, flags=["--memcached-port", "0", "--max-value-bytes", "5000000"])
    node.start()
    wait_for(lambda: not node.alive or node.is_ready())
    yield node
    if node.alive:
        node.kill()


def wire_port(node: NodeProcess) -> int:
    found = re.search(r"memcached protocol on 127\.0\.0\.1:(\d+)", node.output())
    assert found is not None
    return int(found[1])


def test_http_and_memcached_read_each_other_s_values(node: NodeProcess) -> None:
    client = Client(wire_port(node))
    assert client.ask(b"set greeting 7 60 5\r\nhello\r\n") == b"STORED\r\n"
    answer = node.try_get("/cache/greeting")
    assert answer.body["value"] == "hello" and 59 < answer.body["ttl"] <= 60
    assert client.ask(b"gets greeting\r\n", 3).split()[4] == str(answer.body["version"]).encode()
    client.ask(b"set raw 0 0 1\r\n\xff\r\n")
    assert node.try_get("/cache/raw").body["encoding"] == "base64"
    assert client.ask(b"ma hits N0 J41 v\r\n", 2) == b"VA 2\r\n41\r\n"
    assert node.try_get("/cache/hits").body["value"] == 41
    node.put("over-http", {"a": [1, 2]})
    assert client.ask(b"get over-http\r\n", 3) == b'VALUE over-http 0 11\r\n{"a":[1,2]}\r\nEND\r\n'
    # Marked as stale, it reads over HTTP as ever.
    assert client.ask(b"md greeting I\r\n") == b"HD\r\n"
    assert node.try_get("/cache/greeting").body["value"] == "hello"
    client.close()


def test_a_large_value_goes_in_and_out_and_others_do_not_wait_for_a_silent_client(node: NodeProcess) -> None:
    port = wire_port(node)
    silent, client = Client(port), Client(port)
    silent.ask(b"set half 0 0 5000000\r\nabc", 0)
    value = b"v" * 5_000_000
    assert client.ask(b"set large 0 0 5000000\r\n%b\r\n" % value) == b"STORED\r\n"
    assert client.ask(b"get large\r\n", 3) == b"VALUE large 0 5000000\r\n%b\r\nEND\r\n" % value
    # A client that asks for much and reads nothing.
    silent_reader = Client(port)
    silent_reader.ask(b"get large\r\n" * 2000, 0)
    assert client.ask(b"mn\r\n") == b"MN\r\n"
    metrics = node.try_get("/metrics?format=json").body
    assert metrics['wire_connections{port="memcached"}'] == 3
    assert metrics['wire_requests_total{port="memcached"}'] >= 4
    for each in (silent, client, silent_reader):
        each.close()


def test_a_pipeline_reads_what_it_wrote_and_sigterm_ends_the_node_cleanly(node: NodeProcess) -> None:
    client = Client(wire_port(node))
    said = b"".join(b"set k%d 0 0 1\r\n1\r\nincr k%d 5\r\nget k%d\r\n" % (n, n, n) for n in range(300))
    expected = b"".join(b"STORED\r\n6\r\nVALUE k%d 0 1\r\n6\r\nEND\r\n" % n for n in range(300))
    assert client.ask(said, 1500) == expected
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert client.ask(b"", 1) == b""
    client.close()


def test_a_value_written_at_one_node_is_read_at_the_others(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores:
        ports = [
            store.serve(
                memcached_port(store, value_bytes_max=1000, access=access_of(TOKEN.encode()), connections_max=4),
                "127.0.0.1",
                0,
            )
            for store in stores
        ]
        clients = [Client(port) for port in ports]
        for client in clients:
            assert client.ask(b"get k\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
            assert client.ask(b"set x 0 0 %d\r\nme %b\r\n" % (len(TOKEN) + 3, TOKEN.encode())) == b"STORED\r\n"
            assert client.ask(b"consistency linearizable\r\n") == b"OK\r\n"
        for number, client in enumerate(clients):
            assert client.ask(b"set k 0 0 1\r\n%d\r\n" % number) == b"STORED\r\n"
            assert {other.ask(b"get k\r\n", 3) for other in clients} == {b"VALUE k 0 1\r\n%d\r\nEND\r\n" % number}
        assert [client.ask(b"incr k 1\r\n") for client in clients] == [b"3\r\n", b"4\r\n", b"5\r\n"]
        for client in clients:
            client.close()
