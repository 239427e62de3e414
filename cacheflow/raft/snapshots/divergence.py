"""Divergence: whether this node's contents differ from its leader's, found by the digests that its messages carry.

Not safe for concurrent use: the event loop owns it. ``diverged`` is a plain value that any thread reads.
"""

from __future__ import annotations

import logging
from typing import Any

from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.replica import Replica

logger = logging.getLogger(__name__)


class Divergence:
    """Compares digests, and asks the leader for a snapshot once they differ."""

    def __init__(self, core: Core, journal: Journal, links: Links, replica: Replica) -> None:
        # Whether this node's contents differ from its leader's: it answers no reads until a snapshot has replaced them.
        self.diverged = False
        self._core = core
        self._journal = journal
        self._links = links
        self._replica = replica
        # The leader's (index, digest) that waits until this node has applied that index.
        self._pending_digest: tuple[int, bytes] | None = None

    def end(self) -> None:
        """Note that a snapshot has replaced the contents."""
        self.diverged = False
        self._pending_digest = None

    def compare(self, digest: Any) -> None:
        """Compare the leader's (index, digest), which each of its messages carries, with this node's digest at that index."""
        if self.diverged:
            self._want()
            return
        if type(digest) is list and len(digest) == 2 and type(digest[0]) is int and type(digest[1]) is bytes:
            if self._pending_digest is None:
                self._pending_digest = (digest[0], digest[1])
        if self._pending_digest is None:
            return
        index, theirs = self._pending_digest
        if index > self._replica.machine.applied_index:
            return
        self._pending_digest = None
        ours = self._replica.machine.digest_at(index)
        if ours is not None and ours != theirs:
            self.diverged = True
            logger.critical(
                "this node's contents differ from the leader's at index %d: it stops serving reads and takes a snapshot",
                index,
            )
            self._want()

    def _want(self) -> None:
        """Ask the leader for a snapshot that reaches at least to the beginning of this node's log.

        It is asked for with every message of the leader's until it has come: the log may begin later by then, and an
        older snapshot would leave a hole before it.
        """
        if self._core.leader_id is not None:
            self._links.send(self._core.leader_id, {"type": "want_snapshot", "from": self._journal.first_index})
