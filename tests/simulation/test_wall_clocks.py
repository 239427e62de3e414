"""Wall clocks that are wrong when all nodes start again: a TTL of an hour is neither gone nor prolonged."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from simulation.clients import keep
from simulation.cluster import Cluster, Host, leader_of, patched

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.machine.state.entries import EXPIRES_AT_MS
from cacheflow.values import BYTES

HOUR_S = 3600.0
# How long no node runs: a clock that is slow hides this time.
DOWN_S = 600.0
# The time of a message, and what a new leader lost of it.
SLACK_S = 0.1


class Restarted:
    """A cluster that wrote a key for an hour, and whose machines all stopped for DOWN_S seconds."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = Random(seed)
        self.cluster = Cluster(seed, nodes)
        self._written = self.started = 0.0

    def stop_all(self) -> None:
        """Found the cluster, write the key and let all machines lose power."""
        cluster = self.cluster
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        cluster.run(2.0)
        answers: list[Outcome] = []
        leader_of(cluster).inbox.submit([commands.set_("k", b"x", BYTES, None, 3_600_000)], keep(answers), 5.0)
        assert cluster.run(5.0, lambda: bool(answers))
        self._written = cluster.scheduler.now
        cluster.run(2.0)
        for host in cluster.hosts:
            cluster.crash(host, power=True)
        cluster.run(DOWN_S)
        self.started = cluster.scheduler.now

    def start(self, hosts: list[Host], within_s: float = 0.5) -> None:
        """Start machines in any order, within so many seconds."""
        for host in hosts:
            self.cluster.scheduler.at(self.random.uniform(0.0, within_s), self.cluster.start, host)

    def off_s(self, until: Callable[[], bool] | None = None) -> float:
        """Return by how many seconds the key ends late, -3600 when it is gone, once all that were started are well."""
        cluster = self.cluster
        assert cluster.run(20.0, until or cluster.healthy)
        cluster.run(1.0)
        process = leader_of(cluster)
        assert all(other.node.may_read for other in cluster.processes)
        answers: list[Outcome] = []
        process.inbox.barrier(keep(answers))
        assert cluster.run(5.0, lambda: bool(answers))
        entry = process.machine.lookup("k", process.machine.now_ms)
        if entry is None:
            return -HOUR_S
        left_s = (entry[EXPIRES_AT_MS] - process.clock.now_ms()) / 1000
        return left_s - (self._written + HOUR_S - cluster.scheduler.now)


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(1, 9))
def test_a_minority_of_wrong_clocks_moves_no_ttl_when_all_start_again(seed: int, nodes: int, jump_s: float) -> None:
    run = Restarted(seed, nodes)
    with patched(run.cluster):
        run.stop_all()
        for host in run.random.sample(run.cluster.hosts, nodes // 2):
            host.set_wall_clock(jump_s)
        run.start(run.cluster.hosts)
        assert abs(run.off_s()) < SLACK_S


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
@pytest.mark.parametrize("seed", range(1, 9))
def test_whoever_leads_first_waits_for_the_voter_that_decides(seed: int, jump_s: float) -> None:
    run = Restarted(seed, 3)
    with patched(run.cluster):
        run.stop_all()
        first = run.random.sample(run.cluster.hosts, 2)
        first[0].set_wall_clock(jump_s)
        run.start(first, within_s=0.0)
        # The third one's messages come late, but not too late.
        third = next(host for host in run.cluster.hosts if host not in first)
        for host in first:
            run.cluster.wire.cut(third.node_id, host.node_id)
        run.start([third], within_s=0.0)

        def asked() -> bool:
            return any(process.node.elections._disputed_term for process in run.cluster.processes)

        assert run.cluster.run(5.0, asked)
        run.cluster.run(0.2)
        assert run.cluster.leader is None
        for host in first:
            run.cluster.wire.heal(third.node_id, host.node_id)
        assert abs(run.off_s()) < SLACK_S


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
@pytest.mark.parametrize("seed", range(1, 5))
def test_of_two_that_differ_the_earlier_one_is_believed_and_they_do_not_wait_for_long(seed: int, jump_s: float) -> None:
    run = Restarted(seed, 3)
    with patched(run.cluster):
        run.stop_all()
        first = run.random.sample(run.cluster.hosts, 2)
        first[0].set_wall_clock(jump_s)
        run.start(first, within_s=0.0)
        off_s = run.off_s(lambda: all(process.node.may_read for process in run.cluster.processes))
        assert abs(off_s) < SLACK_S if jump_s > 0 else abs(off_s - DOWN_S) < SLACK_S + 3.0
        assert run.cluster.scheduler.now - run.started < 4.0


def test_a_voter_alone_believes_itself() -> None:
    run = Restarted(1, 1)
    with patched(run.cluster):
        run.stop_all()
        run.start(run.cluster.hosts)
        assert abs(run.off_s()) < SLACK_S
