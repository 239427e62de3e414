"""limits, Flask-Limiter and slowapi over three real nodes, and exact. limits' own suite is one of tests/conformance."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import flask
import flask_limiter
import limits.aio.strategies
import limits.strategies
import pytest
import slowapi
import slowapi.util
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import cacheflow.integrations.limits  # noqa: F401 - makes the schemes known
from cacheflow import CacheFlowError, ReplicationError, open_cache
from cacheflow.integrations.gathering import Gathering

EVERY = ["fixed-window", "moving-window", "sliding-window-counter"]
NOBODY = "cacheflow://127.0.0.1:1?timeout=0.2"


def uri(urls: list[str], first: int = 0) -> str:
    """The storage of these nodes, the one with the number ``first`` asked first."""
    return "cacheflow://" + ",".join(url.removeprefix("http://") for url in [*urls[first:], *urls[:first]])


def limiter(strategy: str, storage: str, **options: Any) -> Any:
    return limits.strategies.STRATEGIES[strategy](storage_from_string(storage, **options))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("strategy", EVERY)
def test_64_threads_on_three_nodes_get_exactly_the_limit(
    urls: list[str], strategy: str, heard: Callable[[], None]
) -> None:
    # Two for each node: of two processes, which know nothing of each other.
    limiters = [limiter(strategy, uri(urls, number % 3)) for number in range(6)]
    item, key = RateLimitItemPerMinute(100), uuid.uuid4().hex
    hits: list[bool] = []

    def hit(number: int) -> None:
        for _ in range(3):
            hits.append(limiters[number % 6].hit(item, key))

    in_threads(64, hit)
    assert (len(hits), sum(hits)) == (192, 100)
    heard()
    assert not limiters[0].test(item, key)
    assert limiters[1].get_window_stats(item, key).remaining == 0


@pytest.mark.parametrize("strategy", EVERY)
def test_tasks_of_asyncio_get_exactly_the_limit(urls: list[str], strategy: str) -> None:
    async def hits() -> list[bool]:
        storage: Any = storage_from_string(f"async+{uri(urls)}")
        known: Any = limits.aio.strategies.STRATEGIES
        tested = known[strategy](storage)
        item, key = RateLimitItemPerMinute(10), uuid.uuid4().hex
        got = await asyncio.gather(*(tested.hit(item, key) for _ in range(40)))
        assert not await tested.test(item, key)
        await tested.clear(item, key)
        assert (await tested.get_window_stats(item, key)).remaining == 10
        return got

    assert sum(asyncio.run(hits())) == 10


@pytest.mark.parametrize("strategy", EVERY)
def test_a_window_ends_by_the_cluster_s_clock(urls: list[str], strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tested, item, real = limiter(strategy, uri(urls)), RateLimitItemPerSecond(2, 1), time.time
    deadline = time.monotonic() + 30
    while True:
        began, key = time.monotonic(), uuid.uuid4().hex
        # This application's clock is a day behind at its second hit, and a day ahead at its third.
        assert tested.hit(item, key)
        monkeypatch.setattr(time, "time", lambda: real() - 86_400)
        assert tested.hit(item, key)
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        third = tested.hit(item, key)
        monkeypatch.undo()
        # On a machine so busy that the window was over meanwhile, again.
        if time.monotonic() < began + 1:
            break
        assert time.monotonic() < deadline
    assert not third
    while not tested.hit(item, key):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_hit_leaves_the_window_s_end_where_it_was(urls: list[str]) -> None:
    for strategy in EVERY[1:]:
        prefix = f"lim-ends-{strategy}"
        tested = limiter(strategy, uri(urls), key_prefix=prefix)
        assert tested.hit(RateLimitItemPerMinute(5), "k")
        time.sleep(0.4)
        assert tested.hit(RateLimitItemPerMinute(5), "k")
        (key,) = open_cache(urls).keys(f"{prefix}:")
        item = open_cache(urls).get_item(key)
        assert item is not None and item.ttl_s is not None
        assert 110 < item.ttl_s < 119.85


def test_hits_of_several_at_once_fit_or_not_as_a_whole(urls: list[str]) -> None:
    for strategy in EVERY[1:]:
        tested, item, key = limiter(strategy, uri(urls)), RateLimitItemPerMinute(10), uuid.uuid4().hex
        assert [tested.hit(item, key, cost=cost) for cost in (8, 5, 2, 1, 11)] == [True, False, True, False, False]


def test_limits_are_cleared_one_by_one_and_by_their_prefix(urls: list[str]) -> None:
    mine, other = (limiter("moving-window", uri(urls), key_prefix=prefix) for prefix in ("lim-a", "lim-b"))
    item, long = RateLimitItemPerMinute(1), "l" * 5000
    assert [each.hit(item, key) for each in (mine, other) for key in ("k", long)] == [True] * 4
    mine.clear(item, "k")
    assert [mine.hit(item, "k"), mine.hit(item, long)] == [True, False]
    assert mine.storage.reset() == 2
    assert [mine.hit(item, long), other.hit(item, long)] == [True, False]


def test_keys_of_any_kind_are_limited(urls: list[str]) -> None:
    for strategy in EVERY:
        tested, item = limiter(strategy, uri(urls), key_prefix=f"lim-keys-{strategy}"), RateLimitItemPerMinute(1)
        for key in ("a\nb", "k" * 5000, "\ud800", "a\nc"):
            assert [tested.hit(item, key), tested.hit(item, key)] == [True, False]


def test_what_is_no_window_is_named(urls: list[str]) -> None:
    tested, item = limiter("moving-window", uri(urls), key_prefix="lim-odd"), RateLimitItemPerMinute(1)
    open_cache(urls).set(f"lim-odd:{item.key_for('k')}/moving", "a text")
    with pytest.raises(CacheFlowError, match="holds no window"):
        tested.hit(item, "k")


def test_without_a_node_hits_raise_in_time() -> None:
    for strategy in EVERY:
        with pytest.raises(ReplicationError):
            limiter(strategy, NOBODY).hit(RateLimitItemPerMinute(1), "k")
        with pytest.raises(StorageError):
            limiter(strategy, NOBODY, wrap_exceptions=True).hit(RateLimitItemPerMinute(1), "k")
    assert not storage_from_string(NOBODY).check()


def test_flask_limiter_counts_for_all_processes_together(urls: list[str]) -> None:
    def client(first: int, prefix: str = uuid.uuid4().hex) -> Any:
        app = flask.Flask("limited")
        limited = flask_limiter.Limiter(
            lambda: "one visitor",
            app=app,
            storage_uri=uri(urls, first),
            strategy="moving-window",
            key_prefix=prefix,
            headers_enabled=True,
        )

        @app.get("/")
        @limited.limit("5 per minute")
        def index() -> str:
            return "served"

        return app.test_client()

    clients = [client(number) for number in range(3)]
    answers = [clients[number % 3].get("/") for number in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers[:5]] == ["4", "3", "2", "1", "0"]
    assert 0 < int(answers[6].headers["Retry-After"]) <= 60


def test_flask_limiter_falls_back_to_memory_without_a_node() -> None:
    app = flask.Flask("limited")
    limited = flask_limiter.Limiter(
        lambda: "one visitor", app=app, storage_uri=NOBODY, in_memory_fallback=["1 per minute"]
    )

    @app.get("/")
    @limited.limit("5 per minute")
    def index() -> str:
        return "served"

    client = app.test_client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_slowapi_counts_for_all_processes_together(urls: list[str]) -> None:
    key = uuid.uuid4().hex

    def client(first: int) -> TestClient:
        limited = slowapi.Limiter(key_func=lambda: key, storage_uri=uri(urls, first))

        @limited.limit("3/minute")
        async def index(request: Request) -> PlainTextResponse:
            return PlainTextResponse("served")

        app = Starlette()
        app.add_route("/", index)
        app.state.limiter = limited
        handler: Any = slowapi._rate_limit_exceeded_handler
        app.add_exception_handler(slowapi.errors.RateLimitExceeded, handler)
        return TestClient(app)

    clients = [client(number) for number in range(2)]
    assert [clients[number % 2].get("/").status_code for number in range(5)] == [200] * 3 + [429] * 2


def test_an_error_is_that_of_all_who_went_together_and_the_next_one_asks_again() -> None:
    gathering, asked = Gathering(), threading.Event()
    raised: list[BaseException] = []
    go_on = threading.Event()

    def decide(amounts: Any) -> list[bool]:
        asked.set()
        go_on.wait(5)
        raise ReplicationError("nobody answers")

    def ask(number: int) -> None:
        try:
            gathering.ask("k", 1, decide)
        except ReplicationError as error:
            raised.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    asked.wait(5)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(raised) == len({id(error) for error in raised}) == 8
    assert gathering.ask("k", 1, lambda amounts: [True] * len(amounts))


def test_who_is_cancelled_leaves_the_others_to_the_next_one() -> None:
    async def cancelled() -> list[Any]:
        gathering, calls = Gathering(), []

        async def decide(amounts: Any) -> list[bool]:
            calls.append(list(amounts))
            await asyncio.sleep(0.01 if len(calls) > 2 else 5)
            return [True] * len(amounts)

        first = asyncio.create_task(gathering.ask_async("k", 1, decide))
        await asyncio.sleep(0)
        others = [asyncio.create_task(gathering.ask_async("k", amount, decide)) for amount in (2, 3)]
        await asyncio.sleep(0)
        first.cancel()
        while len(calls) < 2:
            await asyncio.sleep(0)
        others[0].cancel()
        assert await others[1]
        assert not gathering._desks
        return calls

    assert asyncio.run(cancelled()) == [[1], [2, 3], [3]]


def test_a_forked_child_waits_for_nobody_of_its_parent() -> None:
    gathering = Gathering()

    def decide(amounts: Any) -> list[bool]:
        child = os.fork()
        if child == 0:
            os._exit(0 if gathering.ask("k", 1, lambda amounts: [True] * len(amounts)) else 1)
        deadline = time.monotonic() + 10
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.01)
        return [os.waitstatus_to_exitcode(ended[1]) == 0] * len(amounts)

    assert gathering.ask("k", 1, decide)
