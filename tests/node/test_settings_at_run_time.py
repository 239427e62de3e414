"""The cluster's settings on real nodes: the same on all, kept, and known to every front at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster.processes import wait_for
from fakes.embedded import three_nodes

from cacheflow.errors import InvalidRequest, PreconditionFailed, ValueTooLarge
from cacheflow.rest import HttpServer, RestConfig, body_bytes_max, create_app
from cacheflow.store import ReplicatedStore
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.resp.service import resp_port

MIB = 1024 * 1024


def test_a_change_is_the_same_on_all_nodes_and_one_of_two_wins(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores:
        first = stores[0].settings()
        assert first.version == 1 and first.max_value_bytes == MIB
        stores[1].update({f"k{number}": number for number in range(300)})
        found = stores[1].change_settings(max_items=20, eviction="lfu", only_if_version=1)
        assert (found.max_items, found.eviction, found.version) == (20, "lfu", 2)
        assert found.changed_at > 1_600_000_000
        with pytest.raises(PreconditionFailed) as refused:
            stores[2].change_settings(max_items=30, only_if_version=1)
        assert refused.value.version == 2
        with pytest.raises(InvalidRequest, match="max_items"):
            stores[2].change_settings(max_items=0)
        wait_for(lambda: [store.settings() for store in stores] == [found] * 3)
        # What is above the limit goes without another write.
        wait_for(lambda: [len(store) for store in stores] == [20] * 3)
        wait_for(lambda: len({str(store.digest()) for store in stores}) == 1)


def test_the_settings_outlive_a_restart_and_the_flags_of_it(tmp_path: Path) -> None:
    def opened(**flags: Any) -> ReplicatedStore:
        return ReplicatedStore(
            node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, fsync="never", **flags
        )

    with opened(max_value_bytes=5000, max_items=7) as store:
        assert (store.settings().max_value_bytes, store.value_bytes_max) == (5000, 5000)
        changed = store.change_settings(max_value_bytes=9000, max_items=8)
    with opened(max_value_bytes=100) as store:
        assert store.settings() == changed
        store["k"] = b"x" * 9000
        with pytest.raises(ValueTooLarge):
            store["k"] = b"x" * 9001


@dataclass
class Fronts:
    """A node and a client of each of its fronts, all connected before anything is changed."""

    store: ReplicatedStore
    resp: redis.Redis
    memcached: socket.socket
    http: HTTPConnection

    def taken(self, size: int) -> list[bool]:
        """Whether a value of so many bytes is taken: by Python, Redis' protocol, memcached's, HTTP."""
        value = b"v" * size
        answers = []
        for write in (lambda: self.store.set("python", value), lambda: self.resp.set("resp", value)):
            try:
                write()
                answers.append(True)
            except (ValueTooLarge, redis.ResponseError):
                answers.append(False)
        sending = threading.Thread(
            target=self.memcached.sendall, args=(b"set memcached 0 0 %d\r\n%b\r\n" % (size, value),)
        )
        sending.start()
        answers.append(self.memcached.recv(100) == b"STORED\r\n")
        sending.join()
        self.http.request("PUT", "/cache/http", value, {"Content-Type": "application/octet-stream"})
        answer = self.http.getresponse()
        answer.read()
        answers.append(answer.status in (200, 201))
        return answers


@pytest.fixture
def fronts(tmp_path: Path) -> Iterator[Fronts]:
    store = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, fsync="never")
    http = HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0, body_bytes_max=body_bytes_max(MIB))
    store.on_value_limit(lambda bytes_max: http.limit_bodies(body_bytes_max(bytes_max)))
    with store, http:
        ports = [
            store.serve(make(store, value_bytes_max=MIB, access=None, connections_max=10), "127.0.0.1", 0)
            for make in (resp_port, memcached_port)
        ]
        with (
            redis.Redis(port=ports[0], single_connection_client=True) as resp,
            socket.create_connection(("127.0.0.1", ports[1]), timeout=30) as memcached,
        ):
            resp.ping()
            connection = HTTPConnection("127.0.0.1", http.port, timeout=30)
            connection.connect()
            yield Fronts(store, resp, memcached, connection)
            connection.close()


def test_every_front_takes_what_the_cluster_takes_from_then_on(fronts: Fronts) -> None:
    assert fronts.taken(MIB) == [True] * 4
    fronts.store.change_settings(max_value_bytes=20 * MIB)
    # More than a request of any protocol might have had before, on connections that are open.
    assert fronts.taken(20 * MIB) == [True] * 4
    fronts.store.change_settings(max_value_bytes=1000)
    assert fronts.taken(1001) == [False] * 4
    # What is there stays. (memcached's protocol removes what a value that it refuses was to replace.)
    assert [len(fronts.store.get(key)) for key in ("python", "resp", "http")] == [20 * MIB] * 3
    assert fronts.taken(1000) == [True] * 4


def test_a_full_hash_takes_nothing_more_and_gives_fields_back(fronts: Fronts) -> None:
    resp = fronts.resp
    resp.hset("h", mapping={f"field{number}": "v" * 100 for number in range(50)})
    fronts.store.change_settings(max_value_bytes=1000)
    for command in ("HSET h new 1", "HSET h field1 w", "HINCRBY h n 1"):
        with pytest.raises(redis.ResponseError):
            resp.execute_command(*command.split())  # type: ignore[no-untyped-call]
    assert resp.hlen("h") == 50
    resp.hdel("h", *[f"field{number}" for number in range(45)])
    assert resp.hset("h", "new", "1") == 1
    fronts.store.change_settings(max_value_bytes=MIB)
    resp.hset("h", mapping={f"field{number}": "v" * 100 for number in range(50)})
    assert resp.hlen("h") == 51
