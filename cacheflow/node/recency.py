"""RecencyBuffer: uses counted by local reads, kept until they are sent through the log.

A local read must not touch the replicated order. It notes its key here: a small, lossy buffer of the latest uses. It
goes with the next batch of writes, each key once with its count, in order of last use; it is unnumbered and never sent
again, because a lost use only costs hit ratio. (BuildBuddy batches access times through Raft alike; Caffeine drains a
read buffer in batches.)
"""

from __future__ import annotations

from collections import Counter, deque

# The most keys that travel in one entry; of more, the least recently used are dropped. Each is somewhere else in memory: among a
# million, 256 take as long as a thousand writes of keys that were just written.
KEYS_MAX = 256
# The most uses that are kept: a cache that is only read, and not nearly full, sends none, and must not grow with its reads.
NOTED_MAX = 8192


class RecencyBuffer:
    """A buffer of the keys of local reads, until ``drain`` empties it. Any thread may add keys; the event loop drains them.

    noted: these keys, one for each read.  note: adds the key of one read.  note_all: adds the keys of several reads, in order.
    Each of the two functions is one step in C, because adding keys is a good part of what a read costs.
    """

    __slots__ = ("note", "note_all", "noted")

    def __init__(self) -> None:
        self.noted: deque[str] = deque(maxlen=NOTED_MAX)
        self.note = self.noted.append
        self.note_all = self.noted.extend

    def drain(self) -> list[tuple[str, int]]:
        """Empty the buffer and return (key, number of uses) of each key that was in it, the least recently used first."""
        if not self.noted:
            return []
        uses = self.noted.copy()
        # What another thread notes in between is lost.
        self.noted.clear()
        counts = Counter(uses)
        latest = list(dict.fromkeys(reversed(uses)))[:KEYS_MAX]
        return [(key, counts[key]) for key in reversed(latest)]
