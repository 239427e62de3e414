"""The turns of an event loop, made by hand, with a clock that is moved by work alone."""

from __future__ import annotations

import math
import sys
from collections import deque
from types import FrameType
from typing import Any

from cacheflow.net.slices import Call, Slices

# What one call of a function, Python's or C's, takes by the clock of ``Turns``; about as much as it takes on a fast machine.
CALL_S = 0.0000005


def endless() -> Slices:
    """For conversations without a loop: no slice is ever over."""
    return Slices(lambda: 0.0, lambda call: None, lambda: math.inf)


class Turns:
    """longest: the most calls of functions that one turn took so far; what a single call of C does is not seen."""

    def __init__(self) -> None:
        self.slices = Slices(self.clock, self._soon, lambda: math.inf)
        self.longest = 0
        self.made = 0
        self._calls = 0
        self._waiting: deque[Call] = deque()

    def clock(self) -> float:
        """Seconds, by the calls so far."""
        return 1 + self._calls * CALL_S

    def _soon(self, call: Call) -> None:
        self._waiting.append(call)

    def turn(self, call: Call) -> None:
        """One turn of the loop: ``call``, and what an earlier turn has put off."""
        due = [*self._waiting]
        self._waiting.clear()
        before = self._calls
        sys.setprofile(self._count)
        try:
            for each in (*due, call):
                each()
        finally:
            sys.setprofile(None)
        self.made += 1
        self.longest = max(self.longest, self._calls - before)

    def until_idle(self, turns_max: int = 100_000) -> None:
        """Make turns until nothing is put off."""
        while self._waiting:
            assert self.made < turns_max
            self.turn(lambda: None)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self._calls += 1
