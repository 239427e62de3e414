"""CacheMiddleware over a cluster: what is kept, for whom, for how long, and what passes as it is."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest
from cluster.processes import Nodes
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cacheflow.errors import NotCommitted
from cacheflow.integrations.starlette import CacheMiddleware


class Site:
    """An application whose pages count their calls, with its answers in a cluster."""

    def __init__(self, urls: Any, answer: Callable[[Request], Awaitable[Response]], **options: Any) -> None:
        self.calls = 0
        self.answer = answer
        methods = ["GET", "HEAD", "POST", "DELETE", "OPTIONS"]
        self.pages = Starlette(routes=[Route("/{path:path}", self.page, methods=methods)])
        self.app = CacheMiddleware(self.pages, urls, **{"prefix": f"site-{uuid.uuid4().hex}", "timeout": 5, **options})

    async def page(self, request: Request) -> Response:
        self.calls += 1
        return await self.answer(request)

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://shop", **options)


def says(cache_control: str, **headers: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an answer's maker: a body that is another each time, with these headers."""

    async def answer(request: Request) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return PlainTextResponse(uuid.uuid4().hex, headers={"cache-control": cache_control, **named})

    return answer


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


async def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def asked(app: Any, method: str = "GET", **headers: str) -> list[Any]:
    """Return the messages that ``app`` sends for ``/a``, as it sends them."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/a", "query_string": b"", "headers": named}
    await asyncio.wait_for(app(scope, receive, send), 10)
    return sent


def states(*answers: httpx.Response) -> list[str | None]:
    return [answer.headers.get("x-cache") for answer in answers]


def test_an_answer_is_kept_for_all_processes_and_not_sent_again(urls: list[str], heard: Callable[[], None]) -> None:
    async def steps() -> None:
        one = Site(urls, says("max-age=60"), prefix="site-shared")
        two = Site(urls[2], says("max-age=60"), prefix="site-shared")
        path = f"/a?b={uuid.uuid4()}"
        async with one.client() as here, two.client() as there:
            first, second = await here.get(path), await here.get(path)
            heard()
            third = await there.get(path)
            assert first.text == second.text == third.text and (one.calls, two.calls) == (1, 0)
            assert states(first, second, third) == ["miss", "hit", "hit"]
            tag = first.headers["etag"]
            assert tag.startswith('W/"') and second.headers["etag"] == third.headers["etag"] == tag
            assert "age" not in first.headers and 0 <= int(second.headers["age"]) < 60
            same = await there.get(path, headers={"If-None-Match": f'"x", {tag}'})
            assert same.status_code == 304 and same.content == b"" and same.headers["etag"] == tag
            assert "content-type" not in same.headers and same.headers["cache-control"] == "max-age=60"
            other = await there.get(path, headers={"If-None-Match": '"x"'})
            assert other.status_code == 200 and other.text == first.text
            assert (await here.get("/other")).text != first.text

    run(steps())


def test_a_304_for_the_first_one_who_asks(urls: list[str]) -> None:
    async def steps() -> None:
        async def answer(request: Request) -> Response:
            return PlainTextResponse("always", headers={"cache-control": "max-age=60"})

        site = Site(urls, answer)
        async with site.client() as client:
            tag = (await client.get("/a")).headers["etag"]
            assert (await client.get("/b", headers={"If-None-Match": tag})).status_code == 304
            assert (await client.get("/b")).headers["x-cache"] == "hit"

    run(steps())


def test_an_own_etag_stays(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60", etag='"mine"'))
        async with site.client() as client:
            assert [(await client.get("/a")).headers["etag"] for _ in range(2)] == ['"mine"'] * 2
            assert (await client.get("/a", headers={"If-None-Match": 'W/"mine"'})).status_code == 304

    run(steps())


@pytest.mark.parametrize(
    "headers",
    [
        {"cache_control": "no-store"},
        {"cache_control": "private, max-age=60"},
        {"cache_control": "max-age=60", "set_cookie": "id=7"},
        {"cache_control": "max-age=60", "vary": "*"},
        {"cache_control": "no-cache"},
    ],
)
def test_what_is_not_kept_passes_as_it_is(urls: list[str], headers: dict[str, str]) -> None:
    async def steps() -> None:
        site = Site(urls, says(**headers))
        async with site.client() as client:
            answers = [await client.get("/a") for _ in range(2)]
            assert site.calls == 2 and answers[0].text != answers[1].text
            assert states(*answers) == [None, None] and "etag" not in answers[0].headers

    run(steps())


def test_whose_answer_is_given_to_whom(urls: list[str]) -> None:
    async def steps() -> None:
        trusted = {"Authorization": "Bearer x"}
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            anybody = await client.get("/a")
            assert states(await client.get("/a", headers=trusted), await client.get("/a")) == [None, "hit"]
            assert states(await client.get("/b", headers=trusted), await client.get("/b")) == [None, "miss"]
            assert (await client.get("/a", headers={"Cookie": "id=7"})).text == anybody.text
        site = Site(urls, says("public, max-age=60"))
        async with site.client() as client:
            assert states(await client.get("/a", headers=trusted), await client.get("/a")) == ["miss", "hit"]
        site = Site(urls, says(""), default_ttl=60)
        async with site.client() as client:
            known = {"Cookie": "id=7"}
            assert states(await client.get("/a", headers=known), await client.get("/a")) == [None, "miss"]
            assert states(await client.get("/a", headers=known), await client.get("/a")) == [None, "hit"]
        site = Site(urls, says(""))
        async with site.client() as client:
            assert states(await client.get("/a"), await client.get("/a")) == [None, None]

    run(steps())


def test_answers_vary_by_what_they_say(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60", vary="Accept-Language"))
        async with site.client() as client:

            async def get(language: str) -> httpx.Response:
                return await client.get("/a", headers={"Accept-Language": language})

            german, english = await get("de"), await get("en")
            assert states(german, english) == ["miss", "miss"] and german.text != english.text
            assert [(await get(each)).text for each in ("de", "en", "de")] == [german.text, english.text, german.text]
            # A write removes all of them, also when their list is made anew.
            await client.post("/a")
            assert states(await get("en"), await get("de"), await get("en")) == ["miss", "miss", "hit"]
            # What answers depend on changes.
            site.answer = says("max-age=60", vary="Accept, Accept-Language")
            await client.post("/a")
            assert states(await get("en"), await get("en")) == ["miss", "hit"]

    run(steps())


def test_methods_queries_and_hosts_have_answers_of_their_own(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            first, second = await client.head("/a"), await client.head("/a")
            assert states(first, second) == ["miss", "hit"] and second.content == b""
            assert second.headers["content-length"] == "32"
            assert [each.get("body") for each in await asked(site.app, "HEAD", host="shop")] == [None, b""]
            assert states(await client.get("/a"), await client.get("/a?b"), await client.get("/a?c")) == ["miss"] * 3
            assert states(await client.get("/a", headers={"Host": "other"})) == ["miss"]
            assert states(await client.options("/a"), await client.options("/a")) == [None, None]

    run(steps())


def test_a_write_that_succeeds_removes_what_was_kept(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            await client.get("/a")
            await client.head("/a")
            site.answer = says("max-age=60")
            await client.delete("/a")
            assert states(await client.get("/a"), await client.head("/a")) == ["miss", "miss"]

            async def refused(request: Request) -> Response:
                return PlainTextResponse("no", 403)

            site.answer = refused
            assert (await client.post("/a")).status_code == 403
            assert states(await client.get("/a")) == ["hit"]

    run(steps())


def test_what_a_request_wants_of_the_cache(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            first = await client.get("/a")
            again = await client.get("/a", headers={"Cache-Control": "no-cache"})
            assert again.text != first.text and (await client.get("/a")).text == again.text
            assert states(await client.get("/b", headers={"Cache-Control": "no-store"}), await client.get("/b")) == [
                None,
                "miss",
            ]
            assert states(await client.get("/a", headers={"Range": "bytes=0-3"})) == [None]
            assert states(await client.get("/a", headers={"Cache-Control": "max-age=60"})) == ["hit"]

    run(steps())


def test_a_fresh_answer_ends(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=1"))
        async with site.client() as client:
            began = time.monotonic()
            first = await client.get("/a")
            while (await client.get("/a")).text == first.text:
                assert time.monotonic() < began + 10
                await asyncio.sleep(0.02)
            assert time.monotonic() > began + 0.95

    run(steps())


def test_a_stale_answer_is_given_while_one_process_asks_again(urls: list[str], heard: Callable[[], None]) -> None:
    async def steps() -> None:
        gate = asyncio.Event()
        asked_again: list[Any] = []
        made = says("max-age=0, stale-while-revalidate=60")

        async def answer(request: Request) -> Response:
            if sum(site.calls for site in sites) > 1:
                asked_again.append((request.headers.get("if-none-match"), await request.body()))
                await gate.wait()
            return await made(request)

        sites = [Site(url, answer, prefix=f"site-{prefix}") for prefix in [uuid.uuid4().hex] for url in urls]
        clients = [site.client() for site in sites]
        first = await clients[0].get("/a")
        heard()
        tag = {"If-None-Match": first.headers["etag"]}
        assert (await clients[1].get("/a", headers=tag)).status_code == 304
        stale = await asyncio.gather(*(client.get("/a") for client in clients for _ in range(5)))
        assert {each.text for each in stale} == {first.text} and set(states(*stale)) == {"stale"}
        await soon(lambda: sum(site.calls for site in sites) == 2)
        # The answer for all is asked for, and not whether one reader has it.
        assert asked_again == [(None, b"")]
        gate.set()

        async def changed() -> None:
            deadline = time.monotonic() + 10
            while (await clients[2].get("/a")).text == first.text:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

        sites[0].answer = sites[1].answer = sites[2].answer = says("max-age=60")
        await changed()
        for client in clients:
            await client.aclose()

    run(steps())


def test_an_answer_that_is_kept_no_more_is_given_no_more(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=0, stale-while-revalidate=60"))

        async def broken(request: Request) -> Response:
            raise RuntimeError("on purpose")

        async with site.client() as client:
            first = await client.get("/a")
            site.answer = broken
            assert (await client.get("/a")).text == first.text
            await soon(lambda: site.calls == 2)
            # One that fails leaves the old answer; until the lease ends nobody tries again.
            site.answer = says("no-store")
            assert states(await client.get("/a"), await client.get("/a")) == ["stale", "stale"] and site.calls == 2
            other = Site(urls, says("max-age=0, stale-while-revalidate=60"))
        async with other.client() as client:
            await client.get("/a")
            other.answer = says("no-store")
            await client.get("/a")
            await soon(lambda: other.calls == 2)
            await soon(lambda: not other.app._revalidations)
            assert states(await client.get("/a")) == [None]

    run(steps())


def test_streams_pass_piece_by_piece(urls: list[str]) -> None:
    async def steps() -> None:
        gate = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await gate.wait()
            yield b"two"

        async def answer(request: Request) -> Response:
            return StreamingResponse(pieces(), headers={"cache-control": "max-age=60"})

        site = Site(urls, answer)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body") == b"one":
                gate.set()

        async def receive() -> Any:
            await asyncio.Event().wait()

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/a",
            "raw_path": b"/a",
            "query_string": b"",
            "headers": [(b"host", b"shop")],
        }
        await asyncio.wait_for(site.app(scope, receive, send), 10)
        assert [each.get("body") for each in sent] == [None, b"one", b"two", b""]
        async with site.client() as client:
            kept = await client.get("/a")
            assert states(kept) == ["hit"] and kept.text == "onetwo" and kept.headers["content-length"] == "6"
            assert kept.headers["etag"]

    run(steps())


def test_a_large_body_passes_and_is_not_kept(urls: list[str]) -> None:
    async def steps() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        headers = {"cache-control": "max-age=60"}

        async def stream(request: Request) -> Response:
            return StreamingResponse(pieces(), headers=headers)

        async def counted(request: Request) -> Response:
            return StreamingResponse(pieces(), headers={**headers, "content-length": "2000"})

        async def plain(request: Request) -> Response:
            return PlainTextResponse("x" * 2000, headers=headers)

        for answer in (stream, counted, plain):
            site = Site(urls, answer, max_body_bytes=1000)
            async with site.client() as client:
                answers = [await client.get("/a") for _ in range(2)]
                assert site.calls == 2 and {each.text for each in answers} == {"x" * 2000}
        site = Site(urls, counted)
        async with site.client() as client:
            assert states(*[await client.get("/a") for _ in range(2)]) == ["miss", "hit"]

    run(steps())


def test_background_tasks_and_other_middleware(urls: list[str]) -> None:
    async def steps() -> None:
        done: list[int] = []

        async def answer(request: Request) -> Response:
            task = BackgroundTask(lambda: done.append(1))
            return PlainTextResponse("y" * 1000, headers={"cache-control": "max-age=60"}, background=task)

        async def dispatch(request: Request, following: Any) -> Response:
            response: Response = await following(request)
            response.headers["x-seen"] = "1"
            return response

        site = Site(urls, answer)
        site.app.app = BaseHTTPMiddleware(site.pages, dispatch=dispatch)
        site.app = GZipMiddleware(site.app)  # type: ignore[assignment]
        async with site.client() as client:
            first, second = await client.get("/a"), await client.get("/a")
            assert done == [1] and states(first, second) == ["miss", "hit"]
            assert first.text == second.text == "y" * 1000 and first.headers["x-seen"] == second.headers["x-seen"]
            assert first.headers["content-encoding"] == second.headers["content-encoding"] == "gzip"
            same = await client.get("/a", headers={"If-None-Match": first.headers["etag"]})
            assert same.status_code == 304

    run(steps())


def test_an_error_of_the_application_is_its_own(urls: list[str]) -> None:
    async def steps() -> None:
        async def answer(request: Request) -> Response:
            raise RuntimeError("on purpose")

        def half(more: bool) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                headers = [(b"cache-control", b"max-age=60"), (b"content-length", b"6")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"abc", "more_body": more})

            return app

        site = Site(urls, answer)
        async with site.client() as client:
            with pytest.raises(RuntimeError, match="on purpose"):
                await client.get("/a")
            for more in (True, False):
                sent = await asked(half(more), host="shop")
                site.app.app = half(more)
                # What came is passed on, and nothing is kept of it.
                for _ in range(2):
                    seen = await asked(site.app, host="shop")
                    assert [each.get("body") for each in seen] == [each.get("body") for each in sent] == [None, b"abc"]
                    assert (b"x-cache", b"miss") in seen[0]["headers"]
            site.app.app = site.pages
            site.answer = says("max-age=60")
            assert states(await client.get("/a")) == ["miss"]

    run(steps())


def test_what_stands_there_and_is_no_answer_counts_as_none(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            await client.get("/a")
            (key,) = [key async for key in site.app.client.keys(site.app._prefix)]
            for value in ("text", b"\xff", 7, {"a": 1}):
                await site.app.client.set(key, value, ttl=60)
                assert states(await client.get("/a"), await client.get("/a")) == ["miss", "hit"]
            await site.app.client.persist(key)
            assert states(await client.get("/a")) == ["miss"]

    run(steps())


def test_a_node_is_killed(urls: list[str], frameworks: Nodes, heard: Callable[[], None]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"), timeout=10)
        async with site.client() as client:
            first = await client.get("/a")
            heard()
            frameworks.leader().kill()
            assert (await client.get("/a")).text == first.text
            assert states(await client.get("/b"), await client.get("/b")) == ["miss", "hit"]

    run(steps())


def test_a_write_removes_what_was_kept_also_behind_a_call_that_failed(urls: list[str]) -> None:
    async def steps() -> None:
        site = Site(urls, says("max-age=60"))
        async with site.client() as client:
            first = await client.get("/a")

            async def failing() -> None:
                raise NotCommitted("no leader for a moment")

            await site.app._ask(failing, None)
            assert states(await client.get("/b")) == ["miss"]
            await client.post("/a")
            await soon(lambda: time.monotonic() > site.app._paused_until_s)
            assert (await client.get("/a")).text != first.text

    run(steps())


def test_what_could_not_be_removed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        site = Site("http://127.0.0.1:1", says("max-age=60"), timeout=0.3)
        async with site.client() as client:
            await client.get("/a")
            assert (await client.post("/a")).status_code == 200
        assert len([each for each in caplog.records if "/a" in each.message and "is not removed" in each.message]) == 1

    run(steps())


def test_a_cluster_that_does_not_answer_costs_little(caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        site = Site("http://127.0.0.1:1", says("max-age=60"), timeout=0.3)
        async with site.client() as client:
            began = time.monotonic()
            answers = [await client.get("/a") for _ in range(50)]
            assert {each.status_code for each in answers} == {200} and site.calls == 50
            assert (await client.post("/a")).status_code == 200
            assert time.monotonic() - began < 3
        assert 1 <= len([each for each in caplog.records if "not cached" in each.message]) <= 3

    run(steps())
