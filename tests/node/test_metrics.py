"""What a node tells in numbers: each moves when that happens which it counts, and all are told whatever hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.embedded import Waiting, leader_of, three_nodes, wait_for

from cacheflow import verbs
from cacheflow.errors import NotAnInteger, NotReady, Overloaded, ReplicationError
from cacheflow.node import proposals
from cacheflow.node.disk_space import LOOK_EVERY_S, DiskSpace
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.peers import LOST_AFTER_MS, Progress
from cacheflow.store import ReplicatedStore


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ReplicatedStore]]:
    with three_nodes(tmp_path_factory.mktemp("measured")) as stores:
        yield stores


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[ReplicatedStore]:
    with ReplicatedStore(node_id="one", raft_address="127.0.0.1:0", data_dir=tmp_path / "one") as store:
        yield store


def count(store: ReplicatedStore, name: str) -> int:
    """The number of durations in one of a node's histograms."""
    number: int = store.metrics()[name].count
    return number


def outcomes(store: ReplicatedStore) -> dict[str, int]:
    """The node's calls that write, by their end."""
    found = {name: value for name, value in store.metrics().items() if name.startswith("proposals_total")}
    return {name.split('"')[1]: value for name, value in found.items()}


def test_a_write_is_timed_where_it_is_committed_and_wherever_it_is_applied(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    names = ("entry_apply_seconds", "entry_commit_seconds", "journal_flush_seconds", "loop_turn_seconds")
    before = {id(store): {name: count(store, name) for name in names} for store in trio}

    def more(store: ReplicatedStore, name: str) -> int:
        return count(store, name) - before[id(store)][name]

    for number in range(5):
        leader[f"k{number}"] = "v"
    for store in trio:
        for name, least in (("entry_apply_seconds", 5), ("journal_flush_seconds", 1), ("loop_turn_seconds", 1)):
            wait_for(lambda store=store, name=name, least=least: more(store, name) >= least)  # type: ignore[misc]
        assert more(store, "entry_commit_seconds") >= 5 if store is leader else not more(store, "entry_commit_seconds")
    commits = leader.metrics()["entry_commit_seconds"]
    assert 0 < commits.sum_s / commits.count < 5 and commits.quantile(0.5) > 0


def test_the_leader_knows_how_far_behind_and_how_far_away_each_peer_is(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    peers = [store.config.node_id for store in trio if store is not leader]
    leader["k"] = "v"
    wait_for(lambda: all(leader.metrics()[f'peer_lag{{peer="{peer}"}}'] == 0 for peer in peers))
    wait_for(lambda: all(f'peer_round_trip_seconds{{peer="{peer}"}}' in leader.metrics() for peer in peers))
    told = leader.metrics()
    for peer in peers:
        assert 0 <= told[f'peer_round_trip_seconds{{peer="{peer}"}}'] < 5
        assert told[f'peer_connected{{peer="{peer}"}}'] == 1 and told[f'peer_silent_seconds{{peer="{peer}"}}'] < 5
        assert told[f'peer_sent_bytes_total{{peer="{peer}"}}'] > 0 < told[f'peer_received_bytes_total{{peer="{peer}"}}']
    follower = next(store for store in trio if store is not leader).metrics()
    assert not [name for name in follower if name.startswith(("peer_lag", "peer_round_trip"))]
    assert follower[f'peer_connected{{peer="{leader.config.node_id}"}}'] == 1


def test_a_node_that_cannot_apply_is_behind_and_stale(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    store = next(each for each in trio if each is not leader)
    raft = store._engine.local.node
    wait_for(lambda: store.metrics()["lag"] == 0)
    fresh_s = store.metrics()["staleness_seconds"]
    raft.replica.doubt = "a test"
    try:
        for number in range(3):
            leader[f"behind/{number}"] = "v"
        wait_for(lambda: store.metrics()["lag"] >= 3)
        wait_for(lambda: store.metrics()["staleness_seconds"] > fresh_s + 0.1)
        assert store.metrics()["in_doubt"] == 1 and leader.metrics()["lag"] == 0
    finally:
        raft.replica.doubt = None
    wait_for(lambda: store.metrics()["lag"] == 0)


def test_calls_that_write_are_counted_by_their_end(alone: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcomes(alone)
    assert set(before) == {"answered", "no_leader", "overloaded", "not_ready", "not_committed", "unknown"}
    alone["k"] = "v"
    alone.barrier()
    with pytest.raises(NotAnInteger):
        alone.incr("k")
    assert outcomes(alone) == {**before, "answered": before["answered"] + 3}, "a refusal of the machine is an answer"
    monkeypatch.setattr(proposals, "PENDING_MAX", 0)
    with pytest.raises(Overloaded):
        alone["k"] = "v"
    assert outcomes(alone)["overloaded"] == 1
    monkeypatch.undo()
    alone.close()
    with pytest.raises(NotReady):
        alone["k"] = "v"
    assert outcomes(alone)["not_ready"] == 1
    told = alone.metrics()
    assert told["ready"] == told["loop_turn_age_seconds"] == 0, "also a node that is closed tells its numbers"


def test_what_was_sent_to_nobody_ends_as_no_leader_and_what_was_not_answered_as_unknown(tmp_path: Path) -> None:
    with three_nodes(tmp_path, request_timeout_s=1.0) as stores:
        leader = leader_of(stores)
        for store in stores:
            if store is not leader:
                store.close()
        call = Waiting(lambda: leader.set("k", "v"))
        wait_for(lambda: leader.metrics()["pending_commands"] == 1)
        assert leader.metrics()["pending_bytes"] > 0
        assert isinstance(call.end(), ReplicationError)
        wait_for(lambda: leader.metrics()["has_leader"] == 0)
        with pytest.raises(ReplicationError):
            leader["k"] = "v"
        ended = outcomes(leader)
        assert ended["unknown"] + ended["no_leader"] == 2 and ended["no_leader"] >= 1
        assert leader.metrics()["failure_tolerance"] == -1


def test_a_snapshot_is_timed_and_measured(alone: ReplicatedStore) -> None:
    alone["k"] = "v" * 1000
    assert alone.metrics()["snapshot_bytes"] == count(alone, "snapshot_build_seconds") == 0
    alone._engine.call(alone._engine.local.node.building.build)
    wait_for(lambda: alone.metrics()["snapshot_bytes"] > 1000)
    assert count(alone, "snapshot_build_seconds") == 1 and alone.metrics()["snapshot_build_seconds"].sum_s > 0


def test_a_loop_that_hangs_is_seen_while_it_does_and_afterwards(alone: ReplicatedStore) -> None:
    going, entered = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        going.wait(30)

    turns = alone.metrics()["loop_turn_seconds"]
    before = sum(turns.counts[18:])
    alone.on_loop(hang)
    assert entered.wait(30)
    wait_for(lambda: alone.metrics()["loop_turn_age_seconds"] > 0.3)
    age_s = alone.metrics()["loop_turn_age_seconds"]
    assert alone.metrics()["loop_turn_age_seconds"] > age_s
    going.set()
    wait_for(lambda: alone.metrics()["loop_turn_age_seconds"] < 0.3)
    # From 0.13 s on.
    wait_for(lambda: sum(turns.counts[18:]) > before)
    assert turns.quantile(1.0) > 0.2


def test_the_budgets_of_clients_are_told_with_their_limits(alone: ReplicatedStore) -> None:
    holder = SimpleNamespace(unsent_bytes=0)
    alone.unsent.tell(holder, 1234)
    told = alone.metrics()
    assert told["unsent_bytes"] == 1234 and told["unsent_bytes_max"] == alone.unsent.bytes_max
    assert told["unfinished_bytes"] == 0 and told["unfinished_bytes_max"] == alone.unfinished.bytes_max
    assert told["pending_commands_max"] == proposals.PENDING_MAX and told["pending_bytes_max"] > 0


def test_a_node_says_who_it_is(alone: ReplicatedStore) -> None:
    cluster_id = alone.status()["cluster_id"]
    assert alone.metrics()[f'node_info{{node="one",cluster="{cluster_id}"}}'] == 1
    assert [name for name in alone.metrics() if name.startswith('build_info{version="')]


def test_the_space_of_the_disk_is_looked_up_again_and_again_and_unknown_when_that_fails(tmp_path: Path) -> None:
    later: list[tuple[float, Any]] = []
    free: list[Any] = [7, OSError("gone"), 5]

    class SmallDisk(Disk):
        def free_bytes(self, directory: Path) -> int:
            assert directory == tmp_path
            found = free.pop(0)
            if isinstance(found, Exception):
                raise found
            number: int = found
            return number

        def size_bytes(self, directory: Path) -> int:
            return 10

    def submit(work: Any, done: Any) -> None:
        try:
            done(work())
        except OSError as error:
            done(error)

    lock = (tmp_path / "lock").open("w")
    gone: list[bool] = []
    space = DiskSpace(
        SmallDisk(),
        tmp_path,
        lock.fileno(),
        submit=submit,
        later=lambda delay_s, call: later.append((delay_s, call)),
        gone=lambda: gone.append(True),
    )
    assert space.bytes is None
    seen: list[Any] = []
    space.look()
    while free:
        seen.append(space.bytes)
        (delay_s, again) = later.pop()
        assert delay_s == LOOK_EVERY_S and not later, "one at a time"
        again()
    assert [*seen, space.bytes] == [(7, 10), None, (5, 10)]
    assert 0 < Disk().free_bytes(tmp_path) <= Disk().size_bytes(tmp_path)
    # Once the lock file was removed nothing more is looked up.
    later.clear()
    (tmp_path / "lock").unlink()
    space.look()
    assert gone == [True] and space.bytes is None and not later
    lock.close()


def test_the_round_trip_is_that_of_messages_which_are_answered_at_once() -> None:
    progress = Progress(1)
    told: list[float | None] = []
    # An answer to nothing that was asked; one to the second question, while that to the first is waited for; and that one.
    for asked_ms, answered_ms, now_ms in ((0, 0, 100), (0, 90, 100), (100, 90, 110), (150, 150, 200), (0, 100, 400)):
        if asked_ms:
            progress.asked(asked_ms)
        progress.answered(answered_ms, now_ms)
        told.append(progress.round_trip_s)
    assert told == [None, None, None, None, 0.3]
    progress.answered(100, 500)
    progress.asked(1000)
    progress.answered(1000, 1100)
    assert progress.round_trip_s == pytest.approx(smoothed_s := 0.3 - 0.2 / 8)
    progress.asked(2000)
    progress.asked(2001 + LOST_AFTER_MS)
    progress.answered(2001 + LOST_AFTER_MS, 2002 + LOST_AFTER_MS)
    assert progress.round_trip_s == pytest.approx(smoothed_s + (0.001 - smoothed_s) / 8), "a lost one is not waited for"


def test_metrics_are_gathered_without_waiting_for_the_loop(alone: ReplicatedStore) -> None:
    alone.run([verbs.set_command(f"k{number}", number) for number in range(500)])
    took_s = []
    for _ in range(20):
        began = time.thread_time()
        alone.metrics()
        took_s.append(time.thread_time() - began)
    # INFO of the RESP port asks for them on the loop.
    assert min(took_s) < 0.002


def test_what_a_node_applies_again_is_not_counted_before_it_may_be_read(
    alone: ReplicatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.wait_ready(20)
    alone["k"] = "v"
    names = {"sets_total", "deletes_total", "evicted_total", "expired_total", "items", "bytes"}
    assert names <= alone.metrics().keys() and alone.metrics()["sets_total"] == 1
    # As after a start, until its contents are nearly the newest.
    monkeypatch.setattr(type(alone._engine.local.node), "may_read", False)
    told = alone.metrics()
    assert not names & told.keys() and told["max_items"] == 1000, "it knows its limits"
