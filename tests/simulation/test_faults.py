"""Each kind of fault by itself strikes, is noticed where it must be, and leaves every promise standing."""

from __future__ import annotations

from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster, Process
from simulation.faults import ALL
from simulation.runner import run
from simulation.storage import DIRECTORY, vouched_bits


def follower_of(cluster: Cluster) -> Process:
    return next(process for process in cluster.processes if not process.node.is_leader)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_each_kind_by_itself(kind: str) -> None:
    outcome = run(1, 3, 20.0, kinds={kind: 1.0}, every_s=2.5)
    assert outcome.violation is None, "\n".join([*outcome.transcript[-60:], str(outcome.violation)])
    assert outcome.faults[kind] > 0
    assert outcome.acknowledged > 30


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_whose_disk_is_full_says_so_and_comes_back_with_all_that_it_had(cluster: Cluster, leads: bool) -> None:
    workload = Workload(cluster, Random(1))
    leader = cluster.leader
    assert leader is not None
    process = leader if leads else follower_of(cluster)
    process.host.disk.filled = True
    assert cluster.run(2.0, lambda: process.node.replica.failure is not None)
    assert "no space left" in (process.node.replica.failure or "")
    since = cluster.scheduler.now
    assert cluster.run(5.0, lambda: workload.answered_at > since + 0.5), "the others go on"
    cluster.crash(process.host, power=False)
    assert "no space left" in (cluster.start(process.host) or "no space left")
    if process.host.process is not None:
        cluster.crash(process.host, power=False)
    process.host.disk.filled = False
    assert cluster.start(process.host) is None
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(None)


def test_a_changed_bit_is_refused_by_the_name_of_its_file(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1))
    cluster.run(5.0)
    host = follower_of(cluster).host
    cluster.crash(host, power=False)
    files = vouched_bits(host.disk, DIRECTORY)
    assert files
    for path, length in files:
        for position in range(0, length, max(1, length // 40)):
            host.disk.contents(path)[position] ^= 4
            assert path.name in (cluster.start(host, damaged=True) or "it starts")
            host.disk.contents(path)[position] ^= 4
    assert cluster.start(host) is None
    workload.stop()
    assert cluster.run(10.0, cluster.checks.nothing_left)


def test_a_rebooted_node_does_not_take_its_leaders_memory_of_its_old_clock_for_its_own(cluster: Cluster) -> None:
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    host = follower_of(cluster).host
    leader = cluster.leader
    assert leader is not None
    cluster.run(1.0)
    cluster.crash(host, power=True)
    cluster.run(0.2)
    cluster.start(host)
    process = host.process
    assert process is not None
    assert cluster.run(5.0, lambda: process.node.freshness.staleness_ms() is not None)
    for one, other in ((host.node_id, leader.node_id), (leader.node_id, host.node_id)):
        cluster.wire.cut(one, other)
    written = workload.acknowledged
    cluster.run(2.0)
    assert workload.acknowledged > written
    assert (process.node.freshness.staleness_ms() or 0) >= 1900


def test_a_node_that_moved_is_found_and_the_others_are_told(cluster: Cluster) -> None:
    host = follower_of(cluster).host
    cluster.crash(host, power=False)
    host.move()
    cluster.start(host)

    def known() -> bool:
        tables = [process.node.configurations.latest.members for process in cluster.processes]
        return all(table[host.node_id].raft_address == host.address for table in tables)

    assert cluster.run(5.0, known)
    assert cluster.run(5.0, cluster.healthy)
