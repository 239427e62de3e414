"""Past: how far this node had applied the log at moments of the past.

1. A client that sends a command again tells how long ago it tried first. An entry that had been applied here by then was in
   the log before, so the command can only be in a later one. That needs no clock but this node's own monotonic one: the
   cluster's time may jump, by hours when all nodes have started anew, and an age means nothing by a clock that does.
2. What is not known counts for the beginning of the log: the time before this node's start, before it had caught up, and
   longer ago than is kept. Whoever falls behind that is told that nothing is known any more, and never done twice.

The event loop calls ``note``; any thread may call ``first_index``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import inf
from typing import Final

from cacheflow.errors import NotReady

# Seconds between two moments that are kept: a first try counts as that much earlier at most.
STEP_S: Final = 1.0
# How far back moments are kept: 15 minutes, longer than a machine keeps the key of a command.
MOMENTS_MAX: Final = 900
# A first try counts as that much earlier: a request was under way, or waited for this node, after its client had told its age.
LATE_S: Final = 1.0


class Past:
    """The log's indexes that this node had applied at moments of the past, one a second.

    passed_s: returns seconds that never go back, and that go on while the machine is suspended.
    """

    def __init__(self, passed_s: Callable[[], float]) -> None:
        self._passed_s = passed_s
        # (moment, index) in their order: replaced as a whole, so that a reading thread never sees half a change.
        self._moments: tuple[tuple[float, int], ...] = ()

    def note(self, applied_index: int) -> None:
        """Note that this node, which has caught up with the log, has now applied it up to ``applied_index``."""
        now_s = self._passed_s()
        moments = self._moments
        if not moments or now_s - moments[-1][0] >= STEP_S:
            self._moments = (*moments[1 - MOMENTS_MAX :], (now_s, applied_index))

    def first_index(self, age_ms: int) -> int:
        """Return the index of the first log entry in which a command may be that its client tried first ``age_ms`` ago.

        Raises NotReady while this node has not been ready for a second: it would take every command for an old one.
        """
        began_s = self._passed_s() - LATE_S
        moments = self._moments
        if not moments or moments[0][0] > began_s:
            raise NotReady("this node has been ready for less than a second, and cannot tell yet how old a command is")
        at = bisect_right(moments, (began_s - age_ms / 1000, inf))
        return moments[at - 1][1] + 1 if at else 1
