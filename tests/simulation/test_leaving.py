"""Nodes that leave by themselves, and are killed at the worst moment: whose wish a removal was, their disks know."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from simulation.cluster import Cluster, Host, Process, leader_of
from simulation.storage import DIRECTORY
from simulation.test_membership_changes import bring_back, cut_off, followers, knows, members, remove, running

from cacheflow.machine.state.settings import Member
from cacheflow.node import leaving, status
from cacheflow.raft.log.departure import read_departure
from cacheflow.raft.membership.changes import REMOVED


def leave(cluster: Cluster, process: Process, within_s: float = 10.0) -> str:
    """Have a node leave; return what it says."""
    told: list[str] = []

    async def ask() -> None:
        told.append(await process.leaving.leave(leaving.LEAVE_WITHIN_S))

    process.loop.create_task(ask())
    assert cluster.run(within_s, lambda: bool(told))
    return told[0]


def wish(host: Host) -> bool:
    return read_departure(host.disk, DIRECTORY) is not None


def test_who_has_left_takes_no_writes_says_so_and_comes_back_as_another_member() -> None:
    with running(3) as cluster:
        leaver = leader_of(cluster)
        before = leaver.host.incarnation
        assert leave(cluster, leaver) == ""
        assert members(cluster) == {host.node_id for host in cluster.hosts} - {leaver.node_id}
        assert knows(leaver) and not leaver.takes_writes
        assert "it has left the cluster" in (leaver.node.replica.failure or "")
        cluster.crash(leaver.host, power=True)
        cluster.start(leaver.host)
        assert cluster.run(10.0, cluster.healthy)
        assert leaver.host.incarnation != before and cluster.run(3.0, lambda: not wish(leaver.host))


def test_who_is_about_to_leave_takes_no_writes_and_answers_reads() -> None:
    with running(3) as cluster:
        leaver = followers(cluster)[0]
        leaver.loop.create_task(leaver.leaving.leave(leaving.LEAVE_WITHIN_S))
        assert cluster.run(1.0, lambda: leaver.leaving.has_begun)
        assert leaver.node.removal.removed_at is None and leaver.may_read
        assert not leaver.takes_writes


def test_who_is_killed_before_it_is_told_learns_it_and_joins_anew_at_its_next_start() -> None:
    with running(3) as cluster:
        leaver = followers(cluster)[0]
        leaver.loop.create_task(leaver.leaving.leave(leaving.LEAVE_WITHIN_S))
        assert cluster.run(5.0, lambda: leaver.node_id not in members(cluster))
        cluster.crash(leaver.host, power=True)
        assert wish(leaver.host) and not leaver.host.removal_is_noted
        cluster.start(leaver.host)
        again = leaver.host.process
        assert again is not None and cluster.run(10.0, lambda: knows(again))
        assert "stop it and start it again: it joins anew" in (again.node.replica.failure or "")
        before = leaver.host.incarnation
        cluster.crash(leaver.host, power=False)
        cluster.start(leaver.host)
        assert cluster.run(10.0, cluster.healthy) and leaver.host.incarnation != before


def test_a_wish_that_came_to_nothing_is_forgotten_and_a_later_removal_is_an_operators() -> None:
    with running(3) as cluster:
        leaver, *_ = followers(cluster)
        down = followers(cluster)[1].host
        cluster.crash(down, power=False)
        assert cluster.run(5.0, lambda: down.node_id in leader_of(cluster).node.peers.down_ids())
        assert "which is no majority" in leave(cluster, leaver)
        assert wish(leaver.host)
        for host in (leaver.host, down):
            if host.process is not None:
                cluster.crash(host, power=False)
            cluster.start(host)
        assert cluster.run(10.0, cluster.healthy)
        assert cluster.run(leaving.WISH_COUNTS_S + 2.0, lambda: not wish(leaver.host))
        assert remove(cluster, leaver.host) == REMOVED
        process = leaver.host.process
        assert process is not None and cluster.run(2.0, lambda: knows(process))
        assert "it was removed from the cluster" in (process.node.replica.failure or "")


def test_a_late_request_of_the_start_before_is_still_the_own_wish() -> None:
    with running(3) as cluster:
        leaver, *_ = followers(cluster)
        down = followers(cluster)[1].host
        cluster.crash(down, power=False)
        assert cluster.run(5.0, lambda: down.node_id in leader_of(cluster).node.peers.down_ids())
        assert leave(cluster, leaver) != ""
        cluster.crash(leaver.host, power=False)
        cluster.start(down)
        cluster.start(leaver.host)
        assert cluster.run(10.0, cluster.healthy)
        cluster.run(leaving.MEMBER_LOOK_S + 3.0)
        # As the leader may do that had kept the request.
        assert remove(cluster, leaver.host) == REMOVED
        process = leaver.host.process
        assert process is not None and cluster.run(2.0, lambda: knows(process))
        cluster.crash(leaver.host, power=False)
        cluster.start(leaver.host)
        assert cluster.run(10.0, cluster.healthy)


@pytest.mark.parametrize("told", [True, False])
def test_who_was_removed_by_an_operator_leaves_no_more(told: bool) -> None:
    with running(3) as cluster:
        removed = followers(cluster)[0]
        if told:
            assert remove(cluster, removed.host) == REMOVED
            assert cluster.run(2.0, lambda: knows(removed))
        else:
            removed.node.removal._removed(7)
        assert leave(cluster, removed) == "it is out already"
        assert not wish(removed.host)


def test_a_member_of_a_cluster_that_was_replaced_had_not_left_it() -> None:
    with running(3) as cluster:
        leaver, *_ = followers(cluster)
        down = followers(cluster)[1].host
        cluster.crash(down, power=False)
        assert cluster.run(5.0, lambda: down.node_id in leader_of(cluster).node.peers.down_ids())
        assert leave(cluster, leaver) != "" and wish(leaver.host)
        leaver.node.removal.replaced_by("another")
        assert cluster.run(2.0, lambda: knows(leaver))
        assert not wish(leaver.host) and "has replaced in a recovery" in (leaver.node.replica.failure or "")


def test_the_only_member_and_who_is_none_stay_as_they_are() -> None:
    with running(1, replicas=0) as cluster:
        assert leave(cluster, leader_of(cluster)) == "it is the only member"
        assert not wish(cluster.hosts[0])


def test_a_founder_that_comes_back_founds_nothing_although_its_command_says_so() -> None:
    with running(3) as cluster:
        founder = cluster.hosts[0]
        assert cluster.config_of(founder).bootstrap and not cluster.config_of(founder).seed
        process = founder.process
        assert process is not None
        cluster_id = process.machine.cluster_id
        assert leave(cluster, process) == ""
        cluster.crash(founder, power=False)
        others = [host for host in cluster.hosts if host is not founder]
        for host in others:
            cluster.crash(host, power=False)
        cluster.start(founder)
        cluster.run(10.0)
        back = founder.process
        assert back is not None and not back.joining.has_founded and not back.may_read
        for host in others:
            cluster.start(host)
        assert cluster.run(15.0, cluster.healthy) and back.machine.cluster_id == cluster_id


def changes(process: Process) -> dict[str, str | None]:
    """Return what the list of members shows of each that is changing."""
    rows = status.nodes(SimpleNamespace(local=process))  # type: ignore[arg-type]
    return {row["id"]: row["change"] and row["change"]["what"] for row in rows}


def test_a_removal_and_a_registration_are_shown_while_they_are_under_way() -> None:
    with running(3) as cluster:
        leader = leader_of(cluster)
        going, away = followers(cluster)
        assert changes(leader) == {"n1": None, "n2": None, "n3": None}
        # It is not seen to be down yet, and without it the next table is not committed.
        cut_off(cluster, away)
        leader.node.reconfiguration.remove(going.node_id, "", lambda outcome, detail: None)
        assert cluster.run(1.0, lambda: changes(leader)[going.node_id] == "leaves")
        assert cluster.run(1.0, lambda: going.node_id not in [member.id for member in leader.node.members()])
        assert changes(leader) == {leader.node_id: None, going.node_id: "leaves", away.node_id: None}
        bring_back(cluster, away)
        assert cluster.run(5.0, lambda: changes(leader_of(cluster)).keys() == {leader.node_id, away.node_id})
        cut_off(cluster, away)
        member = Member("n9", "another", "n9:7000", "n9:8000", False)
        leader_of(cluster).node.reconfiguration.register(member, lambda outcome, detail: None)
        assert cluster.run(1.0, lambda: changes(leader).get("n9") == "joins")


def test_a_departure_that_cannot_be_removed_yet_is_removed_later() -> None:
    with running(3) as cluster:
        leaver = followers(cluster)[0]
        host = leaver.host
        assert leave(cluster, leaver) == ""
        cluster.crash(host, power=True)
        cluster.start(host)
        # Its removal begins and cannot be made durable: the process has no handle left.
        assert cluster.run(10.0, lambda: host.process is not None and host.process.node.may_read)
        host.disk.out_of_handles = True
        cluster.run(3.0)
        host.disk.out_of_handles = False
        cluster.run(2.0)
        assert host.process is not None and not wish(host) and host.process.leaving._departure is None
        assert host.process.supervisor.problems() == []
