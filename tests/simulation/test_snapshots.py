"""Snapshots in a running cluster: for who comes late, and for who differs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster, Process, patched
from simulation.runner import JOURNAL_BYTES

from cacheflow.machine.machine import Settled
from cacheflow.raft.message_types import SnapshotPiece
from cacheflow.raft.snapshots import sending


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(1, 3)
    with patched(cluster, journal_bytes=JOURNAL_BYTES, piece_bytes=512):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        yield cluster


def follower_of(cluster: Cluster) -> Process:
    return next(process for process in cluster.processes if not process.node.is_leader)


def test_who_was_away_for_long_gets_a_snapshot_and_the_rest_of_the_log(cluster: Cluster) -> None:
    host = follower_of(cluster).host
    cluster.crash(host, power=False)
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(20.0)
    leader = cluster.leader
    assert leader is not None
    assert leader.journal.first_index > 100
    cluster.start(host)
    assert cluster.run(3.0, lambda: cluster.well(leader.journal.last_index - 50))
    assert host.process is not None
    assert host.process.journal.first_index > 100
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)
    workload.check()


def test_a_snapshot_that_cannot_be_built_is_begun_again_after_a_pause(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def fail(process: Process, index: int, done: Callable[[BaseException], None]) -> None:
        begun.append(cluster.scheduler.now)
        process.loop.call_soon(done, OSError("no more processes"))

    process = follower_of(cluster)
    storage_build = process.node.building._storage.build
    monkeypatch.setattr(process.node.building._storage, "build", functools.partial(fail, process))
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    assert cluster.run(60.0, lambda: len(begun) == 3)
    assert begun[2] - begun[0] >= 2.0
    monkeypatch.setattr(process.node.building._storage, "build", storage_build)
    assert cluster.run(5.0, lambda: process.journal.first_index > 100)
    workload.stop()


def test_a_transfer_goes_on_when_pieces_are_lost(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    # About fifty of them, of which ten are lost.
    monkeypatch.setattr(sending, "PIECE_BYTES", 128)
    host = follower_of(cluster).host
    cluster.crash(host, power=False)
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(20.0)
    cluster.wire.loss = 0.2
    cluster.start(host)
    leader = cluster.leader
    assert leader is not None
    last_index = leader.journal.last_index
    # 4 to 13 s in eleven clusters: heartbeats, acknowledgements and writes are lost like the pieces.
    assert cluster.run(25.0, lambda: cluster.well(last_index))
    cluster.wire.loss = 0.0
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_a_new_member_gets_a_snapshot_when_the_log_begins_behind_it(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(20.0)
    host = follower_of(cluster).host
    cluster.crash(host, power=False)
    host.empty(cluster.random)
    cluster.run(2.0)
    cluster.start(host)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_a_node_that_differs_stops_serving_and_takes_the_leaders_snapshot(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged = follower_of(cluster)
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.write("r0", b"a cosmic ray", 0, None, 0)
    assert cluster.run(2.0, lambda: not damaged.node.may_read)
    before = damaged.node.last_applied
    assert cluster.run(10.0, lambda: damaged.node.may_read)
    # Reads on one node never go back in time.
    assert damaged.node.last_applied >= before
    cluster.run(2.0)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_a_node_that_differs_is_repaired_although_its_own_snapshot_is_newer_than_its_leaders(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged = follower_of(cluster)
    leader = cluster.leader
    assert leader is not None

    def builds_the_newest() -> bool:
        damaged.node.building.build()
        return cluster.run(2.0, lambda: damaged.journal.first_index > leader.journal.first_index > 1)

    # The leader may be building one at the same moment.
    assert any(builds_the_newest() for _ in range(5))
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.revision += 1000
    assert cluster.run(2.0, lambda: not damaged.node.may_read)
    # Long before the leader would have built its next snapshot anyway.
    assert cluster.run(1.0, lambda: damaged.node.may_read)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_a_snapshot_that_is_under_way_when_its_node_goes_back_is_not_used(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged, leader = follower_of(cluster), cluster.leader
    assert leader is not None
    # The leader has a snapshot that is newer than this node's, and builds no other, which would be newer still.
    assert cluster.run(
        20.0,
        lambda: leader.journal.first_index > damaged.journal.first_index and not damaged.node.building._building,
    )
    monkeypatch.setattr(leader.node.building, "build", lambda: None)
    built: list[tuple[int, Callable[[], None]]] = []
    build = damaged.node.building._storage.build
    monkeypatch.setattr(
        damaged.node.building._storage,
        "build",
        lambda index, done: build(index, lambda outcome: built.append((index, lambda: done(outcome)))),
    )
    cluster.run(0.5)
    damaged.node.building.build()
    assert cluster.run(2.0, lambda: bool(built))
    index, told = built[0]
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.revision += 1000
    assert cluster.run(2.0, lambda: damaged.node.last_applied < index)
    damaged.loop.do(told)
    # What it still has to apply is still in its journal.
    assert damaged.journal.first_index <= damaged.node.last_applied
    assert cluster.run(1.0, lambda: damaged.node.may_read)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_half_a_snapshot_is_thrown_away_when_the_entries_came_from_somebody_else(cluster: Cluster) -> None:
    follower, leader = follower_of(cluster), cluster.leader
    assert leader is not None
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(1.0)
    term = leader.node.term
    piece: SnapshotPiece = {
        "type": "snapshot",
        "term": term,
        "index": follower.node.commit_index + 20,
        "snapshot_term": term,
        "bytes": 10_000,
        "offset": 0,
        "data": b"the first piece",
    }
    leader.node.links.send(follower.node.node_id, piece)
    assert cluster.run(0.5, lambda: follower.node.receiving._receiver is not None)
    assert cluster.run(2.0, lambda: follower.node.receiving._receiver is None)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)


def test_a_node_whose_machine_stumbles_applies_nothing_twice_and_shows_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(1.0)
    stumbling = follower_of(cluster)
    applied: list[int] = []

    def apply(index: int, payload: bytes) -> list[Settled]:
        applied.append(index)
        raise KeyError("a defect")

    monkeypatch.setattr(stumbling.machine, "apply", apply)
    with pytest.raises(KeyError, match="a defect"):
        cluster.run(1.0)
    cluster.run(1.0)
    assert len(applied) == 1
    assert not stumbling.node.may_read
    assert "could not be applied" in (stumbling.node.replica.failure or "")
    workload.stop()
