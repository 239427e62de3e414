"""Freshness: whether this node may answer local reads yet, and how old its contents may be.

A leader marks its commit index with the moment at which it certainly led; a follower marks the commit index of its leader's
message with the moment before which that message was not sent. Contents that have applied the index of a mark were the newest
at its moment.

Not safe for concurrent use: the event loop owns it. ``caught_up`` and ``fresh_at_ms`` are plain values that any thread
reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.peers import Peers

# Freshness marks that may wait for their index to be applied; the limit bounds their memory.
FRESH_MARKS_MAX = 64
# A node may answer reads again behind its start, once it has applied what was committed then, and its contents were the newest
# within so many election timeouts: with much to apply the cluster has gone on for long meanwhile. It is ready only as long as
# they are.
CAUGHT_UP = 2
# A leader sets a mark for its own contents this often: a turn takes a tenth of it under load, and a mark each is too many.
MARK_EVERY_MS = 5


class Freshness:
    """What a node knows of its contents' age: whether clients may read the contents, and when these were surely the newest."""

    def __init__(self, core: Core, links: Links, peers: Peers, recovering: Callable[[], bool] | None = None) -> None:
        # Whether this node has applied what the leader had committed in its own term, at least once since the start, and its
        # contents were nearly the newest then.
        self.caught_up = False
        # This process's monotonic milliseconds at which the contents were certainly the newest; 0 is never.
        self.fresh_at_ms = 0
        # The index that must be applied before reads are answered; None until the leader has said it.
        self.catch_up_to: int | None = None
        self._core = core
        self._links = links
        self._peers = peers
        # Returns whether versions are not raised yet after a recovery: until then they may be those of lost values. None where
        # there was no recovery, so that nobody pays for a call.
        self._recovering = recovering
        # (index, moment): contents that have applied that index were the newest at that moment.
        self._marks: deque[tuple[int, int]] = deque()
        # When this node, as leader, last set a mark for its own contents.
        self._marked_at_ms = 0

    @property
    def nearly_newest_ms(self) -> float:
        """How old contents may be, in ms, that count as nearly the newest."""
        return CAUGHT_UP * float(self._core.conf.raftMinTimeout) * 1000

    def note_progress(self) -> None:
        """Update what this node knows of its contents' age; called once a turn.

        ``caught_up`` says whether clients may read the contents, ``fresh_at_ms`` when they were last surely the newest.
        """
        core = self._core
        if core.is_leader:
            now_ms = self._links.now_ms()
            if (
                now_ms - self._marked_at_ms >= MARK_EVERY_MS
                and core.has_settled
                and (self._recovering is None or not self._recovering())
            ):
                self.caught_up = True
                # The mark is at the commit index, not at the applied one: a committed entry may wait here while a
                # follower has acknowledged it already.
                self._marked_at_ms = now_ms
                self.note_mark(core.commit_index, self._peers.quorum_at_ms(core.voter_ids, now_ms))
        applied = core.last_applied
        while self._marks and self._marks[0][0] <= applied:
            self.fresh_at_ms = max(self.fresh_at_ms, self._marks.popleft()[1])
        if not self.caught_up and self.catch_up_to is not None:
            self.caught_up = (
                applied >= self.catch_up_to
                and self._links.now_ms() - self.fresh_at_ms <= self.nearly_newest_ms
                and (self._recovering is None or not self._recovering())
            )

    def note_mark(self, index: int, at_ms: int) -> None:
        """Note that at the moment ``at_ms`` the newest contents were those with all log entries up to ``index`` applied.

        The note waits until this node has applied ``index``; then ``at_ms`` says how old the contents are. When too many
        notes wait, the new one replaces the newest that waits.
        """
        if len(self._marks) >= FRESH_MARKS_MAX:
            self._marks.pop()
        self._marks.append((index, at_ms))

    def goes_back(self) -> None:
        """Answer no reads until this node has once more applied its log up to the entry that was the last applied one before.

        Called when an older snapshot replaces contents that were wrong.
        """
        if self.catch_up_to is not None:
            self.catch_up_to = max(self.catch_up_to, self._core.last_applied)
        self.caught_up = False
        self.fresh_at_ms = 0

    def staleness_ms(self) -> int | None:
        """Return how many milliseconds old this node's contents may be; None while that is unknown. Any thread may call it."""
        fresh_at_ms = self.fresh_at_ms
        return max(0, self._links.now_ms() - fresh_at_ms) if fresh_at_ms else None
