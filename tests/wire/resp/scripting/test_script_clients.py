"""Scripts on real nodes, asked for by redis-py: register_script, locks, pipelines; and a counter on three nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fakes.embedded import three_nodes
from redis.backoff import NoBackoff
from redis.lock import Lock
from redis.retry import Retry

from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.service import resp_port

COUNT = "local n = (redis.call('GET', KEYS[1]) or 0) + 1 redis.call('SET', KEYS[1], n) return n"


def serve(store: ReplicatedStore) -> int:
    """The port on which ``store`` speaks RESP now."""
    port = resp_port(store, value_bytes_max=1024 * 1024, access=None, connections_max=100)
    return store.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("scripts")
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder) as store:
        yield serve(store)


@pytest.fixture(params=[2, 3])
def client(request: pytest.FixtureRequest, port: int) -> Iterator[Any]:
    with redis.Redis(port=port, protocol=request.param, decode_responses=True) as one:
        one.flushall()
        one.script_flush()
        yield one


def test_registered_scripts(client: Any) -> None:
    count = client.register_script(COUNT)
    assert [count(keys=["n"]) for _ in range(3)] == [1, 2, 3]
    client.script_flush()
    assert count(keys=["n"]) == 4
    assert client.script_exists(count.sha) == [True]
    with pytest.raises(redis.ResponseError, match="no number"):
        client.eval("return redis.error_reply('ERR no number')", 0)
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha("0" * 40, 0)


def test_scripts_in_pipelines(client: Any) -> None:
    count = client.register_script(COUNT)
    for transaction in (True, False):
        client.delete("n")
        pipe = client.pipeline(transaction=transaction)
        pipe.set("n", 5)
        count(keys=["n"], client=pipe)
        pipe.get("n")
        assert [str(reply) for reply in pipe.execute()] == ["True", "6", "6"]


def test_locks(client: Any) -> None:
    mine, yours = Lock(client, "lock", timeout=10), Lock(client, "lock", timeout=10)
    assert mine.acquire(blocking=False) and not yours.acquire(blocking=False)
    assert mine.owned() and not yours.owned()
    mine.extend(20)
    assert 10_000 < client.pttl("lock") <= 30_000
    mine.reacquire()
    assert client.pttl("lock") <= 10_000
    with pytest.raises(redis.exceptions.LockError):
        yours.release()
    mine.release()
    assert yours.acquire(blocking=False)
    yours.release()


def test_a_script_that_never_ends_is_told_and_holds_nobody_up(client: Any, port: int) -> None:
    told: list[float] = []

    def endless() -> None:
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as other:
            began = time.monotonic()
            with pytest.raises(redis.ResponseError, match="nothing of it took place"):
                other.eval("redis.call('SET', 'k', 'v') while true do end", 1, "k")
            told.append(time.monotonic() - began)

    thread = threading.Thread(target=endless)
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        began = time.monotonic()
        client.get("other")
        slowest = max(slowest, time.monotonic() - began)
    thread.join()
    assert told and told[0] < 2
    assert slowest < 0.5
    assert client.get("k") is None
    assert client.eval("return 1", 0) == 1


def test_counting_by_scripts_loses_nothing_on_three_nodes(tmp_path: Path) -> None:
    each, clients = 10, 9
    with three_nodes(tmp_path) as stores:
        ports = [serve(store) for store in stores]
        seen: list[int] = []
        failures: list[BaseException] = []

        def count(number: int) -> None:
            try:
                with redis.Redis(port=ports[number % 3]) as client:
                    script = client.register_script(COUNT)
                    for _ in range(each):
                        seen.append(int(script(keys=["n"])))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=count, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert sorted(seen) == list(range(1, each * clients + 1))
