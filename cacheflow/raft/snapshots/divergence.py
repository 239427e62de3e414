"""Divergence: how a node finds out whether its contents are wrong, when digests of two nodes differ.

The log is the same everywhere, so contents that differ are a fault of some node's memory. Digests travel with the leader's
messages. Whoever finds a difference does not know whose fault it is, so

1. a follower doubts itself: it applies nothing, answers no read and stands for no election, but goes on receiving the log,
   which is right. It tells the leader (``differs``).
2. a leader that is contradicted by a majority of the voters doubts itself, too, and steps down.
3. everybody concerned has its contents built once more from its own disk (``building.py``), which ends the doubt or replaces
   the contents.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.replica import Replica
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)

# A node whose contents were found to be right doubts them no more for this long: the other one needs time to mend its own.
SURE_MS = 5000


class Divergence:
    """Compares this node's digests with other nodes'; decides when to check this node's contents against its disk."""

    def __init__(self, core: Core, links: Links, ticks: Ticks, replica: Replica, membership: Membership) -> None:
        # The contents are to be checked at this index, or behind it; 0 while there is no reason to.
        self.check_from = 0
        # How often this node's contents differed from another node's, or from what its disk holds.
        self.differences_total = 0
        self._core = core
        self._links = links
        self._ticks = ticks
        self._replica = replica
        self._membership = membership
        # The leader's (index, digest) that waits until this node has applied that index.
        self._pending: tuple[int, bytes] | None = None
        # This node's own (index, digest) that the leader is told as long as there is doubt.
        self._own: tuple[int, bytes] | None = None
        # The ids of the voters that have contradicted this node, as leader.
        self._contradicting: set[str] = set()
        # Until this moment of the node's clock the contents are not doubted again.
        self._sure_until_ms = 0
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {"differs": self._on_differs}

    def compare(self, digest: Any) -> None:
        """Compare ``digest``, the pair (index, digest) in a leader's message, with this node's own digest at that index.

        If the two digests differ, this node's contents are in doubt and the leader is told.
        """
        if self._replica.doubt is not None:
            self._tell()
            return
        if type(digest) is list and len(digest) == 2 and type(digest[0]) is int and type(digest[1]) is bytes:
            if self._pending is None:
                self._pending = (digest[0], digest[1])
        if self._pending is None:
            return
        index, theirs = self._pending
        if index > self._replica.machine.applied_index:
            return
        self._pending = None
        ours = self._replica.machine.digest_at(index)
        if ours is not None and ours != theirs and not self._is_sure():
            self._own = (index, ours)
            self.differences_total += 1
            self.doubt(index, "the leader's")
            self._tell()

    def doubt(self, index: int, whose: str) -> None:
        """Serve none of this node's contents until they are checked at the log index ``index`` or later; a leader steps down.

        whose: text for people that names the other contents, from which this node's differ, such as "the leader's".
        """
        self.check_from = max(self.check_from, index)
        if self._replica.doubt is None:
            self._replica.doubt = f"the contents differ from {whose} at index {index} and are checked"
            logger.critical("%s; meanwhile this node serves no reads", self._replica.doubt)
        if self._core.is_leader:
            self._core.step_down()

    def found_right(self) -> None:
        """End the doubt about this node's contents: they agree with its disk, so those of the node that contradicts are wrong.

        For SURE_MS milliseconds this node's contents are not doubted again.
        """
        self._sure_until_ms = self._links.now_ms() + SURE_MS
        self.settle()

    def settle(self) -> None:
        """End the doubt whether this node's contents are right, because they were replaced or agree with its disk."""
        self.check_from = 0
        self._pending = self._own = None
        self._contradicting.clear()
        if self._replica.doubt is not None:
            self._replica.doubt = None
            if not self._core.is_leader:
                # This node stands for elections again.
                self._core.postpone_election()
            self._ticks.wake()

    def _is_sure(self) -> bool:
        return self._links.now_ms() < self._sure_until_ms

    def _tell(self) -> None:
        """Send the leader this node's digest, which differs from the leader's own.

        Called at each message of the leader as long as the digests differ, because what this node has sent before may be lost.
        """
        if self._own is not None and self._core.leader_id is not None:
            index, digest = self._own
            self._links.send(self._core.leader_id, {"type": "differs", "index": index, "digest": digest})

    def _on_differs(self, peer: Peer, message: dict[str, Any]) -> None:
        index = guards.natural(message, "index")
        theirs = message.get("digest")
        if type(theirs) is not bytes:
            raise guards.BadMessage("differs: no digest")
        ours = self._replica.machine.digest_at(index)
        if not self._core.is_leader or not self._membership.is_voter(peer) or self._is_sure() or ours in (None, theirs):
            return
        self.check_from = max(self.check_from, index)
        self.differences_total += peer.node_id not in self._contradicting
        self._contradicting.add(peer.node_id)
        if 2 * len(self._contradicting) > len(self._membership.configurations.latest.voters):
            self.doubt(index, "a majority's")
