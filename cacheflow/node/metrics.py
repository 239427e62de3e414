"""The metrics of a running node, gathered from the plain numbers that its parts keep. Any thread may ask for them, at any time.

Nothing here waits or takes a lock: a loop or a disk that hangs is what somebody looks for.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from typing import Final

from cacheflow.config import build_version
from cacheflow.errors import NoLeader, NotCommitted, NotReady, OutcomeUnknown, Overloaded, ReplicationError
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.idempotency import KEEP_MS
from cacheflow.measuring.histogram import Histogram
from cacheflow.measuring.metrics import Metrics, labelled
from cacheflow.node.assembly import LocalNode
from cacheflow.node.engine import Engine
from cacheflow.node.proposals import PENDING_BYTES_MAX, PENDING_MAX
from cacheflow.node.status import readiness

# What the metrics call the error with which a call ends: the first class that it belongs to.
_ENDS: Final[dict[type[ReplicationError], str]] = {
    NoLeader: "no_leader",
    Overloaded: "overloaded",
    NotReady: "not_ready",
    NotCommitted: "not_committed",
    OutcomeUnknown: "unknown",
}


def metrics(engine: Engine) -> Metrics:
    """Return this node's counters, gauges and histograms by name; ``measuring/families.py`` says what each of them means."""
    local = engine.local
    return {
        **_contents(local),
        **local.feed.metrics(),
        **_cluster(engine),
        **dict(_peers(local)),
        **_work(engine),
        **_proposals(local),
        **_disk(engine),
        **local.channels.metrics(),
        **local.tracking.metrics(),
        **engine.ports.metrics(),
        **(engine.handshakes.metrics() if engine.handshakes is not None else {}),
        labelled("node_info", node=local.node.node_id, cluster=local.machine.cluster_id): 1,
        labelled(
            "build_info",
            version=build_version(),
            level=str(local.machine.build_level),
            python=platform.python_version(),
        ): 1,
    }


def _contents(local: LocalNode) -> dict[str, float]:
    machine = local.machine
    contents = machine.contents
    # While a node that has started applies again what it had applied before, its figures are lower than they were: Prometheus
    # would take that for counters that began anew, and add all of them; and people, that the cache is empty.
    known = {
        "sets_total": contents.written,
        "deletes_total": contents.deleted + contents.swept,
        "expired_total": contents.expired,
        "evicted_total": contents.evicted,
        "items": contents.count_of(None),
        "bytes": contents.bytes_used,
    }
    limits = {"max_items": machine.settings.max_items or 0, "max_bytes": machine.settings.max_bytes or 0}
    return {
        **(known if local.may_read else {}),
        **(limits if machine.settings.version else {}),
        "items_to_sweep": len(contents.raw) - contents.count_of(None),
        "condemnations": len(contents.condemned.present),
        "revision": contents.revision,
        "hits_total": local.hits,
        "misses_total": local.misses,
        "scopes": len(machine.scopes.by_id),
        "idempotency_window_seconds": _reach_ms(machine) / 1000,
    }


def _reach_ms(machine: CacheMachine) -> int:
    """Return for how many ms idempotency keys are remembered: for KEEP_MS, or for less if the keys take too many bytes."""
    return min(KEEP_MS, machine.now_ms - machine.idempotency.reaches_ms)


