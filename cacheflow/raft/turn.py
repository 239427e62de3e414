"""Turn: what should happen once at the end of the present turn of the event loop.

A system call costs more than everything else that a node does for an entry, and with other threads in the process each
one may cost it its place. So what one turn appends is one flush, and what it sends to a peer is one write; and both leave
at the end of that turn itself, not in another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

STUMBLED = "the end of a turn stumbled"


class Turn:
    """Not safe for concurrent use: the event loop owns it."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], Any]) -> None:
        self.is_open = False
        self._call_soon = call_soon
        self._at_end: list[Callable[[], None]] = []
        self._behind: list[Callable[[], None]] = []
        # A dictionary for its order: what is asked for twice is done once.
        self._last: dict[Callable[[], None], None] = {}

    def defer(self, call: Callable[[], None]) -> None:
        """Do ``call`` at the end of the turn; soon, when none is open."""
        if self.is_open:
            self._at_end.append(call)
        else:
            self._call_soon(call)

    def defer_behind(self, call: Callable[[], None]) -> None:
        """The same, behind all that was deferred so: for what hands work to a thread.

        That thread wants the interpreter next, and whatever this one still has to send would wait for it.
        """
        if self.is_open:
            self._behind.append(call)
        else:
            self._call_soon(call)

    def defer_last(self, call: Callable[[], None]) -> None:
        """Once, after everything else: for what wakes a thread, which would take the interpreter from this one."""
        if self.is_open:
            self._last[call] = None
        else:
            call()

    def run(self, work: Callable[[], None]) -> None:
        """Do ``work`` as a turn, or as a part of the one that is open."""
        if self.is_open:
            work()
            return
        self.is_open = True
        try:
            work()
        finally:
            while True:
                if self._at_end:
                    calls, self._at_end = self._at_end, []
                elif self._behind:
                    calls, self._behind = self._behind, []
                else:
                    break
                # Written out, not called: this is on the way of every entry.
                for call in calls:
                    try:
                        call()
                    except Exception:
                        logger.exception(STUMBLED)
            self.is_open = False
            if self._last:
                last, self._last = self._last, {}
                _do(last)


def _do(calls: Iterable[Callable[[], None]]) -> None:
    """Make every call: one that fails must not take the others, nor the turns to come, with it."""
    for call in calls:
        try:
            call()
        except Exception:
            logger.exception(STUMBLED)
