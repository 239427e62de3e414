"""Uses counted by local reads, until they travel to the log.

A local read must not touch the replicated order. It notes its key here: a small, lossy buffer of the latest uses. It
goes with the next batch of writes, each key once with its count, in order of last use; it is unnumbered and never sent
again, because a lost use only costs hit ratio. (BuildBuddy batches access times through Raft alike; Caffeine drains a
read buffer in batches.)
"""

from __future__ import annotations

from collections import Counter, deque

# As many keys as one entry should carry; past it the oldest are dropped.
KEYS_MAX = 1024
# A cache that is only read, and not nearly full, sends nothing: the buffer must not grow with its reads.
NOTED_MAX = 8 * KEYS_MAX


class RecencyBuffer:
    """Any thread may note; the event loop drains.

    noted: the keys read since the last time, one by one.  note: a read used this key.  note_all: reads used these, in this
    order. Both are one step in C: noting is a good part of what a read costs.
    """

    __slots__ = ("note", "note_all", "noted")

    def __init__(self) -> None:
        # The latest uses, one by one.
        self.noted: deque[str] = deque(maxlen=NOTED_MAX)
        self.note = self.noted.append
        self.note_all = self.noted.extend

    def drain(self) -> list[tuple[str, int]]:
        """Everything noted since the last time, the least recently used first."""
        if not self.noted:
            return []
        uses = self.noted.copy()
        # What another thread notes in between is lost.
        self.noted.clear()
        counts = Counter(uses)
        latest = list(dict.fromkeys(reversed(uses)))[:KEYS_MAX]
        return [(key, counts[key]) for key in reversed(latest)]
