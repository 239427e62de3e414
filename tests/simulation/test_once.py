"""A command under an idempotency key takes place once, although the cluster's time jumps between two tries."""

from __future__ import annotations

import pytest
from simulation.clients import keep
from simulation.cluster import Cluster, Process
from simulation.once import COUNTER

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands

INCREMENT = commands.incr(COUNTER, 1, 0)
# By how much the cluster's time jumps: more than any slack.
JUMP_S = 20.0


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    """The three nodes, some seconds after they have become ready."""
    cluster.run(3.0)
    return cluster


class Key:
    """An idempotency key of a client, and when it was tried first."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._began = cluster.scheduler.now

    def tried(self, process: Process) -> commands.Result:
        """The result of the increment under this key, tried through ``process`` now."""
        age_ms = int((self._cluster.scheduler.now - self._began) * 1000)
        command = commands.idempotent(self._name, INCREMENT, process.past.first_index(age_ms))
        answers: list[Outcome] = []
        process.inbox.submit([command], keep(answers), 5.0)
        assert self._cluster.run(5.0, lambda: bool(answers))
        (outcome,) = answers
        assert isinstance(outcome, list)
        result: commands.Result = outcome[0]
        return result


def push_out(cluster: Cluster) -> None:
    """Use as many keys as push out all that were used before: twelve."""
    for number in range(12):
        cluster.run(0.5)
        assert Key(cluster, f"other {number}").tried(cluster.processes[2])[0] == commands.OK


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_key_that_was_dropped_is_forgotten_although_the_clusters_time_has_jumped(
    cluster: Cluster, restarts: bool, leads: bool
) -> None:
    key = Key(cluster, "first")
    assert key.tried(cluster.processes[0])[:1] == [commands.OK]
    assert key.tried(cluster.processes[1])[:1] == [commands.OK]
    push_out(cluster)
    if restarts:
        for host in cluster.hosts:
            cluster.crash(host, power=True)
            host.set_wall_clock(JUMP_S)
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(10.0, cluster.healthy)
    else:
        # As a leader that was elected with a voter that knew better.
        assert cluster.leader is not None
        cluster.leader.clock.lead(0, cluster.leader.clock.now_ms() + int(JUMP_S * 1000))
    cluster.run(1.5)
    process = next(process for process in cluster.processes if process.node.is_leader is leads)
    assert Key(cluster, "last").tried(process)[::2] == [commands.OK, 14]
    assert key.tried(process) == [commands.FORGOTTEN]


def test_a_key_that_never_took_place_is_done_though_others_were_dropped_before(cluster: Cluster) -> None:
    push_out(cluster)
    cluster.run(3.0)
    key = Key(cluster, "lost")
    cluster.run(5.0)
    assert key.tried(cluster.processes[1])[::2] == [commands.OK, 13]
