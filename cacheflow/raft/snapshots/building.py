"""Building: when a node builds a snapshot, and what it does with it.

A helper process replays the journal onto the last snapshot and writes the next one. Its digest must be the one that this
node's machine had at the same index, or it is thrown away. The log is trimmed only behind a snapshot that is durable here,
and not from under a follower that is streaming.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging

from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.peers import REPLICATE, Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.storage import SnapshotStorage

logger = logging.getLogger(__name__)

# A snapshot is built when the journal has gathered this many bytes since the last one, and as many as that one has. A
# restart replays them, about three times as slowly for a byte as it loads a snapshot: some two seconds. With less, the
# helper would load and write unchanged items more often than anybody restarts.
JOURNAL_BYTES_MIN = 64 * 1024 * 1024
JOURNAL_PER_SNAPSHOT = 1
# The pause after a build that failed: a helper that cannot work must not be started ten times a second.
BUILD_AGAIN_MS = 1000


class Building:
    """Builds a node's snapshots, one at a time."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        storage: SnapshotStorage,
        *,
        links: Links,
        peers: Peers,
        replica: Replica,
        divergence: Divergence,
    ) -> None:
        self._core = core
        self._journal = journal
        self._storage = storage
        self._links = links
        self._peers = peers
        self._replica = replica
        self._divergence = divergence
        # Bytes of the entries in the journal that the newest snapshot covers and a follower still needs.
        self._held_back_bytes = 0
        self._building = False
        # Whether the contents were replaced after the present build began: then its result is thrown away.
        self._is_void = False
        # A build that failed is not begun again before this moment of the node's clock.
        self._next_build_ms = 0

    def consider(self) -> None:
        """Build a snapshot if the journal has grown enough; called once a heartbeat."""
        newest = self._storage.newest
        size = newest.bytes if newest is not None else 0
        if self._journal.log_bytes - self._held_back_bytes > max(JOURNAL_BYTES_MIN, JOURNAL_PER_SNAPSHOT * size):
            self.build()

    def replaced(self) -> None:
        """Note that a snapshot of the leader's has replaced the contents and the journal."""
        self._held_back_bytes = 0
        self._is_void = self._building

    def build(self) -> None:
        """Begin to build a snapshot at the applied index, unless a build is under way or nothing is new."""
        index = min(self._core.last_applied, self._journal.durable_index)
        if self._replica.failure is not None or self._divergence.diverged:
            return
        if self._building or index <= self._storage.newest_index or self._links.now_ms() < self._next_build_ms:
            return
        self._building = True
        digest = self._replica.machine.digest_at(index)
        self._storage.build(index, lambda outcome: self._built(index, outcome, digest))

    def _built(self, index: int, outcome: SnapshotMeta | BaseException, own: bytes | None) -> None:
        self._building = False
        void, self._is_void = self._is_void, False
        if isinstance(outcome, BaseException):
            if not void:
                self._next_build_ms = self._links.now_ms() + BUILD_AGAIN_MS
                logger.error("no snapshot could be built: %s", outcome)
            return
        if void:
            # The contents that it began with may have been wrong, and this node may need the entries before it again.
            if outcome.index != self._storage.newest_index:
                self._storage.discard(outcome)
            return
        if own is not None and own != outcome.digest:
            logger.error("the snapshot at %d differs from this node's contents and is not used", outcome.index)
            self._storage.discard(outcome)
            return
        keep_from = outcome.index
        if self._core.is_leader:
            # The log is not kept for a follower that is down, perhaps for ever: it gets the snapshot.
            down = self._peers.down_ids()
            streaming = [
                progress.match_index
                for node_id, progress in self._peers.progress.items()
                if progress.state == REPLICATE and node_id not in down
            ]
            keep_from = min([keep_from, *streaming])
        self._journal.trim(max(keep_from, self._journal.first_index))
        self._held_back_bytes = self._journal.bytes_up_to(outcome.index)
        self._storage.keep(outcome)
        logger.info("snapshot at %d: %d bytes", outcome.index, outcome.bytes)
