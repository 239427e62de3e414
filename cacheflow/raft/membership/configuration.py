"""Who belongs to the cluster, as the log tells it.

1. A configuration is the whole member table, alone in its entry; the latest one in the log counts, committed or not
   (dissertation 4.1). When its entry is dropped, the one before counts again.
2. One change at a time: the next only after the last is committed, and after the leader's own no-op is (4.1, erratum).
3. A new member is a learner: it receives, it does not count (4.2.1). It votes once it has caught up, while fewer than
   ``replicas`` + 1 do.
4. A member is a node id *and* an incarnation: an emptied disk comes back as somebody else.
5. Tables of two nodes are compared by term and index, as logs are: of two of which one is committed, the one that comes
   later by both knows more about who belongs to the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cacheflow.machine.language import commands
from cacheflow.machine.state.settings import Member

CONFIGURATION = b"\x02"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A member table. index: the entry that brought it, 0 when there is none.  voters: the ids of those who vote, in order."""

    index: int
    cluster_id: str
    members: Mapping[str, Member]
    voters: list[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "voters", sorted([member.id for member in self.members.values() if member.voter]))

    def lists(self, node_id: str, incarnation: str) -> bool:
        """Whether that node, with that disk, is a member."""
        member = self.members.get(node_id)
        return member is not None and member.incarnation == incarnation

    def with_member(self, member: Member) -> Configuration:
        """The table with ``member`` added or changed."""
        return replace(self, members={**self.members, member.id: member})

    def without(self, node_id: str) -> Configuration:
        """The table without ``node_id``."""
        return replace(self, members={key: value for key, value in self.members.items() if key != node_id})

    def command(self) -> commands.Command:
        """The command that makes this the cluster's configuration."""
        rows = [
            (member.id, member.incarnation, member.raft_address, member.address, member.voter)
            for _, member in sorted(self.members.items())
        ]
        return commands.members(self.cluster_id, rows)


NOBODY = Configuration(0, "", {})


def parse(index: int, command: bytes) -> Configuration:
    """The configuration in a log entry; NOBODY's members when the bytes are no such entry (apply ignores it likewise)."""
    try:
        _, blocks = commands.decode_entry(command[1:])
        _, _, _, (body,) = commands.decode_block(blocks[0])
        opcode, cluster_id, rows = body
        if opcode != commands.MEMBERS:
            return replace(NOBODY, index=index)
        return Configuration(index, cluster_id, {row[0]: Member(*row) for row in rows})
    except (commands.CodecError, ValueError, TypeError, IndexError):
        return replace(NOBODY, index=index)


class Configurations:
    """The configurations of the log, latest last. Not safe for concurrent use: the event loop owns it."""

    def __init__(self, base: Configuration, log: Iterable[tuple[bytes, int, int]]) -> None:
        self._stack = [base]
        for command, index, _ in log:
            self.note(command, index)

    @property
    def latest(self) -> Configuration:
        """The one in force."""
        return self._stack[-1]

    @property
    def settled(self) -> Configuration:
        """The latest one that is committed, as far as this node has applied its log; NOBODY when there is none."""
        return self._stack[0]

    def first_with(self, node_id: str, incarnation: str) -> Configuration | None:
        """The earliest one still known that lists this node with this disk."""
        return next((table for table in self._stack if table.lists(node_id, incarnation)), None)

    def note(self, command: bytes, index: int) -> bool:
        """An entry was appended: whether it changes the configuration."""
        if command[:1] != CONFIGURATION:
            return False
        parsed = parse(index, command)
        if not parsed.members:
            return False
        self._stack.append(parsed)
        return True

    def drop_from(self, index: int) -> bool:
        """Entries from ``index`` on were dropped: whether that changes the configuration."""
        before = len(self._stack)
        while len(self._stack) > 1 and self._stack[-1].index >= index:
            self._stack.pop()
        return len(self._stack) != before

    def committed(self, index: int) -> list[Configuration]:
        """Everything up to ``index`` is committed: older configurations can't come back. Returns those that are over."""
        over = []
        while len(self._stack) > 1 and self._stack[1].index <= index:
            over.append(self._stack.pop(0))
        return over

    def restart_from(self, base: Configuration, log: Iterable[tuple[bytes, int, int]]) -> None:
        """A snapshot took the place of what was known."""
        self._stack = [base]
        for command, index, _ in log:
            self.note(command, index)
