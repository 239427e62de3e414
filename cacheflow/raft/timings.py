"""Timings: how long the entries of the log take, on one node: to be committed, and to be applied.

The event loop writes it, with an attribute where others would call a method: each entry comes here. Any thread may read it.
"""

from __future__ import annotations

from collections.abc import Callable

from cacheflow.measuring.histogram import Histogram


class Timings:
    """How long entries of the log took on this node, and the entry whose commit is timed now.  clock: returns seconds.

    applies: from the beginning of an entry's work in the state machine to its end.
    commits: from the moment at which this node, as leader, has appended an entry, until that entry is committed.
    waits_for: the index of the oldest entry that this leader has appended and that is not committed; 0 if there is none. One is
    on its way at a time; a later one that is, as a member table may be, is not timed.  since_s: when it was appended.
    """

    __slots__ = ("applies", "clock", "commits", "since_s", "waits_for")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.applies = Histogram()
        self.commits = Histogram()
        self.waits_for = 0
        self.since_s = 0.0
