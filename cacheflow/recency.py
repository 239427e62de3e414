"""Uses counted by local reads, until they travel to the log.

A local read must not touch the replicated order. It notes its key here: a small, lossy, deduplicated buffer in order of
last use. The buffer goes with the next batch of writes; it is unnumbered and never sent again, because a lost use only
costs hit ratio. (BuildBuddy batches access times through Raft alike; Caffeine drains a read buffer in batches.)
"""

from __future__ import annotations

# As many keys as one entry should carry; past it the oldest are dropped.
KEYS_MAX = 1024
# A cache that is only read, and not nearly full, sends nothing: the buffer must not grow to all of its keys.
NOTED_MAX = 8 * KEYS_MAX


class RecencyBuffer:
    """Any thread may note; the event loop drains."""

    __slots__ = ("_uses",)

    def __init__(self) -> None:
        self._uses: dict[str, int] = {}

    def note(self, key: str) -> None:
        """A read used ``key``. Two threads at once may lose a count, never more."""
        uses = self._uses
        uses[key] = uses.pop(key, 0) + 1
        if len(uses) > NOTED_MAX:
            self._uses = dict(list(uses.copy().items())[-KEYS_MAX:])

    def __len__(self) -> int:
        return len(self._uses)

    def drain(self) -> list[tuple[str, int]]:
        """Everything noted since the last time, the least recently used first."""
        if not self._uses:
            return []
        uses, self._uses = self._uses, {}
        # A thread that still holds the old dictionary may grow it: copy before looking.
        return list(uses.copy().items())[-KEYS_MAX:]
