"""Building: when a node builds a snapshot, and what it does with it.

A helper process replays the journal onto the last snapshot and writes the next one. The log is trimmed only behind a
snapshot that is durable here, and not from under a follower that is streaming.

A snapshot whose digest or outlook is not the one that this node's machine had at the same index says that the memory is
wrong, for what is on the disk is checked. The contents are then loaded from that snapshot, and the journal behind it is applied
once more. If that comes to the same end, the node stops.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from cacheflow.machine.machine import CacheMachine
from cacheflow.measuring.histogram import Histogram
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.peers import REPLICATE, Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.storage import SnapshotStorage

logger = logging.getLogger(__name__)

# A snapshot is built when the journal has gathered this many bytes since the last one, and as many as that one has. A
# restart replays them, about three times as slowly for a byte as it loads a snapshot: some two seconds. With less, the
# helper would load and write unchanged items more often than anybody restarts.
JOURNAL_BYTES_MIN = 64 * 1024 * 1024
JOURNAL_PER_SNAPSHOT = 1
# The pause after a build that failed, and the longest one: each failure in a row doubles it, for a helper that cannot work
# costs a start of Python every time.
BUILD_AGAIN_MS = 1000
BUILD_AGAIN_MS_MAX = 60_000
# So many failures in a row are no accident: the node says so, for its journal grows until its disk is full.
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Own:
    """The digests that a snapshot up to the log entry ``index`` must have if this node's contents in memory are right."""

    index: int
    digest: bytes
    outlook: bytes


