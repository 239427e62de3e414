"""How much may be logged: no peer, no client and no defect fills a disk with lines.

One place in the program writes BURST lines in EVERY_S seconds at most; the rest is counted, and the count is told. Of the level
debug all lines are written: somebody has asked for them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

BURST: Final = 20
EVERY_S: Final = 10.0


class _Place:
    """A place in the program that logs: what it has logged within the present EVERY_S seconds.

    until_s: when they end.  lines: those that were let through, or not.  left_out: those not let through since that was told.
    """

    __slots__ = ("left_out", "lines", "text", "until_s")

    def __init__(self) -> None:
        self.until_s = float("-inf")
        self.lines = 0
        self.left_out = 0
        self.text = ""


class Bounded(logging.Filter):
    """Lets BURST lines of each place in the program through in EVERY_S seconds. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()  # guards the places
        self._places: defaultdict[tuple[str, int], _Place] = defaultdict(_Place)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line ``record`` may be written."""
        if record.levelno <= logging.DEBUG:
            return True
        now_s = self._clock()
        with self._lock:
            place = self._places[record.pathname, record.lineno]
            if now_s >= place.until_s:
                place.until_s, place.lines = now_s + EVERY_S, 0
            place.lines += 1
            if place.lines <= BURST:
                return True
            place.left_out += 1
            place.text = str(record.msg)
            return False

    def left_out(self) -> list[tuple[int, str]]:
        """Return (lines, text) of each place of which lines were left out, once its EVERY_S seconds are over."""
        now_s = self._clock()
        with self._lock:
            over = {key: place for key, place in self._places.items() if now_s >= place.until_s}
            for key in over:
                del self._places[key]
        return [(place.left_out, place.text) for place in over.values() if place.left_out]
