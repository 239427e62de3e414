"""aiocache over a cluster. Its own suite runs in tests/conformance; here is what that suite does not ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiocache import Cache, cached, cached_stampede, multi_cached
from aiocache.lock import OptimisticLock, OptimisticLockError, RedLock
from aiocache.plugins import HitMissRatioPlugin, TimingPlugin
from aiocache.serializers import MsgPackSerializer, NullSerializer, PickleSerializer, StringSerializer
from cluster.processes import Nodes

from cacheflow.errors import NotCommitted
from cacheflow.integrations.aiocache import CacheFlowCache


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


def test_values_come_back_as_their_serializer_made_them(urls: list[str]) -> None:
    async def steps() -> None:
        value = {"a": [1, None], "b": "ü"}
        for name, serializer, gone_in, came_out in (
            ("json", None, value, value),
            ("text", StringSerializer(), 7, "7"),
            ("pickle", PickleSerializer(), {1: (2,)}, {1: (2,)}),
            ("msgpack", MsgPackSerializer(), value, value),
        ):
            async with CacheFlowCache(urls, serializer=serializer, namespace=f"aio-{name}") as cache:
                await cache.set("one", gone_in)
                await cache.multi_set([("two", gone_in), ("three", gone_in)], ttl=30)
                assert await cache.get("one") == came_out
                assert await cache.multi_get(["three", "none", "two"]) == [came_out, None, came_out]
                assert await cache.get("none", default=5) == 5
                assert await cache.clear()
                assert not await cache.exists("one")

    run(steps())


def test_what_would_come_back_changed_is_refused(urls: list[str]) -> None:
    async def steps() -> None:
        async with CacheFlowCache(urls, serializer=NullSerializer(), namespace="aio-null") as cache:
            assert await cache.set("n", 5)
            for value in ({"a": 1}, True, None, 1.5):
                with pytest.raises(TypeError, match="gives str or bytes"):
                    await cache.set("n", value)
            assert await cache.increment("n", 2) == 7
            assert await cache.get("n") == "7"

    run(steps())


def test_clear_leaves_other_namespaces_alone(urls: list[str]) -> None:
    async def steps() -> None:
        async with CacheFlowCache(urls, namespace="aio-a") as one, CacheFlowCache(urls, namespace="aio-ab") as two:
            await one.set("k", 1)
            await two.set("k", 2)
            await one.clear()
            assert (await one.get("k"), await two.get("k")) == (None, 2)
            await one.set("k", 1)
            await one.clear(namespace="aio-ab")
            assert (await one.get("k"), await two.get("k")) == (1, None)

    run(steps())


def test_ttls(urls: list[str]) -> None:
    async def steps() -> None:
        async with CacheFlowCache(urls, namespace="aio-ttl", ttl=30) as cache:
            await cache.set("default", 1)
            await cache.set("none", 1, ttl=None)
            await cache.add("short", 1, ttl=0.1)
            left = [(await cache.client.get_item(f"aio-ttl:{key}")).ttl_s for key in ("default", "none")]
            assert 25 < left[0] <= 30 and left[1] is None
            assert await cache.expire("default", 0) and not await cache.expire("absent", 5)
            assert (await cache.client.get_item("aio-ttl:default")).ttl_s is None
            deadline = time.monotonic() + 10
            while await cache.get("short") is not None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    run(steps())


def test_a_lock_holds_over_processes_and_is_released_by_its_owner_alone(
    urls: list[str], heard: Callable[[], None]
) -> None:
    async def steps() -> None:
        async with (
            CacheFlowCache(urls, namespace="aio-lock") as one,
            CacheFlowCache(urls[1:], namespace="aio-lock") as two,
        ):
            held = RedLock(one, "k", lease=20)
            async with held:
                with pytest.raises(ValueError):
                    await two._add(held.key, "other", ttl=20)
                assert await two._redlock_release(held.key, "other") == 0
                assert await two.exists("k-lock")
            heard()
            assert not await two.exists("k-lock")
            await one.set("k", "before")
            async with OptimisticLock(one, "k") as lock:
                await two.set("k", "before")
                # The same value again is a change all the same.
                with pytest.raises(OptimisticLockError):
                    await lock.cas("after")
            async with OptimisticLock(one, "k") as lock:
                assert await lock.cas("after", ttl=30)
            heard()
            assert await two.get("k") == "after"

    run(steps())


def test_one_key_is_counted_exactly(urls: list[str]) -> None:
    async def steps() -> None:
        caches = [CacheFlowCache([url], namespace="aio-count", discover=False) for url in urls]
        await asyncio.gather(*(cache.increment("n") for cache in caches for _ in range(20)))
        assert await caches[0].increment("n", 0) == 60
        await caches[0].set("n", "text")
        with pytest.raises(TypeError):
            await caches[0].increment("n")
        for cache in caches:
            await cache.close()

    run(steps())


def test_decorators_and_plugins(urls: list[str]) -> None:
    async def steps() -> None:
        calls: list[Any] = []
        options: dict[str, Any] = {"cache": CacheFlowCache, "urls": urls, "namespace": "aio-decorated"}

        @cached(ttl=30, **options)  # type: ignore[untyped-decorator]
        async def double(n: int) -> int:
            calls.append(n)
            return 2 * n

        @cached_stampede(ttl=30, lease=5, key_builder=lambda *_: "once", **options)  # type: ignore[untyped-decorator]
        async def once() -> int:
            calls.append("once")
            await asyncio.sleep(0.1)
            return 7

        @multi_cached("ids", **options)  # type: ignore[untyped-decorator]
        async def several(ids: list[str]) -> dict[str, int]:
            calls.append(tuple(ids))
            return {each: len(each) for each in ids}

        assert [await double(2), await double(2)] == [4, 4]
        assert await asyncio.gather(*(once() for _ in range(5))) == [7] * 5
        assert await several(["a", "bb"]) == {"a": 1, "bb": 2}
        assert await several(["a", "bb", "ccc"]) == {"a": 1, "bb": 2, "ccc": 3}
        assert calls == [2, "once", ("a", "bb"), ("ccc",)]

        async with CacheFlowCache(urls, plugins=[HitMissRatioPlugin(), TimingPlugin()], namespace="aio-plug") as cache:
            await cache.set("k", 1)
            await cache.get("k")
            await cache.get("none")
            assert cache.hit_miss_ratio["hit_ratio"] == 0.5 and cache.profiling["get_max"] > 0

    run(steps())


def test_a_cache_by_its_url(urls: list[str]) -> None:
    async def steps() -> None:
        async with Cache.from_url(f"{urls[0].replace('http', 'cacheflow')}/?namespace=aio-url&ttl=30") as cache:
            assert isinstance(cache, CacheFlowCache) and cache.namespace == "aio-url" and cache.ttl == 30
            await cache.set("k", [1])
            assert await cache.raw("get", "aio-url:k") == "[1]"

    run(steps())


def test_a_node_is_killed(urls: list[str], frameworks: Nodes) -> None:
    async def steps() -> None:
        async with CacheFlowCache(urls, namespace="aio-killed", timeout=20) as cache:
            for number in range(30):
                if number == 10:
                    frameworks.leader().kill()
                assert await cache.increment("n") == number + 1
            assert await cache.get("n") == 30

    run(steps())


def test_no_node_answers() -> None:
    async def steps() -> None:
        calls = []
        cache = CacheFlowCache("http://127.0.0.1:1", timeout=0.5)
        with pytest.raises((NotCommitted, asyncio.TimeoutError)):
            await cache.get("k")

        @cached(cache=CacheFlowCache, urls="http://127.0.0.1:1", timeout=0.5)  # type: ignore[untyped-decorator]
        async def computed() -> int:
            calls.append(1)
            return 5

        assert await computed() == 5 and calls == [1]

    run(steps())
