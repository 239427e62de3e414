"""Snapshots in a running cluster: for who comes late, and for who differs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster, Process, patched
from simulation.runner import JOURNAL_BYTES

from cacheflow.raft import snapshotting


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


def test_a_transfer_goes_on_when_pieces_are_lost(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    # About fifty of them, of which ten are lost.
    monkeypatch.setattr(snapshotting, "PIECE_BYTES", 128)
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
    damaged.snapshotting.build()
    assert cluster.run(2.0, lambda: damaged.journal.first_index > leader.journal.first_index > 1)
    cluster.checks.damaged[damaged.name] = damaged.machine
    damaged.machine.contents.revision += 1000
    assert cluster.run(2.0, lambda: not damaged.node.may_read)
    # Long before the leader would have built its next snapshot anyway.
    assert cluster.run(1.0, lambda: damaged.node.may_read)
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(JOURNAL_BYTES)
