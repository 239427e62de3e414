"""The asyncio twin: the same verbs, and the application's loop never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.embedded import wait_for

from cacheflow.aio.store import AsyncReplicatedStore, _Answers
from cacheflow.errors import InvalidRequest, NotReady, OutcomeUnknown, PreconditionFailed


def run(folder: Path, body: Callable[[AsyncReplicatedStore], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        settings.setdefault("bootstrap", "peers" not in settings)
        async with AsyncReplicatedStore(node_id="a", raft_address="127.0.0.1:0", data_dir=folder, **settings) as cache:
            return await body(cache)

    return asyncio.run(main())


def test_every_verb_works_as_a_coroutine(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> None:
        written = await cache.set("k", {"a": 1}, ttl=60)
        assert written.created and await cache.get("k") == {"a": 1}
        item = await cache.get_item("k", consistency="linearizable")
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


@pytest.mark.parametrize("peers", [[], ["127.0.0.1:1"]])
def test_a_start_that_is_cancelled_leaves_no_node_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: list[str]
) -> None:
    """Without peers it is cancelled in the middle of the start; with one that is not there while it gets ready."""
    cache = AsyncReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=not peers, data_dir=tmp_path, peers=peers
    )
    begun, cancelled = threading.Event(), threading.Event()
    start = cache.store.start

    def held() -> None:
        begun.set()
        cancelled.wait(20)
        start()

    if not peers:
        monkeypatch.setattr(cache.store, "start", held)

    async def main() -> None:
        entering = asyncio.ensure_future(cache.__aenter__())
        while not (begun.is_set() if not peers else cache.store._engine.running):
            await asyncio.sleep(0)
        entering.cancel()
        # Once more, while it cleans up.
        await asyncio.sleep(0)
        entering.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(main())
    wait_for(lambda: not any(thread.name == "cacheflow-loop" for thread in threading.enumerate()))
    assert [good for _, good, _ in cache.store.liveness()] == [False]
    run(tmp_path, lambda cache: cache.set("k", 1))


def test_a_write_that_is_cancelled_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def body(cache: AsyncReplicatedStore) -> None:
        counts = [asyncio.ensure_future(cache.incr("n", initial=0)) for _ in range(50)]
        await asyncio.sleep(0)
        for count in counts[::2]:
            count.cancel()
        ends = await asyncio.gather(*counts, return_exceptions=True)
        assert [type(end) for end in ends[::2]] == [asyncio.CancelledError] * 25
        counted = [end for end in ends if isinstance(end, int)]
        assert len(counted) == 25
        assert await cache.get("n", consistency="linearizable") >= max(counted) >= 25

    run(tmp_path, body)


def test_what_one_turn_has_answered_wakes_the_application_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        woken = []
        wake = loop.call_soon_threadsafe

        def counted(*call: Any) -> None:
            woken.append(call)
            wake(*call)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        answers = _Answers(loop, 60)
        futures = [answers.expect() for _ in range(100)]
        for call in [answers.tell(future, [[0, number]]) for number, future in enumerate(futures)]:
            call()
        assert [await future for future in futures] == [[[0, number]] for number in range(100)]
        assert len(woken) == 1

    asyncio.run(main())


def test_a_node_whose_loop_has_died_lets_nobody_wait_for_ever() -> None:
    async def main() -> None:
        answers = _Answers(asyncio.get_running_loop(), 0.01)
        for _ in range(2):
            for future in [answers.expect(), answers.expect()]:
                with pytest.raises(OutcomeUnknown):
                    await future

    asyncio.run(main())
