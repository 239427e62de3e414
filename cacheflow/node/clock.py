"""ClusterClock: a node's estimate of the cluster's common time.

1. Inside ``apply`` only the log's own stamps count; this clock is for what happens outside: a leader that stamps an
   entry, and a local read that hides what is past due.
2. It follows the leader's time, carried by every append message, and this machine's monotonic clock in between.
   Wall clocks may differ by hours and no TTL moves; a failover neither lengthens nor shortens one.
3. The time that local reads use never goes back.

Not safe for concurrent use but for ``now_ms``, which any thread may call.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

# The largest step of the estimate back towards a leader that seems to be behind it, as a fraction of the time since that
# leader was last heard. A process that was stopped finds old messages waiting and must not take them for new; still,
# every drift is made up for in the end.
STEP_BACK = 0.1
# The time since the leader was last heard counts for at most this much, so one step back is 100 ms at most.
STEP_BACK_OVER_MS = 1000.0
# A node that has just started believes its leader's time once a message of it was surely under way for no longer than this.
LATE_MS_MAX = 1000
# Returns seconds that never go back, and that go on while the machine is suspended where the system has such a clock: with
# Linux' monotonic clock, which stands still then, contents would be as fresh as before, and no TTL shorter.
passed_s: Callable[[], float] = functools.partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)


class ClusterClock:
    """A node's estimate of the cluster's common time, in milliseconds.

    monotonic: returns seconds that never go back, and that go on while the computer is suspended.
    wall: returns the seconds since 1970, which may jump.
    """

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        # (cluster ms - monotonic ms) in one reference, so that a reading thread never sees half a change.
        self._offset_ms = 0.0
        self._floor_ms = 0
        self._heard_at_ms = 0.0
        # heard: a leader has told its time since the start, by a message that was surely not late, or this node has led.
        # known: there is an estimate, from a leader or from the journal's pair.
        self.heard = False
        self.known = False

    def restore(self, cluster_ms: int, wall_ms: int) -> None:
        """Set the estimate of the cluster's time to ``cluster_ms``, which the journal has kept, plus the time since then.

        wall_ms: what this computer's wall clock showed when the cluster's time was ``cluster_ms``.
        """
        passed_ms = max(0.0, self._wall() * 1000 - wall_ms)
        self._move_to(cluster_ms + passed_ms)
        self.known = True

    def hear(self, cluster_ms: int, late_ms: int | None) -> None:
        """Move the estimate of the cluster's time to ``cluster_ms``, the time in a leader's message; back only in small steps.

        Only the first message that was not late moves the estimate back at once: a late message's time can only be too early.
        late_ms: the most milliseconds for which the message was under way; None if nobody knows.
        """
        now_ms = self._monotonic() * 1000
        ahead_ms = now_ms + self._offset_ms - cluster_ms
        if not self.heard:
            self.heard = late_ms is not None and late_ms <= LATE_MS_MAX
            if self.heard or not self.known or ahead_ms < 0:
                self._move_to(cluster_ms)
        elif ahead_ms > 0:
            # The message may only have been late, here or on its way; or our clock is fast, by little in so short a time.
            # A node that led has heard nobody for long, which says nothing about how far it is off: hence the cap.
            back_ms = min(ahead_ms, min(now_ms - self._heard_at_ms, STEP_BACK_OVER_MS) * STEP_BACK)
            self._offset_ms -= back_ms
        else:
            self._move_to(cluster_ms)
        self._heard_at_ms = now_ms
        self.known = True

    def lead(self, stamp_ms: int, told_ms: int) -> None:
        """Prepare this clock for its node's term as leader: from now on show at least ``stamp_ms``, the log's last time stamp.

        told_ms: the cluster's time on which this node and its voters agree; 0 when no voter knows better than this node.
        A clock that was set by no leader since the node's start takes ``told_ms`` as it is; any other clock goes forward to
        it, and never back. The clock of a new cluster starts at the wall clock's time.
        """
        if not self.heard and (told_ms or not self.known):
            self._move_to(told_ms or self._wall() * 1000)
        latest_ms = max(stamp_ms, told_ms)
        if self._monotonic() * 1000 + self._offset_ms < latest_ms:
            self._move_to(latest_ms)
        self.known = self.heard = True

    def now_ms(self) -> int:
        """Return the estimate of the cluster's time in ms. Any thread may call this.

        The estimate never goes back once a leader's message was heard in time. Before that no read is answered, and the
        estimate may still be corrected, because it rests on the wall clock or on a late message.
        """
        now = int(self._monotonic() * 1000 + self._offset_ms)
        if not self.heard:
            return now
        if now < self._floor_ms:
            return self._floor_ms
        self._floor_ms = now
        return now

    def wall_ms(self) -> int:
        """Return this computer's wall clock in ms since 1970, for the journal's clock readings and clients' absolute times."""
        return int(self._wall() * 1000)

    def _move_to(self, cluster_ms: float) -> None:
        self._offset_ms = cluster_ms - self._monotonic() * 1000
