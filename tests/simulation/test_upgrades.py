"""Two builds in one cluster: upgraded one by one, back again, and the level raised, by itself and by an operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.newer_build import GREETING, LABEL, NewerMachine
from simulation.clients import Workload, keep
from simulation.cluster import Cluster, Host, Process, leader_of, patched
from simulation.runner import run
from simulation.upgrades import RAISE_AFTER_MS

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(3, 3)
    with patched(made, journal_bytes=20_000):
        for host in made.hosts:
            made.start(host)
        assert made.run(5.0, made.healthy)
        yield made


def install(cluster: Cluster, host: Host, build: type[CacheMachine]) -> str | None:
    """Stop a machine's node, install a build, and start it; return what it says if it refuses."""
    cluster.crash(host, power=False)
    host.build = build
    return cluster.start(host)


def ask(process: Process, command: c.Command) -> c.Result:
    answers: list[Outcome] = []
    process.loop.do(process.send_unchecked, [command], keep(answers))
    assert process.cluster.run(3.0, lambda: bool(answers))
    (outcome,) = answers
    assert not isinstance(outcome, Exception)
    return outcome[0]


def well(cluster: Cluster) -> bool:
    return cluster.run(10.0, cluster.healthy)


def at_the_end(cluster: Cluster) -> None:
    """Check that all nodes are equal, and that nothing is left over."""
    assert cluster.run(10.0, cluster.checks.nothing_left)
    cluster.checks.at_the_end(None)


def roll(cluster: Cluster, build: type[CacheMachine]) -> None:
    for host in cluster.hosts:
        assert install(cluster, host, build) is None
        assert well(cluster)


