"""How a process that works beside a node for long leaves the processor to everybody else, the node first.

Nodes wait for each other most of the time: what is between two of their turns looks free, and a process that takes all of that
slows them, even if each of them gets the core whenever it wakes. So a gentle process has only the time that nobody else wants
(SCHED_IDLE), and rests longer than it was kept waiting for it, RESTS times as long. Where nobody else works it never rests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

# Seconds of processor time for which the process is an ordinary one still: short work is done by then, whatever others do.
ORDINARY_S: Final = 1.0
# Seconds of processor time between two rests.
WORK_S: Final = 0.02
# How long it rests, in seconds for each second in which others had the processor, and at most.
RESTS: Final = 1.5
REST_S_MAX: Final = 0.2
# A process has no time if it has had less than this part of a core for so many seconds, its rests not counted. With nice 10 it
# has about as much even where nothing is idle.
STARVED_SHARE: Final = 0.1
STARVED_S: Final = 10.0


class Gentle:
    """Makes this process gentle once it has worked for ORDINARY_S; to be made in the main thread, where the work is done.

    starved: called, in the midst of the work, when others have left this process no time for STARVED_S.
    """

    def __init__(self, starved: Callable[[], object]) -> None:
        self._starved = starved
        # Since the last rest, and since the last look at how much time others leave it.
        self._rested_at_s = self._looked_at_s = 0.0
        self._worked_at_rest_s = self._worked_at_look_s = 0.0
        self._rested_s = 0.0
        signal.signal(signal.SIGPROF, self._begin)
        signal.setitimer(signal.ITIMER_PROF, ORDINARY_S, WORK_S)

    def _begin(self, signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(AttributeError, OSError):  # Linux alone has it, and a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        self._rested_at_s = self._looked_at_s = time.monotonic()
        self._worked_at_rest_s = self._worked_at_look_s = time.process_time()
        signal.signal(signal.SIGPROF, self._rest)
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, STARVED_S, STARVED_S)

    def _rest(self, signum: int, frame: FrameType | None) -> None:
        worked_s, now_s = time.process_time(), time.monotonic()
        waited_s = now_s - self._rested_at_s - (worked_s - self._worked_at_rest_s)
        rest_s = min(max(waited_s * RESTS, 0.0), REST_S_MAX)
        time.sleep(rest_s)
        self._rested_s += rest_s
        self._rested_at_s, self._worked_at_rest_s = time.monotonic(), time.process_time()

    def _look(self, signum: int, frame: FrameType | None) -> None:
        worked_s, now_s = time.process_time(), time.monotonic()
        since_s = now_s - self._looked_at_s - self._rested_s
        if worked_s - self._worked_at_look_s < since_s * STARVED_SHARE:
            self._starved()
        self._looked_at_s, self._worked_at_look_s, self._rested_s = now_s, worked_s, 0.0
