"""Long work for clients: done half a millisecond a turn of the event loop (Slices), or beside it in a thread with Breaks.

The node's loop also serves peers, and a leader that is silent for long is deposed. So whatever a client asks for that may take
long asks ``over`` from time to time, and when that is true has itself called in the next turn (``put``). The slice of a turn is
for all clients together, and for what is published to them: a hundred who list all keys take no more of the loop than one. It
comes last in a turn and gets what the turn has left of its time (``loop.py``); one step is done in any case.

What a thread beside the loop does in Python keeps the loop waiting as well: for 5 ms whenever the loop wants the interpreter,
which it gives away with each call to the system, four times for the shortest request. So a thread that works long gives way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cacheflow.net.loop import NodeLoop

# The most seconds of one turn for all long work: whoever comes meanwhile waits for it.
SLICE_S: Final = 0.0005
# Seconds after which a thread beside the loop lets it have the interpreter, and for which it sleeps then: less would be over
# before the loop's thread has woken up.
BREAK_EVERY_S: Final = 0.0005
BREAK_S: Final = 0.00005

Call = Callable[[], object]


def _soon(call: Call) -> None:
    # Timers come behind what has been called for soon, and behind what the loop was told of: so the call is the next turn's last.
    asyncio.get_running_loop().call_later(0.0, call)


def _turn_ends() -> float:
    loop = asyncio.get_running_loop()
    return loop.budget.ends if isinstance(loop, NodeLoop) else math.inf


class Slices:
    """The slice of time that long work may take in each turn of the event loop, and a queue of the work for later turns.

    clock: returns seconds.  soon: calls its argument at the end of the next turn of the loop.  turn_ends: returns the time at
    which the present turn should end.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        soon: Callable[[Call], object] = _soon,
        turn_ends: Callable[[], float] = _turn_ends,
    ) -> None:
        self._clock = clock
        self._soon = soon
        self._turn_ends = turn_ends
        # When this turn's slice ends, 0 as long as it has not begun; and whether anybody has asked in this turn.
        self._until = 0.0
        self._asked = False
        self._waiting: deque[Call] = deque()

    def over(self) -> bool:
        """True if the time for long work in this turn of the event loop is used up: such work has to wait for a later turn."""
        if self._asked:
            return self._clock() >= self._until
        # The first work that asks in a turn may go on, however slow the turn is: so some work is done in each.
        self._asked = True
        if not self._until:
            self._begin()
        return False

    def put(self, call: Call) -> None:
        """Have the function ``call`` called in a later turn of the event loop, after the functions that wait already."""
        self._waiting.append(call)
        if not self._until:
            self._begin()

    def _begin(self) -> None:
        self._until = min(self._clock() + SLICE_S, self._turn_ends())
        self._soon(self._next)

    def _next(self) -> None:
        """In a new turn of the event loop, call the waiting functions in order until the time for long work is used up."""
        self._until = 0.0
        self._asked = False
        waiting = self._waiting
        if not waiting:
            return
        # Now, and not when the first call asks whether the slice is over: that may have taken long by then.
        self._begin()
        # A call that waits again comes behind all others, and in the next turn.
        for _ in range(len(waiting)):
            waiting.popleft()()
            if self._clock() >= self._until:
                break


class Breaks:
    """An object that makes short pauses in a thread that works for long, to give Python's interpreter lock to an event loop.

    To be used by one thread. clock: returns seconds.  sleep: sleeps for so many seconds without the lock.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._since = clock()

    def give_way(self) -> None:
        """Let the event loop have Python's interpreter lock if this thread has kept the lock for BREAK_EVERY_S seconds.

        To be called often.
        """
        if self._clock() - self._since >= BREAK_EVERY_S:
            self._sleep(BREAK_S)
            self._since = self._clock()
