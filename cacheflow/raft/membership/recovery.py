"""Recovery: a new cluster in the place of one that has lost its majority, as ``cacheflow recover`` decides it for one node.

1. The decision is one file in the data directory; the log and the snapshots stay as they are. So it is there as a whole or not
   at all, and can be made again.
2. From its next start on the node belongs to the new cluster: it shakes no hands with members of the old one, and the member
   table of the decision counts in the place of those in its log. Several nodes with one decision elect a leader as ever, so
   the one with the later log leads.
3. Whoever leads writes the table into the log, before anything of a client's: that entry raises all versions, on every node
   that ever applies it. From then on the log says it all, and the file says nothing any more.
4. A node begins in a later term than any of the old cluster: members of that may have gone on, and an entry of theirs must
   never be taken for one of the new cluster's with the same index and term.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cacheflow.errors import ConfigError
from cacheflow.machine.language import commands
from cacheflow.machine.state.settings import Member, is_name, is_whole, member_table
from cacheflow.raft.log.datadir import RECOVERY
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.documents import read_document, write_document
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.configuration import Configuration

FORMAT_VERSION: Final = 1
# By how many terms a recovered cluster begins later than the log that it goes on with: the terms of the nodes of one cluster
# differ by a few, and a message's term may be 10^6 above a node's own (guards.py).
TERMS_APART: Final = 2**16


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovery: the decision that a node belongs to a new cluster from its next start on.

    cluster_id: the new cluster's id.  replaced: the ids of the clusters that the new one replaces; the last is that of the
    node's present cluster.  term: the term in which the node begins.  table: the new cluster's members; no log holds it yet.
    """

    cluster_id: str
    replaced: tuple[str, ...]
    term: int
    table: Configuration

    @classmethod
    def of(cls, cluster_id: str, replaced: tuple[str, ...], term: int, members: list[Member]) -> Recovery:
        """Return the decision by which a node goes over to a new cluster that consists of ``members``."""
        return cls(cluster_id, replaced, term, Configuration(0, cluster_id, {member.id: member for member in members}))

    def command(self) -> commands.Command:
        """Return the command that begins a recovered cluster, with its id, its members and the clusters that it replaces."""
        return commands.recover(self.cluster_id, self.table.rows(), self.replaced)


def read_recovery(disk: Disk, directory: Path) -> Recovery | None:
    """Return the recovery, the decision to go over to a new cluster, that a data directory holds; None if it holds none.

    Raises ConfigError if the decision's file is damaged, NewerCacheFlow if its format is a later one, OSError.
    """
    if RECOVERY not in disk.list(directory):
        return None
    path = directory / RECOVERY
    try:
        fields = read_document(disk, path, FORMAT_VERSION)
        rows = fields["members"]
        cluster_id, replaced, term = fields["cluster_id"], fields["replaced"], fields["term"]
        table = member_table(rows)
        if not (
            is_name(cluster_id)
            and type(replaced) is list
            and 0 < len(replaced) <= commands.REPLACED_MAX
            and all(map(is_name, replaced))
            and is_whole(term, 1)
            and table
        ):
            raise ValueError("a field has the wrong type")
    except (ValueError, KeyError):
        raise ConfigError(f"{path} is unreadable: run cacheflow recover on this data directory again") from None
    return Recovery(cluster_id, tuple(replaced), term, Configuration(0, cluster_id, table))


def write_recovery(disk: Disk, directory: Path, recovery: Recovery) -> None:
    """Write ``recovery``, the decision to go over to a new cluster, into a data directory, in place of an earlier decision."""
    fields: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "cluster_id": recovery.cluster_id,
        "replaced": list(recovery.replaced),
        "term": recovery.term,
        "members": [list(row) for row in recovery.table.rows()],
    }
    write_document(disk, directory / RECOVERY, fields)


def enter(journal: Journal, recovery: Recovery, directory: Path) -> None:
    """Make a starting node's ``journal`` that of the new cluster of ``recovery``; do nothing if that was done before.

    recovery: the decision to go over to that cluster. Raises ConfigError if it is about another cluster than the journal's.
    """
    if journal.cluster_id not in (recovery.cluster_id, recovery.replaced[-1]):
        raise ConfigError(
            f"{directory / RECOVERY} replaces cluster {recovery.replaced[-1]}, and the journal there is of cluster "
            f"{journal.cluster_id or 'none'}: run cacheflow recover on this data directory again"
        )
    if journal.getCurrentTerm() < recovery.term:
        journal.setCurrentTerm(recovery.term, None)
    journal.enter_cluster(recovery.cluster_id)
