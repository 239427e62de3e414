"""What a node tells of its past: leaders, members and settings, the same in every run; of what was before its start, nothing."""

from __future__ import annotations

import pytest
from simulation.cluster import Cluster, Process, leader_of, patched
from simulation.test_membership_changes import SETTINGS, followers, remove, running

from cacheflow.machine.language import commands
from cacheflow.results import Event


def texts(process: Process, what: str = "") -> list[str]:
    return [event.text for event in process.events.latest() if what in ("", event.what)]


def outage(seed: int) -> list[Event]:
    """What a survivor tells of a leader that is killed and comes back."""
    with running(3, seed) as cluster:
        leader = leader_of(cluster)
        watcher = followers(cluster)[0]
        cluster.run(2.0)
        cluster.crash(leader.host, power=True)
        assert cluster.run(10.0, lambda: cluster.leader not in (None, leader))
        # Its connections stand, as nobody has ended them.
        cluster.run(4.0)
        cluster.start(leader.host)
        assert cluster.run(10.0, cluster.healthy)
        cluster.run(2.0)
        gone, route = leader.node_id, watcher.node.links.route
        assert route is not None
        told = texts(watcher)
        lost = told.index(next(text for text in told if text.startswith("no leader is known, in term")))
        assert f"{route.leader_id} leads in term {route.term}" in told[lost:]
        silent = [text for text in told if text.startswith(f"{gone} does not answer")]
        assert len(silent) == told.count(f"{gone} answers again") == 1
        assert told.index(silent[0]) < told.index(f"{gone} answers again")
        numbers = [event.number for event in watcher.events.latest()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return list(watcher.events.latest())


def test_a_leader_that_is_killed_and_comes_back_is_told_the_same_way_in_every_run() -> None:
    assert outage(1) == outage(1)
    outage(2)


@pytest.mark.parametrize("with_leader", [True, False])
def test_who_hangs_is_down_also_for_nodes_without_a_leader(with_leader: bool) -> None:
    with running(3) as cluster:
        leader, (one, other) = leader_of(cluster), followers(cluster)
        hung, left = ((leader, one), other) if with_leader else ((one, other), leader)
        ids = {process.node_id for process in hung}
        cluster.run(2.0)
        for process in hung:
            process.loop.pause()
        assert cluster.run(10.0, lambda: left.node.links.route is None and left.node.peers.down_ids() == ids)
        assert not cluster.run(60.0, lambda: left.node.peers.down_ids() != ids), (
            "its connections stand, and mean nothing"
        )
        assert not any("answers again" in text for text in texts(left))
        away = ", ".join(sorted(ids))
        assert f"no leader for 5 s, so nothing can be written: no answer of {away}" in texts(left, "leader")
        for process in hung:
            process.loop.resume(False)
        assert cluster.run(10.0, lambda: cluster.healthy() and not left.node.peers.down_ids())
        cluster.run(2.0)
        assert all(texts(left).count(f"{node_id} answers again") == 1 for node_id in ids)


def test_who_does_not_vote_knows_no_leader_either_where_a_majority_hangs() -> None:
    with running(5) as cluster:
        leader = leader_of(cluster)
        cluster.run(2.0)
        voters = leader.node.configurations.latest.voters
        spares = [process for process in cluster.processes if process.node_id not in voters]
        hung = [leader, next(each for each in cluster.processes if each is not leader and each.node_id in voters)]
        assert len(voters) == 3 and len(spares) == 2
        for process in hung:
            process.loop.pause()
        assert cluster.run(10.0, lambda: all(spare.node.links.route is None for spare in spares))
        assert cluster.run(10.0, lambda: all(leader.node_id in spare.node.peers.down_ids() for spare in spares))
        assert not cluster.run(60.0, lambda: any(spare.node.links.route is not None for spare in spares))
        for process in hung:
            process.loop.resume(False)
        assert cluster.run(10.0, lambda: cluster.healthy() and not any(each.node.peers.down_ids() for each in spares))


def test_a_new_leader_goes_on_calling_down_who_hangs() -> None:
    with running(3) as cluster:
        leader, (heir, hung) = leader_of(cluster), followers(cluster)
        cluster.run(2.0)
        hung.loop.pause()
        assert cluster.run(10.0, lambda: any("does not answer" in text for text in texts(leader)))
        leader.node.hand_over.begin(heir.node_id)
        assert cluster.run(5.0, lambda: cluster.leader is heir)
        assert not cluster.run(5.0, lambda: heir.node.peers.down_ids() != {hung.node_id})
        assert not any("answers again" in text for process in (leader, heir) for text in texts(process))


def test_a_node_that_starts_alone_says_that_it_has_no_leader_and_whom_it_does_not_reach() -> None:
    with running(3) as cluster:
        cluster.run(1.0)
        alone, *others = cluster.hosts
        for host in cluster.hosts:
            cluster.crash(host, power=True)
        cluster.start(alone)
        cluster.run(4.0)
        assert alone.process is not None and texts(alone.process, "leader") == []
        cluster.run(2.0)
        away = ", ".join(host.node_id for host in others)
        lacks = f"no leader for 5 s, so nothing can be written: no answer of {away}"
        assert texts(alone.process, "leader") == [lacks]


def test_who_joins_and_who_leaves_is_told_by_every_node() -> None:
    cluster = Cluster(1, 4, settings=SETTINGS)
    with patched(cluster):
        *three, fourth = cluster.hosts
        for host in three:
            cluster.start(host)
        assert cluster.run(10.0, lambda: len(cluster.processes) == 3 and all(p.may_read for p in cluster.processes))
        cluster.run(3.0)
        cluster.start(fourth)
        olds = [host.process for host in three if host.process is not None]
        joined = f"n4 is a member now, a spare, at {fourth.address}"
        assert cluster.run(10.0, lambda: all(joined in texts(process) for process in olds))
        leaver = followers(cluster)[0]
        remove(cluster, leaver.host)
        stay = [process for process in olds if process is not leaver]
        left = f"{leaver.node_id} is no member any more"
        assert cluster.run(10.0, lambda: all(left in texts(process) for process in stay))
        # Its vote is given to the other.
        assert cluster.run(10.0, lambda: all("n4 is a voter now" in texts(process) for process in stay))
        told = [(event.about, event.text) for event in stay[0].events.latest() if event.what == "member"]
        assert told[-3:] == [("n4", joined), (leaver.node_id, left), ("n4", "n4 is a voter now")]


def test_settings_are_told_with_who_has_changed_them_and_old_ones_of_the_log_are_no_news() -> None:
    with running(3) as cluster:
        cluster.run(1.0)
        changed = commands.configure({"max_items": 77, "policy": "lfu"}, by="ada")
        leader_of(cluster).send_unchecked([changed], lambda outcome: lambda: None)
        told = "settings changed (by ada): eviction lfu, before lru; max_items 77, before none"
        assert cluster.run(5.0, lambda: all(texts(process, "settings") == [told] for process in cluster.processes))
        # All that it finds when it starts again has happened before.
        host = followers(cluster)[0].host
        cluster.crash(host, power=True)
        cluster.start(host)
        assert cluster.run(10.0, cluster.healthy)
        cluster.run(2.0)
        again = host.process
        assert again is not None and again.machine.settings.max_items == 77
        assert {event.what for event in again.events.latest()} == {"node", "leader"}