def _cluster(engine: Engine) -> dict[str, float]:
    local = engine.local
    node, machine = local.node, local.machine
    members = node.members()
    voters = [member.id for member in members if member.voter]
    down = node.peers.down_ids()
    failure, replicas = node.replica.failure, machine.settings.replicas
    voters_up = sum([voter not in down and (voter != node.node_id or failure is None) for voter in voters])
    staleness_ms = node.freshness.staleness_ms()
    checks = readiness(engine)
    told_index = 0 if node.is_leader else node.following.told_commit_index
    return {
        "is_leader": int(node.is_leader),
        "has_leader": int(node.links.route is not None),
        "ready": int(all(good for _, good, _ in checks)),
        **{labelled("readiness_check", check=check): int(good) for check, good, _ in checks},
        "term": node.term,
        "commit_index": node.commit_index,
        "applied_index": node.last_applied,
        "durable_index": node.durable_index,
        "lag": max(0, max(told_index, node.commit_index) - node.last_applied),
        "staleness_seconds": math.inf if staleness_ms is None else staleness_ms / 1000,
        "leader_changes_total": node.links.leader_changes,
        "members": len(members),
        "members_down": len(down),
        "voters": len(voters),
        "voters_up": voters_up,
        **({} if replicas is None else {"voters_wanted": replicas + 1}),
        "failure_tolerance": voters_up - (len(voters) // 2 + 1),
        "observers": sum([member.observer for member in members]),
        "level": machine.level,
        "build_level": machine.build_level,
        "unknown_messages_total": node.unknown_messages + local.network.unknown_frames + local.channels.unknown,
        "failed": int(failure is not None and node.removal.removed_at is None),
        "removed": int(node.removal.removed_at is not None),
        "in_doubt": int(node.replica.doubt is not None),
        "digest_differences_total": node.divergence.differences_total,
        "reloads_total": node.building.reloads_total,
    }


def _peers(local: LocalNode) -> Iterator[tuple[str, float]]:
    """Yield (name with the peer as label, number) of what this node knows of each other member and of the way to it."""
    node, network = local.node, local.network
    for member in node.members():
        if member.id == node.node_id:
            continue
        traffic = network.traffic(member.id)
        silent_ms = node.peers.last_seen_ms(member.id)
        progress = node.peers.progress.get(member.id) if node.is_leader else None
        numbers = {
            "peer_lag": node.lag_of(member.id),
            "peer_connected": int(network.is_connected(member.id)),
            "peer_round_trip_seconds": None if progress is None else progress.round_trip_s,
            "peer_silent_seconds": None if silent_ms is None else silent_ms / 1000,
            "peer_sent_bytes_total": traffic.sent_bytes,
            "peer_received_bytes_total": traffic.received_bytes,
            "peer_unsent_bytes": network.backlog(member.id),
        }
        for name, number in numbers.items():
            if number is not None:
                yield labelled(name, peer=member.id), number


def _work(engine: Engine) -> dict[str, float | Histogram]:
    node, budget = engine.local.node, engine.budget
    return {
        "entry_apply_seconds": node.timings.applies,
        "entry_commit_seconds": node.timings.commits,
        "journal_flush_seconds": engine.local.journal.flushes,
        "loop_turn_seconds": budget.turns,
        "loop_turn_age_seconds": budget.age_s(),
        "snapshot_build_seconds": node.building.builds,
    }


def _proposals(local: LocalNode) -> dict[str, float]:
    proposals = local.proposals
    ended = {"answered": proposals.answered_total, **dict.fromkeys(_ENDS.values(), 0), "not_ready": local.refused}
    for error, count in proposals.errors_total.copy().items():
        ended[next(end for kind, end in _ENDS.items() if issubclass(error, kind))] += count
    return {
        **{labelled("proposals_total", outcome=outcome): count for outcome, count in ended.items()},
        "pending_commands": proposals.pending,
        "pending_commands_max": PENDING_MAX,
        "pending_bytes": proposals.pending_bytes,
        "pending_bytes_max": PENDING_BYTES_MAX,
    }


def _disk(engine: Engine) -> dict[str, float]:
    node = engine.local.node
    return {
        "log_entries": node.log_entries,
        "journal_bytes": node.journal_bytes,
        **dict(zip(("disk_free_bytes", "disk_size_bytes"), engine.space.bytes or (), strict=False)),
        "disk_hung": int(node.disk.hung),
        "disk_wait_seconds": node.disk.waits_s,
        "snapshot_age_seconds": node.building.age_s,
        "snapshot_bytes": node.building.newest_bytes,
        "snapshot_failures_total": node.building.failures_total,
        "snapshots_sent_total": node.sending.sent_total,
        "snapshots_received_total": node.receiving.received_total,
        "snapshot_receive_failures_total": node.receiving.failures_total,
    }
