"""Real nodes and the client that most people use: redis-py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fakes.embedded import three_nodes
from fakes.users import access_of
from redis.backoff import NoBackoff
from redis.retry import Retry

from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.service import resp_port

# By default redis-py tries ten times, with pauses, when it is refused at once.
AT_ONCE = Retry(NoBackoff(), 0)
TOKEN = b"a token of many letters"


def serve(store: ReplicatedStore, token: bytes | None = None) -> int:
    """The port on which ``store`` speaks RESP now."""
    port = resp_port(
        store, value_bytes_max=1024 * 1024, access=None if token is None else access_of(token), connections_max=100
    )
    return store.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedStore]:
    folder = tmp_path_factory.mktemp("resp")
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder, max_items=100_000
    ) as store:
        yield store


@pytest.fixture(scope="module")
def port(node: ReplicatedStore) -> int:
    return serve(node)


@pytest.fixture(params=[2, 3])
def client(request: pytest.FixtureRequest, port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, protocol=request.param, decode_responses=True) as one:
        one.flushall()
        yield one


def test_values_and_their_ends(client: redis.Redis) -> None:
    assert client.set("k", "v", ex=100) is True
    assert client.get("k") == "v" and client.ttl("k") in (99, 100)
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", get=True, keepttl=True) == "v"
    assert client.expire("k", 1000, gt=True) and client.persist("k") and client.ttl("k") == -1
    assert client.getex("k", px=5000) == "w" and 0 < client.pttl("k") <= 5000
    end = int(time.time()) + 50
    assert client.expireat("k", end) and abs(client.expiretime("k") - end) <= 1
    assert client.getdel("k") == "w" and client.get("k") is None
    assert client.mset({"a": "1", "b": "2"}) and client.mget("a", "nope", "b") == ["1", None, "2"]
    assert client.incr("a", 5) == 6 and client.decr("a") == 5 and client.incrbyfloat("a", 0.25) == 5.25
    assert client.append("b", "3") == 2 and client.getrange("b", 0, 0) == "2" and client.setrange("b", 3, "x") == 4
    assert client.rename("a", "c") and client.exists("a", "b", "c") == 2 and client.copy("c", "d")
    assert client.delete("b", "c", "nope") == 2 and client.type("d") == "string"
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("d")


def test_what_it_asks_of_the_server(client: redis.Redis) -> None:
    assert client.ping() and client.echo("x") == "x" and client.dbsize() == 0 and client.randomkey() is None
    assert client.info()["redis_version"] == "7.0.15"
    assert client.config_get("save") == {"save": ""}
    assert client.command_count() == len(client.command()) == len(client.command_list())
    assert client.client_setname("me") and client.client_getname() == "me"
    assert [row["name"] for row in client.client_list() if row["id"] == str(client.client_id())] == ["me"]
    assert abs(client.time()[0] - time.time()) < 5
    assert client.wait(0, 0) == 0


def test_scanning(client: redis.Redis) -> None:
    client.mset({f"key:{number}": "v" for number in range(1000)})
    assert sorted(client.scan_iter(match="key:1*", count=50)) == sorted(client.keys("key:1*"))
    assert len(set(client.scan_iter())) == 1000


def test_pipelines_and_transactions(client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"k{number}", number)
            pipe.get(f"k{number}")
        answers = pipe.execute()
    assert answers[1::2] == [str(number) for number in range(500)]
    with client.pipeline() as pipe:
        pipe.set("a", 1)
        pipe.incr("a")
        pipe.get("a")
        assert pipe.execute() == [True, 2, "2"]
    with client.pipeline() as pipe:
        watch(pipe, "a")
        client.set("a", 7)
        pipe.multi()
        pipe.set("a", 8)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert client.get("a") == "7"


def test_bytes_come_back_as_they_were_and_http_sees_the_same(node: ReplicatedStore, port: int) -> None:
    with redis.Redis(port=port) as client:
        data = bytes(range(256)) * 4000
        client.set("größe", data)
        assert client.get("größe") == data == node.get("größe")
        client.set("t", "text")
        assert node.get("t") == "text"
        node.set("j", {"a": [1]})
        assert client.get("j") == b'{"a":[1]}'


def test_the_token(node: ReplicatedStore) -> None:
    port = serve(node, TOKEN)
    for protocol in (2, 3):
        with redis.Redis(port=port, password=TOKEN.decode(), protocol=protocol) as client:
            assert client.ping()
        with (
            redis.Redis(port=port, password="another", protocol=protocol, retry=AT_ONCE) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        with (
            redis.Redis(port=port, protocol=protocol, retry=AT_ONCE) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


def test_counting_with_watch_loses_nothing_on_three_nodes(tmp_path: Path) -> None:
    each, clients = 15, 6
    with three_nodes(tmp_path) as stores:
        ports = [serve(store) for store in stores]
        failures: list[BaseException] = []

        def count(number: int) -> None:
            try:
                with redis.Redis(port=ports[number % 3]) as client:
                    client.execute_command("CLIENT", "CONSISTENCY", "LINEARIZABLE")
                    for _ in range(each):
                        _add_one(client)
                        client.incrbyfloat("stepped", 0.5)
                        client.incr("counted")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=count, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        with redis.Redis(port=ports[0], decode_responses=True) as client:
            client.execute_command("READWRITE")
            total = each * clients
            assert client.mget("watched", "stepped", "counted") == [str(total), str(total // 2), str(total)]
            assert client.wait(2, 100) == 1


def watch(pipe: redis.client.Pipeline, key: str) -> None:
    """redis-py's own method has no types."""
    pipe.watch(key)  # type: ignore[no-untyped-call]


def _add_one(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        while True:
            watch(pipe, "watched")
            present = int(pipe.get("watched") or 0)
            pipe.multi()
            pipe.set("watched", present + 1)
            try:
                pipe.execute()
            except redis.WatchError:
                continue
            return
