"""Roles in whole clusters: who votes when replicas changes, when voters die, and when operators promote and demote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from simulation.cluster import BOOTSTRAP, COMMAND, PEERS, TEMPLATE, Cluster, Process, leader_of, patched

from cacheflow.machine.language import commands
from cacheflow.raft.membership.changes import BEHIND, CHANGED, CONFLICT, KNOWN, UNKNOWN

SETTINGS = {"policy": "lru", "max_items": None, "max_bytes": None}


@contextmanager
def running(
    nodes: int,
    replicas: int = 2,
    *observers: str,
    replace_after_s: float = 0.0,
    founding: str = BOOTSTRAP,
    seed: int = 1,
) -> Iterator[Cluster]:
    """Yield a healthy cluster, in which these nodes are observers."""
    cluster = Cluster(seed, nodes, settings={**SETTINGS, "replicas": replicas}, founding=founding)
    cluster.roles.observers = frozenset(observers)
    cluster.roles.replace_after_s = replace_after_s
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(12.0, cluster.healthy)
        yield cluster


def voters(cluster: Cluster) -> list[str]:
    return leader_of(cluster).node.configurations.settled.voters


def change(process: Process, what: str, node_id: str, within_s: float = 4.0) -> str:
    """Ask a process once to promote or demote a member; return the outcome, "" when there was none in time."""
    outcomes: list[str] = []
    ask = getattr(process.node.reconfiguration, what)
    ask(node_id, "", lambda outcome, _: outcomes.append(outcome))
    process.cluster.run(within_s, lambda: bool(outcomes))
    return outcomes[0] if outcomes else ""


def set_replicas(cluster: Cluster, replicas: int) -> None:
    leader_of(cluster).send_unchecked([commands.configure({"replicas": replicas})], lambda outcome: lambda: None)


def test_observers_found_nothing_and_vote_never() -> None:
    for founding in (BOOTSTRAP, COMMAND, TEMPLATE, PEERS):
        with running(5, 4, "n2", "n5", founding=founding) as cluster:
            assert voters(cluster) == ["n1", "n3", "n4"]
            cluster.run(20.0)
            assert voters(cluster) == ["n1", "n3", "n4"]
            for node_id in ("n2", "n5"):
                (process,) = [process for process in cluster.processes if process.node_id == node_id]
                assert process.may_read and process.takes_writes


def test_an_observer_serves_while_voters_die_and_takes_no_vote() -> None:
    with running(4, 2, "n4", replace_after_s=2.0) as cluster:
        dead = next(host for host in cluster.hosts[:3] if host.process is not cluster.leader)
        cluster.crash(dead, power=True)
        cluster.run(10.0)
        # Nobody may take it, so it stays where it is.
        assert voters(cluster) == ["n1", "n2", "n3"]


def test_a_dead_voter_is_replaced_by_a_spare_and_comes_back_as_one() -> None:
    with running(5, 2, "n4", replace_after_s=2.0) as cluster:
        leader = leader_of(cluster)
        table = leader.node.configurations.settled
        (spare,) = table.spares
        dead = next(host for host in cluster.hosts if host.node_id in table.voters and host.process is not leader)
        cluster.crash(dead, power=True)
        assert cluster.run(5.5, lambda: spare.id in voters(cluster) and dead.node_id not in voters(cluster))
        cluster.run(10.0)
        cluster.start(dead)
        assert cluster.run(5.0, cluster.healthy)
        cluster.run(10.0)
        assert leader.node.is_leader and len(voters(cluster)) == 3 and dead.node_id not in voters(cluster)
        # And it is what takes the next one's place, though the leader is the one that dies.
        cluster.crash(leader.host, power=True)
        assert cluster.run(10.0, lambda: cluster.leader is not None and dead.node_id in voters(cluster))
        assert leader.node_id not in voters(cluster)


def test_nobody_is_replaced_without_a_majority_and_those_who_are_gone_for_good_block_nothing() -> None:
    with running(5, 2, replace_after_s=2.0) as cluster:
        table = leader_of(cluster).node.configurations.settled
        others = [host for host in cluster.hosts if host.node_id in table.voters and host.process is not cluster.leader]
        for host in others:
            cluster.crash(host, power=False)
        cluster.run(15.0)
        assert cluster.leader is None or voters(cluster) == table.voters
        cluster.start(others[0])
        assert cluster.run(15.0, lambda: cluster.leader is not None and others[1].node_id not in voters(cluster))
        assert cluster.run(3.0, lambda: len(voters(cluster)) == 3)
        # All that voted first may be gone now.
        cluster.start(others[1])
        assert cluster.run(5.0, cluster.healthy)
        for host in [host for host in cluster.hosts if host.node_id in table.voters and host is not others[1]]:
            cluster.crash(host, power=False)
            assert cluster.run(
                15.0,
                lambda host=host: cluster.leader is not None and host.node_id not in voters(cluster),  # type: ignore[misc]
            )
        assert cluster.run(2.0, lambda: len(voters(cluster)) == 3)


def test_replicas_up_and_down() -> None:
    with running(5, 2) as cluster:
        leader = leader_of(cluster)
        for replicas in (4, 2, 0, 3, 1, 4):
            set_replicas(cluster, replicas)
            assert cluster.run(5.0, lambda replicas=replicas: len(voters(cluster)) == replicas + 1)  # type: ignore[misc]
            assert cluster.run(2.0, cluster.healthy)
        assert leader.node.is_leader and len(cluster.checks.leaders) == 1


def test_those_who_are_down_go_first() -> None:
    with running(5, 4) as cluster:
        leader = leader_of(cluster)
        dead = [host for host in cluster.hosts if host.process is not leader][:2]
        for host in dead:
            cluster.crash(host, power=False)
        cluster.run(3.0)
        set_replicas(cluster, 2)
        assert cluster.run(3.0, lambda: len(voters(cluster)) == 3)
        assert not {host.node_id for host in dead} & set(voters(cluster))


def test_a_demoted_leader_hands_over_and_stays_an_observer() -> None:
    with running(4, 2) as cluster:
        leader = leader_of(cluster)
        (spare,) = leader.node.configurations.settled.spares
        outcome = change(next(one for one in cluster.processes if one is not leader), "demote", leader.node_id)
        while outcome not in (CHANGED, KNOWN):
            # Who is asked may see the new leader before it gets the answer.
            outcome = change(leader_of(cluster), "demote", leader.node_id)
        assert cluster.run(5.0, lambda: not leader.node.is_leader and spare.id in voters(cluster))
        cluster.run(10.0)
        assert len(voters(cluster)) == 3 and leader.node_id not in voters(cluster)
        assert not leader.node.may_campaign() and leader.may_read
        assert change(leader, "demote", leader.node_id) == KNOWN
        assert change(leader, "promote", leader.node_id) == CONFLICT
        set_replicas(cluster, 3)
        cluster.run(2.0)
        assert leader.node_id not in voters(cluster)
        assert change(leader, "promote", leader.node_id) == CHANGED
        assert change(leader, "promote", leader.node_id) == KNOWN
        assert len(voters(cluster)) == 4


def test_what_cannot_be_is_refused_with_its_reason() -> None:
    with running(4, 3, "n4") as cluster:
        leader = leader_of(cluster)
        followers = [process for process in cluster.processes if process is not leader and process.node_id != "n4"]
        assert change(leader, "promote", "nobody") == change(followers[0], "demote", "nobody") == UNKNOWN
        cluster.crash(followers[0].host, power=False)
        cluster.run(2.0)
        assert change(leader, "demote", followers[1].node_id) == CONFLICT
        assert change(leader, "demote", followers[0].node_id) == CHANGED
        assert change(leader, "promote", followers[0].node_id) == BEHIND
        assert voters(cluster) == sorted([leader.node_id, followers[1].node_id])


def test_the_role_in_the_command_counts_for_newcomers_alone() -> None:
    with running(4, 3, "n4") as cluster:
        cluster.roles.promoted.add(cluster.hosts[3].incarnation)
        assert change(leader_of(cluster), "promote", "n4") == CHANGED
        cluster.crash(cluster.hosts[3], power=True)
        cluster.run(2.0)
        cluster.start(cluster.hosts[3])
        assert cluster.run(5.0, cluster.healthy)
        assert voters(cluster) == ["n1", "n2", "n3", "n4"]


@pytest.mark.parametrize("seed", range(1, 7))
def test_who_loses_its_vote_learns_so_once_it_is_committed_and_not_before(seed: int) -> None:
    """The leader of two voters takes the other's vote, and loses power before that is on its disk.

    Had the other voter the new table already, its log would be the longer one, so that it could elect nobody, and nobody would
    ask for its own election.
    """
    with running(3, 1, seed=seed) as cluster:
        leader = leader_of(cluster)
        (other,) = [each for each in cluster.processes if each.node_id in voters(cluster) and each is not leader]
        leader.writer.hung = True
        leader.node.reconfiguration.demote(other.node_id, "", lambda outcome, _: None)
        cluster.run(0.3)
        assert leader.node.configurations.latest.voters == [leader.node_id]
        cluster.crash(leader.host, power=True)
        cluster.start(leader.host)
        assert cluster.run(5.0, cluster.healthy)
