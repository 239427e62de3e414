"""A write acknowledged on one node can be read on the others: who gets an entry when, and what a stalled follower costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from simulation.checks import Violation
from simulation.clients import keep, nobody_waits
from simulation.cluster import Cluster, Process, leader_of, patched
from simulation.test_membership_changes import running

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.node.status import freshness
from cacheflow.raft.log.journal import RELAXED_S
from cacheflow.raft.roles import follower
from cacheflow.raft.roles.leader import HURRY_AFTER_S

# Seconds that a message takes at most, and a little more for the turns at its ends.
MESSAGE_S = 0.001 + 0.0002


@pytest.fixture(params=[3, 5])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(3, request.param)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        for _ in range(3):
            write(cluster, leader_of(cluster))
        yield cluster


def write(cluster: Cluster, process: Process) -> float:
    """Write a key through a process; return the seconds that it took."""
    answers: list[Outcome] = []
    began = cluster.scheduler.now
    process.inbox.submit([commands.set_("k", b"x", 0)], keep(answers), 5.0)
    assert cluster.run(5.0, lambda: bool(answers))
    assert isinstance(answers[0], list)
    return cluster.scheduler.now - began


def late(cluster: Cluster, index: int) -> list[str]:
    """Return the names of the nodes that have not applied the entry at ``index``."""
    return [process.name for process in cluster.processes if process.node.last_applied < index]


def followers(cluster: Cluster) -> list[Process]:
    leader = leader_of(cluster)
    return [process for process in cluster.processes if process is not leader]


def ahead(cluster: Cluster) -> list[Process]:
    """Return the followers that get entries before they are committed, and freeze the leader's choice of them."""
    node = leader_of(cluster).node
    node.leading.keep_house = lambda: None  # type: ignore[method-assign]
    write(cluster, leader_of(cluster))
    chosen = node.replicator.ahead
    assert chosen is not None and len(chosen) == len(cluster.hosts) // 2
    return [process for process in cluster.processes if process.node_id in chosen]


def behind(cluster: Cluster) -> Process:
    quick = ahead(cluster)
    return next(process for process in followers(cluster) if process not in quick)


def test_an_acknowledged_write_is_on_every_node_one_message_later(cluster: Cluster) -> None:
    for turn in range(60):
        writer = cluster.processes[turn % len(cluster.processes)]
        write(cluster, writer)
        index = writer.node.last_applied
        cluster.run(MESSAGE_S)
        assert late(cluster, index) == []


def test_so_is_each_of_many_that_come_at_once_from_all_nodes(cluster: Cluster) -> None:
    answered = 0
    found: list[str] = []

    def again(process: Process) -> None:
        def done(outcome: Outcome) -> Callable[[], None]:
            nonlocal answered
            assert isinstance(outcome, list)
            answered += 1
            index = process.node.last_applied
            cluster.scheduler.at(MESSAGE_S, lambda: found.extend(late(cluster, index)))
            process.loop.call_soon(again, process)
            return nobody_waits

        process.inbox.submit([commands.set_(process.node_id, b"x", 0)], done, 5.0)

    for process in cluster.processes:
        for _ in range(8):
            again(process)
    cluster.run(1.0)
    assert answered > 1000
    assert found == []


def test_who_is_not_ahead_gets_an_entry_once_with_its_commit_and_flushes_several_at_once(cluster: Cluster) -> None:
    process = behind(cluster)
    cluster.run(MESSAGE_S)
    messages: list[str] = []
    receive = process.node._handlers["append_entries"]

    def hear(peer: Any, message: dict[str, Any]) -> None:
        messages.extend(["entry"] * len(message["entries"]))
        receive(peer, message)

    process.node._handlers["append_entries"] = hear
    process.node._handlers["commit"] = lambda peer, message: messages.append("commit")
    first, disks = process.node.last_applied, [each.host.disk for each in (process, ahead(cluster)[0])]
    cluster.run(MESSAGE_S)
    messages.clear()
    before = [disk.counts["sync"] for disk in disks]
    for _ in range(20):
        write(cluster, leader_of(cluster))
    cluster.run(MESSAGE_S)
    assert messages == ["entry"] * 20
    assert process.node.last_applied == first + 21
    flushes, of_the_quick = (disk.counts["sync"] - count for disk, count in zip(disks, before, strict=True))
    assert 2 * flushes <= of_the_quick
    assert cluster.run(2 * RELAXED_S, lambda: process.journal.durable_index == process.journal.last_index)


