"""Whether this node still belongs to the cluster, and telling those who do not.

A removed node gets no more messages of its leader: it must be told (dissertation 4.2.3 only keeps it from disrupting).

1. Whoever sends anything and is no member is told so, with the term and index of a committed entry by which it is none.
   A node that hears no leader asks all members: who was down when it was removed, and who never campaigns, learns it too.
2. That is believed when the entry is later, by term and index, than the latest configuration in the node's own log. So a
   member that lags cannot send away one that joined meanwhile, and a stale message changes nothing.
3. Only who *was* a member can have been removed, which the machine knows. A newcomer whose own entry was dropped before it
   was committed is told so (``was`` is false) and registers again.

Not safe for concurrent use: the event loop owns it. ``removed_at`` is a plain value that any thread reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cacheflow.raft import guards
from cacheflow.raft.membership.configuration import Configuration

if TYPE_CHECKING:
    from cacheflow.raft.core import Core
    from cacheflow.raft.log.journal import Journal
    from cacheflow.raft.node import RaftNode
    from cacheflow.raft.transport.network import Peer

# Without a leader for this long, and then this often.
ASK_AFTER_S = 2.0
ASK_EVERY_MS = 1000
# A stranger that goes on talking is answered this often.
TELL_EVERY_MS = 250

# Answered by their own handlers, or from those who are about to become members.
_NOT_ANSWERED = frozenset(("membership", "not_member", "register", "change_reply"))

Position = tuple[int, int]


class Removal:
    """This node's own membership, and what it answers to those who have none."""

    def __init__(self, node: RaftNode, core: Core, journal: Journal) -> None:
        # The index of a configuration without this node; None as long as it belongs to the cluster.
        self.removed_at: int | None = None
        self._node = node
        self._core = core
        self._journal = journal
        # Its entry at this place was dropped.
        self._disowned: Position | None = None
        self._asked_at_ms = 0
        self._told_at_ms: dict[str, int] = {}
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "membership": self._on_question,
            "not_member": self._on_not_member,
        }

    @property
    def disowned(self) -> bool:
        """The entry that would have made this node a member was dropped: it must register again."""
        return self._disowned is not None and self._disowned == self._position(self._node.configurations.latest)

    # Telling others -----------------------------------------------------------------------------------------------------

    def tell_removed(self, before: Configuration) -> None:
        """A configuration is committed and applied: the leader tells those who are not in it any more."""
        if self._core.is_leader:
            for node_id, member in before.members.items():
                if self._is_out(node_id, member.incarnation):
                    self._tell(node_id, member.incarnation, None)

    def answer_stranger(self, peer: Peer, kind: str) -> None:
        """Somebody who is no member of the latest configuration has sent a message."""
        if kind in _NOT_ANSWERED or not self._is_out(peer.node_id, peer.incarnation):
            return
        now_ms = self._node.now_ms()
        told_at_ms = self._told_at_ms.get(peer.node_id)
        if told_at_ms is None or now_ms - told_at_ms >= TELL_EVERY_MS:
            if len(self._told_at_ms) >= 100:
                self._told_at_ms.clear()
            self._told_at_ms[peer.node_id] = now_ms
            self._tell(peer.node_id, peer.incarnation, None)

    def _on_question(self, peer: Peer, message: dict[str, Any]) -> None:
        first = _position_in(message, "first")
        if self._is_out(peer.node_id, peer.incarnation):
            self._tell(peer.node_id, peer.incarnation, first)

    def _is_out(self, node_id: str, incarnation: str) -> bool:
        known = self._node.configurations
        return bool(known.settled.members) and not (
            known.settled.lists(node_id, incarnation) or known.latest.lists(node_id, incarnation)
        )

    def _tell(self, node_id: str, incarnation: str, first: Position | None) -> None:
        """first: where the node says that it became a member; None when it did not say."""
        index = self._core.last_applied
        message: dict[str, Any] = {
            "type": "not_member",
            # Another disk under the same id may read it.
            "incarnation": incarnation,
            "term": self._journal.term_at(index) or 0,
            "index": index,
            "since": self._node.configurations.settled.index,
        }
        if first is not None:
            message |= {"first": list(first), "was": (node_id, incarnation) in self._node.machine.removed}
        self._node.send(node_id, message)

    # Being told ---------------------------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Once a heartbeat: a member that hears no leader asks whether it is one."""
        now_ms = self._node.now_ms()
        if now_ms - self._asked_at_ms < ASK_EVERY_MS or self._node.elections.leader_silent_s < ASK_AFTER_S:
            return
        self._asked_at_ms = now_ms
        for node_id in self._node.others():
            self._ask(node_id)

    def _ask(self, node_id: str) -> None:
        first = self._first()
        if first is not None:
            self._node.send(node_id, {"type": "membership", "first": list(first)})

    def _on_not_member(self, peer: Peer, message: dict[str, Any]) -> None:
        later, since = (
            (guards.natural(message, "term"), guards.natural(message, "index")),
            guards.natural(message, "since"),
        )
        node, known = self._node, self._node.configurations
        me = (node.node_id, node.incarnation)
        if message.get("incarnation") != node.incarnation or not known.latest.lists(*me):
            return
        if later <= self._position(known.latest):
            return
        if known.settled.lists(*me):
            self._removed(since)
        elif "was" not in message:
            self._ask(peer.node_id)
        elif _position_in(message, "first") == self._first():
            if message["was"] is True:
                self._removed(since)
            else:
                self._disowned = self._position(known.latest)

    def _removed(self, index: int) -> None:
        # First of all it is noted on the disk: what this node says of itself must hold after a restart.
        self._node.on_removed(index)
        self.removed_at = index
        self._node.removed(index)

    def _first(self) -> Position | None:
        """Where this node became a member, as far as its log goes back."""
        first = self._node.configurations.first_with(self._node.node_id, self._node.incarnation)
        return None if first is None else self._position(first)

    def _position(self, table: Configuration) -> Position:
        """(term, index) of a configuration; one that a snapshot covers was in force at the snapshot's end."""
        index = max(table.index, self._journal.first_index)
        return self._journal.term_at(index) or 0, index


def _position_in(message: dict[str, Any], name: str) -> Position:
    position = message.get(name)
    if type(position) is not list or len(position) != 2 or any(type(part) is not int for part in position):
        raise guards.BadMessage(f"{message.get('type')}: {name} is {position!r}")
    return position[0], position[1]
