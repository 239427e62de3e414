"""Virtual time: a heap of things to do, and one event loop per process on top of it.

Nothing here sleeps or looks at a real clock. Events of the same moment run in the order in which they were scheduled,
so that one seed gives one history.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Call = Callable[..., Any]


class Scheduler:
    """The time of the whole simulation, in seconds. It begins at 1,000: 0 is a time that code may treat as "never"."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events = 0
        self._heap: list[tuple[float, int, ProcessLoop | None, Call, tuple[Any, ...]]] = []
        self._sequence = 0

    def at(self, delay: float, call: Call, *args: Any, owner: ProcessLoop | None = None) -> None:
        """Call after ``delay`` seconds; when ``owner`` is dead by then never, when it is paused once it goes on."""
        self._sequence += 1
        heappush(self._heap, (self.now + delay, self._sequence, owner, call, args))

    def run_until(self, end: float, until: Callable[[], bool] | None = None) -> bool:
        """Run what is due up to the time ``end``; stops early, returning True, when ``until`` holds after an event."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            moment, _, owner, call, args = heappop(heap)
            if moment > self.now:
                self.now = moment
            self.events += 1
            if owner is None:
                call(*args)
            elif owner.alive:
                if owner.paused:
                    owner.backlog.append((call, args))
                else:
                    call(*args)
                    owner.after()
            if until is not None and until():
                return True
        self.now = max(self.now, end)
        return until is not None and until()


class ProcessLoop:
    """The event loop of one process, with the clock of its machine.

    offset_s: its monotonic clock minus the simulation's; no two machines count from the same moment.
    after: called after every callback that ran.
    """

    def __init__(self, scheduler: Scheduler, offset_s: float, after: Callable[[], None]) -> None:
        self.alive = True
        self.paused = False
        self.after = after
        self.backlog: list[tuple[Call, tuple[Any, ...]]] = []
        self._scheduler = scheduler
        self._offset_s = offset_s

    def time(self) -> float:
        """The process's monotonic clock."""
        return self._scheduler.now + self._offset_s

    def call_soon(self, call: Call, *args: Any) -> None:
        """In the next turn."""
        self._scheduler.at(0.0, call, *args, owner=self)

    def call_later(self, delay: float, call: Call, *args: Any) -> None:
        """After ``delay`` seconds."""
        self._scheduler.at(delay, call, *args, owner=self)

    def pause(self) -> None:
        """As SIGSTOP, a stalled virtual machine or a long garbage collection do."""
        self.paused = True

    def resume(self) -> None:
        """Everything that came due meanwhile happens now, in its order."""
        self.paused = False
        backlog, self.backlog = self.backlog, []
        for call, args in backlog:
            self._scheduler.at(0.0, call, *args, owner=self)

    def kill(self) -> None:
        """Nothing of this process runs any more."""
        self.alive = False
        self.backlog.clear()
