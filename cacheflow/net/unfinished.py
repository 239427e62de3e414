"""Unfinished: what clients have sent of requests that are not complete, of all fronts together, and who has to wait for it.

A request is carried out when all of it is there, so a client that sends the half of a large one and stops costs what it has sent.
Each front tells how much of each connection's input is unfinished. When all of it comes to a limit, connections with much of it
are not read further, except for one that has the turn, so that uploads end one after the other. Those that wait are read again,
the oldest first, as others end. As long as anybody waits, who sends nothing is ended soon, and who does not come to an end is
ended as well, so nobody keeps the turn, or room, for nothing. Short requests are not counted and never wait.
"""

from __future__ import annotations

import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeVar

# Unfinished bytes of all connections from which on those with much of it wait for each other.
UNFINISHED_BYTES_MAX: Final = 64 * 1024 * 1024
# The fewest unfinished bytes of a connection that count: most requests are shorter, and none of these ever waits.
COUNTED_BYTES_MIN: Final = 64 * 1024
# Seconds that a client may send nothing of a long request while others have to wait.
SILENT_S: Final = 2.0
# Seconds that a long request may take while others have to wait, however much comes of it: as many as any request has that is
# not a transaction.
LONG_S: Final = 30.0

# The event of a socket whose client sends no more, also on systems that cannot tell of it.
_HANG_UP: Final = getattr(select, "POLLRDHUP", 0)


class Holder(Protocol):
    """Interface: a connection that may hold unfinished input (a part of a request).

    unfinished_bytes: the bytes of unfinished input that it has reported to the node's budget.
    came_s: when input came last, or was seen to be unread, or the connection was allowed again to read.
    waits: True while the connection may read no more. Only the budget (class Unfinished) sets these three.
    """

    unfinished_bytes: int
    came_s: float
    waits: bool

    def read_on(self) -> None:
        """Go on reading this connection's input, which had to wait because the node had too many unfinished requests.

        Any thread may call it.
        """


H = TypeVar("H", bound=Holder)


class Unfinished:
    """The budget of unfinished input: the bytes that a node's clients have sent of requests that are not complete.

    Any thread may use it. clock: returns seconds.
    crowded: True if a connection has to wait before it may read more of its request, or would have to if more came. Some
    may wait although the budget has a little room: that is kept for the oldest one, whose request may be nearly complete.
    """

    def __init__(self, bytes_max: int = UNFINISHED_BYTES_MAX, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        # An attribute, because the HTTP server looks at it in every turn.
        self.crowded = False
        self.ended = 0
        self._clock = clock
        # The connections that count, the oldest first, and since when they do; the number of those that wait; the one that goes
        # on although all is full.
        self._line: OrderedDict[Holder, float] = OrderedDict()
        self._waiting = 0
        self._turn: Holder | None = None
        self._lock = threading.Lock()  # guards the sum, the line and all that stands in it

    @property
    def full(self) -> bool:
        """True if all clients' connections together keep as many bytes of incomplete requests as they may."""
        return self.bytes >= self.bytes_max

    def tell(self, holder: Holder, size: int) -> None:
        """Note that the connection ``holder`` keeps ``size`` bytes of unfinished input (a part of a request) now.

        Sets ``holder.waits`` if the connection may read no more. Called by the thread that serves the connection.
        """
        if size < COUNTED_BYTES_MIN:
            size = 0
        with self._lock:
            self.bytes += size - holder.unfinished_bytes
            holder.unfinished_bytes = size
            holder.came_s = self._clock()
            if size:
                self._line.setdefault(holder, holder.came_s)
                if self.full and not holder.waits:
                    if self._turn is None:
                        self._turn = holder
                    elif self._turn is not holder:
                        holder.waits = True
                        self._waiting += 1
            else:
                self._line.pop(holder, None)
                self._waiting -= holder.waits
                holder.waits = False
                if self._turn is holder:
                    self._turn = None
            called = self._call() if self._waiting else []
            self.crowded = self.full or self._waiting > 0
        for other in called:
            other.read_on()

    def hasten(self, holder: Holder) -> None:
        """Let the waiting connection ``holder`` read again: its client sends no more, so that its input soon ends."""
        with self._lock:
            if not holder.waits:
                return
            self._turn = holder
            self._end_waiting(holder)
            self.crowded = self.full or self._waiting > 0
        holder.read_on()

    def _call(self) -> list[Holder]:
        """Let as many waiting connections read again as the budget of unfinished input has room for; return these connections.

        The oldest come first. Without room one connection may still read, so that its request can end: the oldest, unless
        another is allowed to already.
        """
        called: list[Holder] = []
        room = self.bytes_max - self.bytes
        for holder in self._line:
            if room <= 0 and (called or self._turn is not None):
                break
            if holder.waits:
                if room <= 0:
                    self._turn = holder
                self._end_waiting(holder)
                called.append(holder)
                # What it has sent meanwhile, which comes before it can be told to wait again.
                room -= COUNTED_BYTES_MIN
        return called

    def _end_waiting(self, holder: Holder) -> None:
        holder.waits = False
        holder.came_s = self._clock()
        self._waiting -= 1

    def has_stayed(self, holder: Holder, now_s: float) -> bool:
        """True if the connection ``holder`` has had much unfinished input (parts of requests) for LONG_S seconds or more."""
        return now_s - self._line.get(holder, now_s) >= LONG_S

    def overdue(self, holders: Iterable[H], now_s: float) -> Iterator[H]:
        """Yield those of ``holders``, connections of one server, that are to be ended now, the longest silent first.

        These are connections of which nothing was read for SILENT_S, or that have had unfinished input for LONG_S; as many as
        it takes to bring all unfinished input down to half of the limit. Before the caller ends a silent one it checks that no
        unread input has come, and otherwise spares it. The caller counts the connections it ends in the attribute ``ended``.
        """
        if not self.crowded:
            return
        late = [holder for holder in holders if self._is_late(holder, now_s)]
        for holder in sorted(late, key=lambda holder: holder.came_s):
            if self.bytes <= self.bytes_max // 2:
                return
            # One that was ended before may have made room for this one.
            if self._is_late(holder, now_s):
                yield holder
                # If the front has spared it, something has come: so it is not looked at again and again.
                holder.came_s = now_s

    def _is_late(self, holder: Holder, now_s: float) -> bool:
        return holder.unfinished_bytes > 0 and (now_s - holder.came_s >= SILENT_S or self.has_stayed(holder, now_s))


def has_input(descriptor: int) -> bool:
    """True if something, or the end of the input, has come on the socket ``descriptor`` and is not read yet."""
    return _is_told(descriptor, select.POLLIN)


def has_ended(descriptor: int) -> bool:
    """True if the other end of the socket ``descriptor`` has said that it sends no more, or the connection is broken."""
    return _is_told(descriptor, _HANG_UP)


def _is_told(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))