class Building:
    """Decides when a node builds a snapshot, has it built (one at a time), and compares it with the node's contents in memory.

    restart_from: a function that is given a state machine, loaded from a snapshot, and lets the node go on with it.
    """

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
        restart_from: Callable[[CacheMachine], None],
    ) -> None:
        self._core = core
        self._journal = journal
        self._storage = storage
        self._links = links
        self._peers = peers
        self._replica = replica
        self._divergence = divergence
        self._restart_from = restart_from
        # Bytes of the entries in the journal that the newest snapshot covers and a follower still needs.
        self._held_back_bytes = 0
        self._building = False
        # What the memory was when the next snapshot was decided on: that is built as soon as the journal is durable up to there.
        self._own: _Own | None = None
        # Whether the contents were replaced after the present build began: then its result is thrown away.
        self._is_void = False
        # A build that failed is not begun again before this moment of the node's clock.
        self._next_build_ms = 0
        # When the newest snapshot was built or taken over, by the node's clock; when the node started if it has done neither.
        self._newest_since_ms = links.now_ms()
        self.failures_total = 0
        # How long each build took that was not in vain; and when the present one began, by the node's clock.
        self.builds = Histogram()
        self._began_ms = 0
        self._failures_in_a_row = 0
        self._latest_failure = ""
        self.reloads_total = 0
        # The highest index that was applied when the contents were last loaded from the disk.
        self._reloaded_at = 0

    @property
    def age_s(self) -> float:
        """The number of seconds since this node built or received a snapshot, or else started. Any thread may read it."""
        return (self._links.now_ms() - self._newest_since_ms) / 1000

    @property
    def newest_bytes(self) -> int:
        """The size of this node's newest snapshot; 0 without one. Any thread may read it."""
        newest = self._storage.newest
        return 0 if newest is None else newest.bytes

    @property
    def problem(self) -> str:
        """The reason, for people, why the latest builds of a snapshot have failed.

        It is "" until FAILURES_SHOWN builds in a row have failed. Any thread may read it.
        """
        if self._failures_in_a_row < FAILURES_SHOWN:
            return ""
        return f"{self._failures_in_a_row} builds in a row have failed, the journal grows: {self._latest_failure}"

    def consider(self) -> None:
        """Build a snapshot if the journal has grown enough, or if this node's contents are in doubt and have to be checked.

        Called once a heartbeat.
        """
        grown = self._journal.log_bytes - self._held_back_bytes
        if self._divergence.check_from or grown > max(JOURNAL_BYTES_MIN, JOURNAL_PER_SNAPSHOT * self.newest_bytes):
            self.build()

    def replaced(self) -> None:
        """Note that a snapshot received from the leader has replaced this node's contents and its log."""
        self._held_back_bytes = 0
        self._is_void = self._building
        self._own = None
        self._newest_since_ms = self._links.now_ms()

    def build(self) -> None:
        """Begin to build a snapshot up to the last applied entry, unless a build is under way or nothing new was applied.

        If that entry is not durable yet, the build begins with a later call, and still for that entry.
        """
        if self._replica.failure is not None or self._building or self._links.now_ms() < self._next_build_ms:
            return
        machine = self._replica.machine
        index = machine.applied_index
        if index <= self._storage.newest_index:
            # Contents that are a snapshot's are right.
            if self._divergence.check_from:
                self._divergence.found_right()
            return
        own = self._own
        if own is None:
            own = self._own = _Own(index, machine.digest, machine.outlook())
        if own.index <= self._journal.durable_index:
            self._own = None
            self._building = True
            self._began_ms = self._links.now_ms()
            self._storage.build(own.index, lambda outcome: self._built(own, outcome))

    def _built(self, own: _Own, outcome: SnapshotMeta | BaseException) -> None:
        index = own.index
        self._building = False
        void, self._is_void = self._is_void, False
        if isinstance(outcome, BaseException):
            if not void:
                self._failed(index, str(outcome) or type(outcome).__name__)
            return
        if void:
            # The contents that it began with may have been wrong, and this node may need the entries before it again.
            if outcome.index != self._storage.newest_index:
                self._discard(outcome)
            return
        self.builds.note((self._links.now_ms() - self._began_ms) / 1000)
        if (own.digest, own.outlook) != (outcome.digest, outcome.outlook):
            self._divergence.differences_total += 1
            self._reload(outcome)
            return
        self._take(outcome)
        if 0 < self._divergence.check_from <= index:
            self._divergence.found_right()

    def _reload(self, meta: SnapshotMeta) -> None:
        """Replace the contents in memory by those of the new snapshot ``meta``, because the two differ.

        If they differ again after that, this node stops applying its log instead.
        """
        if meta.index <= self._reloaded_at:
            self._discard(meta)
            self._replica.stumble(f"the contents at index {meta.index} differ again from what the disk holds")
            return
        self._divergence.doubt(meta.index, "what the disk holds")
        self._building = True
        disk = self._storage.disk

        def done(outcome: CacheMachine | BaseException) -> None:
            self._building = False
            void, self._is_void = self._is_void, False
            if void:
                self._discard(meta)
            elif isinstance(outcome, BaseException):
                self._discard(meta)
                self._failed(meta.index, f"it cannot be loaded: {outcome or type(outcome).__name__}")
            else:
                self._reloaded_at = self._core.last_applied
                self.reloads_total += 1
                self._take(meta)
                self._restart_from(outcome)
                self._divergence.settle()
                logger.critical("the contents were loaded anew from the disk, at index %d", meta.index)

        path = files.snapshot_path(self._storage.directory, meta.index)
        self._storage.run(lambda: files.restored(disk, path, meta, self._storage.machine_type), done)

    def _discard(self, meta: SnapshotMeta) -> None:
        """Remove the file of the snapshot ``meta``, which must not be loaded; build no snapshot until the file is gone.

        Each build starts from the newest snapshot file on the disk, and must not start from this wrong one.
        """
        self._building = True

        def done() -> None:
            self._building = False

        self._storage.discard(meta, done)

    def _take(self, outcome: SnapshotMeta) -> None:
        """Make a snapshot that was built and verified the node's newest one, and trim the log entries that it covers.

        outcome: the snapshot's description.
        """
        self._failures_in_a_row = 0
        self._newest_since_ms = self._links.now_ms()
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

    def _failed(self, index: int, reason: str) -> None:
        pause_ms = min(BUILD_AGAIN_MS << min(self._failures_in_a_row, 16), BUILD_AGAIN_MS_MAX)
        self._next_build_ms = self._links.now_ms() + pause_ms
        self.failures_total += 1
        self._failures_in_a_row += 1
        self._latest_failure = reason
        logger.error(
            "no snapshot at %d (failure %d in a row, again in %g s): %s",
            *(index, self._failures_in_a_row, pause_ms / 1000, reason),
        )
