"""CacheControl's RedisCache by our port: a suite of our own, as CacheControl's package comes without one.

Run by the recipe ``cachecontrol``, in an environment of its own. CONFORMANCE_PORT is the port of the server under test.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import requests
from cachecontrol import CacheControl
from cachecontrol.caches.redis_cache import RedisCache
from redis import Redis


class _Site(BaseHTTPRequestHandler):
    """A site whose pages may be kept for as long as their path says, or are told unchanged by their ETag."""

    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the number of requests so far."""
        unchanged = self.headers.get("If-None-Match") == '"one"'
        self.asked.append(f"{self.path} {304 if unchanged else 200}")
        body = b"" if unchanged else b"%d" % len(self.asked)
        self.send_response(304 if unchanged else 200)
        self.send_header("Cache-Control", f"max-age={self.path[1:]}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The address of a site that nobody has asked yet."""
    _Site.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache() -> Iterator[RedisCache]:
    """An empty cache."""
    cache = RedisCache(Redis(port=int(os.environ["CONFORMANCE_PORT"])))
    cache.clear()
    yield cache
    cache.clear()


def _session(cache: RedisCache) -> requests.Session:
    return CacheControl(requests.Session(), cache=cache)


def test_a_page_is_asked_for_once_by_all_sessions(site: str, cache: RedisCache) -> None:
    told = [_session(cache).get(f"{site}/60").text for _ in range(3)]
    assert told == ["1", "1", "1"] and _Site.asked == ["/60 200"]


def test_a_page_that_is_no_longer_fresh_is_asked_for_by_its_etag(site: str, cache: RedisCache) -> None:
    told = [_session(cache).get(f"{site}/0").text for _ in range(2)]
    assert told == ["1", "1"] and _Site.asked == ["/0 200", "/0 304"]


def test_what_is_kept_is_bytes_with_a_time_to_live(site: str, cache: RedisCache) -> None:
    body = bytes(range(256)) * 100
    cache.set("page", body, expires=30)
    cache.set("other", body)
    assert cache.get("page") == body == cache.get("other")
    assert 0 < cache.conn.ttl("page") <= 30 and cache.conn.ttl("other") == -1
    cache.delete("page")
    assert cache.get("page") is None
    cache.clear()
    assert cache.conn.keys() == []
