"""Flask-Caching over three real nodes, as its configuration names it. Its own suite is one of tests/conformance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest
from cachelib.serializers import JSONSerializer
from flask_caching import Cache

from cacheflow import ConfigError, open_cache

TYPE = "cacheflow.integrations.flask_caching.CacheFlowCache"

Make = Callable[..., tuple[flask.Flask, Cache]]


def application(**config: Any) -> tuple[flask.Flask, Cache]:
    app = flask.Flask("cached")
    app.config.update({"CACHE_TYPE": TYPE, **config})
    return app, Cache(app)


@pytest.fixture
def cached(urls: list[str]) -> Make:
    def make(prefix: str, **config: Any) -> tuple[flask.Flask, Cache]:
        return application(CACHE_CACHEFLOW_URLS=urls, CACHE_KEY_PREFIX=prefix, **config)

    return make


def test_a_view_is_made_once_for_all_processes(cached: Make) -> None:
    made = []
    clients = []
    for _ in range(2):
        app, cache = cached("fc-view:")

        @app.get("/page")
        @cache.cached(timeout=60, query_string=True)
        def page() -> str:
            made.append(flask.request.args.get("q"))
            return f"page {flask.request.args.get('q')}"

        clients.append(app.test_client())
    assert [client.get("/page?q=1").text for client in clients] == ["page 1"] * 2
    assert clients[0].get("/page?q=2").text == "page 2"
    assert made == ["1", "2"]


def test_memoized_results_are_forgotten_together_or_one_by_one(cached: Make) -> None:
    app, cache = cached("fc-memo:")
    made = []

    @cache.memoize(60)
    def add(a: int, b: int) -> int:
        made.append((a, b))
        return a + b

    with app.app_context():
        assert [add(1, 2), add(1, 2), add(3, 4)] == [3, 3, 7]
        cache.delete_memoized(add, 1, 2)
        assert [add(1, 2), add(3, 4)] == [3, 7]
        assert made == [(1, 2), (3, 4), (1, 2)]
        cache.delete_memoized(add)
        assert [add(1, 2), add(3, 4)] == [3, 7]
        assert len(made) == 5


def test_the_configuration_s_settings_are_heard(cached: Make, urls: list[str]) -> None:
    app, cache = cached("fc-set:", CACHE_DEFAULT_TIMEOUT=77, CACHE_OPTIONS={"serializer": "msgpack", "timeout": 5})
    with app.app_context():
        cache.set("k", {"a": b"1"})
        assert cache.get("k") == {"a": b"1"}
        assert cache.unlink("k", "absent") == ["k", "absent"]
        assert not cache.has("k")
        cache.set("k", {"a": b"1"})
        item = open_cache(urls).get_item("fc-set:k")
        assert item is not None and item.meta == "application/x-cacheflow-msgpack"
        assert item.ttl_s == pytest.approx(77, abs=5)
    app, cache = cached("fc-json:", CACHE_SERIALIZER=JSONSerializer)
    with app.app_context():
        cache.set("k", {"a": 1})
        assert open_cache(urls).get("fc-json:k") == b'{"a": 1}'


def test_the_cachelib_cache_may_be_named_as_well(urls: list[str]) -> None:
    app, cache = application(
        CACHE_TYPE="cacheflow.integrations.cachelib.CacheFlowCache",
        CACHE_ARGS=[urls],
        CACHE_OPTIONS={"key_prefix": "fc-lib:"},
    )
    with app.app_context():
        cache.set("k", {1})
        assert cache.get("k") == {1}
    assert "fc-lib:k" in open_cache(urls)


def test_addresses_are_needed() -> None:
    with pytest.raises(ConfigError, match="CACHE_CACHEFLOW_URLS"):
        application()


def test_without_a_node_a_view_is_made_all_the_same() -> None:
    app, cache = application(CACHE_CACHEFLOW_URLS="http://127.0.0.1:1", CACHE_OPTIONS={"timeout": 0.1})

    @app.get("/page")
    @cache.cached()
    def page() -> str:
        return "made"

    assert app.test_client().get("/page").text == "made"
