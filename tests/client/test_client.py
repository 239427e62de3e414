"""CacheClient's connections, addresses and fail-over, and what it says of nodes that refuse or do not answer."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from http.client import HTTPMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.http_node import FakeNode, FakeState, keys_sent

from cacheflow import errors
from cacheflow.client import failover
from cacheflow.client.client import AsyncCacheClient, CacheClient
from cacheflow.client.exchange import Answer
from cacheflow.errors import (
    AnswerNotKept,
    CacheFlowError,
    InvalidRequest,
    KeyNotFound,
    NoLeader,
    NotCommitted,
    NotReady,
    OutcomeForgotten,
    OutcomeUnknown,
    ReplicationError,
)

pytestmark = pytest.mark.usefixtures("short_pauses", "no_looking_for_others")


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


def test_an_error_names_the_request_by_which_the_log_of_a_node_knows_it(node: FakeNode) -> None:
    node.request_id = "5f3c-17"
    with CacheClient(node.url, timeout_s=0.2, discover=False) as client:
        node.faults.append((400, "Invalid request"))
        with pytest.raises(InvalidRequest) as wrong:
            client.get("k")
        assert wrong.value.request_id == "5f3c-17" and not hasattr(wrong.value, "__notes__")
        node.faults.extend([(503, "No leader")] * 1000)
        with pytest.raises(NoLeader) as refused:
            client.set("k", "v")
        assert refused.value.request_id == "5f3c-17"
        assert refused.value.__notes__ == [f"request 5f3c-17 at {node.url}"]
        node.faults.clear()
        node.faults.extend([(504, "Outcome unknown")] * 1000)
        with pytest.raises(OutcomeUnknown) as unsure:
            client.set("k", "v")
        assert unsure.value.request_id == "5f3c-17"
        node.faults.clear()
        node.faults.extend([(500, "Internal error")] * 1000)
        with pytest.raises(CacheFlowError) as failed:
            client.get("k")
        assert failed.value.request_id == "5f3c-17"


@pytest.mark.parametrize("given", [None, "", "\x1b[2J", "caf\xe9"])
def test_what_is_no_id_of_a_request_is_not_shown(node: FakeNode, given: str | None) -> None:
    node.request_id = given
    node.faults.extend([(503, "No leader")] * 1000)
    with CacheClient(node.url, timeout_s=0.2, discover=False) as client, pytest.raises(NoLeader) as refused:
        client.set("k", "v")
    assert refused.value.request_id == "" and not hasattr(refused.value, "__notes__")


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
    client = CacheClient([first.url, second.url], timeout_s=2)
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
    client = CacheClient(node.url, timeout_s=0.5)
    node.faults.extend([(kind.http_status, kind.title)] * 200)
    with pytest.raises(kind) as caught:
        client.set("k", 1)
    assert type(caught.value) is kind
    assert issubclass(kind, ReplicationError) == (kind.http_status in (503, 504))


def test_no_try_is_begun_for_which_too_little_time_is_left(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "TRY_S_MIN", 5.0)
    node.faults.extend([(503, "Not ready")] * 20)
    with pytest.raises(NotReady):
        CacheClient(node.url, timeout_s=5).set("k", 1)
    assert len(node.requests) == 1, "its outcome would be unknown"


def test_a_route_that_is_not_there_is_no_missing_key(client: CacheClient, node: FakeNode) -> None:
    node.faults.append((404, "Not Found"))
    with pytest.raises(CacheFlowError) as caught:
        client.nodes()
    assert not isinstance(caught.value, KeyNotFound)


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
        # The last try may be one whose time has run out.
        with pytest.raises(OutcomeUnknown, match=r"502|in time"):
            client.incr("n")
        with pytest.raises(NotCommitted, match=r"502|in time"):
            client["n"]


def test_a_try_after_the_first_tells_how_old_the_callers_key_is(client: CacheClient, node: FakeNode) -> None:
    node.faults.extend(["drop-late", (503, "No leader"), None])
    client.incr("n", initial=0, idempotency_key="mine")
    tries = [headers for verb, target, headers in node.requests if target.endswith("/incr")]
    assert [headers["idempotency-key"] for headers in tries] == ["mine"] * 3
    assert "idempotency-age" not in tries[0]
    ages = [int(headers["idempotency-age"]) for headers in tries[1:]]
    assert 0 <= ages[0] <= ages[1] < 5000


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
