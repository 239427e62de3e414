"""An entry goes to a quick majority first: who gets it when, and what a quick one that stalls costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from simulation.cluster import Cluster, Process, leader_of, patched

from cacheflow.machine import commands
from cacheflow.proposals import Outcome
from cacheflow.raft.leading import ANNOUNCE_MAX_S, ANNOUNCE_S


@pytest.fixture(params=[3, 5])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(3, request.param)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        yield cluster


def write(cluster: Cluster, process: Process) -> float:
    """How long it took, in seconds."""
    answers: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        answers.append(outcome)

    began = cluster.scheduler.now
    process.submit([commands.set_("k", b"x", 0)], done, 5.0)
    assert cluster.run(5.0, lambda: bool(answers))
    assert isinstance(answers[0], list)
    return cluster.scheduler.now - began


def holders(cluster: Cluster, index: int) -> int:
    return sum(process.journal.last_index >= index for process in cluster.processes)


def test_a_majority_has_it_first_and_all_soon(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for _ in range(3):
        write(cluster, leader)
    cluster.run(5 * ANNOUNCE_S)
    write(cluster, leader)
    index = leader.journal.last_index
    assert holders(cluster, index) == len(cluster.hosts) // 2 + 1
    assert cluster.run(2 * ANNOUNCE_S, lambda: holders(cluster, index) == len(cluster.hosts))
    assert cluster.run(4 * ANNOUNCE_S, lambda: {process.node.last_applied for process in cluster.processes} == {index})


def test_who_waits_for_it_has_it_first(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for _ in range(3):
        write(cluster, leader)
    slow = next(process for process in cluster.processes if process.node_id not in (leader.node_id, *quick(leader)))
    cluster.run(5 * ANNOUNCE_S)
    write(cluster, slow)
    assert slow.node.last_applied == leader.journal.last_index


def test_whoever_waited_is_told_although_the_next_entry_is_somebody_elses(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for _ in range(3):
        usual_s = write(cluster, leader)
    followers = [process for process in cluster.processes if process is not leader]
    took = Counter[str]()

    def again(process: Process) -> None:
        began = cluster.scheduler.now

        def done(outcome: Outcome) -> None:
            took[process.name] = max(took[process.name], round((cluster.scheduler.now - began) * 1000))
            process.loop.call_soon(again, process)

        process.submit([commands.set_(process.node_id, b"x", 0)], done, 5.0)

    for process in followers:
        again(process)
    cluster.run(2.0)
    assert max(took.values()) < 1000 * (4 * usual_s + ANNOUNCE_MAX_S / 2), took


def test_who_waits_and_has_a_slow_disk_keeps_nobody_else_waiting(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for _ in range(3):
        usual_s = write(cluster, leader)
    slow = next(process for process in cluster.processes if process is not leader)
    slow.host.set_disk_latency((0.1, 0.1))
    for _ in range(4):
        write(cluster, slow)
    assert max(write(cluster, slow) for _ in range(5)) < 4 * usual_s


def test_who_is_down_costs_an_idle_leader_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = leader_of(cluster)
    down = next(process for process in cluster.processes if process is not leader)
    cluster.crash(down.host, power=False)
    write(cluster, leader)
    cluster.run(0.5)
    announced: list[Any] = []
    monkeypatch.setattr(leader.node.leading, "_announce_to_all", announced.append)
    cluster.run(0.5)
    assert not announced and not leader.node.leading._announcing


def test_a_quick_one_that_stalls_costs_a_moment_once(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for _ in range(3):
        usual_s = write(cluster, leader)
    stalled = next(process for process in cluster.processes if process.node_id == quick(leader)[0])
    stalled.loop.pause()
    assert write(cluster, leader) < usual_s + 2 * ANNOUNCE_S
    assert write(cluster, leader) < 2 * usual_s
    stalled.loop.resume()


def quick(leader: Process) -> list[str]:
    """Those who hear of an entry at once."""
    return leader.node.leading._quick[: (len(leader.node.configurations.latest.voters)) // 2]
