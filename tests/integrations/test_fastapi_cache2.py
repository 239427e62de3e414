"""fastapi-cache2 over a cluster: its back end's methods, and its decorator in a FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any

import httpx
from cluster.processes import Nodes
from fastapi import FastAPI
from fastapi_cache import FastAPICache
from fastapi_cache.coder import PickleCoder
from fastapi_cache.decorator import cache

from cacheflow.integrations.fastapi_cache2 import CacheFlowBackend


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


def application(backend: CacheFlowBackend, prefix: str) -> tuple[FastAPI, list[str]]:
    """Return an application over ``backend``, and the list of its functions' calls."""
    FastAPICache.reset()
    FastAPICache.init(backend, prefix=prefix)
    app = FastAPI()
    calls: list[str] = []

    @app.get("/items/{name}")
    @cache(namespace="items", expire=30)
    async def item(name: str) -> dict[str, Any]:
        calls.append(name)
        return {"name": name, "length": len(name)}

    @app.get("/day")
    @cache(namespace="days", expire=30, coder=PickleCoder)
    async def day() -> date:
        calls.append("day")
        return date(2026, 11, 29)

    return app, calls


def browser(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


def test_the_methods_of_a_back_end(urls: list[str]) -> None:
    async def steps() -> None:
        backend = CacheFlowBackend(urls)
        assert await backend.get_with_ttl("fc:none") == (-2, None) and await backend.get("fc:none") is None
        await backend.set("fc:a", b"\x00\xff", 30)
        await backend.set("fc:b", b"text")
        ttl, value = await backend.get_with_ttl("fc:a")
        assert 25 < ttl <= 30 and value == b"\x00\xff"
        assert await backend.get_with_ttl("fc:b") == (-1, b"text") and await backend.get("fc:b") == b"text"
        assert await backend.clear(key="fc:a") == 1 and await backend.clear(key="fc:a") == 0
        await backend.set("fcd", b"another's")
        assert await backend.clear(namespace="fc") == 1 and await backend.clear() == 0
        assert await backend.get("fc:b") is None and await backend.get("fcd") == b"another's"
        await backend.close()

    run(steps())


def test_the_decorator_in_an_application(urls: list[str]) -> None:
    async def steps() -> None:
        app, calls = application(CacheFlowBackend(urls), "fc-app")
        async with browser(app) as client:
            first, second = await client.get("/items/pen"), await client.get("/items/pen")
            assert first.json() == second.json() == {"name": "pen", "length": 3}
            assert [each.headers["x-fastapi-cache"] for each in (first, second)] == ["MISS", "HIT"]
            assert 25 < int(second.headers["cache-control"].removeprefix("max-age=")) <= 30
            same = await client.get("/items/pen", headers={"If-None-Match": second.headers["etag"]})
            assert same.status_code == 304
            assert (await client.get("/day")).json() == (await client.get("/day")).json() == "2026-11-29"
            assert calls == ["pen", "day"]
            assert await FastAPICache.clear(namespace="items") == 1
            await client.get("/items/pen")
            assert calls == ["pen", "day", "pen"]

    run(steps())


def test_another_process_finds_what_this_one_has_kept(urls: list[str], heard: Callable[[], None]) -> None:
    async def steps() -> None:
        calls: list[str] = []
        for url in urls:
            app, more = application(CacheFlowBackend(url), "fc-shared")
            async with browser(app) as client:
                assert (await client.get("/items/ink")).json()["length"] == 3
            heard()
            calls += more
        assert calls == ["ink"]

    run(steps())


def test_nodes_that_do_not_answer(urls: list[str], frameworks: Nodes, heard: Callable[[], None]) -> None:
    async def steps() -> None:
        app, calls = application(CacheFlowBackend(urls), "fc-killed")
        async with browser(app) as client:
            await client.get("/items/cup")
            heard()
            frameworks.leader().kill()
            assert (await client.get("/items/cup")).headers["x-fastapi-cache"] == "HIT"
            assert (await client.get("/items/mug")).status_code == 200
            assert (await client.get("/items/mug")).headers["x-fastapi-cache"] == "HIT"
        assert calls == ["cup", "mug"]
        app, calls = application(CacheFlowBackend("http://127.0.0.1:1", timeout=0.3), "fc-none")
        async with browser(app) as client:
            assert [(await client.get("/items/jar")).status_code for _ in range(2)] == [200, 200]
        assert calls == ["jar", "jar"]

    run(steps())
