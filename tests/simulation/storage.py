"""The writer of one process over its machine's disk: slow, in order, and interrupted by crashes at any point."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from fakes.disk import FakeDisk
from simulation.scheduler import ProcessLoop

T = TypeVar("T")


class MachineDisk(FakeDisk):
    """The disk of one machine."""

    def forget_failures(self) -> None:
        """What was to fail works again."""
        self._failures.clear()


class SimWriter:
    """Runs submitted work one piece after the other; each takes ``latency_s`` (least, most)."""

    def __init__(self, loop: ProcessLoop, disk: FakeDisk, random: Random, latency_s: tuple[float, float]) -> None:
        self.latency_s = latency_s
        self._loop = loop
        self._disk = disk
        self._random = random
        self._work: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._busy = False

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run ``work`` some time later, then ``done`` on the loop."""
        self._work.append((work, done))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        low, high = self.latency_s
        part = self._random.random()
        self._loop.call_later(low + (high - low) * part * part, self._finish)

    def _finish(self) -> None:
        work, done = self._work.popleft()
        outcome: Any
        try:
            outcome = work()
        except Exception as error:
            outcome = error
        if self._work:
            self._begin()
        else:
            self._busy = False
        done(outcome)

    def interrupt(self) -> None:
        """The process is killed: the piece under way is not begun, half done, or done without anybody hearing of it."""
        if not self._work or self._random.random() < 0.3:
            return
        if self._random.random() < 0.6:
            operation = self._random.choice(("write", "sync", "sync", "rename", "sync_directory"))
            self._disk.fail(operation, OSError("the process was killed"))
        try:
            self._work[0][0]()
        except Exception:
            return
