"""CacheClient against nodes that only pretend."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.http_node import FakeNode, FakeState

from cacheflow import errors, values
from cacheflow.client import failover, scopes
from cacheflow.client.client import AsyncCacheClient, CacheClient
from cacheflow.client.exchange import Answer
from cacheflow.client.members import Members
from cacheflow.errors import (
    AnswerNotKept,
    CacheFlowError,
    InvalidRequest,
    KeyNotFound,
    LevelConflict,
    NoLeader,
    NotAnInteger,
    NotCommitted,
    OutcomeForgotten,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicationError,
)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


@pytest.fixture
def pair() -> Iterator[tuple[FakeNode, FakeNode]]:
    state = FakeState()
    with FakeNode(state, "a") as first, FakeNode(state, "b") as second:
        yield first, second


@pytest.fixture
def client(node: FakeNode) -> Iterator[CacheClient]:
    with CacheClient(node.url, timeout_s=5) as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PAUSE_S_FIRST", 0.001)
    monkeypatch.setattr(failover, "PAUSE_S_MAX", 0.01)


@pytest.fixture(autouse=True)
def no_looking_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nodes are asked besides calls would be counted with them, and is what test_members tests."""
    monkeypatch.setattr(Members, "_look_soon", lambda *_: None)


def keys_sent(node: FakeNode) -> list[str]:
    sent = [headers for verb, _, headers in node.requests if verb not in ("GET", "HEAD")]
    return [headers.get("idempotency-scope") or headers["idempotency-key"] for headers in sent]


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
    assert len(node.requests) == 7
    client.set_many({"a": "x" * 400_000, "b": b"x" * 400_000, "c": "x"}, ttl=5)
    assert len(node.requests) == 9


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
    client.digest(index=5)
    assert node.requests[-1][1] == "/cluster/digest?index=5"
    client.digest(full=True)
    assert node.requests[-1][1] == "/cluster/digest?full=true"


def test_a_token_is_sent_with_every_request(node: FakeNode) -> None:
    with CacheClient(node.url, token="secret") as client:
        client["k"] = client.get("k")
    assert {headers["authorization"] for _, _, headers in node.requests} == {"Bearer secret"}


def test_a_connection_is_used_again(client: CacheClient, node: FakeNode) -> None:
    for _ in range(5):
        client["k"] = 1
    assert node.connections == 1


