"""Recovering: what is on the disk of a node that does not run, and the decision that makes a new cluster of it.

Nothing here changes a log or a snapshot. ``membership/recovery.py`` says what the decision does at the node's next start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack

from cacheflow.config import split_address
from cacheflow.errors import ConfigError
from cacheflow.machine.language.commands import REPLACED_MAX
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member, member_of
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.reading import read_log
from cacheflow.raft.log.records import ENTRY_KINDS, REGULAR, LogEntry
from cacheflow.raft.membership.configuration import NOBODY, Configuration, Configurations
from cacheflow.raft.membership.recovery import TERMS_APART, Recovery, read_recovery
from cacheflow.raft.snapshots.files import SnapshotMeta, newest_snapshot, restored, snapshot_path

# What a row of a file of members may hold.
_ROW_FIELDS = frozenset(("id", "raft_address", "address", "voter", "observer"))


@dataclass(frozen=True, slots=True)
class Found:
    """What is on a stopped node's disk.

    cluster_id: the cluster whose log it is.  replaced: the earlier clusters that this one has replaced.
    term: the highest term that the node has heard of.  index, last_term: index and term of the log's last entry.
    committed: every entry up to this index was certainly committed; of those behind it this disk does not know.
    digest: the hash over all effects of the entries up to ``index``.  table: the member table in force.
    decision: what an earlier recovery has decided about this cluster or the one before; None without one.
    """

    node_id: str
    incarnation: str
    cluster_id: str
    replaced: tuple[str, ...]
    term: int
    voted_for: str | None
    index: int
    last_term: int
    committed: int
    digest: bytes
    revision: int
    items: int
    level: int
    table: Configuration
    decision: Recovery | None

    @property
    def position(self) -> tuple[int, int]:
        """The (term, index) of the last log entry: of two logs of one cluster, the later is the one where this is higher."""
        return self.last_term, self.index


def look(disk: Disk, directory: Path, node_id: str, incarnation: str) -> Found:
    """Return what a stopped node's disk holds (log, term, members), from its newest snapshot and its journal. Writes nothing.

    node_id, incarnation: the node's id and incarnation. Raises ConfigError if the node was never a member of a cluster;
    CorruptJournal, CorruptSnapshot, NewerCacheFlow, OSError.
    """
    state, log = read_log(disk, directory)
    newest = newest_snapshot(disk, directory)
    decision = read_recovery(disk, directory)
    if newest is None:
        base, machine = SnapshotMeta(1, 0), CacheMachine()
    else:
        base, machine = newest, restored(disk, snapshot_path(directory, newest.index), newest)
    if decision is not None and state.cluster_id not in (decision.cluster_id, decision.replaced[-1]):
        decision = None  # about another journal
    is_entered = decision is not None and state.cluster_id == decision.cluster_id
    table = NOBODY
    if machine.members and machine.cluster_id == (state.cluster_id or machine.cluster_id):
        table = Configuration(base.index, machine.cluster_id, dict(machine.members))
    elif decision is not None and is_entered:
        table = decision.table
    behind = _entries_behind(log, newest)
    table = Configurations(table, behind, lambda: state.cluster_id).latest
    if not table.members:
        raise ConfigError(f"data directory {directory}: node {node_id} is in no cluster by its log")
    committed = base.index
    for command, index, _ in behind:
        machine.apply(index, command[1:] if command[:1] in ENTRY_KINDS else b"")
        if command[:1] == REGULAR:
            # A leader appends such an entry once all before it are committed (ENTRIES_AHEAD_MAX in roles/leader.py).
            committed = max(committed, index - 1)
    last_term, index = (behind[-1][2], behind[-1][1]) if behind else (base.term, base.index)
    return Found(
        node_id,
        incarnation,
        table.cluster_id,
        _without_repeats([*machine.replaced, *(decision.replaced if decision is not None and is_entered else ())]),
        max(state.term, last_term),
        state.vote,
        index,
        last_term,
        committed,
        machine.digest,
        machine.contents.revision,
        machine.contents.count_of(None),
        machine.level,
        table,
        decision,
    )


def _entries_behind(log: list[LogEntry], newest: SnapshotMeta | None) -> list[LogEntry]:
    """Return those entries of ``log`` behind the ``newest`` snapshot with which the node will go on at its next start."""
    first = 1 if newest is None else newest.index
    if not log:
        return []
    begin, position = log[0][1], first - log[0][1]
    if newest is None or begin > first:
        if begin > first:
            raise ConfigError(f"the journal begins behind entry {begin}, and the newest snapshot ends at {first}")
        return log[1:]
    if position >= len(log) or log[position][2] != newest.term:
        # A snapshot that was taken over takes the place of such a log.
        return []
    return log[position + 1 :]


def latest_of(found: Sequence[Found]) -> Found:
    """Return which of the stopped nodes ``found`` of a cluster has the latest log, by (term, index) of the log's last entry.

    Raises ConfigError for nodes of different clusters, unless the one cluster has replaced the other.
    """
    latest = max(found, key=lambda each: each.position)
    for each in found:
        if each.cluster_id not in (latest.cluster_id, *latest.replaced):
            raise ConfigError(
                f"node {each.node_id} is of cluster {each.cluster_id} and node {latest.node_id} of {latest.cluster_id}: "
                "nothing can be said of which is later"
            )
    return latest


def decide_alone(found: Found, random_bytes: Callable[[int], bytes]) -> Recovery:
    """Return the decision for a new cluster of one stopped node alone. Raises ConfigError if the node is no member.

    found: what is on that node's disk."""
    me = found.table.members.get(found.node_id)
    if me is None or me.incarnation != found.incarnation:
        raise ConfigError(f"node {found.node_id} is no member by its own log: it cannot begin a cluster with that log")
    return _decision(found, random_bytes(8).hex(), [replace(me, voter=True, observer=False)])


