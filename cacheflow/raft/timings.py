"""Timings: how long the entries of the log take, on one node: to be committed, and to be applied.

Not safe for concurrent use: the event loop owns it. Any thread may read the two histograms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cacheflow.measuring.histogram import Histogram


class Timings:
    """How long entries of the log took on this node.  clock: returns seconds.

    applies: from the beginning of an entry's work in the state machine to its end.
    commits: from the moment at which this node, as leader, has appended an entry, until that entry is committed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.applies = Histogram()
        self.commits = Histogram()
        self._clock = clock
        # (index, moment) of the entries that this leader has appended and that are not committed yet.
        self._appended: deque[tuple[int, float]] = deque()

    def appended(self, index: int) -> None:
        """Note that this node, as leader, has just appended the entry ``index``."""
        self._appended.append((index, self._clock()))

    def committed(self, index: int) -> None:
        """Note that the entries up to ``index`` are committed."""
        while self._appended and self._appended[0][0] <= index:
            self.commits.note(self._clock() - self._appended.popleft()[1])

    def deposed(self) -> None:
        """Forget the entries that are not committed: this node leads no more, and another leader may replace them."""
        self._appended.clear()
