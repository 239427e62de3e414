"""Narrow links: what is large takes its time and costs nobody the leadership; what is lost on the way is sent again, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import simulation.cluster
from simulation.bulk import CALL_BYTES_MAX
from simulation.cluster import Cluster, Process, leader_of, patched
from simulation.machine_faults import MACHINE_FAULTS  # noqa: F401 - faults.py needs it first

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands

BYTES_PER_S = 6_000
# Seconds that the largest call takes on each way, beside heartbeats.
LARGE_S = 5.0


def large() -> commands.Command:
    """Return a call that is as large as a call may be; the keys that it deletes are not there."""
    return commands.batch([commands.delete(f"{number:01000}") for number in range(CALL_BYTES_MAX // 1100)])


def call(process: Process, command: commands.Command) -> list[Outcome]:
    """Ask a node to carry out a command; the list gets the outcome."""
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> Callable[[], None]:
        outcomes.append(outcome)
        return lambda: None

    process.loop.call_soon(process.inbox.submit, [command], done)
    return outcomes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let callers wait as long as links need."""
    monkeypatch.setattr(simulation.cluster, "TIMEOUT_S", 120.0)


def founded(seed: int, nodes: int) -> Cluster:
    """Return a cluster whose nodes are well."""
    cluster = Cluster(seed, nodes)
    for host in cluster.hosts:
        cluster.start(host)
    return cluster


def well(cluster: Cluster) -> Process:
    """Wait until all nodes are well; return the leader."""
    assert cluster.run(5.0, cluster.healthy)
    cluster.run(1.0)
    return leader_of(cluster)


def copies(process: Process) -> int:
    """Return how often the large call is in a node's log."""
    return sum(b"0" * 900 in entry[0] for entry in process.journal.entries(process.journal.first_index, None))


@pytest.mark.parametrize("through_leader", [True, False])
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.usefixtures("patient")
def test_a_large_call_is_answered_and_the_leader_stays(seed: int, nodes: int, through_leader: bool) -> None:
    cluster = founded(seed, nodes)
    with patched(cluster):
        leader = well(cluster)
        term = leader.node.term
        follower = next(process for process in cluster.processes if process is not leader)
        cluster.wire.bytes_per_s = BYTES_PER_S
        answered = call(leader if through_leader else follower, large())
        assert cluster.run(2 * LARGE_S, lambda: bool(answered))
        assert isinstance(answered[0], list)
        assert cluster.run(LARGE_S, cluster.healthy)
        assert leader.node.is_leader and leader.node.term == term
        assert copies(leader) == 1
        assert all(process.site.budget.held_bytes == 0 for process in cluster.processes)


@pytest.mark.parametrize("fault", ["kill", "power", "reset", "cut"])
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.usefixtures("patient")
def test_half_a_large_message_is_discarded_and_sent_again(seed: int, fault: str) -> None:
    cluster = founded(seed, 3)
    with patched(cluster):
        leader = well(cluster)
        follower = next(process for process in cluster.processes if process is not leader)
        cluster.wire.bytes_per_s = BYTES_PER_S
        answered = call(follower, large())
        # On the way to the leader, or from there to the others.
        cluster.run((0.5, 1.5, 2.5)[seed - 1])
        one, other = leader.node_id, follower.node_id
        if fault == "reset":
            cluster.wire.break_connection(one, other)
            cluster.wire.break_connection(other, one)
        elif fault == "cut":
            cluster.wire.cut(one, other)
            cluster.wire.cut(other, one)
            cluster.run(4.0)
            cluster.wire.heal(one, other)
            cluster.wire.heal(other, one)
        else:
            cluster.crash(leader.host, power=fault == "power")
            cluster.run(2.0)
            cluster.start(leader.host)
        assert cluster.run(30.0, lambda: bool(answered))
        assert isinstance(answered[0], list)
        assert cluster.run(30.0, cluster.healthy)
        assert all(process.site.budget.held_bytes == 0 for process in cluster.processes)


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.usefixtures("patient")
def test_a_snapshot_on_a_narrow_link_arrives_and_the_leader_stays(seed: int) -> None:
    cluster = founded(seed, 3)
    # A piece takes longer than the time after which one is sent again.
    with patched(cluster, journal_bytes=20_000, piece_bytes=3_500):
        leader = well(cluster)
        behind = next(process for process in cluster.processes if process is not leader)
        cluster.crash(behind.host, power=False)
        for number in range(60):
            call(leader, commands.set_(f"key-{number}", bytes(500), 0))
            cluster.run(0.1)
        assert cluster.run(10.0, lambda: leader.journal.first_index > behind.journal.last_index)
        term = leader.node.term
        cluster.wire.bytes_per_s = BYTES_PER_S
        # A field of a snapshot's pieces alone.
        cluster.wire.mark = b"snapshot_term"
        cluster.start(behind.host)
        assert cluster.run(60.0, cluster.healthy)
        assert leader.node.is_leader and leader.node.term == term
        newest = leader.node.sending._storage.newest
        assert newest is not None
        pieces = cluster.wire.marked[leader.node_id, behind.node_id]
        assert pieces == newest.bytes // 3_500 + 1, "each is sent once"