def decide_with(found: Found, rows: Any) -> Recovery:
    """Return the decision, for one stopped node, to go over to a new cluster of the members that ``rows`` names.

    Nodes that are given equal rows come into one cluster. found: what is on the node's disk.
    rows: [{"id", "raft_address", "address"?, "voter"?, "observer"?}, ...]. Raises ConfigError.
    """
    members = _members_of(rows, found.table)
    if found.node_id not in members or members[found.node_id].incarnation != found.incarnation:
        raise ConfigError(f"the file of members does not name this node, {found.node_id}, as its log does")
    if not any(member.voter for member in members.values()):
        raise ConfigError("the file of members names nobody who votes")
    decision = found.decision
    if decision is not None and decision.cluster_id == _name_of(decision.replaced[-1], members):
        return decision
    return _decision(found, _name_of(found.cluster_id, members), list(members.values()))


def _name_of(old_id: str, members: dict[str, Member]) -> str:
    """Return the id of the new cluster of ``members`` that replaces the cluster ``old_id``: the same on every node."""
    rows = [
        (member.id, member.incarnation, member.raft_address, member.voter, member.observer)
        for _, member in sorted(members.items())
    ]
    return blake2b(msgpack.packb((old_id, rows)), digest_size=8).hexdigest()


def read_rows(file: Path) -> Any:
    """Return the content, read as JSON, of ``file``, which lists a new cluster's members. Raises ConfigError."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON: {error}") from None


def _decision(found: Found, cluster_id: str, members: list[Member]) -> Recovery:
    replaced = _without_repeats([*found.replaced, found.cluster_id])
    return Recovery.of(cluster_id, replaced[-REPLACED_MAX:], found.term + TERMS_APART, members)


def _members_of(rows: Any, table: Configuration) -> dict[str, Member]:
    """Return the members of a new cluster as ``rows`` lists them. table: the old cluster's members. Raises ConfigError."""
    if type(rows) is not list or not rows:
        raise ConfigError('the file of members is a list of {"id": ..., "raft_address": "host:port"}')
    members: dict[str, Member] = {}
    for row in rows:
        if type(row) is not dict or type(row.get("id")) is not str or not _ROW_FIELDS.issuperset(row):
            raise ConfigError(
                f'{json.dumps(row)[:200]}: a member is {{"id", "raft_address", "address"?, "voter"?, "observer"?}} and '
                "nothing else"
            )
        known = table.members.get(row["id"])
        if known is None:
            raise ConfigError(
                f"node {row['id']} is no member by this disk ({', '.join(sorted(table.members))} are): let it join "
                "afterwards, with an empty data directory and --seed"
            )
        try:
            split_address(str(row.get("raft_address", "")))
            fields = [known.id, known.incarnation, row["raft_address"], row.get("address", known.address)]
            observer = row.get("observer", False)
            member = member_of([*fields, row.get("voter", observer is False), observer])
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"node {row['id']}: {error}") from None
        if member.id in members or member.raft_address in [other.raft_address for other in members.values()]:
            raise ConfigError(f"node {member.id}: its id or address comes twice")
        members[member.id] = member
    return members


def _without_repeats(ids: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))
