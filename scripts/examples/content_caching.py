#!/usr/bin/env python3
"""Pages and fragments of three copies of a site in three nodes; the leader is killed while people read.

    scripts/examples/content_caching.py [--readers 10] [--rounds 5]

Every page is made once, by one copy of the site, and given by all. A reader who has a page already is answered 304, without a
body. An edit on one copy is seen on all. News that are stale are given at once, while one copy makes them anew. Nobody may see
an error, another page or an old one, and no page may be made twice. Exit code 1 when that is not so.
docs/usecases/content_caching.md is about it. Needs the extra starlette, and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cacheflow.aio import open_cache
from cacheflow.cli.launcher import LocalCluster, terminable
from cacheflow.integrations.starlette import CacheMiddleware

PAGES = 8
# Seconds that it takes to make the news.
NEWS_TAKE_S = 0.5
# Seconds in which an edit must be seen on all copies: milliseconds as a rule.
SEEN_WITHIN_S = 5.0


class Archive:
    """The articles of the site, and how often each page and fragment was made of them. Stands for a database that is slow."""

    def __init__(self) -> None:
        self.texts = {number: f"article {number}" for number in range(PAGES)}
        self.made: Counter[str] = Counter()

    def page(self, number: int, sidebar: str) -> str:
        """Return the page of an article."""
        self.made[f"page {number}"] += 1
        return f"<h1>{self.texts[number]}</h1>{sidebar}"


class Site:
    """One copy of the site. urls: the nodes, the one first that this copy asks first."""

    def __init__(self, archive: Archive, urls: list[str]) -> None:
        self._archive = archive
        self._fragments = open_cache(urls, key_prefix="fragments")
        routes = [
            Route("/article/{number:int}", self.article, methods=["GET", "POST"]),
            Route("/news", self.news),
        ]
        # More seconds than a cache should cost a reader, so that a page that is made twice is not one for which nobody waited.
        self.app = CacheMiddleware(Starlette(routes=routes), urls, prefix="site", timeout=20)

    async def article(self, request: Request) -> Response:
        number = request.path_params["number"]
        if request.method == "POST":
            self._archive.texts[number] = (await request.body()).decode()
            return Response(status_code=204)
        page = self._archive.page(number, await self.sidebar())
        return HTMLResponse(page, headers={"Cache-Control": "max-age=600"})

    async def news(self, request: Request) -> Response:
        self._archive.made["news"] += 1
        await asyncio.sleep(NEWS_TAKE_S)
        said = {"Cache-Control": "max-age=0, stale-while-revalidate=600"}
        return HTMLResponse(f"news {self._archive.made['news']}", headers=said)

    async def hear(self) -> None:
        """Wait until the node that this copy asks has everything that any node has acknowledged."""
        await self.app.client.get("heard", consistency="linearizable")

    async def sidebar(self) -> str:
        """Return a fragment that all pages share."""
        kept = await self._fragments.get("sidebar")
        if kept is None:
            self._archive.made["sidebar"] += 1
            kept = "<ul><li>About</li></ul>"
            await self._fragments.set("sidebar", kept, ttl=600)
        return str(kept)


class Reader:
    """Somebody with a browser, who keeps pages and asks whether they are still the same."""

    def __init__(self, site: Site) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://site")
        self._kept: dict[str, tuple[str, str]] = {}

    async def read(self, path: str) -> tuple[int, str, str]:
        """Return the status, the cache's state and the text that this reader has then."""
        tag, text = self._kept.get(path, ("", ""))
        answer = await self.client.get(path, headers={"If-None-Match": tag} if tag else {})
        if answer.status_code == 200:
            text = answer.text
            self._kept[path] = (answer.headers["etag"], text)
        return answer.status_code, answer.headers.get("x-cache", ""), text


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=10, help="on each copy of the site")
    parser.add_argument("--rounds", type=int, default=5, help="in which everybody reads every page")
    options = parser.parse_args()
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-content-") as folder,
        LocalCluster(3, Path(folder), say=lambda _: None) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        print(f"three nodes: {', '.join(cluster.urls)}", flush=True)
        return int(not asyncio.run(_all_right(cluster, options.readers, options.rounds)))


