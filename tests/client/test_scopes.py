"""The scope in which a client numbers its writes, so that each of them counts once."""

from __future__ import annotations

import os
import threading
import time

import pytest
from fakes.http_node import FakeNode, keys_sent

from cacheflow.client import scopes
from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError, KeyNotFound, NotCommitted, OutcomeUnknown

pytestmark = pytest.mark.usefixtures("short_pauses", "no_looking_for_others")


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
    # Some, for a slow node may take one for a request of above, for which nobody waits any more.
    node.opening_faults.extend([(404, "Not Found")] * 9)
    patient = CacheClient(node.url, timeout_s=5)
    with pytest.raises(CacheFlowError):
        patient["k"] = 1
    assert node.requests == []
    node.opening_faults.clear()
    patient["k"] = 1


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
