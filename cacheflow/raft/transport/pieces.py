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
    """A limit on the bytes of the unfinished messages of all connections together. The event loop owns it.

    clock: returns monotonic seconds.  dropped: called with a message that was dropped, and its number of bytes.
    """

    def __init__(self, bytes_max: int, clock: Callable[[], float], dropped: Callable[[Pieces, int], None]) -> None:
        self.held_bytes = 0
        self.clock = clock
        self._bytes_max = bytes_max
        self._dropped = dropped
        # The messages that are held, in the order in which they began.
        self._unfinished: dict[Pieces, None] = {}

    def make_room(self, asking: Pieces, count: int) -> bool:
        """Make room for ``count`` more bytes of the unfinished message ``asking``, by dropping unfinished messages.

        Returns False when ``asking`` itself was dropped.
        """
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
        """Free the bytes of ``pieces``, a message that is complete or was dropped, or whose connection has ended."""
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
    """The unfinished message of one connection, put together from pieces; one at a time. The event loop owns it.

    limit: the most bytes that the message may have.  sender: the id of the node that sends it.  from_member: returns whether
    that node is a member now.
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
        """The number of bytes that the pieces of the unfinished message take in memory."""
        return len(self._parts)

    def add(self, piece: memoryview) -> int:
        """Add the next piece of the message; return how many bytes of the message have come so far, dropped ones included.

        When the message is larger than allowed, no further piece is kept.
        """
        self._size += len(piece)
        if self._size <= self.limit and not self._is_dropped:
            self.grown_at_s = self._budget.clock()
            if self._budget.make_room(self, len(piece)):
                self._parts += piece
        return self._size

    def take(self) -> bytearray | None:
        """Return the message that the pieces make up, whose last one has come; None when it was dropped.

        The next message may begin then.
        """
        dropped, whole = self._is_dropped, self._parts
        self.drop()
        self._size, self._is_dropped = 0, False
        return None if dropped else whole

    def drop(self) -> None:
        """Drop the unfinished message: keep neither the pieces that have come nor those that still come."""
        self._budget.release(self)
        self._parts = bytearray()
        self._is_dropped = True
