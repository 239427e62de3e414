"""Keys in paths: every valid key goes there and back, and two of them never meet."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import InvalidRequest
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.values import check_key


def _valid(key: str) -> bool:
    try:
        check_key(key)
    except InvalidRequest:
        return False
    return True


KEYS = st.text(st.one_of(st.characters(exclude_categories=["Cs", "Cc"]), st.sampled_from("/.%+;?#&= ")), min_size=1)

CURIOUS = [
    "a/b",
    "a//b",
    "a%2Fb",
    "a/",
    "/a",
    "/",
    "//",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "a+b",
    "a b",
    "a;b",
    "a?b",
    "a#b",
]
CURIOUS += ["a&b=c", "%", "%41", "%zz", "_batch", "a/incr", "a/touch", "/incr", "incr", "é", "e\u0301", "🙂", "\ufffd"]
CURIOUS += [
    "http://x/y",
    "//host/path",
    "a\\b",
    "A",
    "x" * 1024,
    "\u00a0",
    "\u2028",
    "cache/cache",
    "~",
    "*",
    "'",
    '"',
    "<>",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(KEYS.filter(_valid), min_size=1, max_size=5, unique=True))
def test_any_keys_go_there_and_back_apart(keys: list[str]) -> None:
    client, store = _client()
    for safe in ("", "/"):
        for key in keys:
            path = "/cache/" + quote(key, safe=safe)
            assert client.put(path, json={"value": key}).json["key"] == key
        for key in keys:
            found = client.get("/cache/" + quote(key, safe=safe)).json
            assert (found["key"], found["value"]) == (key, key)
    assert set(store.entries) == set(keys)


def test_curious_keys_are_all_different(client: Client, store: FakeStore) -> None:
    for number, key in enumerate(CURIOUS):
        answer = client.put("/cache/" + quote(key, safe=""), json={"value": number})
        assert (answer.status_code, answer.json["key"]) == (201, key)
    assert list(store.entries) == CURIOUS
    for number, key in enumerate(CURIOUS):
        path = "/cache/" + quote(key, safe="")
        assert client.get(path).json["value"] == number
        assert client.delete(path).json == {"key": key, "deleted": True}
    assert not store.entries


@pytest.mark.parametrize(
    "path",
    [
        *("%FF", "%FE", "a%FFb", "%C3", "%C3%28", "%ED%A0%80", "%C0%AF", "%F8%88%80%80%80"),
        *("%zz", "a%", "%4", "%u0041", "%00", "a%0Ab", "%7F", "%C2%85", "", "x" * 1025, "%C3%A9" * 513),
    ],
)
def test_a_path_that_is_no_valid_key_is_400_for_every_call(client: Client, store: FakeStore, path: str) -> None:
    for method, suffix in (("PUT", ""), ("GET", ""), ("DELETE", ""), ("POST", "/incr"), ("POST", "/touch")):
        answer = client.open(f"/cache/{path}{suffix}", method, json={"value": 1} if method == "PUT" else {"ttl": None})
        assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
        assert "key" not in answer.json
    assert not store.entries


def test_names_of_actions_are_keys_to_every_method_but_post(client: Client) -> None:
    for key in ("_batch", "a/incr", "a/touch"):
        assert client.put(f"/cache/{key}", json={"value": 5}).status_code == 201
        assert client.get(f"/cache/{key}").json["value"] == 5
    assert client.post("/cache/a/incr/incr").json == {"key": "a/incr", "value": 6, "version": 4, "ttl": None}
    assert client.post("/cache/_batch/incr").json["key"] == "_batch"
    assert client.post("/cache/a%2Fincr%2Ftouch", json={"ttl": 1}).json["key"] == "a/incr"


def test_slashes_are_never_merged_and_nobody_is_sent_elsewhere(client: Client) -> None:
    client.put("/cache/a//b", json={"value": 1})
    assert client.get("/cache/a/b").status_code == 404
    assert client.get("/cache/a//b/").status_code == 404
    assert client.get("/cache/a%2F%2Fb").status_code == 200
    for path in ("/livez/", "//cache", "/nodes//list"):
        assert client.get(path).status_code in (200, 404)


def _client() -> tuple[Client, FakeStore]:
    store = FakeStore()
    return Client(create_app(store, RestConfig())), store
