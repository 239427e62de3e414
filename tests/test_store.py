"""ReplicatedStore embedded: one node in this process."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import cachetools
import pytest
from fakes.embedded import Waiting, wait_for

import cacheflow
from cacheflow import values, verbs
from cacheflow.config import NodeConfig
from cacheflow.errors import (
    ConfigError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    NotAnInteger,
    NotReady,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.machine.language import commands
from cacheflow.raft.log.datadir import DataDirectory
from cacheflow.store import ReplicatedStore


@pytest.fixture(scope="module")
def _node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedStore]:
    folder = tmp_path_factory.mktemp("store")
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder, max_items=5000, collect_garbage=True
    ) as store:
        yield store


@pytest.fixture
def cache(_node: ReplicatedStore) -> ReplicatedStore:
    """An empty cache."""
    _node.clear()
    return _node


def test_it_is_a_mapping(cache: ReplicatedStore) -> None:
    assert isinstance(cache, MutableMapping)
    cache["a"] = 1
    cache.update(b="two", c=b"three")
    assert dict(cache) == {"a": 1, "b": "two", "c": b"three"}
    assert len(cache) == 3 and "b" in cache and "z" not in cache
    del cache["a"]
    assert cache.pop("b") == "two"
    assert cache.setdefault("c", "other") == b"three"
    assert list(cache.items()) == [("c", b"three")]
    cache.clear()
    assert not cache and cache.get("c", "gone") == "gone"


@pytest.mark.parametrize(
    "value", ["", "text", "\u00e9\u2603", b"", b"\x00\xff", 0, -1.5, True, None, [], {"a": [1, {"b": None}]}]
)
def test_a_value_comes_back_as_it_was(cache: ReplicatedStore, value: Any) -> None:
    cache["k"] = value
    assert cache["k"] == value and type(cache["k"]) is type(value)


def test_an_absent_key_is_a_key_error(cache: ReplicatedStore) -> None:
    with pytest.raises(KeyError):
        cache["absent"]
    with pytest.raises(KeyNotFound):
        del cache["absent"]
    assert cache.delete("absent") is False
    assert cache.get("absent") is None
    with pytest.raises(KeyNotFound):
        cache.incr("absent")
    assert cache.touch("absent", 5) is False and cache.persist("absent") is False


@pytest.mark.parametrize("key", ["", "x" * 1025, "\u00e9" * 513, "a\nb", "\ud800"])
def test_a_key_that_cannot_be_is_refused_by_reads_and_writes(cache: ReplicatedStore, key: str) -> None:
    for call in (cache.get, cache.get_item, cache.delete, cache.persist, lambda key: cache.set(key, 1)):
        with pytest.raises(InvalidRequest):
            call(key)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_ttl_that_cannot_be_is_refused(cache: ReplicatedStore, ttl: Any) -> None:
    with pytest.raises(InvalidRequest):
        cache.set("k", 1, ttl=ttl)


def test_a_ttl_ends_and_can_be_changed(cache: ReplicatedStore) -> None:
    assert cache.set("short", 1, ttl=1).ttl_s == pytest.approx(1, abs=0.5)
    cache.set("longer", 1, ttl=1)
    cache.set("kept", 1, ttl=1)
    assert cache.touch("longer", 60) is True and cache.persist("kept") is True
    began = time.monotonic()
    wait_for(lambda: "short" not in cache)
    assert time.monotonic() - began < 3
    assert sorted(cache) == ["kept", "longer"]
    item = cache.get_item("kept")
    assert item is not None and item.ttl_s is None
    cache.set("longer", 2, keep_ttl=True)
    item = cache.get_item("longer")
    assert item is not None and item.ttl_s is not None and 50 < item.ttl_s <= 60
    wait_for(lambda: len(cache) == 2)


def test_several_keys_are_looked_up_at_one_moment_and_counted(cache: ReplicatedStore) -> None:
    cache.set_many({"a": "1", "b": "22"})
    cache.set("over", "333", ttl=0.01)
    wait_for(lambda: cache.get("over") is None)
    before = cache.metrics()
    found = cache.lookup_all(["a", "none", "over", "b", "a"], 100)
    assert found is not None
    assert [None if entry is None else entry[0] for entry in found] == [b"1", None, None, b"22", b"1"]
    assert cache.lookup_all(["a", "b"], 2) is None, "too much at once"
    after = cache.metrics()
    assert (after["hits_total"] - before["hits_total"], after["misses_total"] - before["misses_total"]) == (3, 2)


def test_versions_rise_with_every_write_and_guard_the_next(cache: ReplicatedStore) -> None:
    first = cache.set("k", "a")
    second = cache.set("k", "b")
    assert (first.created, second.created) == (True, False)
    assert second.version == first.version + 1
    with pytest.raises(PreconditionFailed) as failed:
        cache.compare_and_set("k", "c", version=first.version)
    assert failed.value.version == second.version
    assert cache.compare_and_set("k", "c", version=second.version).version == second.version + 1
    with pytest.raises(PreconditionFailed):
        cache.delete("k", only_if_version=second.version)
    assert cache["k"] == "c"


def test_only_one_of_many_threads_adds_a_key(cache: ReplicatedStore) -> None:
    calls = [Waiting(lambda number=number: cache.add("lock", number)) for number in range(16)]  # type: ignore[misc]
    assert [call.end() for call in calls] == [None] * 16
    winners = [number for number, call in enumerate(calls) if call.result]
    assert [cache["lock"]] == winners


def test_threads_count_exactly_and_read_what_they_wrote(cache: ReplicatedStore) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for step in range(40):
            cache.incr("counter", initial=0)
            cache[f"own/{number}"] = step
            if cache[f"own/{number}"] != step:
                wrong.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache["counter"] == 320
    assert cache.decr("counter", 20) == 300


def test_counting_in_something_else_is_refused(cache: ReplicatedStore) -> None:
    cache["text"] = "many"
    with pytest.raises(NotAnInteger):
        cache.incr("text")
    with pytest.raises(InvalidRequest):
        cache.incr("text", 2**63)
    cache["brim"] = 2**63 - 1
    with pytest.raises(NotAnInteger):
        cache.incr("brim")
    assert cache["brim"] == 2**63 - 1


def test_a_value_that_is_too_large_is_refused(cache: ReplicatedStore) -> None:
    with pytest.raises(ValueTooLarge):
        cache["large"] = b"x" * (cache.config.max_value_bytes + 1)
    cache["just"] = b"x" * cache.config.max_value_bytes
    assert len(cache["just"]) == cache.config.max_value_bytes


def test_a_value_that_json_cannot_hold_is_refused(cache: ReplicatedStore) -> None:
    for value in (float("nan"), object(), {1, 2}, {"a": float("inf")}):
        with pytest.raises(InvalidRequest):
            cache["k"] = value
    assert "k" not in cache


def test_an_idempotency_key_makes_a_repetition_count_once(cache: ReplicatedStore) -> None:
    first = cache.incr("hits", initial=0, idempotency_key="request-1")
    again = cache.incr("hits", initial=0, idempotency_key="request-1")
    assert (first, again, again.version) == (1, 1, first.version)
    assert cache.incr("hits", initial=0, idempotency_key="request-2") == 2
    with pytest.raises(IdempotencyKeyReused):
        cache.incr("hits", 5, initial=0, idempotency_key="request-1")
    assert cache["hits"] == 2


def test_a_node_tells_in_which_entries_a_command_of_some_age_may_be(cache: ReplicatedStore) -> None:
    def first_index() -> int:
        with contextlib.suppress(NotReady):
            return cache.first_index(0)
        return 0

    cache.set("a", 1)
    index = cache.position().index
    wait_for(lambda: first_index() > index)
    assert cache.first_index(600_000) == 1


def test_how_far_back_idempotency_keys_are_known_is_a_metric(cache: ReplicatedStore) -> None:
    cache.incr("hits", initial=0, idempotency_key="a key")
    assert cache.metrics()["idempotency_window_seconds"] == 600
    cache._engine.local.machine.idempotency.reaches_ms = cache._engine.local.machine.now_ms - 5000
    assert cache.metrics()["idempotency_window_seconds"] == 5
    cache._engine.local.machine.idempotency.reaches_ms = 0


def test_many_keys_are_written_read_and_removed_in_one_entry(cache: ReplicatedStore) -> None:
    index = cache.position().index
    cache.set_many({f"many/{number}": number for number in range(50)}, ttl=60)
    assert cache.position().index == index + 1
    assert cache.get_many(["many/3", "many/4", "absent"]) == {"many/3": 3, "many/4": 4}
    assert cache.delete_many(["many/3", "absent"]) == 1
    assert len(cache) == 49


def test_an_atomic_batch_is_all_or_nothing(cache: ReplicatedStore) -> None:
    cache["present"] = 1
    writes = [{"op": "set", "key": "a", "value": 1}, {"op": "add", "key": "present", "value": 2}]
    with pytest.raises(PreconditionFailed, match=r"ops\[1\]"):
        cache.batch(writes, atomic=True)
    assert "a" not in cache
    assert [result["status"] for result in cache.batch(writes)] == [201, 412]
    assert cache["a"] == 1 and cache["present"] == 1


def test_two_compare_and_sets_in_one_entry_have_one_winner(cache: ReplicatedStore) -> None:
    version = cache.set("k", 0).version
    results = cache.run([verbs.set_command("k", n, only_if_version=version) for n in (1, 2)])
    assert [result[0] for result in results] == [commands.OK, commands.PRECONDITION]
    assert cache["k"] == 1


def test_new_entries_leave_the_garbage_collector_though_it_has_no_reason_to_come(cache: ReplicatedStore) -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(10**9)
    try:
        cache.set_many({f"k{number}": "x" for number in range(100)})
        entries = [cache.lookup(f"k{number}") for number in range(100)]
        wait_for(lambda: not any(gc.is_tracked(entry) for entry in entries))
    finally:
        gc.set_threshold(*thresholds)


def test_keys_come_in_pages(cache: ReplicatedStore) -> None:
    cache.run([verbs.set_command(f"page/{number:04}", number) for number in range(2500)])
    cache["other"] = 1
    first, cursor = cache.keys_page("page/", 1000)
    assert first == [f"page/{number:04}" for number in range(1000)] and cursor is not None
    second, cursor = cache.keys_page("page/", 2000, cursor)
    assert second[0] == "page/1000" and len(second) == 1500 and cursor is None
    assert len(list(cache)) == 2501
    assert cache.delete_prefix("page/") == 2500
    wait_for(lambda: len(cache) == 1)
    assert list(cache) == ["other"]


@pytest.mark.parametrize("options", [{}, {"consistency": "linearizable"}, {"strict": True}])
def test_every_level_reads_the_last_write(cache: ReplicatedStore, options: dict[str, Any]) -> None:
    for number in range(5):
        version = cache.set("k", number).version
        item = cache.get_item("k", **options)
        assert item is not None and (item.value, item.version, item.kind) == (number, version, values.JSON)
    assert cache.get_item("absent", **options) is None


def test_a_bounded_read_says_how_old_it_may_be(cache: ReplicatedStore) -> None:
    cache["k"] = 1
    item = cache.get_item("k", consistency="bounded", max_staleness=5)
    assert item is not None and item.value == 1
    for wrong in (None, -1, float("nan")):
        with pytest.raises(InvalidRequest):
            cache.get_item("k", consistency="bounded", max_staleness=wrong)
    with pytest.raises(InvalidRequest):
        cache.get_item("k", consistency="eventual")


def test_linearizable_reads_of_many_threads_share_barriers(cache: ReplicatedStore) -> None:
    cache["k"] = 1
    before = cache.position().index
    calls = [Waiting(lambda: [cache.get_item("k", consistency="linearizable") for _ in range(20)]) for _ in range(8)]
    assert [call.end() for call in calls] == [None] * 8
    assert all(item.value == 1 for call in calls for item in call.result)
    assert cache.position().index - before < 160, "fewer entries than reads"


def test_a_read_counts_as_a_use_and_decides_who_is_evicted(tmp_path: Path) -> None:
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, max_items=3
    ) as cache:
        for key in ("a", "b", "c"):
            cache[key] = key
        assert cache["a"] == "a"
        assert "b" in cache, "asking whether it is there is no use"
        assert cache.get_item("b", peek=True) is not None
        cache["d"] = "d"
        assert sorted(cache) == ["a", "c", "d"]
        assert cache.metrics()["evicted_total"] == 1


def test_a_node_that_only_reads_counts_its_uses_too(tmp_path: Path) -> None:
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, max_items=3
    ) as cache:
        for key in ("a", "b", "c"):
            cache[key] = key
        index = cache.position().index
        assert cache["a"] == "a"
        wait_for(lambda: cache.position().index > index)
        cache.run([verbs.set_command("d", 1)])
        assert "a" in cache and "b" not in cache


CALLS: list[Any] = []


def double(number: int, *, plus: int = 0) -> int:
    CALLS.append(number)
    return 2 * number + plus


def triple(number: int, *, plus: int = 0) -> int:
    return 3 * number + plus


def test_cachetools_caches_in_it(cache: ReplicatedStore) -> None:
    CALLS.clear()
    doubled, tripled = (cachetools.cached(cache, key=cacheflow.hashkey)(function) for function in (double, triple))
    assert [doubled(2), doubled(2), doubled(2, plus=1), doubled(3)] == [4, 4, 5, 6]
    assert CALLS == [2, 2, 3]
    assert len(cache) == 3
    assert tripled(2) == 6, "another function has keys of its own"
    del cache[cacheflow.key_of(double)(2)]
    assert doubled(2) == 4 and CALLS == [2, 2, 3, 2]
    with pytest.raises(TypeError, match="key_of"):
        doubled.cache_key(2)
    with pytest.raises(TypeError, match="no repr of its own"):
        tripled(object())  # type: ignore[arg-type]


def test_functions_that_share_a_name_need_one_of_their_own(cache: ReplicatedStore) -> None:
    def inner(number: int) -> int:
        return number

    for function in (inner, lambda number: number, functools.partial(double, 1)):
        with pytest.raises(TypeError, match="a name of your own"):
            cachetools.cached(cache, key=cacheflow.hashkey)(function)(1)
        assert cachetools.cached(cache, key=cacheflow.key_of("mine"))(inner)(5) == 5


def test_nothing_is_answered_before_the_start_and_after_the_end(tmp_path: Path) -> None:
    store = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path)
    for _ in range(2):
        for call in (
            lambda: store.get("k"),
            lambda: store["k"],
            lambda: store.set("k", 1),
            lambda: len(store),
            lambda: list(store),
            lambda: store.get_item("k", consistency="linearizable"),
            lambda: store.get_item("k", consistency="bounded", max_staleness=1),
            store.nodes,
            lambda: store.wait_ready(0.01),
        ):
            with pytest.raises(NotReady):
                call()
        assert not all(good for _, good, _ in store.liveness())
        if not (tmp_path / "identity").exists():
            store.start()
            store.wait_ready(10)
            store["k"] = 1
            store.close()
            store.close()


def test_nothing_is_answered_while_the_start_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path)
    refused = []

    class Asked(DataDirectory):
        def __init__(self, *given: Any, **named: Any) -> None:
            for call in (lambda: store.get("k"), lambda: store.set("k", 1), store.nodes):
                with pytest.raises(NotReady):
                    call()
                refused.append(call)
            super().__init__(*given, **named)

    monkeypatch.setattr("cacheflow.node.engine.DataDirectory", Asked)
    with store:
        assert len(refused) == 3
        store["k"] = 1


def test_a_store_can_be_started_again(tmp_path: Path) -> None:
    store = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path)
    for number in range(3):
        with store:
            assert store.incr("starts", initial=0) == number + 1


def test_settings_are_checked_when_it_is_made(tmp_path: Path) -> None:
    for settings in (
        {"raft_address": "nowhere"},
        {"raft_address": "127.0.0.1:0", "max_items": 0},
        {"raft_address": "127.0.0.1:0", "unknown": 1},
        {"config": NodeConfig(), "data_dir": tmp_path},
    ):
        with pytest.raises(ConfigError):
            ReplicatedStore(**settings)
