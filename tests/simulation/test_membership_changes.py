"""Members are taken out, one at a time, whatever happens meanwhile; and those who are out know it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster, Host, Process, leader_of, patched

from cacheflow.machine.language import commands
from cacheflow.machine.state.settings import Member
from cacheflow.raft.membership.changes import CONFLICT, JOINED, REMOVED, UNKNOWN, UNSURE

SETTINGS = {"policy": "lru", "max_items": None, "max_bytes": None, "replicas": 2}


@contextmanager
def running(nodes: int, seed: int = 1, replicas: int = 2) -> Iterator[Cluster]:
    """Yield a healthy cluster."""
    cluster = Cluster(seed, nodes, settings={**SETTINGS, "replicas": replicas})
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        yield cluster


def leads(cluster: Cluster, *candidates: Process, within_s: float = 10.0) -> bool:
    """Return whether one of ``candidates`` is elected in time, and all of them know it."""
    return cluster.run(
        within_s,
        lambda: (
            cluster.leader in candidates
            and all(
                process.node.links.route is not None and process.node.links.route.leader_id == cluster.leader.node_id
                for process in candidates
            )
        ),
    )


def followers(cluster: Cluster) -> list[Process]:
    """Return the voters that do not lead."""
    voters = leader_of(cluster).node.configurations.latest.voters
    return [process for process in cluster.processes if process.node_id in voters and not process.node.is_leader]


def remove(cluster: Cluster, host: Host, through: Process | None = None, within_s: float = 5.0) -> str:
    """Ask once to remove a member; return the outcome, "" when there was none in time."""
    outcomes: list[str] = []
    asked = through or leader_of(cluster)
    asked.node.reconfiguration.remove(host.node_id, host.incarnation, lambda outcome, _: outcomes.append(outcome))
    cluster.run(within_s, lambda: bool(outcomes))
    return outcomes[0] if outcomes else ""


def members(cluster: Cluster) -> set[str]:
    return set(leader_of(cluster).node.configurations.settled.members)


def knows(process: Process) -> bool:
    """Return whether a process knows that it was removed, and behaves so."""
    node = process.node
    return (
        node.removal.removed_at is not None
        and not node.may_read
        and node.links.route is None
        and not node.may_campaign()
    )


def cut_off(cluster: Cluster, process: Process) -> None:
    for other in cluster.hosts:
        if other is not process.host:
            cluster.wire.cut(process.node_id, other.node_id)
            cluster.wire.cut(other.node_id, process.node_id)


def bring_back(cluster: Cluster, process: Process) -> None:
    for other in cluster.hosts:
        if other is not process.host:
            cluster.wire.heal(process.node_id, other.node_id)
            cluster.wire.heal(other.node_id, process.node_id)


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_a_removed_follower_is_told_at_once_and_disturbs_nobody(nodes: int) -> None:
    with running(nodes, replicas=nodes - 1) as cluster:
        leader, removed = leader_of(cluster), followers(cluster)[0]
        term = leader.node.term
        assert remove(cluster, removed.host) == REMOVED
        assert members(cluster) == {host.node_id for host in cluster.hosts} - {removed.node_id}
        assert cluster.run(0.5, lambda: knows(removed))
        cluster.run(20.0)
        assert leader.node.is_leader and leader.node.term == removed.node.term == term
        assert [row.id for row in leader.node.members()] == sorted(members(cluster))
        assert removed.node_id not in leader.node.peers.progress


@pytest.mark.parametrize("through", ["itself", "another"])
def test_a_removed_leader_hands_over_first_whoever_is_asked(through: str) -> None:
    with running(3) as cluster:
        removed = leader_of(cluster)
        others = followers(cluster)
        asked = removed if through == "itself" else others[0]
        # Another node may see the new leader before it gets the answer.
        assert remove(cluster, removed.host, asked, within_s=0.5) in (
            (REMOVED,) if asked is removed else (REMOVED, UNSURE)
        )
        assert leads(cluster, *others, within_s=1.0)
        assert cluster.run(1.0, lambda: knows(removed))
        assert members(cluster) == {process.node_id for process in others}


@pytest.mark.parametrize("pause_s", [0.01, 0.06, 0.31])
def test_two_that_are_to_be_removed_do_not_hand_leadership_to_each_other_for_ever(pause_s: float) -> None:
    with running(3) as cluster:
        leader, heir = leader_of(cluster), followers(cluster)[1]
        stays = followers(cluster)[0]
        # Nobody else may take over.
        cluster.wire.cut(leader.node_id, stays.node_id)
        for _ in range(20):
            for host in (leader.host, heir.host):
                if cluster.leader is not None and cluster.leader.host is host:
                    remove(cluster, host, within_s=pause_s)
            if cluster.leader is stays:
                break
            cluster.run(pause_s)
        assert cluster.run(5.0, lambda: cluster.leader is not None)
        assert leader.node.removal.removed_at is not None or heir.node.removal.removed_at is not None


@pytest.mark.parametrize("power", [False, True])
def test_a_node_that_is_down_is_removed_and_learns_it_when_it_comes_back(power: bool) -> None:
    with running(3) as cluster:
        removed = followers(cluster)[0].host
        cluster.crash(removed, power=power)
        assert remove(cluster, removed) == REMOVED
        term = leader_of(cluster).node.term
        cluster.run(30.0)
        cluster.start(removed)
        assert removed.process is not None
        process = removed.process
        assert cluster.run(5.0, lambda: knows(process))
        assert leader_of(cluster).node.term == term


def test_an_observer_is_removed_and_learns_it_although_it_never_campaigns() -> None:
    with running(4) as cluster:
        voters = leader_of(cluster).node.configurations.latest.voters
        observer = next(host for host in cluster.hosts if host.node_id not in voters)
        cluster.crash(observer, power=True)
        assert remove(cluster, observer) == REMOVED
        cluster.start(observer)
        process = observer.process
        assert process is not None
        assert cluster.run(5.0, lambda: knows(process))


def test_a_removed_node_that_nobody_reaches_raises_no_term_and_learns_it_when_it_is_reached() -> None:
    with running(3) as cluster:
        leader, removed = leader_of(cluster), followers(cluster)[0]
        for host in cluster.hosts:
            cluster.wire.cut(host.node_id, removed.node_id)
        assert remove(cluster, removed.host) == REMOVED
        term = leader.node.term
        cluster.run(30.0)
        assert not knows(removed) and removed.node.term == leader.node.term == term and leader.node.is_leader
        for host in cluster.hosts:
            cluster.wire.heal(host.node_id, removed.node_id)
        assert cluster.run(8.0, lambda: knows(removed))
        assert leader.node.term == term


def test_what_a_removed_node_sends_before_it_knows_is_not_done() -> None:
    with running(3) as cluster:
        leader, removed = leader_of(cluster), followers(cluster)[0]
        for host in cluster.hosts:
            cluster.wire.cut(host.node_id, removed.node_id)
        assert remove(cluster, removed.host) == REMOVED
        assert removed.node.propose([commands.encode_block(0, 0, 0, [commands.set_("late", b"x", 0)])])
        cluster.run(2.0)
        assert leader.machine.lookup("late", leader.machine.now_ms) is None


def test_an_ex_leader_that_was_cut_off_and_removed_learns_it() -> None:
    with running(3) as cluster:
        removed, others = leader_of(cluster), followers(cluster)
        cut_off(cluster, removed)
        # Entries of its own that nobody will ever have.
        Workload(cluster, Random(1), clients=4, pause_s=0.05)
        assert leads(cluster, *others)
        assert remove(cluster, removed.host) == REMOVED
        bring_back(cluster, removed)
        assert cluster.run(8.0, lambda: knows(removed))


def test_the_same_id_comes_back_with_an_empty_disk_and_votes_again() -> None:
    with running(3) as cluster:
        removed = followers(cluster)[0].host
        workload = Workload(cluster, Random(2), clients=4, pause_s=0.05)
        assert remove(cluster, removed) == REMOVED
        cluster.run(3.0)
        cluster.crash(removed, power=False)
        removed.empty(cluster.random)
        cluster.start(removed)
        assert cluster.run(10.0, lambda: removed.node_id in leader_of(cluster).node.configurations.settled.voters)
        workload.stop()
        cluster.run(4.0)
        assert cluster.run(5.0, cluster.checks.nothing_left)
        cluster.checks.at_the_end(None)
        workload.check()


def test_an_observer_takes_the_place_of_a_voter_that_was_removed() -> None:
    with running(4) as cluster:
        voters = set(leader_of(cluster).node.configurations.latest.voters)
        (observer,) = {host.node_id for host in cluster.hosts} - voters
        removed = followers(cluster)[0].host
        assert remove(cluster, removed) == REMOVED
        expected = (voters | {observer}) - {removed.node_id}
        assert cluster.run(2.0, lambda: set(leader_of(cluster).node.configurations.settled.voters) == expected)


def test_members_go_until_one_is_left_and_that_one_stays() -> None:
    with running(3) as cluster:
        for _ in range(2):
            removed = followers(cluster)[0].host
            assert remove(cluster, removed) == REMOVED
            cluster.crash(removed, power=False)
        last = leader_of(cluster)
        assert last.node.configurations.settled.voters == [last.node_id]
        assert remove(cluster, last.host) == CONFLICT
        workload = Workload(cluster, Random(3), clients=2, pause_s=0.05)
        since = cluster.scheduler.now
        assert cluster.run(5.0, lambda: workload.answered_at > since)


def test_what_would_leave_no_majority_that_answers_is_refused() -> None:
    with running(5, replicas=4) as cluster:
        down, other_down, up, *_ = [process.host for process in followers(cluster)]
        for host in (down, other_down):
            cluster.crash(host, power=True)
        assert cluster.run(3.0, lambda: leader_of(cluster).node.peers.down_ids() == {down.node_id, other_down.node_id})
        assert remove(cluster, up) == CONFLICT
        assert len(members(cluster)) == 5
        # The way out: those that are down.
        assert remove(cluster, down) == REMOVED
        assert remove(cluster, other_down) == REMOVED
        assert remove(cluster, up) == REMOVED


def test_who_is_no_member_is_unknown_and_so_is_another_disk_under_the_same_id() -> None:
    with running(3) as cluster:
        host = followers(cluster)[0].host
        outcomes: list[str] = []
        ask = leader_of(cluster).node.reconfiguration.remove
        ask("nobody", "", lambda outcome, _: outcomes.append(outcome))
        ask(host.node_id, "an older disk", lambda outcome, _: outcomes.append(outcome))
        assert cluster.run(1.0, lambda: len(outcomes) == 2)
        assert outcomes == [UNKNOWN, UNKNOWN] and len(members(cluster)) == 3


def test_several_changes_at_once_are_made_one_after_the_other() -> None:
    with running(5, replicas=4) as cluster:
        outcomes: list[str] = []
        for process in followers(cluster)[:2]:
            asked = followers(cluster)[3]
            asked.node.reconfiguration.remove(process.node_id, "", lambda outcome, _: outcomes.append(outcome))
        leader_of(cluster).node.reconfiguration.remove("n9", "", lambda outcome, _: outcomes.append(outcome))

        def one_at_a_time() -> bool:
            for process in cluster.processes:
                known = process.node.configurations
                pending = [table for table in known._stack if table.index > process.node.commit_index]
                assert len(pending) <= 1
            return len(outcomes) == 3

        assert cluster.run(5.0, one_at_a_time)
        assert sorted(outcomes) == [REMOVED, REMOVED, UNKNOWN] and len(members(cluster)) == 3


def test_a_removal_whose_entry_is_dropped_is_rolled_back() -> None:
    with running(5, replicas=4) as cluster:
        cut, (spared, *_) = leader_of(cluster), followers(cluster)
        cut_off(cluster, cut)
        outcomes: list[str] = []
        # It still believes that everybody is there.
        cut.node.reconfiguration.remove(spared.node_id, "", lambda outcome, _: outcomes.append(outcome))
        assert cluster.run(0.2, lambda: spared.node_id not in cut.node.configurations.latest.members)
        assert spared.node_id in cut.node.configurations.settled.members
        assert cluster.run(10.0, lambda: bool(outcomes))
        assert outcomes == [UNSURE]
        bring_back(cluster, cut)
        assert cluster.run(10.0, cluster.healthy)
        assert spared.node_id in cut.node.configurations.latest.voters and not knows(spared)
        assert len(members(cluster)) == 5


def test_a_removal_that_is_not_committed_survives_a_restart() -> None:
    with running(3) as cluster:
        cut, (removed, other) = leader_of(cluster), followers(cluster)
        cut_off(cluster, cut)
        cut.node.reconfiguration.remove(removed.node_id, "", lambda outcome, detail: None)
        assert cluster.run(0.2, lambda: removed.node_id not in cut.node.configurations.latest.members)
        cluster.run(0.1)
        for host in cluster.hosts:
            cluster.crash(host, power=True)
        bring_back(cluster, cut)
        for host in (cut.host, other.host):
            cluster.start(host)
        process = cut.host.process
        assert process is not None
        assert process.node.configurations.latest.voters == sorted([cut.node_id, other.node_id])
        # Two of the three are there, and one of them knows that these two are enough.
        assert leads(cluster, *cluster.processes)
        assert cluster.run(5.0, lambda: removed.node_id not in members(cluster))


def test_a_newcomer_whose_entry_was_dropped_registers_again() -> None:
    with running(4) as cluster:
        cut, voters = leader_of(cluster), leader_of(cluster).node.configurations.latest.voters
        newcomer = next(host for host in cluster.hosts if host.node_id not in voters)
        assert remove(cluster, newcomer) == REMOVED
        cluster.crash(newcomer, power=False)
        newcomer.empty(cluster.random)
        apart = [
            pair
            for one in (cut.node_id, newcomer.node_id)
            for other in voters
            if other != cut.node_id
            for pair in ((one, other), (other, one))
        ]
        for way in apart:
            cluster.wire.cut(*way)
        cluster.start(newcomer)
        process = newcomer.process
        assert process is not None
        itself = (newcomer.node_id, newcomer.incarnation)
        # The leader that is cut off with it takes it in, which nobody else will ever hear of. One of an older build sends it that
        # at once.
        cut.node.replicator._last_for = lambda node_id: cut.journal.last_index  # type: ignore[method-assign]
        cut.node.reconfiguration.register(process.joining.me, lambda outcome, detail: None)
        assert cluster.run(0.5, lambda: process.node.configurations.latest.lists(*itself))
        others = [process for process in cluster.processes if process.node_id in voters and process is not cut]
        assert leads(cluster, *others)
        assert not leader_of(cluster).node.configurations.latest.lists(*itself)
        for way in apart:
            cluster.wire.heal(*way)
        assert cluster.run(10.0, lambda: leader_of(cluster).node.configurations.settled.lists(*itself))
        assert cluster.run(5.0, cluster.healthy) and process.node.removal.removed_at is None


def test_who_was_removed_is_not_taken_back_when_it_asks_from_a_new_address() -> None:
    with running(3) as cluster:
        removed = followers(cluster)[0]
        cluster.crash(removed.host, power=False)
        assert remove(cluster, removed.host) == REMOVED
        outcomes: list[tuple[str, str]] = []
        asked = leader_of(cluster).node.reconfiguration
        asked.register(removed.joining.me, lambda *answer: outcomes.append(answer), True)
        assert cluster.run(1.0, lambda: bool(outcomes))
        assert outcomes[0][0] == CONFLICT and "remove its data directory" in outcomes[0][1]
        assert removed.node_id not in members(cluster)


def test_a_registration_that_comes_after_the_removal_does_not_undo_it() -> None:
    with running(3) as cluster:
        removed, other = followers(cluster)
        assert remove(cluster, removed.host) == REMOVED
        # Also under the next leader.
        leader_of(cluster).node.hand_over.begin(None)
        assert leads(cluster, other)
        outcomes: list[str] = []
        # Sent while it was about to join, when it had not been a member.
        other.node.reconfiguration.register(removed.joining.me, lambda outcome, _: outcomes.append(outcome))
        assert cluster.run(1.0, lambda: bool(outcomes))
        assert outcomes == [CONFLICT] and removed.node_id not in members(cluster)


def test_a_new_disk_that_takes_the_place_of_two_voters_takes_one_vote_at_a_time() -> None:
    with running(5, replicas=4) as cluster:
        one, other, *_ = [process.host for process in followers(cluster)]
        for host in (one, other):
            cluster.crash(host, power=True)
        assert cluster.run(3.0, lambda: leader_of(cluster).node.peers.down_ids() == {one.node_id, other.node_id})
        leader = leader_of(cluster)
        outcomes: list[str] = []
        newcomer = Member(one.node_id, "a new disk", other.address, "", False)
        tables: list[list[str]] = []

        def done() -> bool:
            voters = leader.node.configurations.latest.voters
            if not tables or tables[-1] != voters:
                tables.append(voters)
            return bool(outcomes)

        leader.node.reconfiguration.register(newcomer, lambda outcome, _: outcomes.append(outcome))
        assert cluster.run(3.0, done)
        assert outcomes == [JOINED]
        assert [len(voters) for voters in tables] == [5, 4, 3]
        assert members(cluster) == {host.node_id for host in cluster.hosts} - {other.node_id}


def test_of_two_that_are_left_one_can_still_take_over_after_the_other_one_s_connection_broke() -> None:
    with running(3) as cluster:
        leader, (heir, down) = leader_of(cluster), followers(cluster)
        cluster.crash(down.host, power=False)
        # The heir's own connection to the leader stands all the time.
        cluster.wire.break_connection(leader.node_id, heir.node_id)
        cluster.run(1.0)
        assert leader.node.links.is_connected(heir.node_id) and heir.node.links.route is not None
        assert leader.node.hand_over.begin(heir.node_id) == heir.node_id
        assert leads(cluster, heir, within_s=1.0)
