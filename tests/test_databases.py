"""One node and all its fronts: HTTP, memcached and Python see, list and clear database 0 alone."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import redis
from werkzeug.test import Client

from cacheflow.errors import InvalidRequest
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.store import ReplicatedStore
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.resp.service import resp_port

HIDDEN = "\x013hidden"
VALUE_BYTES_MAX = 1024 * 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedStore]:
    folder = tmp_path_factory.mktemp("databases")
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder, max_items=1000
    ) as store:
        yield store


@pytest.fixture(scope="module")
def resp(node: ReplicatedStore) -> int:
    port = resp_port(node, value_bytes_max=VALUE_BYTES_MAX, access=None, connections_max=100)
    return node.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def memcached(node: ReplicatedStore) -> int:
    port = memcached_port(node, value_bytes_max=VALUE_BYTES_MAX, access=None, connections_max=100)
    return node.serve(port, "127.0.0.1", 0)


@pytest.fixture
def third(resp: int) -> Iterator[redis.Redis]:
    """A client of database 3, which has the key "hidden"; database 0 has the key "seen"."""
    with (
        redis.Redis(port=resp, decode_responses=True) as zeroth,
        redis.Redis(port=resp, db=3, decode_responses=True) as client,
    ):
        zeroth.flushall()
        zeroth.set("seen", "0")
        client.set("hidden", "3")
        yield client


def say(port: int, said: bytes, end: bytes) -> bytes:
    """What the memcached port answers, up to ``end``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(said)
        told = b""
        while not told.endswith(end):
            told += client.recv(65536)
    return told


def test_python_lists_and_counts_database_0(node: ReplicatedStore, third: redis.Redis) -> None:
    assert list(node) == list(node.keys()) == ["seen"]
    assert list(node.items()) == [("seen", "0")] and list(node.values()) == ["0"]
    assert len(node) == len(node.keys()) == 1
    assert node.keys_page() == (["seen"], None)
    assert node.keys_page(limit=1) == (["seen"], None)
    assert "seen" in node
    assert third.dbsize() == 1 and third.keys() == ["hidden"] and list(third.scan_iter()) == ["hidden"]


CALLS: dict[str, Callable[[ReplicatedStore], object]] = {
    "get": lambda store: store.get(HIDDEN),
    "get_linearizable": lambda store: store.get(HIDDEN, consistency="linearizable"),
    "get_item": lambda store: store.get_item(HIDDEN),
    "getitem": lambda store: store[HIDDEN],
    "in": lambda store: HIDDEN in store,
    "get_many": lambda store: store.get_many([HIDDEN]),
    "set": lambda store: store.set(HIDDEN, "x"),
    "add": lambda store: store.add(HIDDEN, "x"),
    "delete": lambda store: store.delete(HIDDEN),
    "delete_many": lambda store: store.delete_many([HIDDEN]),
    "delete_prefix": lambda store: store.delete_prefix("\x013"),
    "incr": lambda store: store.incr(HIDDEN),
    "touch": lambda store: store.touch(HIDDEN, 5),
    "pop": lambda store: store.pop(HIDDEN),
    "setdefault": lambda store: store.setdefault(HIDDEN, "x"),
    "batch": lambda store: store.batch([{"op": "get", "key": HIDDEN}]),
    "keys": lambda store: list(store.keys("\x013")),
}


@pytest.mark.parametrize("name", CALLS)
def test_python_cannot_spell_a_key_of_another_database(node: ReplicatedStore, third: redis.Redis, name: str) -> None:
    with pytest.raises(InvalidRequest, match="control character"):
        CALLS[name](node)
    assert third.get("hidden") == "3"


def test_clearing_in_python_clears_database_0(node: ReplicatedStore, third: redis.Redis) -> None:
    node.clear()
    assert len(node) == 0 and list(node) == [] and third.get("hidden") == "3"


def test_http_sees_and_clears_database_0(node: ReplicatedStore, third: redis.Redis) -> None:
    client = Client(create_app(node, RestConfig()))
    assert client.get("/cache").json == client.get("/cache?cursor=%01").json == {"keys": ["seen"], "cursor": None}
    for path in ("/cache/%013hidden", "/cache?prefix=%013"):
        for method in ("GET", "DELETE"):
            assert client.open(path, method=method).status_code == 400
    ops = {"ops": [{"op": "set", "key": HIDDEN, "value": "x"}]}
    assert client.post("/cache/_batch", json=ops).status_code == 400
    assert client.delete("/cache?all=true").json == {"deleted": 1}
    assert third.get("hidden") == "3"


def test_memcached_sees_and_clears_database_0(memcached: int, third: redis.Redis) -> None:
    told = say(memcached, b"get seen\r\nget \x013hidden\r\ngets seen \x013hidden\r\nstats items\r\n", b"END\r\n")
    assert told == (
        b"VALUE seen 0 1\r\n0\r\nEND\r\nCLIENT_ERROR bad command line format\r\n"
        b"CLIENT_ERROR bad command line format\r\nSTAT items:1:number 1\r\nSTAT items:1:evicted 0\r\nEND\r\n"
    )
    for said in (b"set \x013hidden 0 0 1\r\nx\r\n", b"delete \x013hidden\r\n", b"mg ATNoaWRkZW4= b v\r\n"):
        assert say(memcached, said, b"\r\n").startswith((b"CLIENT_ERROR", b"ERROR"))
    assert b"STAT curr_items 1\r\n" in say(memcached, b"stats\r\n", b"END\r\n")
    assert say(memcached, b"flush_all\r\n", b"\r\n") == b"OK\r\n"
    assert b"curr_items 0\r\n" in say(memcached, b"stats\r\n", b"END\r\n")
    assert third.get("hidden") == "3"


def test_limits_are_over_all_databases(node: ReplicatedStore, third: redis.Redis) -> None:
    with third.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"k{number}", "v")
        pipe.execute()
    # Which keys make room depends on when earlier reads are counted as uses.
    assert third.dbsize() + len(node) == node.metrics()["items"] == 1000


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works_in_a_database(resp: int, third: redis.Redis, protocol: int) -> None:
    with redis.Redis(port=resp, db=3, protocol=protocol, decode_responses=True) as client:
        assert client.get("hidden") == "3" and client.keys("h*") == ["hidden"] and client.get("seen") is None
        assert client.info("keyspace") == {f"db{number}": {"keys": 1, "expires": 0, "avg_ttl": 0} for number in (0, 3)}
        assert client.memory_usage("hidden") == 64 + 8 + 1 and client.object("encoding", "hidden") == "int"
        assert client.client_list()[-1]["db"] == "3" and client.command_getkeys("SET", "a", "b") == ["a"]
        assert client.flushdb() and client.dbsize() == 0
    with (
        redis.Redis(port=resp, db=16, protocol=protocol) as lost,
        pytest.raises(redis.RedisError, match="out of range"),
    ):
        lost.set("seen", "lost")
    with redis.Redis(port=resp, decode_responses=True) as zeroth:
        assert zeroth.get("seen") == "0"
