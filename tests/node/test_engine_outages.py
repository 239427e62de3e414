"""Embedded nodes without a majority, and calls that wait while a node is closed: every call ends, and ends honestly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import Waiting, leader_of, three_nodes, wait_for

from cacheflow import verbs
from cacheflow.errors import CacheFlowError, NoLeader, NotReady, OutcomeUnknown, ReplicationError
from cacheflow.store import ReplicatedStore

TIMEOUT_S = 0.6


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[list[ReplicatedStore]]:
    with three_nodes(tmp_path, request_timeout_s=5) as stores:
        yield stores


def test_what_was_sent_ends_as_unknown_and_what_was_not_as_no_leader(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    leader["before"] = 1
    for store in trio:
        if store is not leader:
            store._engine.call(
                store._engine.local.node.stop
            )  # deaf and dumb, but connected: the leader notices nothing yet
    sent = Waiting(lambda: leader.run([verbs.set_command("sent", 1)], timeout_s=TIMEOUT_S))
    assert isinstance(sent.end(), OutcomeUnknown)
    assert TIMEOUT_S <= sent.took_s < TIMEOUT_S + 1
    # Without a quorum it steps down; then nothing is sent any more.
    wait_for(lambda: leader.status()["leader"] is None)
    waits = Waiting(lambda: leader.run([verbs.set_command("unsent", 1)], timeout_s=TIMEOUT_S))
    assert isinstance(waits.end(), NoLeader)
    assert TIMEOUT_S <= waits.took_s < TIMEOUT_S + 1
    assert leader["before"] == 1, "local reads go on"
    with pytest.raises(NotReady):
        leader.get_item("before", consistency="bounded", max_staleness=0.01)


def test_a_short_timeout_does_not_wait_for_a_longer_one_before_it(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    for store in trio:
        if store is not leader:
            store._engine.call(store._engine.local.node.stop)
    long = Waiting(lambda: leader.run([verbs.set_command("long", 1)], timeout_s=3))
    wait_for(lambda: leader.metrics()["pending_commands"] == 1)
    short = Waiting(lambda: leader.run([verbs.set_command("short", 1)], timeout_s=0.3))
    assert isinstance(short.end(), OutcomeUnknown)
    assert short.took_s < 1.5 and not long.ended
    assert isinstance(long.end(), ReplicationError)


def test_a_write_that_waits_is_done_when_a_majority_returns(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    others = [store for store in trio if store is not leader]
    for store in others:
        store.close()
    waits = [Waiting(lambda n=n: leader.incr("patient", initial=0)) for n in range(3)]  # type: ignore[misc]
    linearizable = Waiting(lambda: leader.get_item("patient", consistency="linearizable"))
    wait_for(lambda: leader.metrics()["pending_commands"] >= 4)
    others[0].start()
    assert [call.end() for call in waits] == [None] * 3
    assert linearizable.end() is None
    assert leader["patient"] == 3
    assert others[0].get("patient", consistency="linearizable") == 3


def test_closing_a_node_ends_every_call_that_waits_on_it(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    for store in trio:
        if store is not leader:
            store.close()
    calls = [Waiting(lambda n=n: leader.set(f"k{n}", n)) for n in range(4)]  # type: ignore[misc]
    calls += [Waiting(lambda: leader.get_item("k", consistency="linearizable"))]
    wait_for(lambda: leader.metrics()["pending_commands"] >= 5)
    closing = Waiting(leader.close)
    for call in calls:
        assert isinstance(call.end(), ReplicationError)
        assert call.took_s < 4, "they do not wait for their timeouts"
    assert closing.end() is None


def test_closing_a_busy_node_leaves_no_call_behind(tmp_path: Path) -> None:
    for start in range(5):
        store = ReplicatedStore(
            node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, request_timeout_s=5
        )
        store.start()
        store.wait_ready(10)

        def work(store: ReplicatedStore = store) -> int:
            done = 0
            while True:
                try:
                    store.incr("busy", initial=0)
                    store.get_item("busy", consistency="linearizable")
                    done += 1
                except CacheFlowError:
                    return done

        calls = [Waiting(work) for _ in range(6)]
        wait_for(lambda store=store, start=start: store.get("busy", 0) > 30 * (start + 1))  # type: ignore[misc]
        began = time.monotonic()
        store.close()
        for call in calls:
            assert call.end() is None
        assert time.monotonic() - began < 3
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path) as store:
        assert store["busy"] > 150


def test_the_leader_closes_without_an_error_on_the_others(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    others = [store for store in trio if store is not leader]
    stop: list[bool] = []

    def write(store: ReplicatedStore) -> int:
        done = 0
        while not stop:
            store.incr("closing", initial=0)
            done += 1
        return done

    calls = [Waiting(lambda store=store: write(store)) for store in others]  # type: ignore[misc]
    wait_for(lambda: others[0].get("closing", 0) > 10)
    leader.close()
    heir = leader_of(others)
    before = heir["closing"]
    wait_for(lambda: heir["closing"] > before + 10)
    stop.append(True)
    assert [call.end() for call in calls] == [None, None]
    assert heir.get("closing", consistency="linearizable") == sum(call.result for call in calls)
