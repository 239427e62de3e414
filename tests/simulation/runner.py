"""One run: a cluster is founded, works under faults, is healed, and must be right and well again."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from random import Random
from typing import Any

from simulation.checks import MESSAGES_PER_S_MAX, Violation
from simulation.clients import Workload
from simulation.cluster import BOOTSTRAP, COMMAND, PEERS, TEMPLATE, TIMEOUT_S, Cluster, patched
from simulation.faults import ALL, Faults, Strike, draw
from simulation.leases import LEASE_SLACK_S
from simulation.roles import ROLE_FAULTS

from cacheflow.node.joining import LISTEN_S

# Seconds from the end of all faults until all are members, know the leader and have applied everything.
HEALED_WITHIN_S = 20.0
# Seconds within which the nodes are started, and from then until they are one cluster.
STARTED_WITHIN_S = 2.0
FOUNDED_WITHIN_S = STARTED_WITHIN_S + LISTEN_S + 5.0
# Bytes of journal records after which a snapshot is built: few, so that a run sees several.
JOURNAL_BYTES = 40_000


# Slow messages tell the time late, and each change of leader may lose as much.
SLOW_SLACK_S = 1.0


@dataclass
class Outcome:
    """The result of a run. violation: None when everything held."""

    seed: int
    violation: str | None = None
    transcript: list[str] = field(default_factory=list)
    fingerprint: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    elections: int = 0
    healed_after_s: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    strikes: tuple[Strike, ...] = ()
    simulated_s: float = 0.0
    real_s: float = 0.0


def run(
    seed: int,
    nodes: int = 3,
    seconds: float = 30.0,
    *,
    kinds: dict[str, float] | None = None,
    trace: bool = False,
    every_s: float | None = None,
    strikes: tuple[Strike, ...] | None = None,
    clients: int | None = None,
) -> Outcome:
    """Simulate ``seconds`` of work. The seed decides everything; kinds: of faults, {} for none.

    strikes, clients: these faults and so many clients in place of the seed's, in the search for a smaller run.
    """
    outcome = Outcome(seed)
    began = time.perf_counter()
    random = Random(seed * 7919 + nodes)
    if kinds is None:
        # Some runs have every fault, most have few kinds: what masks what differs.
        kinds = dict(ALL)
        if random.random() < 0.7:
            kinds = {name: weight for name, weight in ALL.items() if random.random() < 0.4} or dict(ALL)
    evicts = random.random() < 0.2
    settings: dict[str, Any] = {
        "policy": random.choice(("lru", "lfu")),
        # So few that under LFU those in use stay and newcomers go, or enough to see order.
        "max_items": random.choice((6, 40)) if evicts else None,
        "max_bytes": None,
        # Some of five only observe.
        "replicas": 2 if random.random() < 0.3 else nodes - 1,
    }
    journal_bytes = random.choice((None, None, JOURNAL_BYTES // 5, JOURNAL_BYTES))
    usual_clients, pause_s = (12, 0.08) if random.random() < 0.15 else (4, 0.2)
    drift = random.choice((0.0, 0.001))
    (founding,) = random.choices((PEERS, TEMPLATE, COMMAND, BOOTSTRAP), (2, 2, 4, 2))
    cluster = Cluster(random.getrandbits(64), nodes, settings=settings, trace=trace, drift=drift, founding=founding)
    cluster.tracked.writes = True
    workload = None
    if kinds.keys() & ROLE_FAULTS.keys():
        cluster.roles.choose(Random(f"{seed} roles"), nodes)
    if random.random() < 0.2:
        cluster.wire.usual_delay_s = cluster.wire.delay_s = (0.005, 0.03)
    with patched(cluster, journal_bytes=journal_bytes):
        try:
            # In any order, at once or one after the other.
            starts = Random(seed)
            for host in starts.sample(cluster.hosts, nodes):
                cluster.scheduler.at(starts.choice((0.0, starts.uniform(0.0, STARTED_WITHIN_S))), cluster.start, host)
            if not cluster.run(FOUNDED_WITHIN_S, cluster.healthy):
                cluster.checks.complain(f"progress: the cluster is not founded after {FOUNDED_WITHIN_S} s")
            started = cluster.scheduler.now
            cluster.lease_slack_s = LEASE_SLACK_S + (SLOW_SLACK_S if "slow_network" in kinds else 0.0)
            workload = Workload(
                cluster,
                Random(random.getrandbits(64)),
                evicts=evicts,
                clients=clients or usual_clients,
                pause_s=pause_s,
            )
            if strikes is None:
                strikes = draw(random, kinds, every_s or random.choice((0.5, 1.5, 4.0)), seconds)
            outcome.strikes = strikes
            faults = Faults(cluster, strikes)
            outcome.faults = faults.counts
            for _ in range(6):
                cluster.run(seconds / 6)
                cluster.checks.logs_match()
            faults.stop()
            healed = cluster.scheduler.now
            _recover(cluster, workload)
            outcome.healed_after_s = cluster.scheduler.now - healed
            workload.stop()
            cluster.run(TIMEOUT_S + 1.0)
            if not cluster.run(2.0, cluster.healthy):
                cluster.checks.complain(f"progress: not at rest: {describe(cluster)}")
            cluster.run(1.0, cluster.checks.nothing_left)
            cluster.checks.at_the_end(journal_bytes)
            _read_everything(cluster, workload)
            workload.check()
            per_s = sum(cluster.wire.sent.values()) / (cluster.scheduler.now - started)
            if per_s > MESSAGES_PER_S_MAX:
                cluster.checks.complain(f"bounded traffic: {per_s:.0f} messages a second: {cluster.wire.sent}")
            if not kinds and len(cluster.checks.leaders) > 1:
                cluster.checks.complain(f"progress: a healthy cluster changed its leader: {cluster.checks.leaders}")
        except Violation as violation:
            outcome.violation = str(violation)
        except Exception as error:
            outcome.violation = f"at {cluster.scheduler.now - 1000:.6f}: exception: {type(error).__name__}: {error}"
            if trace:
                cluster.transcript.append(traceback.format_exc())
    outcome.transcript = cluster.transcript
    outcome.fingerprint = cluster.fingerprint
    outcome.simulated_s = cluster.scheduler.now - 1000
    outcome.sent = cluster.wire.sent
    outcome.elections = len(cluster.checks.leaders)
    if workload is not None:
        outcome.acknowledged, outcome.unknown, outcome.refused = (
            workload.acknowledged,
            workload.unknown,
            workload.refused,
        )
    outcome.real_s = time.perf_counter() - began
    return outcome


def _recover(cluster: Cluster, workload: Workload) -> None:
    """Check that all are well again within a bound after the faults, with the clients going on."""
    deadline = cluster.scheduler.now + HEALED_WITHIN_S
    committed = cluster.checks.last_committed
    while not cluster.run(0.1, lambda: cluster.checks.last_committed > committed and cluster.well(committed + 1)):
        if cluster.scheduler.now >= deadline:
            cluster.checks.complain(f"progress: not healed after {HEALED_WITHIN_S} s: {describe(cluster)}")
    since = cluster.scheduler.now
    if not cluster.run(2.0, lambda: workload.answered_at > since):
        cluster.checks.complain(f"progress: no write is answered after all was healed: {describe(cluster)}")


def _read_everything(cluster: Cluster, workload: Workload) -> None:
    """Read every key linearizably through every node."""
    workload.read_all()
    if not cluster.run(5.0, lambda: not workload.reading):
        cluster.checks.complain(f"progress: the last reads are not answered: {describe(cluster)}")


def describe(cluster: Cluster) -> str:
    """Return where every process stands, for people."""
    lines = []
    for process in cluster.processes:
        node = process.node
        lines.append(
            f"{process.name} {node.role} term {node.term} leader {node.leader_id} route {node.links.route} "
            f"log {process.journal.first_index}..{process.journal.last_index} durable {process.journal.durable_index} "
            f"commit {node.commit_index} applied {node.last_applied} pending {process.proposals.pending} "
            f"session {process.proposals._session} may_read {node.may_read} failure {node.replica.failure} "
            f"doubt {process.node.replica.doubt} voters {node.configurations.latest.voters} "
            f"ways {[way.node_id for way in process.site.ways.values() if way.connected]} "
            f"progress {node.peers.progress if node.is_leader else None}"
        )
    return "\n".join(["", *lines])
