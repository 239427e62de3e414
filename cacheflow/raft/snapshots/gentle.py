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
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

# Seconds of processor time for which the process is an ordinary one still: short work is done by then, whatever others do.
ORDINARY_S: Final = 1.0
# Seconds of processor time between two rests.
WORK_S: Final = 0.02
# How long it rests, in seconds for each second in which others had the processor, and at most.
RESTS: Final = 3.0
REST_S_MAX: Final = 0.2
# The process has no time if it could work for less than this part of the last seconds, its rests and waits for the disk not
# counted. With nice 10 it has about as much even where nothing is idle.
STARVED_SHARE: Final = 0.1
STARVED_S: Final = 10.0
# Seconds after which the work is to be done by a process that insists: half of what it may take (helper_process.py).
GENTLE_S_MAX: Final = 1800.0
# Linux tells here for how many nanoseconds the process has worked, and has waited for a processor.
SCHEDSTAT: Final = Path("/proc/self/schedstat")


class Gentle:
    """Makes this process gentle once it has worked for ORDINARY_S: a context manager around the work, in the main thread.

    give_up: called, in the midst of the work, when others have left this process no time for STARVED_S, or it takes too long.
    """

    def __init__(self, give_up: Callable[[], object]) -> None:
        self._give_up = give_up
        self._began_s = 0.0
        self._rested_s = 0.0
        # How long it had waited for a processor when it rested last; and how long it had worked and waited at the last look.
        self._at_rest_s = 0.0
        self._at_look_s = 0.0, 0.0

    def __enter__(self) -> Gentle:
        signal.signal(signal.SIGPROF, self._begin)
        signal.setitimer(signal.ITIMER_PROF, ORDINARY_S, WORK_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)

    def _begin(self, signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(AttributeError, OSError):  # Linux alone has it, and a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        self._began_s = time.monotonic()
        self._at_rest_s = self._waited_s()
        self._at_look_s = time.process_time(), self._at_rest_s
        signal.signal(signal.SIGPROF, self._rest)
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, STARVED_S, STARVED_S)

    def _waited_s(self) -> float:
        """Return for how many seconds others have had the processor that this process wanted, from any moment on."""
        try:
            return int(SCHEDSTAT.read_bytes().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            # Waits for the disk count too where the system does not tell.
            return time.monotonic() - time.process_time() - self._rested_s

    def _rest(self, signum: int, frame: FrameType | None) -> None:
        waited_s = self._waited_s()
        rest_s = min(max((waited_s - self._at_rest_s) * RESTS, 0.0), REST_S_MAX)
        self._at_rest_s = waited_s
        self._rested_s += rest_s
        time.sleep(rest_s)

    def _look(self, signum: int, frame: FrameType | None) -> None:
        worked_s, waited_s = time.process_time(), self._waited_s()
        work_s, wait_s = worked_s - self._at_look_s[0], waited_s - self._at_look_s[1]
        self._at_look_s = worked_s, waited_s
        if work_s < (work_s + wait_s) * STARVED_SHARE or time.monotonic() - self._began_s >= GENTLE_S_MAX:
            self._give_up()