async def _all_right(cluster: LocalCluster, readers: int, rounds: int) -> bool:
    archive, urls = Archive(), cluster.urls
    sites = [Site(archive, urls[first:] + urls[:first]) for first in range(3)]
    everybody = [Reader(site) for site in sites for _ in range(readers)]
    kept = [
        await _read_by_all(cluster, archive, sites, everybody, rounds),
        await _edited(archive, sites, everybody),
        await _stale_news(archive, sites),
    ]
    for reader in everybody:
        await reader.client.aclose()
    return all(kept)


async def _heard(sites: list[Site]) -> None:
    """Wait until the nodes of all sites have what is kept: a read that overtakes a message has a page made twice."""
    for site in sites:
        await site.hear()


async def _read_by_all(
    cluster: LocalCluster, archive: Archive, sites: list[Site], everybody: list[Reader], rounds: int
) -> bool:
    """Have everybody read everything while the leader is killed; return whether each page was made once, and right."""
    for number in range(PAGES):
        await everybody[0].read(f"/article/{number}")
    await _heard(sites)
    statuses: Counter[int] = Counter()
    wrong = 0
    longest_s = 0.0

    async def reads(reader: Reader) -> None:
        nonlocal wrong, longest_s
        for number in range(PAGES):
            began = time.monotonic()
            status, _, text = await reader.read(f"/article/{number}")
            longest_s = max(longest_s, time.monotonic() - began)
            statuses[status] += 1
            wrong += text != f"<h1>article {number}</h1><ul><li>About</li></ul>"

    for each in range(rounds):
        if each == 1:
            while (leader := cluster.leader()) is None:
                await asyncio.sleep(0.05)
            cluster.kill(leader)
            print(f"{leader.node_id}, the leader, is killed", flush=True)
        await asyncio.gather(*(reads(reader) for reader in everybody))
    made = {what: times for what, times in archive.made.items() if times != 1}
    told = ", ".join(f"{times} x {status}" for status, times in sorted(statuses.items()))
    print(f"{sum(statuses.values())} visits of {PAGES} pages by {len(everybody)} readers: {told}; {wrong} wrong")
    print(f"made more than once: {made or 'nothing'}; the longest visit took {longest_s:.2f} s")
    return not wrong and not made and set(statuses) == {200, 304} and archive.made["sidebar"] == 1


async def _edited(archive: Archive, sites: list[Site], everybody: list[Reader]) -> bool:
    """Have an article edited on one copy; return whether all readers of all copies see that, and it is made once more."""
    await everybody[-1].client.post("/article/1", content=b"a better article")
    wanted = "<h1>a better article</h1><ul><li>About</li></ul>"
    began = time.monotonic()
    await everybody[-1].read("/article/1")
    await _heard(sites)
    seen = 0
    while seen < len(everybody) and time.monotonic() < began + SEEN_WITHIN_S:
        seen = sum([(await reader.read("/article/1"))[2] == wanted for reader in everybody])
    print(
        f"an edit is seen by {seen} of {len(everybody)} readers, and the page made {archive.made['page 1'] - 1} time more"
    )
    return seen == len(everybody) and archive.made["page 1"] == 2


async def _stale_news(archive: Archive, sites: list[Site]) -> bool:
    """Have everybody ask for stale news at once; return whether all got them at once, and one copy made them anew."""
    readers = [Reader(site) for site in sites for _ in range(10)]
    await readers[0].read("/news")
    await _heard(sites)
    answers = await asyncio.gather(*(reader.read("/news") for reader in readers))
    # The first reader has the old news already.
    old = sum(status in (200, 304) and (state, text) == ("stale", "news 1") for status, state, text in answers)
    began = time.monotonic()
    while archive.made["news"] < 2 and time.monotonic() < began + SEEN_WITHIN_S:
        await asyncio.sleep(0.01)
    await asyncio.sleep(2 * NEWS_TAKE_S)
    print(
        f"stale news are given to {old} of {len(readers)} readers at once, and made {archive.made['news'] - 1} time more"
    )
    for reader in readers:
        await reader.client.aclose()
    return old == len(readers) and archive.made["news"] == 2


if __name__ == "__main__":
    sys.exit(main())
