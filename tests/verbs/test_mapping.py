"""The mapping around the verbs, and what many threads may do with it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fakes.embedded import Waiting
from verbs.four import Four

from cacheflow import verbs
from cacheflow.errors import (
    CacheFlowError,
    KeyNotFound,
    NotReady,
)
from cacheflow.machine.machine import CacheMachine
from cacheflow.rest.routes import batch
from cacheflow.store import ReplicatedStore


def test_the_cluster_is_the_same_from_everywhere(node: Four) -> None:
    rows = [node.call(name, "nodes") for name in node.faces]
    assert all([row["id"] for row in each] == ["a"] for each in rows)
    assert {node.call(name, "status")["leader"] for name in node.faces} == {"a"}


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_of_many_threads_that_pop_a_key_one_gets_it(node: Four, name: str) -> None:
    node.store.clear()
    face = node.faces[name]
    keys = [f"k{number}" for number in range(20)]
    face.update({key: key for key in keys})
    calls = [Waiting(lambda: [face.pop(key, None) for key in keys]) for _ in range(6)]
    assert [call.end() for call in calls] == [None] * 6
    assert sorted(value for call in calls for value in call.result if value is not None) == sorted(keys)
    assert not face


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_of_many_threads_that_set_a_default_all_get_one(node: Four, name: str) -> None:
    node.store.clear()
    face = node.faces[name]
    calls = [
        Waiting(lambda number=number: [face.setdefault(f"k{step}", number) for step in range(10)])  # type: ignore[misc]
        for number in range(6)
    ]
    assert [call.end() for call in calls] == [None] * 6
    assert [call.result for call in calls] == [[face[f"k{step}"] for step in range(10)]] * 6


@pytest.mark.parametrize("name", ["ReplicatedStore", "AsyncReplicatedStore", "CacheClient", "AsyncCacheClient"])
def test_an_update_is_one_entry_up_to_the_limits_of_a_batch(node: Four, name: str) -> None:
    # The first write of a client opens its scope, which is an entry of its own.
    node.call(name, "set", "k", 1)
    node.store.clear()
    index = node.store.position().index
    node.call(name, "update", {f"k{number}": number for number in range(verbs.BATCH_OPS_MAX)}, more=1)
    assert node.store.position().index == index + 2
    node.call(name, "update", {f"k{number}": "x" * (verbs.BATCH_BYTES_MAX // 8 - 80) for number in range(8)})
    assert node.store.position().index == index + 3
    assert node.call(name, "delete_many", [*node.store, "absent"]) == verbs.BATCH_OPS_MAX + 1
    assert node.store.position().index == index + 5


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_views_go_on_when_keys_vanish(node: Four, name: str) -> None:
    face = node.faces[name]
    node.store.clear()
    for view, first in ((face.items(), ("k0", 0)), (face.values(), 0)):
        face.update({f"k{number}": number for number in range(9)})
        found = []
        for each in view:
            found.append(each)
            node.store.clear()
        assert found == [first]
        assert list(view) == [] and len(view) == 0
    face["k"] = "there"
    assert "there" in face.values() and "k" in face.keys() and ("k", "there") in face.items()  # noqa: SIM118
    assert None not in face.values() and ("other", "there") not in face.items()


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_looking_at_a_view_is_no_use(node: Four, name: str) -> None:
    node.store.clear()
    node.store.update({"a": 1, "b": 2})
    before = len(node.store._engine.local.uses.noted)
    assert dict(node.faces[name].items()) == {"a": 1, "b": 2} and "a" in node.faces[name]
    assert len(node.store._engine.local.uses.noted) <= before


def test_asynchronous_iteration_goes_on_when_keys_vanish(node: Four) -> None:
    async def found(face: Any) -> list[Any]:
        await face.clear()
        await face.update({f"k{number}": number for number in range(9)})
        pairs = []
        async for pair in face.items():
            pairs.append(pair)
            await face.clear()
        assert [key async for key in face] == []
        return pairs

    for name in ("AsyncReplicatedStore", "AsyncCacheClient"):
        assert node.runner.run(found(node.faces[name])) == [("k0", 0)]


def test_an_empty_cache_has_no_item_to_pop(node: Four) -> None:
    for name in node.faces:
        node.store.clear()
        with pytest.raises(KeyNotFound):
            node.call(name, "popitem")


def test_a_key_that_has_vanished_is_not_what_popitem_takes(node: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (["gone", "a"], None)

    async def later(*_: object) -> object:
        return page

    for name, face in node.faces.items():
        node.store.clear()
        node.store["a"] = 1
        monkeypatch.setattr(face, "keys_page", later if name.startswith("Async") else lambda *_: page)
        assert node.call(name, "popitem") == ("a", 1)


def test_threads_that_pop_items_get_each_once(node: Four) -> None:
    node.store.clear()
    node.store.update({f"k{number}": number for number in range(40)})
    taken: list[int] = []

    def take() -> None:
        while True:
            try:
                taken.append(node.store.popitem()[1])
            except KeyNotFound:
                return

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(40))


@pytest.mark.parametrize("name", ["CacheClient", "AsyncCacheClient"])
def test_get_many_asks_again_for_what_was_too_much_for_one_answer(
    node: Four, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.store.clear()
    many = {f"k{number}": "x" * 100 for number in range(6)} | {"large": b"x" * 400}
    node.store.update(many)
    asked = []
    read_many = ReplicatedStore.read_many

    def counted(self: ReplicatedStore, keys: list[str], **options: Any) -> Any:
        asked.append(len(keys))
        return read_many(self, keys, **options)

    monkeypatch.setattr(ReplicatedStore, "read_many", counted)
    monkeypatch.setattr(batch, "ANSWER_CHARS_MAX", 350)
    assert node.call(name, "get_many", [*many, "absent"]) == many
    assert asked == [8, 6, 4, 2, 1]
    # A node that answers none of them would be asked for ever.
    monkeypatch.setattr(batch, "render_results", lambda reads, _: b'{"results":[{"status":413},{"status":413}]}')
    monkeypatch.setattr("cacheflow.rest.routes.cache.render_results", batch.render_results)
    with pytest.raises(CacheFlowError, match="none of the keys"):
        node.call(name, "get_many", ["k1", "k2"])


@pytest.mark.parametrize("name", ["ReplicatedStore", "AsyncReplicatedStore", "CacheClient", "AsyncCacheClient"])
def test_get_many_reads_no_half_of_a_batch_and_goes_through_no_log(node: Four, name: str) -> None:
    node.store.clear()
    keys = [f"k{number}" for number in range(300)]
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            node.store.set_many(dict.fromkeys(keys, number))

    writer = Waiting(write)
    try:
        newest = 0
        for turn in range(40):
            found = node.call(name, "get_many", keys, peek=bool(turn % 2))
            assert len(set(found.values())) <= 1 and len(found) in (0, 300), "one moment"
            assert max(found.values(), default=0) >= newest
            newest = max(found.values(), default=0)
    finally:
        stop.set()
    assert writer.end() is None
    index = node.store.position().index
    assert len(node.call(name, "get_many", keys)) == 300
    assert node.store.position().index == index
    assert len(node.call(name, "get_many", keys, consistency="linearizable")) == 300
    assert node.store.position().index == index + 1, "one barrier for all"


@pytest.mark.parametrize("name", ["ReplicatedStore", "AsyncReplicatedStore", "CacheClient", "AsyncCacheClient"])
def test_get_many_counts_as_uses_unless_it_peeks(node: Four, name: str) -> None:
    node.store.clear()
    node.store.update({"a": 1, "b": 2})
    uses = node.store._local.uses
    uses.drain()
    node.call(name, "get_many", ["a", "b", "absent"], peek=True)
    assert not uses.noted
    node.call(name, "get_many", ["a", "absent", "b"])
    assert list(uses.noted) == ["a", "b"]


@pytest.mark.parametrize("name", ["ReplicatedStore", "AsyncReplicatedStore", "CacheClient"])
def test_a_node_that_never_comes_to_the_end_of_an_entry_says_so(
    node: Four, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cacheflow.store", "cacheflow.aio.store"):
        monkeypatch.setattr(f"{module}.MOMENT_TRIES", 3)
    monkeypatch.setattr(CacheMachine, "lookup_all", lambda self, keys, now_ms: None)
    monkeypatch.setattr(node.faces["CacheClient"]._nodes, "_timeout_s", 0.2)
    with pytest.raises(NotReady, match="without a pause"):
        node.call(name, "get_many", ["a"])
