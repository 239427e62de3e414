"""Disks that hang: writes go on beside one, nobody is deposed when all do, and what waits stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from simulation.cluster import Cluster, Process, leader_of, patched

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.raft.links import HELD_MAX
from cacheflow.raft.roles import follower
from cacheflow.values import BYTES

# Seconds from the moment at which the leader's disk hangs until a write is answered: an election timeout, and an election.
RESUMED_WITHIN_S = 1.5
LONG_S = 60.0


def hang(processes: Iterable[Process]) -> None:
    """Let the disks of these processes hang."""
    for process in processes:
        process.writer.hung = True


def go_on(processes: Iterable[Process]) -> None:
    """Let them work again."""
    for process in processes:
        process.loop.call_soon(process.writer.go_on)


def call(process: Process, *commands_: Command) -> list[Outcome]:
    """Ask a node to carry out commands; the list gets the outcome."""
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> Callable[[], None]:
        outcomes.append(outcome)
        return lambda: None

    process.loop.call_soon(process.inbox.submit, commands_, done)
    return outcomes


def founded(cluster: Cluster) -> Process:
    """Start all nodes and wait until they are well; return the leader."""
    for host in cluster.hosts:
        cluster.start(host)
    assert cluster.run(5.0, cluster.healthy)
    cluster.run(1.0)
    return leader_of(cluster)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_leader_whose_disk_hangs_gives_its_leadership_away(seed: int, nodes: int) -> None:
    cluster = Cluster(seed, nodes)
    with patched(cluster):
        leader = founded(cluster)
        follower = next(process for process in cluster.processes if process is not leader)
        hang([leader])
        through_it, elsewhere = call(leader, commands.noop()), call(follower, commands.noop())
        assert cluster.run(RESUMED_WITHIN_S, lambda: bool(elsewhere))
        assert isinstance(elsewhere[0], list)
        # What its own clients had sent before is answered, too: it goes on receiving the log.
        assert cluster.run(1.0, lambda: bool(through_it))
        assert isinstance(through_it[0], list)
        assert leader_of(cluster) is not leader
        assert not leader.takes_writes
        term = leader_of(cluster).node.term
        cluster.run(LONG_S)
        assert leader_of(cluster).node.term == term, "it stands for no election"
        go_on([leader])
        assert cluster.run(2.0, lambda: leader.takes_writes and cluster.healthy())


@pytest.mark.parametrize("seed", range(1, 6))
def test_where_all_disks_hang_nobody_is_deposed_and_what_waits_is_bounded(seed: int) -> None:
    cluster = Cluster(seed, 3)
    with patched(cluster):
        leader = founded(cluster)
        term = leader.node.term
        hang(cluster.processes)
        large = [commands.set_(f"key-{number}", bytes(10_000), BYTES) for number in range(50)]
        for process in cluster.processes:
            call(process, *large)
            cluster.run(0.1)
        cluster.run(LONG_S)
        assert leader.node.is_leader and leader.node.term == term
        queued = sum(len(block) for _, block in leader.node.leading.queue)
        assert queued < 4 * 50 * 11_000, "a block of each node, and not one for each time that it was sent"
        for process in cluster.processes:
            assert process.node.disk.hung
            assert process.takes_writes, "they wait, for nobody else would do better"
            assert len(process.node.links.held) < 20
        go_on(cluster.processes)
        assert cluster.run(3.0, cluster.healthy)
        assert leader.node.is_leader


def test_a_follower_whose_disk_hangs_takes_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "WAITING_BYTES_MAX", 200_000)
    cluster = Cluster(1, 3)
    with patched(cluster):
        leader = founded(cluster)
        victim = next(process for process in cluster.processes if process is not leader)
        hang([victim])
        for number in range(400):
            call(leader, commands.set_(f"key-{number % 7}", bytes(2_000), BYTES))
            cluster.run(0.02)
        assert 200_000 < victim.journal.waiting_bytes < 300_000
        assert len(victim.node.links.held) <= HELD_MAX
        before = dict(cluster.wire.sent)
        cluster.run(10.0)
        heartbeats = cluster.wire.sent["append_entries"] - before["append_entries"]
        assert heartbeats < 250, "nothing is sent to it again and again"
        go_on([victim])
        assert cluster.run(3.0, cluster.healthy)
        assert leader.node.is_leader
