"""What a process may keep when nothing is under way: memory and files have documented bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.storage import DIRECTORY, SEGMENT_BYTES

from cacheflow.machine.state import answers, idempotency, scopes
from cacheflow.machine.state.sessions import KEPT_READ_BYTES_MAX
from cacheflow.node.proposals import BLOCK_COMMANDS_MAX
from cacheflow.node.recency import KEYS_MAX
from cacheflow.raft.log.datadir import RECOVERY
from cacheflow.raft.log.records import RECORD_BYTES
from cacheflow.raft.log.segments import list_segments
from cacheflow.raft.membership.changes import WAITING_MAX
from cacheflow.raft.roles.freshness import FRESH_MARKS_MAX
from cacheflow.raft.snapshots.files import list_snapshots

if TYPE_CHECKING:
    from simulation.cluster import Process


def surplus(process: Process) -> str | None:
    """Return what a process has more of than it may, for people; None when nothing."""
    for what, present, most in [*_machine(process), *_node(process), *_files(process)]:
        if present > most:
            return f"{process.name} keeps {present} {what}, not {most}"
    return None


def _machine(process: Process) -> list[tuple[str, int, int]]:
    machine = process.machine
    kept = [len(session.kept) for _, session in machine.sessions]
    return [
        ("sessions", len(machine.sessions), len(machine.members)),
        ("kept results of a session", max(kept, default=0), BLOCK_COMMANDS_MAX),
        (
            "bytes that a session has read",
            max([one.read_bytes for _, one in machine.sessions], default=0),
            KEPT_READ_BYTES_MAX,
        ),
        ("dead items that nothing sweeps", 0 if machine.contents.behind else machine.contents.census.dead.keys, 0),
        ("bytes of idempotency keys", machine.idempotency.bytes_kept, idempotency.KEPT_BYTES_MAX),
        ("bytes of scopes", machine.scopes.bytes_kept, scopes.KEPT_BYTES_MAX),
        ("bytes of large answers", machine.answers.bytes_kept, answers.LARGE_BYTES_MAX),
    ]


def _node(process: Process) -> list[tuple[str, int, int]]:
    node, network = process.node, process.network
    return [
        ("messages that wait for the disk", len(node.links.held), 0),
        ("blocks in the leader's queue", len(node.leading.queue), 0),
        ("commands without an answer", process.proposals.pending, 0),
        ("configurations", len(node.configurations._stack), 1),
        ("registrations", len(node.reconfiguration._waiting), 0),
        ("unanswered requests", len(node.reconfiguration._requests), WAITING_MAX),
        ("marks of freshness", len(node.freshness._marks), FRESH_MARKS_MAX),
        ("snapshot transfers", len(process.node.sending._transfers), 0),
        ("half a snapshot", int(process.node.receiving._receiver is not None), 0),
        ("bytes for others", sum(network.backlog(host.node_id) for host in process.cluster.hosts), 0),
        ("noted uses", len(process.uses.drain()), KEYS_MAX),
    ]


def _files(process: Process) -> list[tuple[str, int, int]]:
    disk = process.host.disk
    snapshots = len(list_snapshots(disk, DIRECTORY))
    segments = len(list_segments(disk, DIRECTORY))
    # What the log still holds, and a segment that is not full at either end; one is left early when it was trimmed.
    log_bytes = sum(RECORD_BYTES + len(command) for command, _, _ in process.journal.entries(0))
    most = 3 + log_bytes // (SEGMENT_BYTES // 4)
    return [
        ("snapshots", snapshots, 2),
        ("segments", segments, most),
        ("files", len(disk.names), snapshots + segments + (DIRECTORY / RECOVERY in disk.names)),
        ("open files", disk.open_handles, 1),
    ]
