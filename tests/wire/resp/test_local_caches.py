"""Local caches on real nodes: redis-py's keeps nothing that its node has replaced, whoever and whatever has replaced it."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from fakes.embedded import three_nodes, wait_for
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry
from wire.resp_client import pack

from cacheflow.node import assembly
from cacheflow.node.assembly import LocalNode
from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.service import resp_port

AT_ONCE = Retry(NoBackoff(), 0)
EVERYTHING = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
MEGABYTE = 1024 * 1024


def serve(store: ReplicatedStore) -> int:
    """The port on which ``store`` speaks RESP now."""
    port = resp_port(store, value_bytes_max=MEGABYTE, access=None, connections_max=100, slices=store.slices)
    return store.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[ReplicatedStore, int]]]:
    with three_nodes(tmp_path_factory.mktemp("caches")) as stores:
        yield [(store, serve(store)) for store in stores]


@pytest.fixture
def ports(trio: list[tuple[ReplicatedStore, int]]) -> list[int]:
    return [port for _, port in trio]


def caching(port: int) -> redis.Redis:
    """A client with a local cache."""
    return redis.Redis(port=port, protocol=3, retry=AT_ONCE, decode_responses=True, cache_config=CacheConfig())


def plain(port: int) -> redis.Redis:
    return redis.Redis(port=port, retry=AT_ONCE, decode_responses=True)


def test_a_read_is_answered_by_the_local_cache_until_the_key_changes(ports: list[int]) -> None:
    client, other = caching(ports[0]), plain(ports[0])
    client.set("once", "1")
    assert client.get("once") == "1"
    hits = other.info("stats")["keyspace_hits"]
    assert [client.get("once") for _ in range(50)] == ["1"] * 50
    assert other.info("stats")["keyspace_hits"] == hits
    other.set("once", "2")
    assert client.get("once") == "2"


def test_the_answer_to_a_write_means_that_no_client_of_the_node_has_an_older_value(ports: list[int]) -> None:
    client, other = caching(ports[0]), plain(ports[0])
    for number in range(200):
        writer = client if number % 2 else other
        writer.set("seen", number)
        assert client.get("seen") == str(number) == client.get("seen")


def test_what_is_written_through_another_node_is_seen_soon(ports: list[int]) -> None:
    client, other = caching(ports[0]), plain(ports[1])
    for number in range(30):
        client.get("far")
        other.set("far", number)
        wait_for(lambda number=number: client.get("far") == str(number))  # type: ignore[misc]


def test_what_ends_by_itself_ends_in_the_local_cache(ports: list[int]) -> None:
    client = caching(ports[2])
    client.set("short", "1", px=1000)
    assert client.get("short") == "1"
    wait_for(lambda: client.get("short") is None)
    client.hset("h", "f", "1")
    assert client.hgetall("h") == {"f": "1"}
    plain(ports[1]).hincrby("h", "f", 1)
    wait_for(lambda: client.hgetall("h") == {"f": "2"})
    plain(ports[0]).flushall()
    wait_for(lambda: client.hgetall("h") == {})


def test_a_restore_is_seen(trio: list[tuple[ReplicatedStore, int]]) -> None:
    store, port = trio[0]
    client = caching(port)
    client.set("kept", "before")
    file, _ = store.backups.take()
    client.set("kept", "behind")
    assert client.get("kept") == "behind"
    with file:
        store.backups.restore(file, online=True)
    wait_for(lambda: client.get("kept") == "before")


def test_nobody_keeps_what_has_changed_when_all_write_and_read(trio: list[tuple[ReplicatedStore, int]]) -> None:
    keys = [f"busy{number}" for number in range(8)]
    ends_at = time.monotonic() + 1.5
    wrong: list[str] = []

    def write(port: int) -> None:
        client, draws = plain(port), random.Random(port)
        while time.monotonic() < ends_at:
            client.set(draws.choice(keys), draws.random())

    def read(store: ReplicatedStore, port: int) -> None:
        client, draws = caching(port), random.Random(-port)
        while time.monotonic() < ends_at:
            client.get(draws.choice(keys))
        for writer in writers:
            writer.join()
        store.barrier()
        for key in keys:
            kept, there = client.get(key), store.get(key)
            if kept != there:
                wrong.append(f"{key} is {there!r}, and the cache has {kept!r}")

    writers = [threading.Thread(target=write, args=(port,)) for _, port in trio]
    readers = [threading.Thread(target=read, args=node) for node in trio]
    for thread in (*writers, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    assert not wrong


def test_who_keeps_something_is_told_to_forget_it_while_its_node_is_out_of_touch(
    ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "FORGET_EVERY_S", 0.2)
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=20) as client:
        client.sendall(pack("HELLO", "3") + pack("CLIENT", "TRACKING", "ON") + pack("GET", "nothing"))
        came = b""
        while not came.endswith(b"_\r\n"):
            came += client.recv(4096)
        monkeypatch.setattr(LocalNode, "is_in_touch", property(lambda self: False))
        came = b""
        while came.count(EVERYTHING) < 2:
            came += client.recv(4096)
        assert came.replace(EVERYTHING, b"") == b""
        monkeypatch.undo()
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while client.recv(4096):
                pass
