"""CacheClient's verbs, values and keys, against nodes that only pretend."""

from __future__ import annotations

import asyncio

import pytest
from fakes.http_node import FakeNode

from cacheflow import values
from cacheflow.client.client import AsyncCacheClient, CacheClient
from cacheflow.errors import (
    InvalidRequest,
    KeyNotFound,
    LevelConflict,
    MemberConflict,
    NotAnInteger,
    PreconditionFailed,
)

pytestmark = pytest.mark.usefixtures("short_pauses", "no_looking_for_others")


@pytest.mark.parametrize("value", ["", "text", "ü€😀", b"", b"\x00\xff", 5, 1.5, True, None, [1, {"a": None}], {}])
def test_a_value_comes_back_as_it_was_given(client: CacheClient, value: object) -> None:
    client.set("k", value)
    assert client.get("k", "missing") == value
    assert type(client["k"]) is type(value)


@pytest.mark.parametrize("key", ["a/b", "a//b", "..", "a b", "100%", "ü", "?q=1#x", "_batch", "x/incr"])
def test_every_legal_key_is_one_segment_of_the_path(client: CacheClient, key: str) -> None:
    client[key] = key
    assert client[key] == key
    assert list(client) == [key]


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 1025, "\ud800"])
def test_a_bad_key_is_refused_before_anything_is_sent(client: CacheClient, node: FakeNode, key: str) -> None:
    with pytest.raises(InvalidRequest):
        client.set(key, 1)
    assert node.requests == []


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\ud800"])
def test_a_value_that_json_cannot_hold_is_refused(client: CacheClient, value: object) -> None:
    with pytest.raises(InvalidRequest):
        client.set("k", value)


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan")])
def test_a_ttl_is_above_zero(client: CacheClient, ttl: float) -> None:
    with pytest.raises(InvalidRequest, match="ttl"):
        client.set("k", 1, ttl=ttl)


def test_set_tells_version_creation_and_ttl(client: CacheClient) -> None:
    first = client.set("k", "v", ttl=60)
    assert (first.created, first.ttl_s) == (True, 60)
    second = client.set("k", b"v", ttl=2.5)
    assert (second.created, second.ttl_s, second.version > first.version) == (False, 2.5, True)


def test_keep_ttl_leaves_the_ttl_of_the_key(client: CacheClient) -> None:
    client.set("k", "v", ttl=60)
    assert client.set("k", "w", keep_ttl=True).ttl_s == 60
    assert client.set("k", b"w", keep_ttl=True).ttl_s == 60
    with pytest.raises(InvalidRequest):
        client.set("k", "w", keep_ttl=True, ttl=1)


def test_get_item_has_kind_version_and_ttl(client: CacheClient) -> None:
    version = client.set("k", b"\x01", ttl=9).version
    item = client.get_item("k")
    assert item is not None
    assert (item.data, item.kind, item.version, item.ttl_s) == (b"\x01", values.BYTES, version, 9)
    assert item.meta is None
    client.set("k", b"\x01", content_type="image/png")
    item = client.get_item("k")
    assert item is not None and item.meta == "image/png"
    assert client.get_item("absent") is None


def test_read_options_travel_in_the_query(client: CacheClient, node: FakeNode) -> None:
    client.get("k", consistency="bounded", max_staleness=0.5, peek=True)
    assert node.requests[-1][1] == "/cache/k?consistency=bounded&max_staleness=0.5&peek=true"


def test_it_is_a_mapping(client: CacheClient) -> None:
    client["a"] = 1
    client.update({"b": 2})
    assert (len(client), "a" in client, "z" in client) == (2, True, False)
    assert dict(client) == {"a": 1, "b": 2} == dict(client.items())
    assert client.pop("a") == 1
    assert client.pop("a", "gone") == "gone"
    assert client.setdefault("b", 3) == 2
    assert client.setdefault("c", 3) == 3
    del client["c"]
    for missing in (lambda: client["c"], lambda: client.pop("c"), lambda: client.__delitem__("c")):
        with pytest.raises(KeyError):
            missing()
    client.clear()
    assert list(client.values()) == []


def test_add_and_compare_and_set_are_conditional(client: CacheClient) -> None:
    assert client.add("lock", "me", ttl=5)
    assert not client.add("lock", "you")
    item = client.get_item("lock")
    assert item is not None
    client.compare_and_set("lock", "new", version=item.version)
    with pytest.raises(PreconditionFailed) as caught:
        client.compare_and_set("lock", "newer", version=item.version)
    assert caught.value.version == item.version + 1
    with pytest.raises(PreconditionFailed):
        client.set("lock", "x", only_if_absent=True)


