"""cachelib's cache and Flask-Session over three real nodes. cachelib's own suite is one of tests/conformance."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import flask
import pytest
from cachelib.serializers import BaseSerializer, JSONSerializer
from flask_session import Session

from cacheflow import NotAnInteger, ReplicationError, open_cache
from cacheflow.integrations.cachelib import CacheFlowCache


class _Explosive:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/nowhere/at/all",)


def test_timeout_0_is_for_ever_and_none_is_the_default(urls: list[str]) -> None:
    cache, plain = CacheFlowCache(urls, default_timeout=70, key_prefix="lib-ttl:"), open_cache(urls)
    given: Iterable[tuple[str, Any, float | None]] = [
        ("default", None, 70),
        ("ever", 0, None),
        ("own", 50, 50),
        ("delta", timedelta(minutes=1), 60),
    ]
    for key, timeout, expected in given:
        cache.set(f"set-{key}", "v", timeout)
        cache.add(f"add-{key}", "v", timeout)
        cache.set_many({f"many-{key}": "v"}, timeout)
        for way in ("set", "add", "many"):
            item = plain.get_item(f"lib-ttl:{way}-{key}")
            assert item is not None
            assert item.ttl_s == (expected if expected is None else pytest.approx(expected, abs=5))


def test_what_a_pickle_may_hold_comes_back_and_numbers_stay_numbers(urls: list[str]) -> None:
    cache, plain = CacheFlowCache(urls, key_prefix="lib-values:"), open_cache(urls)
    pairs = {
        "set": {1, 2},
        "tuple": (1, (2,)),
        "bytes": b"\xff",
        "none": None,
        "true": True,
        "float": 1.5,
        "huge": 10**30,
        "n": 7,
    }
    assert cache.set_many(pairs) == list(pairs)
    assert cache.get_many(*pairs, "absent") == [*pairs.values(), None]
    assert cache.get("true") is True
    assert plain.get("lib-values:n") == 7
    assert cache.inc("n", 3) == 10 == cache.get("n")
    with pytest.raises(NotAnInteger):
        cache.inc("tuple")


def test_a_new_counter_has_the_default_timeout_and_keeps_it(urls: list[str]) -> None:
    cache, plain = CacheFlowCache(urls, default_timeout=40, key_prefix="lib-count:"), open_cache(urls)
    assert [cache.inc("n"), cache.dec("n", 5)] == [1, -4]
    item = plain.get_item("lib-count:n")
    assert item is not None and item.ttl_s == pytest.approx(40, abs=5)


def test_64_threads_count_exactly_over_three_nodes(urls: list[str]) -> None:
    caches = [CacheFlowCache([url, *urls], key_prefix="lib-threads:") for url in urls]

    def count(number: int) -> None:
        for _ in range(5):
            caches[number % 3].inc("n")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caches[0].inc("n", 0) == 320


def test_clear_removes_the_own_prefix_alone(urls: list[str]) -> None:
    mine, other = CacheFlowCache(urls, key_prefix="lib-clear-a:"), CacheFlowCache(urls, key_prefix="lib-clear-b:")
    keys = ["k", "k" * 5000, "a\nb", ""]
    for key in keys:
        mine.set(key, 1)
        other.set(key, 2)
    assert mine.clear()
    assert [(mine.has(key), other.get(key)) for key in keys] == [(False, 2)] * 4


def test_a_prefix_may_be_made_anew_for_each_call(urls: list[str]) -> None:
    tenant = "one"
    cache = CacheFlowCache(urls, key_prefix=lambda: f"lib-{tenant}:")
    cache.set("k", "of one")
    tenant = "two"
    assert cache.get("k") is None
    tenant = "one"
    assert cache.get("k") == "of one"


def test_keys_of_any_kind_work(urls: list[str]) -> None:
    cache = CacheFlowCache(urls, key_prefix="lib-keys:")
    keys = ["", "a\nb", "k" * 5000, "ключ", "a b"]
    cache.set_many({key: number for number, key in enumerate(keys)})
    assert cache.get_many(*keys) == [0, 1, 2, 3, 4]
    assert cache.delete_many(*keys, "absent") == [*keys, "absent"]
    assert not any(cache.has(key) for key in keys)


def test_with_a_serializer_of_cachelib_nothing_is_unpickled(urls: list[str]) -> None:
    cache, plain = CacheFlowCache(urls, key_prefix="lib-json:"), open_cache(urls)
    cache.set("pickled", {"a": 1})
    cache.serializer = JSONSerializer()
    cache.set("k", {"b": [2]})
    assert cache.get("k") == {"b": [2]}
    assert plain.get("lib-json:k") == b'{"b": [2]}'
    assert cache.get("pickled") is None
    assert not cache.set("unfit", {1, 2})
    assert not cache.add("unfit", {1, 2})
    assert cache.set_many({"unfit": {1, 2}, "fit": 1}) == ["fit"]


def test_only_what_is_marked_as_a_pickle_is_unpickled(urls: list[str]) -> None:
    cache, plain = CacheFlowCache(urls, key_prefix="lib-marked:"), open_cache(urls)
    explosive = pickle.dumps(_Explosive())
    plain.set("lib-marked:k", explosive)
    assert cache.get("k") == explosive


def test_a_serializer_is_chosen_by_name_or_on_the_class(urls: list[str]) -> None:
    class Reversed(BaseSerializer):
        def dumps(self, value: Any, protocol: int = 5) -> bytes:
            return str(value)[::-1].encode()

        def loads(self, bvalue: bytes) -> Any:
            return bvalue.decode()[::-1]

    class Own(CacheFlowCache):
        serializer = Reversed()

    plain = open_cache(urls)
    own = Own(urls, key_prefix="lib-own:")
    own.set("k", "abc")
    assert (own.get("k"), plain.get("lib-own:k")) == ("abc", b"cba")
    packed = CacheFlowCache(urls, key_prefix="lib-packed:", serializer="msgpack")
    packed.set("k", {"a": b"1"})
    item = plain.get_item("lib-packed:k")
    assert packed.get("k") == {"a": b"1"}
    assert item is not None and item.meta == "application/x-cacheflow-msgpack"


def test_without_a_node_every_call_raises_in_time() -> None:
    cache = CacheFlowCache("http://127.0.0.1:1", timeout=0.2)
    with pytest.raises(ReplicationError):
        cache.get("k")
    with pytest.raises(ReplicationError):
        cache.set("k", 1)
    with pytest.raises(RuntimeError, match="no node"):
        CacheFlowCache("http://127.0.0.1:1", timeout=0.2, check_connection=True)


def test_flask_sessions_live_in_the_cluster(urls: list[str], heard: Callable[[], None]) -> None:
    def application(of: list[str]) -> flask.Flask:
        app = flask.Flask("sessions")
        app.config.update(
            SESSION_TYPE="cachelib", SESSION_CACHELIB=CacheFlowCache(of), SESSION_KEY_PREFIX="lib-session:"
        )
        Session(app)

        @app.get("/count")
        def count() -> str:
            flask.session["n"] = flask.session.get("n", 0) + 1
            return str(flask.session["n"])

        @app.get("/leave")
        def leave() -> str:
            flask.session.clear()
            return "bye"

        return app

    here, there = application(urls[:1]).test_client(), application(urls[1:]).test_client()
    assert here.get("/count").text == "1"
    cookie = here.get_cookie("session")
    assert cookie is not None
    there.set_cookie("session", cookie.value)
    heard()
    assert there.get("/count").text == "2"
    heard()
    assert here.get("/count").text == "3"
    item = next(iter(open_cache(urls).keys("lib-session:")))
    found = open_cache(urls).get_item(item)
    assert found is not None and found.ttl_s == pytest.approx(timedelta(days=31).total_seconds(), rel=0.01)
    here.get("/leave")
    heard()
    assert there.get("/count").text == "1"
