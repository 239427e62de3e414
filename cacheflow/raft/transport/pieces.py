"""Pieces: large messages that come piece by piece, and what all of them together may take of the memory.

A message over the budget is lost, as messages may be: what has come of it is dropped and what still comes is passed over, while
its connection goes on. So whoever has too much on its way is heard all the same.

1. What strangers send never takes the place of what members send.
2. Of equals the one that came last is dropped, and before it one that has not grown for STALLED_S: so the oldest is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# An unfinished message that has not grown for this long makes room for others: a link that stands still so long has ended.
STALLED_S: Final = 3.0


class Budget:
    """The bytes that the unfinished messages of all connections may have together. The event loop owns it.

    clock: monotonic seconds.  dropped: called with a message that was dropped, and its bytes.
    """

    def __init__(self, bytes_max: int, clock: Callable[[], float], dropped: Callable[[Pieces, int], None]) -> None:
        self.held_bytes = 0
        self.clock = clock
        self._bytes_max = bytes_max
        self._dropped = dropped
        # The messages that are held, in the order in which they began.
        self._unfinished: dict[Pieces, None] = {}

    def make_room(self, asking: Pieces, count: int) -> bool:
        """Take ``count`` bytes into account; returns False when it is ``asking`` itself that had to be dropped for them."""
        self._unfinished[asking] = None
        while self.held_bytes + count > self._bytes_max:
            victim = self._victim()
            self._dropped(victim, victim.held_bytes)
            victim.drop()
            if victim is asking:
                return False
        self.held_bytes += count
        return True

    def release(self, pieces: Pieces) -> None:
        """Forget a message that is complete, was dropped, or whose connection has ended."""
        if pieces in self._unfinished:
            del self._unfinished[pieces]
            self.held_bytes -= pieces.held_bytes

    def _victim(self) -> Pieces:
        now_s = self.clock()
        worst, worst_rank = None, (False, False)
        for pieces in self._unfinished:
            rank = (not pieces.from_member(), now_s - pieces.grown_at_s > STALLED_S)
            if worst is None or rank >= worst_rank:
                worst, worst_rank = pieces, rank
        assert worst is not None
        return worst


class Pieces:
    """The unfinished message of one connection, of which there is one at a time. The event loop owns it.

    limit: the bytes that it may have.  sender: a node's id.  from_member: whether that is a member now.
    """

    def __init__(self, limit: int, budget: Budget, sender: str, from_member: Callable[[], bool]) -> None:
        self.limit = limit
        self.sender = sender
        self.from_member = from_member
        self.grown_at_s = 0.0
        self._budget = budget
        self._parts = bytearray()
        # The bytes of the message so far, kept or not.
        self._size = 0
        self._is_dropped = False

    @property
    def held_bytes(self) -> int:
        """The bytes that are kept of the message."""
        return len(self._parts)

    def add(self, piece: memoryview) -> int:
        """Take the next piece and return the bytes of the message so far; over the limit nothing is kept."""
        self._size += len(piece)
        if self._size <= self.limit and not self._is_dropped:
            self.grown_at_s = self._budget.clock()
            if self._budget.make_room(self, len(piece)):
                self._parts += piece
        return self._size

    def take(self) -> bytearray | None:
        """Return the message, whose last piece has come; None when it was dropped. The next one may begin."""
        dropped, whole = self._is_dropped, self._parts
        self.drop()
        self._size, self._is_dropped = 0, False
        return None if dropped else whole

    def drop(self) -> None:
        """Keep nothing of the message, neither what has come nor what comes."""
        self._budget.release(self)
        self._parts = bytearray()
        self._is_dropped = True
