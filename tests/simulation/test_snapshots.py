"""Snapshots in a running cluster: for who comes late, and for who differs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster, Process, leader_of, patched
from simulation.runner import JOURNAL_BYTES

from cacheflow.machine.machine import Settled
from cacheflow.raft.message_types import SnapshotPiece
from cacheflow.raft.snapshots import building, sending
from cacheflow.raft.snapshots.files import SnapshotMeta


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


def test_a_snapshot_that_cannot_be_built_is_begun_again_after_growing_pauses_and_the_node_says_so(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def fail(process: Process, index: int, done: Callable[[BaseException], None]) -> None:
        begun.append(cluster.scheduler.now)
        process.loop.call_soon(done, OSError("no more processes"))

    process = follower_of(cluster)
    node_building = process.node.building
    storage_build = node_building._storage.build
    monkeypatch.setattr(node_building._storage, "build", functools.partial(fail, process))
    workload = Workload(cluster, Random(1), clients=4, pause_s=0.1)
    assert cluster.run(60.0, lambda: len(begun) == building.FAILURES_SHOWN)
    assert node_building.problem == ""
    assert cluster.run(30.0, lambda: len(begun) == building.FAILURES_SHOWN + 1)
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16]
    assert node_building.problem.endswith("the journal grows: no more processes")
    assert node_building.failures_total == len(begun) - 1
    assert node_building.age_s > sum(pauses)
    monkeypatch.setattr(node_building._storage, "build", storage_build)
    assert cluster.run(40.0, lambda: process.journal.first_index > 100)
    assert node_building.problem == ""
    assert node_building.age_s < 40.0
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


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
def test_a_node_whose_contents_are_wrong_stops_serving_and_loads_them_from_its_disk(
    cluster: Cluster, leads: bool
) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged = leader_of(cluster) if leads else follower_of(cluster)
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.write("r0", b"a cosmic ray", 0, None, 0)
    assert cluster.run(2.0, lambda: not damaged.node.may_read)
    assert damaged.node.replica.doubt is not None and not damaged.node.is_leader
    before = damaged.node.last_applied
    # A helper takes up to 3 s here, and may fail and try again.
    assert cluster.run(15.0, lambda: damaged.node.may_read)
    # Reads on one node never go back in time.
    assert damaged.node.last_applied >= before and damaged.node.building.reloads_total == 1
    assert cluster.run(15.0, lambda: all(process.node.may_read for process in cluster.processes))
    assert cluster.run(2.0, lambda: cluster.leader is not None)
    workload.stop()
    # Snapshots that were begun while others were in doubt are built by then, and trimmed behind.
    cluster.run(4.0)
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_who_is_told_by_a_wrong_leader_that_it_differs_finds_itself_right(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged = leader_of(cluster)
    right = [process for process in cluster.processes if process is not damaged]
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.revision += 1000
    assert cluster.run(2.0, lambda: all(process.node.replica.doubt for process in right))
    assert not any(process.node.membership.may_campaign() for process in right)
    # Whoever is sure of itself first is elected; the wrong one is right by then, too.
    assert cluster.run(15.0, lambda: cluster.leader is not None and all(process.node.may_read for process in right))
    assert [process.node.building.reloads_total for process in right] == [0] * len(right)
    assert cluster.leader is not damaged or damaged.node.building.reloads_total == 1
    workload.stop()
    # Snapshots that were begun while others were in doubt are built by then, and trimmed behind.
    cluster.run(4.0)
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)


def test_contents_that_are_wrong_again_stop_the_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(5.0)
    damaged = follower_of(cluster)
    building, storage = damaged.node.building, damaged.node.building._storage
    # One that is under way would be right.
    assert cluster.run(5.0, lambda: not building._building and damaged.node.last_applied > storage.newest_index)

    def lie(index: int, done: Callable[[SnapshotMeta], None]) -> None:
        damaged.loop.call_soon(done, SnapshotMeta(index, damaged.node.term, b"another", b"", 1))

    monkeypatch.setattr(storage, "build", lie)
    monkeypatch.setattr(storage, "run", lambda work, done: damaged.loop.call_soon(done, OSError("no such snapshot")))
    building.build()
    assert cluster.run(2.0, lambda: building.failures_total > 0)
    assert damaged.node.replica.doubt is not None and damaged.node.replica.failure is None
    building._reloaded_at = damaged.node.last_applied
    assert cluster.run(5.0, lambda: "differ again" in (damaged.node.replica.stumbled or ""))
    assert not damaged.node.may_read and not damaged.node.membership.may_campaign()
    workload.stop()


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
