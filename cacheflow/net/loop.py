"""NodeLoop: the node's event loop, which handles clients' input last in each turn, and knows when a turn should end.

A client that was answered by one node and asks another finds what it has written there: the commit reached that node's
socket before the answer reached the client. But the kernel lists ready descriptors in an order of its own, so that the
client's question could be handled before the commit, whenever both have come since the loop last looked.

Whoever waits for the loop waits for all that is done in one turn, whoever has asked for it. So there is one budget of time for
a turn, TURN_S, and what can be put off looks whether that is used up (``budget``): entries behind the first one that a turn
applies (``raft/node.py``), long work behind its first step (``slices.py``), and more input of clients (``poller.py``).
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Final

from cacheflow.measuring.histogram import BUCKETS, Histogram

# Seconds after which a turn begins nothing more that can wait for the next turn.
TURN_S: Final = 0.004
# Stands for no descriptor at all.
_NONE = -1
# What each turn calls, found in one step: a turn may be one short request.
_select = selectors.DefaultSelector.select
_now = time.monotonic


class Budget:
    """The time limit of the present turn (one pass) of an event loop, and how long its turns have taken.

    ends: the moment, by the loop's clock, after which the turn should begin nothing more that can wait. It is a plain
    attribute, because it is read very often.
    turns: for how long each turn has held the loop.  Any thread may read it, and call ``age_s``.
    """

    __slots__ = ("began", "ends", "turns")

    def __init__(self) -> None:
        self.ends = 0.0
        # When the present turn began, by the loop's clock; 0 while the loop waits.
        self.began = 0.0
        self.turns = Histogram()

    def age_s(self) -> float:
        """Return for how many seconds the present turn has held the loop; 0 while the loop waits."""
        began = self.began
        return _now() - began if began else 0.0


class _ClientsLast(selectors.DefaultSelector):
    """A selector that lists the file descriptor ``last`` behind all others that are ready at the same time.

    A turn of the event loop begins when this selector returns, and ends when it is asked again.
    budget: the time limit of the turn, set anew each time.
    """

    last = _NONE
    budget: Budget

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        budget = self.budget
        if budget.began:
            # ``Histogram.note``, written out for the same reason.
            took_s, turns = _now() - budget.began, budget.turns
            bucket = int(took_s * 1e6).bit_length()
            turns.counts[bucket if bucket < BUCKETS else -1] += 1
            turns.sum_s += took_s
            budget.began = 0.0
        ready = _select(self, timeout)
        if len(ready) > 1:
            ready.sort(key=lambda item: item[0].fd == self.last)
        budget.began = began = _now()
        budget.ends = began + TURN_S
        return ready


class NodeLoop(asyncio.SelectorEventLoop):
    """asyncio's selector event loop, with one chosen file descriptor whose events it handles last in each turn."""

    # The clock of asyncio's own method, without the method: the loop and the node ask it several times a turn.
    time = staticmethod(_now)

    def __init__(self) -> None:
        self._order = _ClientsLast()
        self.budget = self._order.budget = Budget()
        super().__init__(self._order)

    def close(self) -> None:
        super().close()
        # The last turn has ended, and no other one follows.
        self.budget.began = 0.0

    def descriptors(self) -> list[int]:
        """Return the file descriptors that this event loop watches, and those of its own selector and wake-up sockets."""
        if self.is_closed():
            return []
        own = [end.fileno() for end in (self._ssock, self._csock) if end is not None]  # type: ignore[attr-defined]
        return [self._order.fileno(), *own, *list(self._order.get_map() or ())]

    def put_last(self, descriptor: int = _NONE) -> None:
        """From now on handle the events of the file descriptor ``descriptor`` last in each turn of the event loop.

        Without an argument no descriptor is last. That is needed before the chosen descriptor is closed, because the
        system may give its number to another file.
        """
        self._order.last = descriptor
