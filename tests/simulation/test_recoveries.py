"""Seeds of recoveries: a majority is lost, or all have moved, in the middle of other faults."""

from __future__ import annotations

import pytest
from simulation.checks import Checks, Violation
from simulation.clients import keep
from simulation.cluster import Cluster, leader_of, patched
from simulation.recoveries import WRITES_WITHIN_S, play
from simulation.runner import FOUNDED_WITHIN_S
from simulation.storage import DIRECTORY

from cacheflow.machine.language import commands
from cacheflow.raft import recovering
from cacheflow.raft.membership.recovery import TERMS_APART, write_recovery
from cacheflow.raft.recovering import decide_with, look
from cacheflow.values import BYTES

# More of them: python -m tests.simulation --recoveries --seeds 1..500
SEEDS = range(1, 21)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_recovered_cluster_goes_on_with_what_was_left_and_apart_from_the_old_one(seed: int, nodes: int) -> None:
    outcome = play(seed, nodes)
    tail = "\n".join(outcome.transcript[-60:])
    assert outcome.violation is None, (
        f"{tail}\npython -m tests.simulation --recoveries --seeds {seed} --nodes {nodes} --trace"
    )
    assert 0 < outcome.healed_after_s <= WRITES_WITHIN_S and outcome.acknowledged > 50


def test_both_ways_are_tried_and_a_seed_gives_one_history() -> None:
    ways = [name for seed in SEEDS for name in play(seed).faults]
    assert {"alone", "moved"} == set(ways)
    assert play(3).fingerprint == play(3).fingerprint


@pytest.mark.parametrize("apart", [TERMS_APART, 0])
def test_an_entry_of_the_old_cluster_is_none_of_the_new_one_though_its_leader_had_a_later_term(
    apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of five are left: two that were cut off, and, later, the leader of a later term."""
    monkeypatch.setattr(recovering, "TERMS_APART", apart)
    cluster = Cluster(5, 5)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(FOUNDED_WITHIN_S, cluster.healthy)
        old = leader_of(cluster).host
        behind = [old, next(host for host in cluster.hosts if host is not old)]
        ahead = [host for host in cluster.hosts if host not in behind]
        for one in behind:
            for other in ahead:
                cluster.wire.cut(one.node_id, other.node_id)
                cluster.wire.cut(other.node_id, one.node_id)
        assert cluster.run(10.0, lambda: any(host.process and host.process.node.is_leader for host in ahead))
        leads = next(host.process for host in ahead if host.process and host.process.node.is_leader)
        for number in range(5):
            leads.loop.call_soon(leads.send_unchecked, [commands.set_("k", b"%d" % number, BYTES)], keep([]))
            cluster.run(0.2)
        for host in cluster.hosts:
            cluster.crash(host, power=False)
        cluster.wire.cuts.clear()
        late = leads.host
        left = [*behind, late]
        rows = [{"id": host.node_id, "raft_address": host.address} for host in left]
        for host in left:
            found = look(host.disk, DIRECTORY, host.node_id, host.incarnation)
            write_recovery(host.disk, DIRECTORY, decide_with(found, rows))
        cluster.checks = Checks(cluster)
        cluster.hosts = left
        for host in behind:
            cluster.start(host)
        assert cluster.run(5.0, lambda: cluster.leader is not None and cluster.leader.may_read)
        cluster.run(1.0)
        try:
            cluster.start(late)
            assert cluster.run(10.0, cluster.checks.nothing_left), "all are well"
            cluster.checks.at_the_end(None)
        except (Violation, AssertionError) as wrong:
            assert apart == 0, wrong
        else:
            assert apart, "two entries of one index and term went unnoticed"
