"""Ticks: decides when a Raft node does its work.

A message, a proposal or a finished flush *nudges* the node: it advances once, at the end of the present turn of the loop.
Whatever may change a role, the route or the membership *wakes* it: the next time it does a whole tick, which looks at
everything.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from cacheflow.raft.seams import Loop
from cacheflow.raft.turn import Turn


class Ticks:
    """The schedule of a node's ``tick``, its Raft work: at the end of each turn of the loop in which something happened."""

    def __init__(self, loop: Loop, turn: Turn, tick: Callable[[], None]) -> None:
        # Whether the next tick must be a whole one.
        self.whole = True
        # Whether a tick is under way.
        self.is_running = False
        self.stopped = False
        self._loop = loop
        self._turn = turn
        self._tick = tick
        # Whether a tick is due, and whether one follows in the present turn anyway.
        self._woken = False
        self._ahead = False

    def stop(self) -> None:
        """Stop the schedule of a node's Raft work, its ticks: no tick is run any more."""
        self.stopped = True

    def wake(self) -> None:
        """Schedule the node's whole Raft work, with elections, at the end of this turn of the loop or in the next turn."""
        self.whole = True
        self.nudge()

    def nudge(self) -> None:
        """Schedule the node's tick, its Raft work, at the end of this turn of the loop or in the next turn.

        The tick leaves out elections, unless a whole tick is due.
        """
        if not self._woken and not self.stopped:
            self._woken = True
            if self.is_running:
                # Other callbacks of the loop come first.
                self._loop.call_soon(self._tick_if_due)
            elif not self._ahead:
                self._turn.defer_send(self._tick_if_due)

    def run(self, work: Callable[[], None]) -> None:
        """Call the function ``work``, then do the node's Raft work, both in one turn, at whose end they flush and send."""
        if self._turn.is_open:
            work()
            self.nudge()
        else:
            self._turn.run(functools.partial(self._work_and_tick, work))

    def wake_after(self, seconds: float) -> None:
        """Schedule a whole tick of the node (its Raft work, with elections) in ``seconds``.

        For what cannot wait for the next heartbeat, with which a whole tick comes anyway.
        """
        self._loop.call_later(seconds, self.wake)

    def nudge_after(self, seconds: float) -> None:
        """Schedule the node's tick, its Raft work, in ``seconds``: without elections, unless a whole tick is due by then."""
        self._loop.call_later(seconds, self.nudge)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have the function ``call`` called in ``seconds``, in a turn of the event loop of its own."""
        self._loop.call_later(seconds, self._turn.run, call)

    def _tick_if_due(self) -> None:
        if self._woken:
            self._turn.run(self._tick_now)

    def _work_and_tick(self, work: Callable[[], None]) -> None:
        self._ahead = True
        try:
            work()
        finally:
            self._tick_now()

    def _tick_now(self) -> None:
        self._ahead = False
        if not self.stopped:
            self._woken = False
            self.is_running = True
            try:
                self._tick()
            finally:
                self.is_running = False
