"""Two queues into the thread pool, so that requests that only read do not wait behind those that write.

Without a leader every write waits or is refused, and clients come back at once; in one queue a read, a health check or a
scrape would stand behind hundreds of them (measured with 256 writers: 260 ms at the 99th percentile).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

READING: Final = ("GET", "HEAD", "OPTIONS")
# Reads that are served in a row while a write waits: after these it goes first, so that readers cannot stop writers.
READS_IN_A_ROW: Final = 8


class TwoLanes:
    """A queue of waitress' channels that have requests to serve, with one lane for reads and one for writes.

    To be used with the lock of waitress' dispatcher held.
    """

    def __init__(self) -> None:
        self._reads: deque[Any] = deque()
        self._writes: deque[Any] = deque()
        self._in_a_row = 0

    def append(self, channel: Any) -> None:
        """Queue a client's waitress channel, in the lane for reads or for writes, by the method of its next request."""
        lane = self._reads if channel.requests[0].command in READING else self._writes
        lane.append(channel)

    def popleft(self) -> Any:
        """Remove and return the waitress channel whose request is to be served next. Raises IndexError for an empty queue."""
        if self._reads and (self._in_a_row < READS_IN_A_ROW or not self._writes):
            self._in_a_row += 1
            return self._reads.popleft()
        self._in_a_row = 0
        return self._writes.popleft()

    def __len__(self) -> int:
        return len(self._reads) + len(self._writes)
