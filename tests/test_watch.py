"""``watch`` of all four caches over three nodes: everything once and in order, also when the node that tells it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.embedded import three_nodes, wait_for

from cacheflow import CacheClient, open_cache
from cacheflow.aio import AsyncCacheClient
from cacheflow.errors import InvalidRequest, NotReady, PositionGone
from cacheflow.faces import Face
from cacheflow.node import assembly, feed
from cacheflow.rest import watches
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.server.serving import HttpServer
from cacheflow.results import Change
from cacheflow.store import ReplicatedStore
from cacheflow.watching import local
from cacheflow.watching.watch import WAITING_MAX, AsyncWatch, Watch


class Nodes:
    """Three nodes in this process, with their HTTP servers."""

    def __init__(self, stores: list[ReplicatedStore], servers: list[HttpServer]) -> None:
        self.stores = stores
        self.servers = servers
        self.urls = [f"http://127.0.0.1:{server.port}" for server in servers]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with three_nodes(tmp_path_factory.mktemp("watch")) as stores, contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0, threads=4))
            for store in stores
        ]
        yield Nodes(stores, servers)


@pytest.fixture(params=["store", "client"])
def cache(nodes: Nodes, request: pytest.FixtureRequest) -> Iterator[Face]:
    nodes.stores[0].clear()
    if request.param == "store":
        yield nodes.stores[0]
    else:
        with CacheClient(nodes.urls, timeout_s=5) as client:
            yield client


def told(watch: Watch, count: int) -> list[tuple[str, str | None]]:
    """So many changes, or fewer if no more come in time."""
    patience = threading.Timer(10.0, watch.close)
    patience.start()
    changes = [shown(change) for change in itertools.islice(watch, count)]
    patience.cancel()
    return changes


def shown(change: Change) -> tuple[str, str | None]:
    return change.what, change.prefix if change.key is None else change.key


def test_a_watch_tells_what_happens_behind_its_call(cache: Face) -> None:
    with cache.watch("w:") as watch:
        cache.set("w:a", 1, ttl=100)
        cache.set("other", 1)
        cache.incr("w:a")
        cache.delete("w:a")
        cache.delete_prefix("w:")
        first = next(watch)
        assert (first.what, first.key, first.prefix) == ("set", "w:a", None) and first.ttl_s and 90 < first.ttl_s <= 100
        assert told(watch, 3) == [("set", "w:a"), ("delete", "w:a"), ("delete", "w:")]


def test_another_watch_goes_on_from_its_position_at_any_node(cache: Face, nodes: Nodes) -> None:
    with cache.watch() as watch:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        assert told(watch, 1) == [("set", "a")]
        since = watch.position
    for other in (*nodes.stores, CacheClient(nodes.urls[2])):
        with other.watch(since=since) as watch:
            assert told(watch, 2) == [("set", "b"), ("set", "c")]


def test_a_watch_that_is_closed_ends_whoever_waits_for_it(cache: Face) -> None:
    watch = cache.watch()
    waiting = threading.Thread(target=lambda: list(watch))
    waiting.start()
    time.sleep(0.1)
    watch.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert list(watch) == []


def test_a_position_that_is_not_known_is_told(cache: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = cache.watch()
    watch.close()
    monkeypatch.setattr(feed, "EFFECTS_MAX", 3)
    for number in range(5):
        cache.set("a", number)
    with pytest.raises(PositionGone, match="list the keys anew"):
        cache.watch(since=watch.position)


@pytest.mark.parametrize("wrong", [{"prefix": 7}, {"prefix": "\x00"}, {"since": ""}, {"since": 7}, {"since": "a\nb"}])
def test_what_is_no_watch_is_refused(cache: Face, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        cache.watch(**wrong)  # type: ignore[arg-type]


def test_a_cache_with_a_prefix_sees_its_own_keys(cache: Face, nodes: Nodes) -> None:
    host = nodes.urls[0].removeprefix("http://")
    with open_cache(f"cacheflow://{host}?key_prefix=app:") as own, own.watch("x") as watch:
        cache.set(own._form.key("x1"), 1)
        cache.set("x2", 1)
        own.set("x3", 1)
        own.delete_prefix("x")
        cache.clear()
        assert told(watch, 4) == [("set", "x1"), ("set", "x3"), ("delete", "x"), ("delete", "")]


def test_who_takes_nothing_keeps_a_bounded_number_of_changes(nodes: Nodes) -> None:
    store = nodes.stores[0]
    with store.watch("slow") as watch:
        keys = [f"slow{number:03}" for number in range(500)]
        many = 6 * len(keys)
        for number in range(6):
            store.set_many(dict.fromkeys(keys, number))
        time.sleep(0.2)
        assert len(watch._came) <= 2 * WAITING_MAX  # type: ignore[attr-defined]
        assert told(watch, many) == 6 * [("set", key) for key in keys]


def test_the_asyncio_twin_tells_the_same(cache: Face, nodes: Nodes) -> None:
    async def main() -> None:
        async with AsyncCacheClient(nodes.urls) as client:
            changes = await client.watch("t")
            async with changes:
                await client.set("t1", 1)
                await client.delete("t1")
                assert [shown(await anext(changes)) for _ in range(2)] == [("set", "t1"), ("delete", "t1")]
                since = changes.position
                waiting = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0.05)
            with pytest.raises(StopAsyncIteration):
                await waiting
            await client.set("t2", 1)
            again = await client.watch("t", since=since)
            async for change in again:
                assert shown(change) == ("set", "t2")
                break
            await again.close()
            with pytest.raises(PositionGone):
                await client.watch(since="AQAAAAAAAAAAAAX_____z1nMP5EalF4")

    asyncio.run(main())


def test_a_watch_for_asyncio_that_nobody_waited_for_ends(cache: Face, nodes: Nodes) -> None:
    store = nodes.stores[0]
    before = store.metrics()["followers"]

    async def main() -> None:
        client = AsyncCacheClient(nodes.urls[:1])
        for _ in range(3):
            beginning = asyncio.ensure_future(client.watch("t"))
            await asyncio.sleep(0)
            # Its thread has begun the watch; this one has not heard of it.
            wait_for(lambda: store.metrics()["followers"] > before)
            beginning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beginning
            wait_for(lambda: store.metrics()["followers"] == before)
        wait_for(lambda: not any(thread.name == "cacheflow-watch" for thread in threading.enumerate()))
        await client.close()

    asyncio.run(main())


def test_a_watch_for_asyncio_is_for_one_task(nodes: Nodes) -> None:
    async def main() -> None:
        async with AsyncCacheClient(nodes.urls) as client, await client.watch("t") as changes:
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(changes)
            await client.set("t", 1)
            assert shown(await first) == ("set", "t")

    asyncio.run(main())


def test_a_watch_that_is_closed_keeps_no_connection(nodes: Nodes) -> None:
    with CacheClient(nodes.urls) as client:
        watches = [client.watch("t") for _ in range(3)]
        held = [watch._response for watch in watches]  # type: ignore[attr-defined]
        for watch in watches:
            watch.close()
        assert all(response.isclosed() for response in held)
        assert [next(watch, None) for watch in watches] == [None] * 3


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet watches are looked at all the time, and a node keeps three effects."""
    monkeypatch.setattr(local, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(watches, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(watches, "LOOKS_A_BEAT", 1)
    monkeypatch.setattr(feed, "EFFECTS_MAX", 3)


@pytest.mark.usefixtures("often")
def test_a_quiet_watch_can_go_on_however_much_happens_elsewhere(cache: Face) -> None:
    with cache.watch("quiet") as watch:
        since = watch.position
        waiting = threading.Thread(target=lambda: list(watch))
        waiting.start()
        for number in range(10):
            before = since
            cache.set("loud", number)
            since = wait_for(lambda before=before: watch.position != before and watch.position)  # type: ignore[misc]
    waiting.join(5)
    cache.set("quiet", 1)
    with cache.watch("quiet", since=since) as watch:
        assert told(watch, 1) == [("set", "quiet")]


@pytest.mark.usefixtures("often")
def test_a_quiet_watch_for_asyncio_can_go_on_as_well(cache: Face) -> None:
    async def main() -> None:
        async with await AsyncWatch.begin(lambda: cache.watch("quiet")) as watch:
            await asyncio.to_thread(cache.set_many, {"quiet1": 1, "quiet2": 1, "loud": 1})
            await asyncio.sleep(0.2)
            # It is that of what was taken, however far the node is.
            for _ in range(2):
                assert (await anext(watch)).position == watch.position
            for number in range(10):
                since = watch.position
                await asyncio.to_thread(cache.set, "loud", number)
                async with asyncio.timeout(10):
                    while watch.position == since:
                        await asyncio.sleep(0.01)
        (await AsyncWatch.begin(lambda: cache.watch("quiet", since=watch.position)))._watch.close()

    asyncio.run(main())


@pytest.mark.usefixtures("often")
def test_a_watch_of_a_node_that_hears_no_leader_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with three_nodes(tmp_path) as stores, stores[0].watch() as watch:
        stores[0].set("k", 1)
        assert told(watch, 1) == [("set", "k")]
        for other in stores[1:]:
            other.close()
        monkeypatch.setattr(assembly, "STALE_MS_MAX", 200)
        with pytest.raises(NotReady, match="has heard no leader"):
            told(watch, 1)
        assert stores[0].get("k") == 1
        with pytest.raises(NotReady, match="has heard no leader"):
            stores[0].watch()


def test_the_position_of_a_watch_never_goes_back(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOOK_EVERY_S", 0.2)
    store = nodes.stores[0]
    with store.watch("k") as watch:
        assert isinstance(watch, local.StoreWatch)
        # It is quiet, and before the application has noted where it is then, something happens.
        store._engine.call(watch._look)
        store["k"] = 1
        changed = next(watch)
        waiting = threading.Thread(target=lambda: list(watch))
        waiting.start()
        time.sleep(0.1)
        assert watch.position == changed.position
    waiting.join(5)


def test_a_watch_goes_on_when_its_node_ends(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores, contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0, threads=4))
            for store in stores
        ]
        urls = [f"http://127.0.0.1:{server.port}" for server in servers]
        with CacheClient(urls, discover=False) as client, client.watch() as watch:
            writer = stores[2]
            expected: list[Callable[[], object]] = []
            for number in range(100):
                expected.append(lambda: None)
                writer.set(f"k{number}", 1)
                if number == 50:
                    servers[0].stop(0)
                    stores[0].close()
            assert told(watch, 100) == [("set", f"k{number}") for number in range(100)]