def test_counters_count(client: CacheClient) -> None:
    with pytest.raises(KeyNotFound):
        client.incr("hits")
    assert client.incr("hits", initial=0) == 1
    assert client.incr("hits", 5) == 6
    assert client.decr("hits", 2) == 4
    client["text"] = "x"
    with pytest.raises(NotAnInteger):
        client.incr("text")


def test_delete_touch_and_persist_say_whether_the_key_was_there(client: CacheClient) -> None:
    client.set("k", 1, ttl=5)
    assert client.touch("k", 50)
    assert client.persist("k")
    item = client.get_item("k")
    assert item is not None and item.ttl_s is None
    assert client.delete("k")
    assert not (client.delete("k") or client.touch("k", 1) or client.persist("k"))


def test_a_batch_has_one_result_an_operation(client: CacheClient) -> None:
    results = client.batch(
        [
            {"op": "set", "key": "a", "value": b"\xff"},
            {"op": "get", "key": "a"},
            {"op": "get", "key": "b"},
            {"op": "incr", "key": "n", "initial": 1, "delta": 2},
        ],
        atomic=True,
    )
    assert [result["status"] for result in results] == [201, 200, 404, 200]
    assert (results[1]["value"], results[3]["value"]) == (b"\xff", 3)


def test_many_keys_travel_in_batches_of_bounded_size(client: CacheClient, node: FakeNode) -> None:
    many = {f"k{number}": number for number in range(1200)}
    client.set_many(many)
    assert client.get_many([*many, "absent"]) == many
    assert client.delete_many([*many, "absent"]) == 1200
    assert len(node.requests) == 8
    client.set_many({"a": "x" * 400_000, "b": b"x" * 400_000, "c": "x"}, ttl=5)
    assert len(node.requests) == 10


def test_keys_are_read_page_by_page(client: CacheClient, node: FakeNode) -> None:
    node.state.entries.clear()
    for number in range(2500):
        node.state.write(f"k{number:04}", 1, None)
    assert len(client.keys()) == 2500
    assert len(node.requests) == 3
    assert list(client.keys("k249")) == [f"k249{digit}" for digit in range(10)]
    assert "k0001" in client.keys("k") and "k0001" not in client.keys("x")


def test_a_prefix_is_deleted_at_once(client: CacheClient) -> None:
    client.set_many({"a1": 1, "a2": 2, "b": 3})
    assert client.delete_prefix("a") == 2
    assert list(client) == ["b"]
    with pytest.raises(InvalidRequest):
        client.delete_prefix("")


def test_the_cluster_can_be_asked(client: CacheClient, node: FakeNode) -> None:
    assert client.nodes()[0]["address"] == node.url
    assert client.status()["leader"] == "a"
    assert client.raise_level(2) == 2
    with pytest.raises(LevelConflict, match="member b does not know it"):
        client.raise_level(3)
    with pytest.raises(InvalidRequest):
        client.raise_level(0)
    assert client.promote_node("b c")["voter"]
    assert node.requests[-1][:2] == ("POST", "/nodes/b%20c/promote")
    assert client.demote_node("b")["observer"]
    with pytest.raises(MemberConflict, match="it is needed"):
        client.demote_node("needed")
    client.digest(index=5)
    assert node.requests[-1][1] == "/cluster/digest?index=5"
    client.digest(full=True)
    assert node.requests[-1][1] == "/cluster/digest?full=true"


def test_a_touch_in_a_batch_can_take_the_ttl_away(client: CacheClient, node: FakeNode) -> None:
    client.set("k", 1, ttl=5)
    client.batch([{"op": "touch", "key": "k", "ttl": None}])
    assert node.state.entries["k"].ttl is None


def test_seconds_travel_with_no_more_digits_than_a_node_takes(client: CacheClient, node: FakeNode) -> None:
    client.set("k", b"v", ttl=0.1 + 0.2)
    assert node.requests[-1][1] == "/cache/k?ttl=0.3"


def test_the_asyncio_twin_has_the_same_verbs(node: FakeNode) -> None:
    async def use() -> None:
        async with AsyncCacheClient(node.url, timeout_s=5) as client:
            assert (await client.set("a", "v", ttl=5)).created
            assert await client.get("a") == "v"
            assert await client.incr("n", 2, initial=0) == 2
            assert await asyncio.gather(*(client.get(key) for key in ("a", "n", "z"))) == ["v", 2, None]
            assert [key async for key in client.keys("")] == ["a", "n"]
            await client.clear()

    asyncio.run(use())