def test_a_connection_that_the_node_closed_while_idle_is_replaced(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    node.break_idle_connections()
    client["k"] = 2
    assert node.connections == 2


def test_a_forked_child_does_not_use_the_connection_of_its_parent(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    child = os.fork()
    if child == 0:
        os._exit(0 if client.get("k") == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client["k"] == 1
    assert node.connections == 2


def test_many_threads_share_a_client(client: CacheClient) -> None:
    def count() -> None:
        for _ in range(20):
            client.incr("n", initial=0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client["n"] == 160


def test_a_dead_node_hands_over_to_the_next_which_is_then_preferred(pair: tuple[FakeNode, FakeNode]) -> None:
    first, second = pair
    client = CacheClient([first.url, second.url], timeout_s=5)
    client["k"] = 1
    first.stop()
    assert client["k"] == 1
    client["k"] = 2
    assert (client._nodes._members._first.url, second.state.entries["k"].value) == (second.url, 2)


def test_a_503_hands_over_to_the_next_node(pair: tuple[FakeNode, FakeNode]) -> None:
    first, second = pair
    client = CacheClient([first.url, second.url], timeout_s=5)
    first.faults.append((503, "No leader"))
    assert client.incr("n", initial=0) == 1
    assert keys_sent(first) == keys_sent(second) == ["1-x; number=1; lowest=1"]


@pytest.mark.parametrize("fault", ["drop-early", "drop-late"])
def test_a_write_whose_connection_broke_counts_once(pair: tuple[FakeNode, FakeNode], fault: str) -> None:
    first, second = pair
    client = CacheClient([first.url, second.url], timeout_s=5)
    first.faults.append(fault)
    assert client.incr("n", initial=0) == 1
    assert client.incr("n") == 2
    assert keys_sent(first)[0] == keys_sent(second)[0] != keys_sent(second)[1]


def test_a_retry_on_the_only_node_counts_once(client: CacheClient, node: FakeNode) -> None:
    node.faults.extend(["drop-late", (503, "No leader"), None])
    assert client.incr("n", initial=0) == 1
    assert len(set(keys_sent(node))) == 1


def test_an_idempotency_key_of_ones_own_is_used(client: CacheClient, node: FakeNode) -> None:
    client.set("k", 1, idempotency_key="mine")
    assert keys_sent(node) == ["mine"]
    with pytest.raises(InvalidRequest):
        client.set("k", 1, idempotency_key="a\nb")


def test_writes_are_numbered_in_one_scope_that_is_opened_before_the_first(client: CacheClient, node: FakeNode) -> None:
    client.get("k")
    assert node.state.opened == 0
    client["k"] = 1
    client.incr("n", initial=0)
    with pytest.raises(KeyNotFound):
        del client["absent"]
    assert keys_sent(node) == [f"1-x; number={number}; lowest={number}" for number in (1, 2, 3)]


def test_the_lowest_number_is_that_of_the_oldest_write_that_waits(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    scope = client._scopes.present(0.0)
    waiting = [scope.take()[0] for _ in range(3)]
    scope.told(waiting[1])
    assert scope.take() == (5, 2)
    scope.told(waiting[0])
    assert scope.take() == (6, 4)


def test_a_write_that_was_told_as_unknown_waits_no_more(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=0.05)
    node.faults.extend([(504, "Outcome unknown")] * 200)
    with pytest.raises(OutcomeUnknown):
        client.incr("n", initial=0)
    node.faults.clear()
    client["k"] = 1
    assert keys_sent(node)[-1] == "1-x; number=2; lowest=2"


def test_a_write_that_came_too_late_for_its_scope_goes_into_a_new_one(client: CacheClient, node: FakeNode) -> None:
    assert client.incr("n", initial=0) == 1
    node.state.scopes.clear()
    assert client.incr("n") == 2
    assert keys_sent(node)[-1] == "2-x; number=1; lowest=1"
    # Also when the try before was certainly not applied.
    node.state.scopes.clear()
    node.faults.append((503, "No leader"))
    assert client.incr("n") == 3


def test_a_write_that_may_have_come_in_time_before_is_unknown(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    node.faults.extend(["drop-late", (504, "Outcome forgotten")])
    with pytest.raises(OutcomeUnknown) as caught:
        client.incr("n", initial=0)
    assert type(caught.value) is OutcomeUnknown and node.state.opened == 1


def test_a_cluster_that_closes_every_scope_ends_in_a_refusal(client: CacheClient, node: FakeNode) -> None:
    node.faults.extend([(504, "Outcome forgotten")] * 3)
    with pytest.raises(NotCommitted):
        client["k"] = 1
    assert node.state.opened == 3 and "k" not in node.state.entries


def test_a_scope_that_was_not_used_for_long_is_left(
    client: CacheClient, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    client["k"] = 1
    client["k"] = 2
    monkeypatch.setattr(scopes, "UNUSED_S_MAX", 0.0)
    client["k"] = 3
    assert [key.partition(";")[0] for key in keys_sent(node)] == ["1-x", "1-x", "2-x"]


def test_a_scope_that_cannot_be_opened_means_that_nothing_was_written(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=0.05)
    for fault in ((503, "No leader"), (504, "Outcome unknown"), "drop-late"):
        node.opening_faults.extend([fault] * 200)
        with pytest.raises((NotCommitted, OutcomeUnknown)) as caught:
            client["k"] = 1
        assert isinstance(caught.value, NotCommitted), fault
        node.opening_faults.clear()
    node.opening_faults.append((404, "Not Found"))
    with pytest.raises(CacheFlowError):
        client["k"] = 1
    assert node.requests == []
    client["k"] = 1


def test_a_forked_child_opens_a_scope_of_its_own(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    with client._scopes._lock:  # another thread of the parent's opens one just now
        child = os.fork()
        if child == 0:
            client["k"] = 2
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    client["k"] = 3
    assert [key.partition(";")[0] for key in keys_sent(node)] == ["1-x", "2-x", "1-x"]


def test_threads_share_a_scope_and_give_each_number_once(client: CacheClient, node: FakeNode) -> None:
    def count() -> None:
        for _ in range(20):
            client.incr("n", initial=0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client["n"] == 160 and node.state.opened == 1
    assert len({key.partition("; lowest")[0] for key in keys_sent(node)}) == 160


def test_reads_in_a_batch_need_no_number(client: CacheClient, node: FakeNode) -> None:
    client["k"] = 1
    node.requests.clear()
    assert client.get_many(["k", "absent"]) == {"k": 1}
    assert client.get_many(["k"], consistency="bounded", max_staleness=2, peek=True) == {"k": 1}
    assert client.batch([{"op": "get", "key": "k"}])[0]["value"] == 1
    targets = [target for _, target, _ in node.requests]
    assert targets == [
        "/cache/_batch",
        "/cache/_batch?consistency=bounded&max_staleness=2&peek=true",
        "/cache/_batch?recency=strict",
    ]
    assert not any("idempotency-scope" in headers for _, _, headers in node.requests)
    client.batch([{"op": "get", "key": "k"}], idempotency_key="mine")
    assert node.requests[-1][2]["idempotency-key"] == "mine" and node.requests[-1][1] == "/cache/_batch"


def test_a_read_of_many_keys_is_sent_again_however_it_ended() -> None:
    state = FakeState()
    with FakeNode(state, "a") as first, FakeNode(state, "b") as second:
        client = CacheClient([first.url, second.url], timeout_s=5)
        client["k"] = 1
        first.faults.extend(["drop-late", (503, "Not ready")])
        second.faults.extend(["drop-early", (504, "Outcome unknown")])
        assert client.get_many(["k"]) == {"k": 1}


def test_a_write_that_was_sent_and_never_answered_has_an_unknown_outcome(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=0.2)
    node.faults.append("hang")
    with pytest.raises(OutcomeUnknown):
        client.set("k", 1)


def test_a_write_that_was_sent_before_all_nodes_died_has_an_unknown_outcome(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=5)
    node.faults.extend(["drop-late"] * 1000)
    stopper = threading.Timer(0.05, node.stop)
    stopper.start()
    with pytest.raises(OutcomeUnknown):
        client.set("k", 1)
    stopper.join()


def test_a_read_without_an_answer_is_not_an_unknown_outcome(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=0.1)
    node.faults.append("hang")
    with pytest.raises(NotCommitted, match="no answer in time"):
        client.get("k")


def test_a_frozen_node_does_not_use_up_the_time_of_the_others(pair: tuple[FakeNode, FakeNode]) -> None:
    first, second = pair
    client = CacheClient([first.url, second.url], timeout_s=0.6)
    first.faults.append("hang")
    assert client.incr("n", initial=0) == 1
    assert len(second.requests) == 1


def test_no_node_at_all_is_said_soon_with_every_address() -> None:
    with FakeNode() as first, FakeNode() as second:
        urls = [first.url, second.url]
    with pytest.raises(NotCommitted, match=r"no node answered") as caught:
        CacheClient(urls, timeout_s=60).set("k", 1)
    assert all(url in str(caught.value) for url in urls)


def test_refusals_until_the_deadline_end_as_what_the_node_said(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last round is half a second before the deadline: a request that it cuts off has another, unknown outcome.
    monkeypatch.setattr(failover, "PAUSE_S_FIRST", 0.01)
    monkeypatch.setattr(failover, "PAUSE_S_MAX", 60.0)
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    client = CacheClient(node.url, timeout_s=1.2)
    node.faults.extend([(503, "No leader")] * 1000)
    with pytest.raises(NoLeader):
        client.set("k", 1)
    assert len(node.faults) < 998, "it has tried again"


def test_a_504_for_a_write_is_an_unknown_outcome_unless_a_retry_tells(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=0.1)
    node.faults.append((504, "Outcome unknown"))
    assert client.incr("n", initial=0) == 1
    node.faults.extend([(504, "Outcome unknown")] * 1000)
    with pytest.raises(OutcomeUnknown):
        client.incr("n")


def test_a_write_whose_answer_is_not_kept_is_told_at_once(node: FakeNode) -> None:
    client = CacheClient(node.url, timeout_s=10)
    assert client.incr("n", initial=0) == 1
    node.faults.extend([(504, "Outcome unknown"), (504, "Answer not kept")])
    asked = len(node.requests)
    with pytest.raises(AnswerNotKept):
        client.incr("n")
    # Asking on, until the time is over, would give the same.
    assert len(node.requests) == asked + 2


@pytest.mark.parametrize(
    "kind", [kind for kind in failover._BY_TITLE.values() if kind.http_status != 500 and kind is not OutcomeForgotten]
)
def test_every_error_of_a_node_is_the_same_error_here(node: FakeNode, kind: type[CacheFlowError]) -> None:
    client = CacheClient(node.url, timeout_s=0.05)
    node.faults.extend([(kind.http_status, kind.title)] * 200)
    with pytest.raises(kind) as caught:
        client.set("k", 1)
    assert type(caught.value) is kind
    assert issubclass(kind, ReplicationError) == (kind.http_status in (503, 504))


def test_a_route_that_is_not_there_is_no_missing_key(client: CacheClient, node: FakeNode) -> None:
    node.faults.append((404, "Not Found"))
    with pytest.raises(CacheFlowError) as caught:
        client.nodes()
    assert not isinstance(caught.value, KeyNotFound)


def test_a_touch_in_a_batch_can_take_the_ttl_away(client: CacheClient, node: FakeNode) -> None:
    client.set("k", 1, ttl=5)
    client.batch([{"op": "touch", "key": "k", "ttl": None}])
    assert node.state.entries["k"].ttl is None


def test_seconds_travel_with_no_more_digits_than_a_node_takes(client: CacheClient, node: FakeNode) -> None:
    client.set("k", b"v", ttl=0.1 + 0.2)
    assert node.requests[-1][1] == "/cache/k?ttl=0.3"


def test_an_unknown_error_is_still_an_error_of_this_package(client: CacheClient, node: FakeNode) -> None:
    node.faults.append((418, "Teapot"))
    with pytest.raises(errors.CacheFlowError, match="Teapot"):
        client.get("k")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999", "http://x?q=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        CacheClient(url)


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1:1", "http://secret@127.0.0.1:1", "me:secret@127.0.0.1:1"])
def test_an_address_with_a_password_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidRequest, match="token=") as refused:
        CacheClient(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@a:x",
        "http://me:secret@a:99999",
        "cacheflow://:secret@a",
        "http://:secret/x@a",
        "http://:secret?x@a",
        "http://:secret@a b",
    ],
)
def test_an_address_that_is_none_is_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CacheClient(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("urls", [None, 5, b"http://a", [None], [5], [b"http://a"], [["http://a"]]])
def test_an_address_of_another_type_is_refused(urls: Any) -> None:
    for kind in (CacheClient, AsyncCacheClient):
        with pytest.raises(InvalidRequest):
            kind(urls)


def test_a_client_without_nodes_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        CacheClient([])


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


@pytest.mark.parametrize("token", ["", "secret\n", " secret", "secr\u00e9t", "\x00"])
def test_a_token_that_no_header_holds_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidRequest, match="strip what was read") as caught:
        CacheClient("http://127.0.0.1:1", token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 413, 422, 429, 500])
def test_a_refusal_behind_a_lost_answer_says_nothing_of_the_first_try(
    pair: tuple[FakeNode, FakeNode], status: int
) -> None:
    first, second = pair
    with CacheClient([first.url, second.url], timeout_s=5) as client:
        client.incr("n", initial=0)
        first.faults.append("drop-late")
        second.faults.append((status, "Something of its own"))
        with pytest.raises(OutcomeUnknown, match=r"Something of its own.*before"):
            client.incr("n")
        # Without a first try it is what it says.
        first.faults.append((status, "Something of its own"))
        with pytest.raises(CacheFlowError) as caught:
            client.incr("n")
        # Whoever failed may have done so behind the write.
        assert isinstance(caught.value, OutcomeUnknown) == (status >= 500)


@pytest.mark.parametrize("status", [500, 501, 505, 507, 520])
def test_a_write_that_somebody_failed_to_answer_may_have_taken_place(node: FakeNode, status: int) -> None:
    with CacheClient(node.url, timeout_s=10) as client:
        client["k"] = 1
        asked = len(node.requests)
        for write in (
            lambda: client.set("k", 2),
            lambda: client.delete("k"),
            lambda: client.batch([{"op": "set", "key": "k", "value": 3}]),
            lambda: client.remove_node("b"),
        ):
            node.faults.append((status, "Internal error"))
            with pytest.raises(OutcomeUnknown, match="may have taken place: Internal error"):
                write()
        # A fault that comes again each time is told once.
        assert len(node.requests) == asked + 4
        node.faults.append((status, "Internal error"))
        with pytest.raises(CacheFlowError) as caught:
            client.get("k")
        assert not isinstance(caught.value, OutcomeUnknown)
        # Where nothing but a scope was asked for nothing was written.
        node.opening_faults.append((status, "Internal error"))
        with CacheClient(node.url, timeout_s=10) as other, pytest.raises(CacheFlowError) as caught:
            other.set("k", 2)
        assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("kind", [CacheClient, AsyncCacheClient])
def test_a_ca_for_nodes_that_are_asked_without_tls_is_refused(kind: Any, tmp_path: Path) -> None:
    ca = Authority(tmp_path).crt
    for urls in ("http://127.0.0.1:1", "127.0.0.1:1", ["http://127.0.0.1:1", "http://127.0.0.1:2"]):
        with pytest.raises(InvalidRequest, match="https://"):
            kind(urls, ca=ca)
    # While a cluster changes over its clients have both.
    kind(["http://127.0.0.1:1", "https://127.0.0.1:1"], ca=ca)


def test_a_proxy_that_got_no_answer_of_its_node_says_nothing_of_a_write(pair: tuple[FakeNode, FakeNode]) -> None:
    first, second = pair
    with CacheClient([first.url, second.url], timeout_s=5) as client:
        client.incr("n", initial=0)
        first.faults.append((502, "Bad gateway"))
        # Sent again, under its number.
        assert client.incr("n") == 2
        assert keys_sent(first)[-1] == keys_sent(second)[-1]
        second.faults.append((502, "Bad gateway"))
        assert client["n"] == 2
    with CacheClient(first.url, timeout_s=0.3) as client:
        client.incr("n")
        first.faults.extend([(502, "Bad gateway")] * 1000)
        with pytest.raises(OutcomeUnknown, match="502"):
            client.incr("n")
        with pytest.raises(NotCommitted, match="502"):
            client["n"]


def test_a_try_after_the_first_tells_how_old_the_callers_key_is(client: CacheClient, node: FakeNode) -> None:
    node.faults.extend(["drop-late", (503, "No leader"), None])
    client.incr("n", initial=0, idempotency_key="mine")
    tries = [headers for verb, target, headers in node.requests if target.endswith("/incr")]
    assert [headers["idempotency-key"] for headers in tries] == ["mine"] * 3
    assert "idempotency-age" not in tries[0]
    ages = [int(headers["idempotency-age"]) for headers in tries[1:]]
    assert 0 <= ages[0] <= ages[1] < 5000


def test_in_a_forked_child_no_thread_finds_the_parents_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_scope(deadline: float) -> str:
        opened.append(f"scope-{len(opened)}")
        return opened[-1]

    table = scopes.Scopes(open_scope)
    parents = table.present(1.0)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    started = table._start

    def half_way(self: scopes.Scopes, name: str, value: object) -> None:
        # Whenever this process's id is seen, the parent's scope is gone.
        object.__setattr__(self, name, value)
        assert self._pid != -1 or self._present is not parents

    monkeypatch.setattr(scopes.Scopes, "__setattr__", half_way)
    started()
    assert table.present(1.0) is not parents


def test_nobody_waits_for_another_ones_opening_longer_than_for_its_own() -> None:
    # The other one's call may have begun later, and may wait as long again.
    released = threading.Event()
    opening = threading.Event()

    def open_scope(deadline: float) -> str:
        opening.set()
        assert released.wait(20)
        return "s"

    table = scopes.Scopes(open_scope)
    other = threading.Thread(target=table.present, args=(time.monotonic() + 60,))
    other.start()
    try:
        assert opening.wait(20)
        waiting = threading.Timer(10, released.set)
        waiting.start()
        with pytest.raises(NotCommitted, match="another thread"):
            table.present(time.monotonic() + 0.05)
        waiting.cancel()
    finally:
        released.set()
        other.join()


def test_a_scope_that_another_thread_leaves_at_once_is_still_a_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    def left_at_once(self: scopes.Scopes, name: str, value: object) -> None:
        object.__setattr__(self, name, None if name == "_present" else value)

    monkeypatch.setattr(scopes.Scopes, "__setattr__", left_at_once)
    assert scopes.Scopes(lambda deadline: "s").present(time.monotonic() + 1).name == "s"


def test_an_overloaded_node_is_left_alone_for_as_long_as_it_asks(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(failover, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    with CacheClient(node.url, timeout_s=60) as client:
        client["k"] = 1
        # The node of the tests names no Retry-After, which stands for a second.
        node.faults.extend([(503, errors.Overloaded.title)] * 20)
        client["k"] = 2
    assert len(slept) == 20
    assert min(slept) >= 1.0


def test_json_that_is_nested_without_end_is_none(client: CacheClient, node: FakeNode) -> None:
    answer = Answer(200, HTTPMessage(), b"[" * 100_000, node.url)
    with pytest.raises(CacheFlowError, match="not JSON"):
        answer.json()
    assert isinstance(failover.problem_of(answer._replace(status=503)), NotCommitted)


def test_a_client_that_nobody_has_any_more_is_gone_without_the_garbage_collector(node: FakeNode) -> None:
    client = CacheClient(node.url)
    client["k"] = 1
    nodes = weakref.ref(client._nodes)
    gc.disable()
    try:
        client.close()
        del client
        assert nodes() is None
    finally:
        gc.enable()