def test_rolled_forward_and_back_before_the_level_is_raised(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(cluster, cluster.random, clients=4, pause_s=0.05)
    for build in (NewerMachine, CacheMachine, NewerMachine):
        for host in cluster.hosts:
            assert install(cluster, host, build) is None
            assert cluster.run(10.0, lambda: cluster.well(cluster.checks.last_committed))
            assert ask(cluster.processes[0], (LABEL, "k"))[0] == c.MALFORMED
    assert cluster.upgrades.level == 1
    workload.stop()
    at_the_end(cluster)
    workload.check()


def test_the_level_rises_when_all_have_known_it_for_a_while(cluster: Cluster) -> None:
    for host in cluster.hosts[:2]:
        install(cluster, host, NewerMachine)
        assert well(cluster)
    cluster.run(2 * RAISE_AFTER_MS / 1000)
    assert cluster.upgrades.level == 1
    install(cluster, cluster.hosts[2], NewerMachine)
    assert well(cluster)
    began = cluster.scheduler.now
    assert cluster.run(2 * RAISE_AFTER_MS / 1000, lambda: cluster.upgrades.level == 2)
    assert cluster.scheduler.now - began > RAISE_AFTER_MS / 1000 - 2
    assert well(cluster)
    assert all(process.level == 2 for process in cluster.processes)
    assert ask(cluster.processes[0], (LABEL, "k"))[0] == c.OK
    assert cluster.run(3.0, lambda: cluster.upgrades.greetings > 6)
    at_the_end(cluster)


def test_a_new_leader_waits_anew(cluster: Cluster) -> None:
    roll(cluster, NewerMachine)
    for _ in range(3):
        # Shorter than the wait, and longer together.
        cluster.run(0.6 * RAISE_AFTER_MS / 1000)
        assert cluster.upgrades.level == 1
        before = leader_of(cluster)
        before.loop.do(before.node.hand_over.begin, None)
        assert cluster.run(3.0, lambda before=before: cluster.leader not in (None, before))  # type: ignore[misc]
    assert cluster.run(2 * RAISE_AFTER_MS / 1000, lambda: cluster.upgrades.level == 2)


def test_a_member_that_is_down_counts_by_what_it_told_last(cluster: Cluster) -> None:
    roll(cluster, NewerMachine)
    follower = next(process for process in cluster.processes if not process.node.is_leader)
    cluster.crash(follower.host, power=False)
    assert ask(leader_of(cluster), c.raise_level(2)) == [c.OK, 2]
    # It would be upgraded by then; with the older build it stops, and has lost nothing.
    host = follower.host
    host.build = CacheMachine
    assert cluster.start(host) is None and host.process is not None
    stopped = host.process
    assert cluster.run(5.0, lambda: stopped.node.replica.failure is not None)
    assert "written by a newer CacheFlow (level 2; this build knows 1): install" in str(stopped.node.replica.failure)
    assert not stopped.may_read and not stopped.takes_writes
    # The operator of the simulation does as it says.
    assert cluster.run(10.0, lambda: host.build is NewerMachine and cluster.healthy())
    at_the_end(cluster)


def test_nobody_raises_the_level_by_command_while_a_member_does_not_know_it(cluster: Cluster) -> None:
    for host in cluster.hosts[:2]:
        install(cluster, host, NewerMachine)
        assert well(cluster)
    for process in cluster.processes:
        assert ask(process, c.raise_level(2)) == [c.PRECONDITION, 1, "n3"]
    install(cluster, cluster.hosts[2], NewerMachine)
    assert well(cluster)
    assert ask(cluster.processes[1], c.raise_level(2)) == [c.OK, 2]


def test_the_older_build_refuses_to_start_on_what_the_newer_one_has_written(cluster: Cluster) -> None:
    roll(cluster, NewerMachine)
    assert ask(leader_of(cluster), c.raise_level(2)) == [c.OK, 2]
    assert ask(leader_of(cluster), (LABEL, "k"))[0] == c.OK
    assert well(cluster)
    first, second, _ = cluster.hosts
    before = {path: bytes(first.disk.contents(path)) for path in first.disk.names if path.suffix == ".cfs"}
    refusal = install(cluster, first, CacheMachine)
    assert (
        refusal is not None and "of the log was written by a newer CacheFlow (level 2; this build knows 1)" in refusal
    )
    # The same behind a snapshot, which is looked at first.
    process = second.process
    assert process is not None
    assert cluster.run(15.0, cluster.checks.nothing_left)
    index = process.node.last_applied
    process.node.building.build()
    assert cluster.run(5.0, lambda: process.node.building._storage.newest_index >= index)
    refusal = install(cluster, second, CacheMachine)
    assert (
        refusal is not None and "the snapshot was written by a newer CacheFlow (level 2; this build knows 1)" in refusal
    )
    assert before == {path: bytes(first.disk.contents(path)) for path in before}
    assert cluster.run(15.0, cluster.healthy)
    assert [host.build for host in cluster.hosts] == [NewerMachine] * 3
    at_the_end(cluster)


def test_who_lacks_what_the_log_no_longer_has_is_told_by_the_snapshot(cluster: Cluster) -> None:
    roll(cluster, NewerMachine)
    leader = leader_of(cluster)
    follower = next(process for process in cluster.processes if process is not leader)
    host, last_index = follower.host, follower.journal.last_index
    cluster.crash(host, power=False)
    assert ask(leader, c.raise_level(2)) == [c.OK, 2]
    for number in range(30):
        assert ask(leader, c.set_(f"k{number}", b"x" * 1000, 1))[0] == c.OK
    assert cluster.run(15.0, lambda: leader.journal.first_index > last_index)
    host.build = CacheMachine
    assert cluster.start(host) is None and host.process is not None
    stopped = host.process
    assert cluster.run(10.0, lambda: stopped.node.replica.failure is not None)
    assert "the snapshot was written by a newer CacheFlow (level 2; this build knows 1)" in str(
        stopped.node.replica.failure
    )
    assert cluster.run(15.0, cluster.healthy)
    at_the_end(cluster)


def test_a_joiner_below_the_level_is_refused_by_name(cluster: Cluster) -> None:
    roll(cluster, NewerMachine)
    assert ask(leader_of(cluster), c.raise_level(2)) == [c.OK, 2]
    assert well(cluster)
    host = next(process.host for process in cluster.processes if not process.node.is_leader)
    cluster.crash(host, power=False)
    host.empty(cluster.random)
    host.build = CacheMachine
    cluster.run(2.0)
    assert cluster.start(host) is None and host.process is not None
    joining = host.process.joining
    assert cluster.run(8.0, lambda: "install a newer one there" in joining.waits_for)
    assert (
        f"the CacheFlow on node '{host.node_id}' knows level 1 and this cluster works at level 2" in joining.waits_for
    )
    assert not leader_of(cluster).node.configurations.latest.lists(host.node_id, host.incarnation)
    assert cluster.run(15.0, cluster.healthy)


def test_a_message_that_is_not_known_is_dropped_and_counted(cluster: Cluster) -> None:
    one, other, _ = cluster.processes
    for _ in range(3):
        one.site.send(other.node_id, {"type": GREETING, "level": 2})
    assert cluster.run(1.0, lambda: other.node.unknown_messages == 3)
    assert well(cluster)


@pytest.mark.parametrize("seed", range(1, 9))
def test_every_promise_holds_while_builds_come_and_go(seed: int) -> None:
    kinds = {"upgrade": 4.0, "downgrade": 1.5, "raise_level": 1.0, "kill": 1.0, "isolate_leader": 1.0, "snapshot": 1.0}
    outcome = run(seed, 3, 60.0, kinds=kinds, every_s=1.5)
    assert outcome.violation is None, "\n".join(outcome.transcript[-60:])
