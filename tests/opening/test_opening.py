"""open_cache: what a URL says and which options there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.http_node import FakeNode

from cacheflow import CacheClient, ConfigError, InvalidRequest, ReplicatedStore, aio, open_cache
from cacheflow.opening.formed import FormedCache
from cacheflow.opening.options import opening_of
from cacheflow.opening.urls import place_of

# Which of the caches a URL opens is not known to the type checker.
opened: Callable[..., Any] = open_cache
OPEN: list[Callable[..., Any]] = [open_cache, aio.open_cache]
SECRET = "top5ecret"


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("cacheflow://127.0.0.1:8081", ["http://127.0.0.1:8081"]),
        ("cacheflow://a,b:1,c:2/", ["http://a:8080", "http://b:1", "http://c:2"]),
        ("CacheFlow://a", ["http://a:8080"]),
        ("cacheflows://[::1],[fe80::1]:9", ["https://[::1]:8080", "https://[fe80::1]:9"]),
        ("http://a:1", ["http://a:1"]),
        ("https://a/below", ["https://a/below"]),
        (["http://a:1", "cacheflow://b,c"], ["http://a:1", "http://b:8080", "http://c:8080"]),
        (("cacheflow://a?timeout=5", "cacheflow://b?timeout=5"), ["http://a:8080", "http://b:8080"]),
    ],
)
def test_a_url_names_http_ports(url: Any, urls: list[str]) -> None:
    for opener in OPEN:
        assert opener(url).urls == urls


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "redis://127.0.0.1",
        "cacheflow:a:1",
        "cacheflow://",
        "cacheflow://a,",
        "cacheflow://a:x",
        "cacheflow://a:99999",
        "cacheflow://::1",
        "cacheflow://a/0",
        "cacheflow://a b",
        "cacheflow://a\n",
        "cacheflow://a#b",
        "cacheflow://a?timeout",
        "cacheflow://a?timeout=x",
        "cacheflow://a?timeout=1&timeout=2",
        "cacheflow://a?discover=maybe",
        "cacheflow://a?version=1&serializer=yaml",
        "http://",
        "http://a?x=1",
        "cacheflow+embedded://host/folder",
        [],
        [5],
        5,
        None,
        b"cacheflow://a",
        ["cacheflow://a", "cacheflow+embedded:///b"],
        ["cacheflow://a?timeout=1", "cacheflow://b?timeout=2"],
        ["cacheflow://:one@a", "cacheflow://:two@b"],
    ],
)
@pytest.mark.parametrize("opener", OPEN)
def test_what_is_no_cache_s_url_is_refused(opener: Callable[..., Any], url: Any) -> None:
    with pytest.raises(InvalidRequest):
        opener(url)


@pytest.mark.parametrize(
    "url",
    [
        f"cacheflow://:{SECRET}@a/path",
        f"cacheflow://:{SECRET}@a:x",
        f"cacheflow://me:{SECRET}@a?unknown=1",
        f"cacheflow://{SECRET}@a",
        f"cacheflow://:a/{SECRET}@a",
        f"cacheflow://:a?{SECRET}@a",
        f"cacheflow://:a#{SECRET}@a",
        f"cacheflow://a?token={SECRET}",
        f"cacheflow://:{SECRET}?a@a",
        f"cacheflow://:{SECRET}/a@a",
        f"cacheflow://a,:{SECRET}?a@a",
        f"http://:{SECRET}@a:x",
        f"http://:{SECRET}/a@a",
        f"http://:{SECRET}?a@a",
        f"redis://:{SECRET}@a",
        f"cacheflow://:{SECRET}%0A@a",
        [f"cacheflow://:{SECRET}@a", f"cacheflow://:{SECRET}2@b"],
    ],
)
def test_no_error_shows_a_token(url: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        open_cache(url)
    assert SECRET not in str(refused.value)
    # Nor do the errors that led to it.
    assert SECRET not in repr(refused.value.__cause__)


@pytest.mark.parametrize("scheme", ["cacheflow", "http"])
def test_the_password_of_a_url_is_the_token_and_is_not_shown(scheme: str) -> None:
    with FakeNode() as node:
        address = node.url.removeprefix("http://")
        with opened(f"{scheme}://app:{SECRET}%21@{address}", key_prefix="p", discover=False) as cache:
            cache.set("k", 1)
            assert SECRET not in repr(cache) + repr(cache.cache) + str(cache.cache.urls)
        assert node.requests[-1][2]["authorization"] == f"Bearer {SECRET}!"
        assert SECRET not in repr(place_of(f"{scheme}://app:{SECRET}@{address}"))
        with opened(f"{scheme}://app:{SECRET}@{address}", token="another", discover=False) as cache:
            cache.get("k")
        assert node.requests[-1][2]["authorization"] == "Bearer another"


def test_a_token_comes_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    with FakeNode() as node:
        address = node.url.removeprefix("http://")
        for url, options in ((f"cacheflow://{address}?token_file={file}", {}), (node.url, {"token_file": file})):
            with opened(url, discover=False, **options) as cache:
                cache.get("k")
            assert node.requests[-1][2]["authorization"] == "Bearer 0123456789abcdef"
    with pytest.raises(InvalidRequest, match="exclude"):
        open_cache("cacheflow://a", token="x", token_file=file)
    with pytest.raises(ConfigError, match="token_file"):
        open_cache("cacheflow://a", token_file=tmp_path / "absent")


def test_a_keyword_counts_more_than_the_query() -> None:
    url = "cacheflow://a?key_prefix=query&version=1&serializer=pickle&timeout=3"
    form, client, _ = opening_of(url, {})
    assert (form.prefix, form.serializer and form.serializer.name) == ("query:1:", "pickle")
    assert client is not None and client["timeout_s"] == 3.0
    form, client, _ = opening_of(url, {"key_prefix": "mine", "version": None, "serializer": None, "timeout": 4})
    assert (form.prefix, form.serializer) == ("mine:", None)
    assert client is not None and client["timeout_s"] == 4
    # The same number in a query and as a keyword is the same version.
    assert (
        opening_of("cacheflow://a?version=7", {}).form.prefix == opening_of("cacheflow://a", {"version": 7}).form.prefix
    )


@pytest.mark.parametrize("opener", OPEN)
def test_an_unknown_option_is_refused_with_those_that_there_are(opener: Callable[..., Any]) -> None:
    for url, options in (("cacheflow://a", {"tiemout": 5}), ("cacheflow://a?tiemout=5", {})):
        with pytest.raises(
            InvalidRequest, match="'tiemout'; known are ca, discover, key_prefix, serializer, timeout, token"
        ):
            opener(url, **options)
    with pytest.raises(InvalidRequest, match=r"unknown option 'token'; known are .*data_dir.*raft_address"):
        opener("cacheflow+embedded:///x", token="t")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("cacheflow://a", {"timeout": "5"}),
        ("cacheflow://a", {"timeout": 0}),
        ("cacheflow://a", {"timeout": True}),
        ("cacheflow://a?timeout=nan", {}),
        ("cacheflow://a", {"token": b"x"}),
        ("cacheflow://a", {"token": ""}),
        ("cacheflow://a", {"token_file": 5}),
        ("cacheflow://a", {"discover": 1}),
        ("cacheflow+embedded:///x", {"timeout": 5, "request_timeout_s": 5}),
    ],
)
@pytest.mark.parametrize("opener", OPEN)
def test_an_option_of_a_wrong_kind_is_refused(opener: Callable[..., Any], url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        opener(url, **options)


def test_without_form_the_cache_is_the_client_itself() -> None:
    assert type(open_cache("cacheflow://a")) is CacheClient
    assert type(open_cache("cacheflow://a", key_prefix="", version=None, serializer=None)) is CacheClient
    assert type(open_cache("cacheflow://a", serializer="json")) is FormedCache


def test_an_embedded_cache_is_started_and_ends_with_its_block(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    url = f"cacheflow+embedded://{str(folder).replace(' ', '%20')}?raft_address=127.0.0.1:0&bootstrap=true&fsync=never"
    with opened(url, serializer="pickle", key_prefix="p", node_id="n1", max_items=50, timeout=20) as cache:
        store = cache.cache
        assert isinstance(store, ReplicatedStore) and folder.is_dir()
        assert (store.config.node_id, store.config.max_items, store.config.request_timeout_s) == ("n1", 50, 20)
        cache["k"] = (1, 2)
        assert cache["k"] == (1, 2) and list(store) == ["p:k"]
    with opened(url, node_id="n1", max_items=50) as again:
        assert type(again) is ReplicatedStore and list(again) == ["p:k"]

    async def through() -> Any:
        async with aio.open_cache(url, serializer="pickle", key_prefix="p", node_id="n1") as cache:
            return await cache.get("k")

    assert asyncio.run(through()) == (1, 2)


@pytest.mark.parametrize(
    "url",
    [
        "cacheflow+embedded:///x?max_items=many",
        "cacheflow+embedded:///x?bootstrap=1",
        "cacheflow+embedded:///x?heartbeat_s=soon",
        "cacheflow+embedded:///x?eviction=fifo&raft_address=127.0.0.1:0",
        "cacheflow+embedded:///x?raft_address=127.0.0.1",
    ],
)
@pytest.mark.parametrize("opener", OPEN)
def test_a_setting_of_a_node_that_is_wrong_is_refused(opener: Callable[..., Any], url: str) -> None:
    with pytest.raises((InvalidRequest, ConfigError)):
        opener(url)


def test_a_query_s_settings_have_the_types_of_a_node_s() -> None:
    _, _, node = opening_of(
        "cacheflow+embedded:///d?peers=a:1,b:2&max_bytes=5000&persistence=false&tls_ca=/c&resp_port=6379&heartbeat_s=0.2",
        {},
    )
    assert node == {
        "peers": ("a:1", "b:2"),
        "max_bytes": 5000,
        "persistence": False,
        "tls_ca": Path("/c"),
        "resp_port": 6379,
        "heartbeat_s": 0.2,
        "data_dir": Path("/d"),
    }
