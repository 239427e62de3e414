"""Which nodes a client knows and asks: learned from any one, checked, the near one first, and never back in time."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from typing import Any

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.client import failover, members
from cacheflow.client.client import CacheClient
from cacheflow.client.exchange import Answer, NodeHttp
from cacheflow.client.members import LEARNED_MAX, addresses_in
from cacheflow.errors import InvalidRequest, NotCommitted


@pytest.fixture
def trio() -> Iterator[list[FakeNode]]:
    """Three nodes of one cluster, of which each lists all."""
    state = FakeState()
    with FakeNode(state, "a") as a, FakeNode(state, "b") as b, FakeNode(state, "c") as c:
        nodes = [a, b, c]
        rows = [row for node in nodes for row in node.nodes]
        for node in nodes:
            node.nodes = rows
        yield nodes


@pytest.fixture
def far_and_near(trio: list[FakeNode], monkeypatch: pytest.MonkeyPatch) -> list[FakeNode]:
    """The same three, the first far away; and no look is put off."""
    monkeypatch.setattr(members, "is_loopback", lambda _: False)
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.0)
    trio[0].delay_s = 0.1
    return trio


def soon(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def looks(node: FakeNode) -> int:
    return sum(path == "/nodes/list" for _, path, _ in node.requests)


def calls(node: FakeNode) -> int:
    return sum(path.startswith("/cache") for _, path, _ in node.requests)


def test_a_client_of_one_node_learns_of_the_others_and_survives_it(trio: list[FakeNode]) -> None:
    a, b, c = trio
    with CacheClient(a.url, timeout_s=5) as client:
        client["k"] = 1
        soon(lambda: len(client.urls) == 3)
        assert client.urls == [a.url, b.url, c.url]
        a.stop()
        assert client["k"] == 1
        assert calls(b) + calls(c) >= 1


def test_without_discovery_nothing_is_asked_and_nothing_learned(trio: list[FakeNode]) -> None:
    a, b, c = trio
    with CacheClient(a.url, timeout_s=5, discover=False) as client:
        client["k"] = 1
        a.stop()
        with pytest.raises(NotCommitted):
            client["k"]
        assert client.urls == [a.url]
    assert (looks(a), b.requests, c.requests) == (0, [], [])
    with pytest.raises(InvalidRequest):
        CacheClient(a.url, discover="no")  # type: ignore[arg-type]


def test_a_node_is_asked_once_and_again_when_one_does_not_answer(
    trio: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = trio
    with CacheClient(a.url, timeout_s=5) as client:
        for number in range(20):
            client["k"] = number
        soon(lambda: len(client.urls) == 3 and not client._nodes._members._looking)
        assert [looks(node) for node in trio] == [1, 0, 0]
        a.stop()
        client["k"] = 1
        soon(lambda: not client._nodes._members._looking)
        # Not so soon after the last one.
        assert looks(b) + looks(c) == 0
        monkeypatch.setattr(client._nodes._members, "_looked_at", time.monotonic() - members.LOOK_EVERY_S)
        c.nodes = b.nodes = [row for row in b.nodes if row["id"] != "a"]
        client._nodes._members._first = client._nodes._members.nodes[0]
        client["k"] = 2
        soon(lambda: looks(b) + looks(c) == 1 and not client._nodes._members._looking)
        # What the application named stays.
        assert client.urls == [a.url, b.url, c.url]


def test_a_slow_list_holds_up_no_call(trio: list[FakeNode]) -> None:
    a = trio[0]
    with CacheClient(a.url, timeout_s=5) as client:
        a.faults.extend([None, "hang"])
        client.get("k")
        soon(lambda: looks(a) == 1)
        began = time.monotonic()
        for number in range(10):
            client["k"] = number
        assert time.monotonic() - began < 1.0


def test_a_learned_node_gets_the_token(trio: list[FakeNode]) -> None:
    a, b, c = trio
    with CacheClient(a.url, timeout_s=5, token="secret-secret") as client:
        client["k"] = 1
        soon(lambda: len(client.urls) == 3 and not client._nodes._members._looking)
        assert all(headers.get("authorization") for _, path, headers in a.requests if path == "/nodes/list")
        # Whether a node is ready anybody may ask.
        asked = [headers for node in (b, c) for _, _, headers in node.requests]
        assert asked and not any("authorization" in headers for headers in asked)
        a.stop()
        client["k"] = 2
        sent = [headers for node in (b, c) for _, path, headers in node.requests if path.startswith("/cache")]
        assert sent and all(headers["authorization"] == "Bearer secret-secret" for headers in sent)


@pytest.mark.parametrize(
    ("listed", "told_by", "urls"),
    [
        ([{"address": "10.0.0.1:80"}], "http://10.0.0.2:80", ["http://10.0.0.1:80"]),
        ([{"address": "http://10.0.0.1:80"}], "http://10.0.0.2:80", ["http://10.0.0.1:80"]),
        ([{"address": "a.example:80"}], "https://b.example", ["https://a.example:80"]),
        ([{"address": "[fe80::1]:80"}], "http://10.0.0.2:80", ["http://[fe80::1]:80"]),
        # A token that TLS protects is not shown without.
        ([{"address": "http://10.0.0.1:80"}], "https://10.0.0.2:80", []),
        ([{"address": "https://10.0.0.1:80"}], "http://10.0.0.2:80", []),
        # This machine is another one there.
        ([{"address": "127.0.0.1:80"}, {"address": "localhost:1"}], "http://10.0.0.2:80", []),
        ([{"address": "127.0.0.1:80"}], "http://localhost:80", ["http://127.0.0.1:80"]),
        ([{"address": "0.0.0.0:80"}, {"address": "[::]:80"}, {"address": "224.0.0.1:80"}], "http://10.0.0.2:80", []),
        ([{"address": "10.0.0.1:80"}] * 3, "http://10.0.0.2:80", ["http://10.0.0.1:80"]),
        (
            [
                {"address": each}
                for each in ("", "a", "a:0", "a:99999", "a:x", "u@a:1", "a/b:1", "a b:1", "a\n:1", ":1", "a:1#:2")
            ],
            "http://10.0.0.2:80",
            [],
        ),
        ([{"address": None}, {"address": 5}, {}, None, [], "a:1"], "http://10.0.0.2:80", []),
        ({"address": "a:1"}, "http://10.0.0.2:80", []),
        (None, "http://10.0.0.2:80", []),
        ([{"address": f"10.0.0.1:{port}"} for port in range(1, 5000)], "http://10.0.0.2:80", None),
    ],
)
def test_what_a_node_says_of_others_is_checked(listed: Any, told_by: str, urls: list[str] | None) -> None:
    found = addresses_in(listed, told_by)
    assert found == urls if urls is not None else len(found) == LEARNED_MAX


@pytest.mark.parametrize(
    ("fault", "listed"),
    [
        ((500, "Broken"), []),
        ((401, "Unauthorized"), []),
        ("drop-early", []),
        (None, {"a": 1}),
        (None, "x"),
        (None, [["a:1"]]),
    ],
)
def test_a_list_that_is_none_is_no_list(trio: list[FakeNode], fault: Any, listed: Any) -> None:
    a = trio[0]
    with CacheClient(a.url, timeout_s=5) as client:
        a.faults.extend([None, fault])
        a.nodes = listed
        assert client.get("k") is None
        soon(lambda: looks(a) == 1 and not client._nodes._members._looking)
        assert client.urls == [a.url] and client.get("k") is None


# Near and far


def test_a_client_moves_to_a_near_node_and_stays_there(far_and_near: list[FakeNode]) -> None:
    a, b, c = far_and_near
    with CacheClient(a.url, timeout_s=5) as client:
        client["k"] = 1
        soon(lambda: client._nodes._members._first.url != a.url)
        before = calls(a)
        for _ in range(20):
            assert client["k"] == 1
        assert calls(a) == before
        assert 20 in (calls(b), calls(c)), "all of them on one node"


def test_a_client_moves_to_no_node_that_is_behind_what_it_has_seen(far_and_near: list[FakeNode]) -> None:
    a, b, c = far_and_near
    a.index, b.index, c.index = 100, 99, 99
    with CacheClient(a.url, timeout_s=5) as client:
        client["k"] = 1
        soon(lambda: looks(a) == 1 and not client._nodes._members._looking)
        assert client._nodes._members._first.url == a.url
        b.index = c.index = 100
        members_ = client._nodes._members
        members_._look_soon(members_._first)
        soon(lambda: members_._first.url != a.url)


def test_a_client_does_not_move_while_a_call_is_under_way(far_and_near: list[FakeNode]) -> None:
    a = far_and_near[0]
    with CacheClient(a.url, timeout_s=20) as client:
        members_ = client._nodes._members
        members_.begin()
        client.get("k")
        soon(lambda: looks(a) == 1 and not members_._looking)
        assert members_._first.url == a.url
        members_.end()
        members_._look_soon(members_._first)
        soon(lambda: members_._first.url != a.url)


def test_a_node_of_this_machine_is_asked_first() -> None:
    urls = ["http://192.0.2.1:1", "http://127.0.0.1:2", "http://192.0.2.3:3"]
    client = CacheClient(urls)
    assert client._nodes._members._first.url == urls[1]
    assert client.urls == urls


def test_a_forked_child_waits_for_nothing_of_its_parents(trio: list[FakeNode]) -> None:
    a = trio[0]
    with CacheClient(a.url, timeout_s=5, discover=False) as client:
        client["k"] = 1
        members_ = client._nodes._members
        # As if other threads of the parent were in the middle of a call and of a look.
        members_.begin()
        members_._looking = True
        with members_._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                code = 1
                with contextlib.suppress(BaseException):
                    code = 0 if client["k"] == 1 and not members_._looking and not members_._under_way else 2
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        members_.end()


def test_clients_of_a_dead_node_do_not_all_go_to_the_same_one(trio: list[FakeNode]) -> None:
    a, b, c = trio
    a.stop()
    for _ in range(40):
        with CacheClient([a.url, b.url, c.url], timeout_s=5, discover=False) as client:
            client.get("k")
    assert calls(b) and calls(c)


def test_many_threads_start_one_look(trio: list[FakeNode]) -> None:
    a = trio[0]
    with CacheClient(a.url, timeout_s=5) as client:
        threads = [threading.Thread(target=client.get, args=("k",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        soon(lambda: len(client.urls) == 3 and not client._nodes._members._looking)
        assert looks(a) == 1


def test_a_late_answer_of_a_node_that_was_left_is_no_reason_to_go_back(trio: list[FakeNode]) -> None:
    a, b, _ = trio
    with CacheClient([a.url, b.url], discover=False) as client:
        known = client._nodes._members
        left, present = known.nodes
        # A write has gone on to b, because a is cut off; the read of another thread, of before, is answered by a.
        known.answered(present, answer_of(present, 9), others_failed=True)
        known.answered(left, answer_of(left, 5), others_failed=False)
        assert next(known.in_turn(known.nodes)) is present
        # A node that has all of that may come first, and one that is behind when no other answers.
        known.answered(left, answer_of(left, 9), others_failed=False)
        assert next(known.in_turn(known.nodes)) is left
        known.answered(present, answer_of(present, 8), others_failed=True)
        assert next(known.in_turn(known.nodes)) is present


def test_a_node_that_refuses_is_left_also_for_one_that_is_behind(trio: list[FakeNode]) -> None:
    a, b, _ = trio
    a.index, b.index = 9, 5
    with CacheClient([a.url, b.url], timeout_s=5, discover=False) as client:
        client.get("k")
        a.faults.append((503, "Not ready"))
        client.get("k")
        client.get("k")
        assert (calls(a), calls(b)) == (2, 2)


def answer_of(node: NodeHttp, index: int) -> Answer:
    headers = HTTPMessage()
    headers["X-Raft-Index"] = str(index)
    return Answer(200, headers, b"", node.url)


def test_a_call_does_not_fail_for_want_of_a_thread_that_looks(
    trio: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.0)
    with CacheClient(trio[0].url, timeout_s=5) as client:
        known = client._nodes._members
        (node,) = known.nodes
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", none_left)
            known.answered(node, answer_of(node, 1), others_failed=False)
        # It looks when there is one again.
        known.answered(node, answer_of(node, 1), others_failed=True)
        soon(lambda: len(client.urls) == 3)


def test_a_client_whose_nodes_are_all_replaced_learns_it_from_the_last_one_as_it_goes(
    trio: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "PAUSE_S_FIRST", 1.0)
    a, b, c = trio
    a.nodes = a.nodes[:1]
    with CacheClient(a.url, timeout_s=5) as client:
        client["k"] = 1
        soon(lambda: looks(a) == 1 and not client._nodes._members._looking)
        # b and c have come since; a takes no more writes, as it leaves, and lists the members all the same.
        a.nodes = b.nodes
        a.faults.extend([(503, "Not ready"), None, *[(503, "Not ready")] * 50])
        client._nodes._members._learned_at -= members.LEARN_AGAIN_S
        client["k"] = 2
        assert calls(b) + calls(c) >= 1


def test_a_client_that_calls_asks_for_the_list_now_and_then(trio: list[FakeNode]) -> None:
    a, b, c = trio
    a.nodes = a.nodes[:1]
    with CacheClient(a.url, timeout_s=5) as client:
        client["k"] = 1
        soon(lambda: looks(a) == 1 and not client._nodes._members._looking)
        a.nodes = b.nodes
        client["k"] = 2
        assert client.urls == [a.url]
        client._nodes._members._learned_at -= members.LOOK_EVERY_S
        client["k"] = 3
        soon(lambda: client.urls == [a.url, b.url, c.url])
        assert looks(a) == 2
