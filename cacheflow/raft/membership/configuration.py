"""Configuration: a table of the cluster's members; Configurations: those in the log that may still count.

1. A configuration is the whole member table, alone in its entry; the latest one in the log counts, committed or not
   (dissertation 4.1). When its entry is dropped, the one before counts again.
2. One change is made at a time: the next one only after the last, and the leader's own no-op, are committed (4.1,
   erratum).
3. A new member is a learner: it receives entries and does not count (4.2.1). Who votes is decided in ``votes.py``.
4. A member is a node id *and* an incarnation: an emptied disk comes back as somebody else.
5. A log that was recovered (``recovery.py``) begins with tables of an older cluster: they never count again.
6. Tables of two nodes are compared by (term, index), as logs are: if one of two is committed, the later one is the
   newer statement about who belongs to the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace

from cacheflow.machine.language import commands
from cacheflow.machine.state.settings import Member
from cacheflow.raft.log.records import CONFIGURATION


@dataclass(frozen=True, slots=True)
class Configuration:
    """A table of the cluster's members.

    index: that of the log entry which holds the table; 0 for NOBODY, the empty table.  members: the members by node id.
    voters: the sorted ids of the members that vote.  spares: the members, by id, that may be given a vote.
    """

    index: int
    cluster_id: str
    members: Mapping[str, Member]
    voters: list[str] = field(init=False, compare=False)
    spares: list[Member] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        members = [member for _, member in sorted(self.members.items())]
        object.__setattr__(self, "voters", [member.id for member in members if member.voter])
        object.__setattr__(self, "spares", [member for member in members if member.is_spare])

    def lists(self, node_id: str, incarnation: str) -> bool:
        """True if this member table lists the node ``node_id`` with this ``incarnation``."""
        member = self.members.get(node_id)
        return member is not None and member.incarnation == incarnation

    def with_member(self, member: Member) -> Configuration:
        """Return a copy of this member table with ``member`` added, in the place of a member with the same id."""
        return replace(self, members={**self.members, member.id: member})

    def without(self, node_id: str) -> Configuration:
        """Return a copy of this member table without the member ``node_id``."""
        return replace(self, members={key: value for key, value in self.members.items() if key != node_id})

    def rows(self) -> list[tuple[str, str, str, str, bool, bool]]:
        """Return the members of this table as commands hold them: a tuple of each member's fields, in the order of the ids."""
        return [astuple(member) for _, member in sorted(self.members.items())]

    def command(self) -> commands.Command:
        """Return the command that puts this member table in force in the cluster, once it is in the log."""
        return commands.members(self.cluster_id, self.rows())


NOBODY = Configuration(0, "", {})


def parse(index: int, command: bytes) -> Configuration:
    """Return the member table in the log entry ``command`` at ``index``.

    Returns a table without members if the entry holds no valid one.
    """
    try:
        _, _, blocks = commands.decode_entry(command[1:])
        *_, (body,) = commands.decode_block(blocks[0])
        opcode, cluster_id, rows, *_ = body
        if opcode not in (commands.MEMBERS, commands.RECOVER):
            return replace(NOBODY, index=index)
        return Configuration(index, cluster_id, {row[0]: Member(*row) for row in rows})
    except (commands.CodecError, ValueError, TypeError, IndexError):
        return replace(NOBODY, index=index)


class Configurations:
    """The member tables in a node's log, oldest first, from the latest committed one on.

    own_cluster: returns the id of the cluster whose log this is. Tables of other clusters are ignored. If it
    returns "", because the cluster is not known, no table is ignored.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(
        self, base: Configuration, log: Iterable[tuple[bytes, int, int]], own_cluster: Callable[[], str] = str
    ) -> None:
        self.own_cluster = own_cluster
        # The latest committed configuration, then the uncommitted ones.
        self._stack: list[Configuration] = []
        self.restart_from(base, log)

    @property
    def latest(self) -> Configuration:
        """The member table in force on this node: the latest in its log, committed or not."""
        return self._stack[-1]

    @property
    def settled(self) -> Configuration:
        """The latest committed member table, as far as this node has applied its log; the empty NOBODY if there is none."""
        return self._stack[0]

    def first_with(self, node_id: str, incarnation: str) -> Configuration | None:
        """Return the earliest of these member tables that lists the node ``node_id`` with ``incarnation``, or None."""
        return next((table for table in self._stack if table.lists(node_id, incarnation)), None)

    def note(self, command: bytes, index: int) -> bool:
        """Keep the member table in an entry that was appended to the log; return True if that entry holds one.

        command, index: the entry's content and its index.
        """
        if command[:1] != CONFIGURATION:
            return False
        parsed = parse(index, command)
        if not parsed.members or parsed.cluster_id != (self.own_cluster() or parsed.cluster_id):
            return False
        self._stack.append(parsed)
        return True

    def drop_from(self, index: int) -> bool:
        """Forget the member tables of the log entries from ``index`` on.

        These entries were removed from the log. Returns True if any of them held a table.
        """
        before = len(self._stack)
        while len(self._stack) > 1 and self._stack[-1].index >= index:
            self._stack.pop()
        return len(self._stack) != before

    def committed(self, index: int) -> list[Configuration]:
        """Forget and return the member tables that a later, committed one has replaced. index: the last committed entry's."""
        over = []
        while len(self._stack) > 1 and self._stack[1].index <= index:
            over.append(self._stack.pop(0))
        return over

    def restart_from(self, base: Configuration, log: Iterable[tuple[bytes, int, int]]) -> None:
        """Replace all kept member tables by ``base``, a snapshot's table, and those in ``log``, the later log entries."""
        self._stack = [base]
        for command, index, _ in log:
            self.note(command, index)
