"""Removal: how a node learns that it is no longer a member, and tells other nodes that they are none.

A removed node gets no more messages of its leader, so it must be told (dissertation 4.2.3 only keeps it from
disrupting).

1. A node that sends anything and is no member is told so, with the term and index of a committed entry by which it is
   none. A node that hears no leader asks all members: so a node learns it, too, that was down then or that never
   campaigns.
2. A node believes it when that entry is later, by term and index, than the latest configuration in the node's own log.
   So a member that lags cannot send away a node that joined meanwhile, and a stale message changes nothing.
3. Only a node that *was* a member can have been removed, which the machine knows. A newcomer whose own entry was
   dropped before it was committed is told so (``was`` is false) and registers again.
4. A node that leaves by itself is removed as any other; only what it says of that differs (``by_itself``), and what its next
   start does (``log/departure.py``).
5. A member of a cluster that a recovery has replaced ends likewise: it is told by members of the new one, in the handshake
   (``transport/handshake.py``), for nothing else passes between the two.

Not safe for concurrent use: the event loop owns it. ``removed_at`` is a plain value that any thread reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import NotMember
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.elections import Elections
from cacheflow.raft.transport.network import Network, Peer

# A member asks whether it is one when it has heard no leader for this long, and then this often.
ASK_AFTER_S = 2.0
ASK_EVERY_MS = 1000
# A node that is no member and goes on sending is told so this often.
TELL_EVERY_MS = 250

# Kinds of messages to which the answer is not that the sender is no member: they have answers of their own, or their
# senders are about to become members.
_NOT_ANSWERED = frozenset(("membership", "not_member", "register", "change_reply"))

# (term, index) of an entry of the log.
Position = tuple[int, int]


class Removal:
    """Tells nodes outside the cluster that they are no members, and finds out whether this node itself was removed."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        network: Network,
        *,
        links: Links,
        membership: Membership,
        replica: Replica,
        elections: Elections,
    ) -> None:
        # Called with why this node takes no further part, for people, and with what is to be called once that is noted on the
        # disk.
        self.on_removed: Callable[[str, Callable[[], None]], None] = lambda reason, noted: noted()
        # The index of a configuration without this node, or that of the last entry applied here when the cluster was replaced;
        # None as long as the node belongs to the cluster.
        self.removed_at: int | None = None
        # Whether the removal is being noted on the disk, or has been.
        self.is_believed = False
        # Whether this node has asked for its own removal: in this start, or in the one before, if nothing was certain then.
        self.by_itself = False
        self._core = core
        self._journal = journal
        self._network = network
        self._links = links
        self._membership = membership
        self._replica = replica
        self._elections = elections
        # The position of this node's configuration, if its entry was dropped before it was committed; None otherwise.
        self._disowned: Position | None = None
        self._asked_at_ms = 0
        # {node id: when it was last told that it is no member}.
        self._told_at_ms: dict[str, int] = {}
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "membership": self._on_question,
            "not_member": self._on_not_member,
        }

    @property
    def disowned(self) -> bool:
        """True if the log entry that made this node a member was dropped uncommitted: the node must register again."""
        return self._disowned is not None and self._disowned == self._position(self._membership.configurations.latest)

    # Telling others ---------------------------------------------------------------------------------------------------

    def tell_removed(self, before: Configuration) -> None:
        """As leader, tell nodes that they are no members any more.

        These are the nodes in ``before``, a replaced member table, that no newer table lists.
        """
        if self._core.is_leader:
            for node_id, member in before.members.items():
                if self._is_out(node_id, member.incarnation):
                    self._tell(node_id, member.incarnation, None)

    def answer_stranger(self, peer: Peer, kind: str) -> None:
        """Tell ``peer``, which has sent a message, that it is no member, if no member table lists it.

        Nothing is sent if the peer was told just now.

        kind: the type of the message; for types that have answers of their own, nothing is sent here.
        """
        if kind in _NOT_ANSWERED or not self._is_out(peer.node_id, peer.incarnation):
            return
        now_ms = self._links.now_ms()
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
        known = self._membership.configurations
        return bool(known.settled.members) and not (
            known.settled.lists(node_id, incarnation) or known.latest.lists(node_id, incarnation)
        )

    def _tell(self, node_id: str, incarnation: str, first: Position | None) -> None:
        """Send a node the message that it is no member of the cluster.

        first: (term, index) of the log entry by which that node says it became a member; None if it said nothing about that.
        """
        index = self._core.last_applied
        message: NotMember = {
            "type": "not_member",
            # The message may reach a node with the same id and another disk, which it does not concern.
            "incarnation": incarnation,
            "term": self._journal.term_at(index) or 0,
            "index": index,
            "since": self._membership.configurations.settled.index,
        }
        if first is not None:
            message |= {"first": list(first), "was": (node_id, incarnation) in self._replica.machine.removed}
        self._links.send(node_id, message)

    # Being told -------------------------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Ask all members whether this node is still a member, if it has heard no leader for a while.

        Called once a heartbeat.
        """
        now_ms = self._links.now_ms()
        if now_ms - self._asked_at_ms < ASK_EVERY_MS or self._elections.leader_silent_s < ASK_AFTER_S:
            return
        self._asked_at_ms = now_ms
        for node_id in self._membership.others():
            self._ask(node_id)

    def _ask(self, node_id: str) -> None:
        first = self._first()
        if first is not None:
            self._links.send(node_id, {"type": "membership", "first": list(first)})

    def _on_not_member(self, peer: Peer, message: dict[str, Any]) -> None:
        later, since = (
            (guards.natural(message, "term"), guards.natural(message, "index")),
            guards.natural(message, "since"),
        )
        known = self._membership.configurations
        me = (self._membership.node_id, self._membership.incarnation)
        if message.get("incarnation") != self._membership.incarnation or not known.latest.lists(*me):
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

    def replaced_by(self, cluster_id: str) -> None:
        """Stop this node's part in its cluster, because in a recovery the cluster ``cluster_id`` has replaced the node's."""
        # What it had wished for was to leave the old one. Its data may be wanted still.
        self.by_itself = False
        old = self._membership.configurations.latest.cluster_id
        self._end(f"was a member of cluster {old}, which cluster {cluster_id} has replaced in a recovery")

    def _removed(self, index: int) -> None:
        self._end(f"{'has left' if self.by_itself else 'was removed from'} the cluster at index {index}", index)

    def _end(self, why: str, index: int | None = None) -> None:
        # First the removal is noted on the disk: what this node says of itself must hold after a restart. A disk that hangs is
        # not waited for here; until it answers this node goes on as one that is cut off.
        if not self.is_believed:
            self.is_believed = True
            at = self._core.last_applied if index is None else index
            self.on_removed(f"node {self._membership.node_id} {why}", functools.partial(self._noted, why, at))

    def _noted(self, why: str, index: int) -> None:
        self.removed_at = index
        again = (
            "stop it and start it again: it joins anew"
            if self.by_itself
            else "to use it again, stop it, remove its data directory and start it with --seed"
        )
        self._replica.fail(f"it {why}; {again}")
        self._network.set_peers({})

    def _first(self) -> Position | None:
        """Return (term, index) of the earliest entry in this node's log that makes it a member; None if none is left."""
        first = self._membership.configurations.first_with(self._membership.node_id, self._membership.incarnation)
        return None if first is None else self._position(first)

    def _position(self, table: Configuration) -> Position:
        """Return (term, index) of the log entry that holds ``table``, a member table.

        If a snapshot covers that entry, returns those of the snapshot's last entry.
        """
        index = max(table.index, self._journal.first_index)
        return self._journal.term_at(index) or 0, index


def _position_in(message: dict[str, Any], name: str) -> Position:
    position = message.get(name)
    if type(position) is not list or len(position) != 2 or any(type(part) is not int for part in position):
        raise guards.BadMessage(f"{message.get('type')}: {name} is {position!r}")
    return position[0], position[1]
