"""The asyncio twin: the same verbs, and the application's loop never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cacheflow.aio import AsyncReplicatedStore
from cacheflow.errors import InvalidRequest, NotReady, PreconditionFailed


def run(folder: Path, body: Callable[[AsyncReplicatedStore], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        async with AsyncReplicatedStore(node_id="a", raft_address="127.0.0.1:0", data_dir=folder, **settings) as cache:
            return await body(cache)

    return asyncio.run(main())


def test_every_verb_works_as_a_coroutine(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> None:
        written = await cache.set("k", {"a": 1}, ttl=60)
        assert written.created and await cache.get("k") == {"a": 1}
        item = await cache.read("k", consistency="linearizable")
        assert item is not None and item.version == written.version and item.ttl_s is not None
        assert await cache.get("absent", "gone") == "gone"
        assert await cache.add("lock", "me", ttl=5) and not await cache.add("lock", "you")
        swapped = await cache.compare_and_set("k", "new", version=written.version)
        with pytest.raises(PreconditionFailed):
            await cache.compare_and_set("k", "newer", version=written.version)
        assert swapped.version > written.version
        assert await cache.incr("n", 5, initial=0) == 5
        assert await cache.decr("n", 2) == 3
        assert await cache.touch("k", None) and not await cache.touch("absent", 5)
        assert await cache.delete("k") and not await cache.delete("k")
        await cache.clear()
        assert len(cache.store) == 0

    run(tmp_path, body)


def test_many_coroutines_count_exactly(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> Any:
        await asyncio.gather(*(cache.incr("n", initial=0) for _ in range(200)))
        return await cache.get("n")

    assert run(tmp_path, body) == 200


def test_errors_come_out_of_the_await(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> None:
        with pytest.raises(InvalidRequest):
            await cache.set("", 1)
        with pytest.raises(InvalidRequest):
            await cache.get("k", consistency="eventual")

    run(tmp_path, body)


def test_the_applications_loop_goes_on_while_a_write_waits(tmp_path: Path) -> None:
    async def main() -> int:
        # Its peer is not there: it never gets a leader.
        cache = AsyncReplicatedStore(
            node_id="a", raft_address="127.0.0.1:0", peers=["127.0.0.1:1"], data_dir=tmp_path, request_timeout_s=0.5
        )
        cache.store.start()
        try:
            write = asyncio.ensure_future(cache.set("k", 1))
            turns = 0
            while not write.done():
                turns += 1
                await asyncio.sleep(0)
            with pytest.raises(Exception, match="leader"):
                write.result()
            return turns
        finally:
            await asyncio.to_thread(cache.store.close)

    assert asyncio.run(main()) > 100


def test_a_node_that_does_not_get_ready_is_closed_again(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> None:
        raise AssertionError("it must not get ready")

    with pytest.raises(NotReady):
        run(tmp_path, body, peers=["127.0.0.1:1"], request_timeout_s=0.2)
    run(tmp_path / "other", lambda cache: cache.set("k", 1))
