"""One node and all its fronts: hashes and sets, which Redis' clients make, as HTTP, memcached and Python see them."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from werkzeug.test import Client

import cacheflow
from cacheflow import values
from cacheflow.cli import main
from cacheflow.client.client import CacheClient
from cacheflow.errors import NotAnInteger
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.server.serving import HttpServer
from cacheflow.store import ReplicatedStore
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.resp.service import resp_port

VALUE_BYTES_MAX = 1024 * 1024
WRONG = b"SERVER_ERROR wrong kind\r\n"
B64 = {text: base64.b64encode(text).decode() for text in (b"f", b"\xff", b"1", b"m")}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedStore]:
    folder = tmp_path_factory.mktemp("kinds")
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder) as store:
        yield store


@pytest.fixture(scope="module")
def resp(node: ReplicatedStore) -> Iterator[redis.Redis]:
    port = resp_port(node, value_bytes_max=VALUE_BYTES_MAX, access=None, connections_max=100)
    with redis.Redis(port=node.serve(port, "127.0.0.1", 0), decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def memcached(node: ReplicatedStore) -> int:
    port = memcached_port(node, value_bytes_max=VALUE_BYTES_MAX, access=None, connections_max=100)
    return node.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def http(node: ReplicatedStore) -> Client:
    return Client(create_app(node, RestConfig(access=None)))


@pytest.fixture(autouse=True)
def written(resp: redis.Redis) -> None:
    """A hash ``h`` and a set ``s`` of texts; ``bh`` and ``bs`` have bytes that are no text; ``n`` is a number."""
    resp.flushall()
    resp.hset("h", mapping={"f": "1", "ü": "2"})
    resp.sadd("s", "m", "ü")
    resp.hset("bh", mapping={"f": "1", b"\xff": b"\xff"})
    resp.sadd("bs", "m", b"\xff")
    resp.set("n", 1)


def test_http_shows_an_object_and_an_array(http: Client) -> None:
    assert shown(http, "h") == {"value": {"f": "1", "ü": "2"}, "type": "hash"}
    assert shown(http, "s") == {"value": ["m", "ü"], "type": "set"}
    assert shown(http, "bh") == {
        "value": {B64[b"f"]: B64[b"1"], B64[b"\xff"]: B64[b"\xff"]},
        "type": "hash",
        "encoding": "base64",
    }
    assert shown(http, "bs") == {"value": [B64[b"m"], B64[b"\xff"]], "type": "set", "encoding": "base64"}


def shown(http: Client, key: str) -> Any:
    by_itself: Any = http.get(f"/cache/{key}").json
    batch: Any = http.post("/cache/_batch", json={"ops": [{"op": "get", "key": key}]}).json
    [in_a_batch] = batch["results"]
    members = ("value", "type", "encoding")
    told = {name: by_itself[name] for name in members if name in by_itself}
    assert told == {name: in_a_batch[name] for name in members if name in in_a_batch}
    return told


def test_http_sends_the_same_by_itself(http: Client) -> None:
    answer = http.get("/cache/h?raw")
    assert (answer.json, answer.content_type) == ({"f": "1", "ü": "2"}, "application/json")
    answer = http.get("/cache/bs?raw")
    assert (answer.json, answer.content_type) == (
        [B64[b"m"], B64[b"\xff"]],
        "application/json; encoding=base64",
    )


def test_http_replaces_touches_and_deletes_them_and_counts_nothing(http: Client, resp: redis.Redis) -> None:
    answer = http.post("/cache/h/incr", json={"delta": 1})
    assert answer.status_code == 409 and "the key holds a hash" in answer.text
    assert http.post("/cache/h/touch", json={"ttl": 100}).status_code == 200
    assert 0 < resp.ttl("h") <= 100 and resp.hget("h", "f") == "1"
    assert http.put("/cache/h", json={"value": {"f": 2}}).status_code == 200
    assert resp.get("h") == '{"f":2}'
    assert http.delete("/cache/s").status_code == 200
    assert not resp.exists("s")


def test_python_has_dicts_and_sets(node: ReplicatedStore, resp: redis.Redis) -> None:
    assert node["h"] == {"f": "1", "ü": "2"} and node.get("s") == {"m", "ü"}
    assert node.get("bh") == {"f": "1", b"\xff": b"\xff"} and node.get("bs") == {"m", b"\xff"}
    item = node.get_item("h")
    assert item is not None and (item.kind, item.value) == (values.HASH, {"f": "1", "ü": "2"})
    assert node.get("s", strict=True) == {"m", "ü"}
    assert node.get_many(["h", "s", "none"]) == {"h": {"f": "1", "ü": "2"}, "s": {"m", "ü"}}
    with pytest.raises(NotAnInteger, match="a hash"):
        node.incr("h")
    assert node.pop("s") == {"m", "ü"} and node.setdefault("h", 1) == {"f": "1", "ü": "2"}
    node["h"] = {"f": "1"}
    assert resp.type("h") == "string" and node["h"] == {"f": "1"}


def test_the_client_has_the_same_over_http(node: ReplicatedStore) -> None:
    with HttpServer(create_app(node, RestConfig(access=None)), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.port}"
        with CacheClient(url) as client:
            for key in ("h", "s", "bh", "bs"):
                assert client.get(key) == node.get(key)
                item, own = client.get_item(key), node.get_item(key)
                assert item is not None and own is not None and (item.kind, item.data) == (own.kind, own.data)
            assert client.get_many(["h", "bs"]) == {"h": node["h"], "bs": node["bs"]}
            assert client.get("s", strict=True) == {"m", "ü"}
        said = CliRunner().invoke(main.commands, ["get", "h", "--url", url])
        assert json.loads(said.output) == {"f": "1", "ü": "2"}
        said = CliRunner().invoke(main.commands, ["get", "bs", "--url", url, "--json"])
        shown = json.loads(said.output)
        assert (shown["type"], shown["encoding"], shown["value"]) == ("set", "base64", [B64[b"m"], B64[b"\xff"]])


@pytest.mark.parametrize(
    "said",
    [
        *(b"get h\r\n", b"gets s\r\n", b"get h n\r\n", b"gat 100 h\r\n", b"gats 100 n h\r\n", b"gat -1 s\r\n"),
        *(b"incr h 1\r\n", b"decr s 1\r\n", b"append h 0 0 1\r\nx\r\n", b"prepend s 0 0 1\r\nx\r\n"),
        *(b"mg h v\r\n", b"mg h\r\n", b"mg s t T30\r\n", b"md h I T30\r\n", b"ma h\r\n", b"ma h T30\r\n"),
        *(b"ms h 1 MA\r\nx\r\n", b"ms h 1 MP N0\r\nx\r\n"),
    ],
)
def test_memcached_is_told_the_kind_and_nothing_happens(node: ReplicatedStore, memcached: int, said: bytes) -> None:
    before = [node.get_item(key) for key in "hs"]
    assert say(memcached, said) == WRONG
    assert [node.get_item(key) for key in "hs"] == before
    # The same behind a barrier, and in a pipeline.
    told = say(memcached, b"consistency linearizable\r\n" + said + said)
    assert told == b"OK\r\n" + 2 * WRONG
    assert [node.get_item(key) for key in "hs"] == before


def test_memcached_finds_the_keys_before_the_wrong_one(memcached: int) -> None:
    assert say(memcached, b"get n h\r\n") == b"VALUE n 0 1\r\n1\r\n" + WRONG
    assert say(memcached, b"get n\r\nget h\r\nget n\r\n") == (
        b"VALUE n 0 1\r\n1\r\nEND\r\n" + WRONG + b"VALUE n 0 1\r\n1\r\nEND\r\n"
    )


def test_memcached_replaces_touches_and_deletes_them(memcached: int, resp: redis.Redis) -> None:
    assert say(memcached, b"add h 0 0 1\r\nx\r\n") == b"NOT_STORED\r\n"
    assert say(memcached, b"touch h 100\r\n") == b"TOUCHED\r\n" and resp.ttl("h") > 0
    assert say(memcached, b"set h 0 0 1\r\nx\r\n") == b"STORED\r\n" and resp.get("h") == "x"
    assert say(memcached, b"delete s\r\n") == b"DELETED\r\n" and not resp.exists("s")


def say(port: int, said: bytes) -> bytes:
    """What the memcached port answers to all of ``said``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(said + b"quit\r\n")
        told = b""
        while piece := client.recv(65536):
            told += piece
    return told


def test_python_cannot_write_a_set(node: ReplicatedStore) -> None:
    with pytest.raises(cacheflow.InvalidRequest):
        node["x"] = {1, 2}