def test_a_follower_ahead_that_stalls_costs_a_moment_once(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    usual_s = max(write(cluster, leader) for _ in range(5))
    stalled = ahead(cluster)[0]
    stalled.loop.pause()
    assert write(cluster, leader) < usual_s + 3 * HURRY_AFTER_S
    assert stalled not in ahead(cluster)
    assert max(write(cluster, leader) for _ in range(5)) < 2 * usual_s
    stalled.loop.resume()


def test_it_costs_no_more_when_the_leader_is_about_to_choose_anew(cluster: Cluster) -> None:
    """A heartbeat comes between the entry and the moment when the leader would hurry it."""
    leader = leader_of(cluster)
    stalled = ahead(cluster)[0]
    stalled.loop.pause()
    answers: list[Outcome] = []
    leader.inbox.submit([commands.set_("k", b"x", 0)], keep(answers), 5.0)
    assert cluster.run(HURRY_AFTER_S / 2, lambda: leader.journal.last_index > leader.node.commit_index)
    leader.node.replicator.choose_anew()
    assert cluster.run(4 * HURRY_AFTER_S, lambda: bool(answers))
    stalled.loop.resume()


def test_a_follower_that_was_slow_once_is_not_left_behind_for_ever(cluster: Cluster) -> None:
    """The other follower is slower than this one, but never so slow that the leader would hurry."""
    slow, quick = followers(cluster)[:2]
    for process in followers(cluster):
        process.host.set_disk_latency((0.0001, 0.0001) if process is quick else (0.003, 0.003))
    leader_of(cluster).node.replicator.ahead = frozenset((slow.node_id,))
    for _ in range(60):
        write(cluster, leader_of(cluster))
    chosen = leader_of(cluster).node.replicator.ahead
    assert chosen is None or quick.node_id in chosen


def test_who_waits_and_has_a_slow_disk_keeps_nobody_else_waiting(cluster: Cluster) -> None:
    usual_s = max(write(cluster, leader_of(cluster)) for _ in range(5))
    slow = followers(cluster)[0]
    slow.host.set_disk_latency((0.1, 0.1))
    for _ in range(4):
        write(cluster, slow)
    assert max(write(cluster, slow) for _ in range(5)) < 4 * usual_s


def test_without_a_majority_the_leader_looks_after_a_waiting_entry_once(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    for process in followers(cluster):
        process.loop.pause()
    looked = 0
    hurry = leader.node.leading._hurry_if_stalled

    def look(index: int) -> None:
        nonlocal looked
        looked += 1
        hurry(index)

    leader.node.leading._hurry_if_stalled = look  # type: ignore[method-assign]
    leader.inbox.submit([commands.set_("k", b"x", 0)], keep([]), 5.0)
    cluster.run(0.5)
    assert looked == 1 and leader.node.replicator.ahead is None
    for process in followers(cluster):
        process.loop.resume()
    assert cluster.run(5.0, lambda: leader_of(cluster).node.commit_index == leader_of(cluster).journal.last_index)


def test_who_is_down_costs_an_idle_leader_nothing(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    cluster.crash(followers(cluster)[0].host, power=False)
    write(cluster, leader)
    cluster.run(0.5)
    assert not leader.node.leading._watching


@pytest.mark.parametrize("mended", [True, False])
def test_behind_a_sleep_contents_are_told_no_younger_than_they_are_whatever_clocks_say(
    monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    cluster = Cluster(3, 3, drift=0.001)
    *others, sleeper = cluster.hosts
    # The leader's clock runs faster than that of the one who sleeps.
    for host in others:
        host.clock_rate = 1.001
    sleeper.clock_rate = 0.999
    if not mended:
        monkeypatch.setattr(follower, "CLOCKS_APART", 10**9)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        leader, asleep = leader_of(cluster), sleeper.process
        assert asleep is not None and leader is not asleep
        asleep.loop.pause()
        began = cluster.scheduler.now
        while cluster.scheduler.now < began + 8.0:
            # So few that all of them are sent to the one who sleeps.
            cluster.run(0.006)
            write(cluster, leader)
            cluster.checks.acknowledged(leader)
        asleep.loop.resume(suspended=True)
        with contextlib.nullcontext() if mended else pytest.raises(Violation, match="bounded read"):
            cluster.run(1.0)
        assert not mended or late(cluster, leader.node.last_applied) == []


def test_a_node_that_stood_still_is_not_fresh_until_it_has_what_it_missed() -> None:
    with running(3) as cluster:
        late = followers(cluster)[0]
        cluster.run(2.0)
        assert freshness(late) == (True, "contents are at most 2 s old")
        late.loop.pause()
        cluster.run(10.0)
        late.loop.resume(False)
        good, why = freshness(late)
        assert not good and why.startswith("contents are 10.") and " s old; what is missing" in why
        assert cluster.run(5.0, lambda: freshness(late)[0])
        # Without a leader another check fails.
        for other in cluster.processes:
            if other is not late:
                cluster.crash(other.host, power=False)
        assert cluster.run(10.0, lambda: late.node.links.route is None)
        cluster.run(5.0)
        assert freshness(late)[0]
