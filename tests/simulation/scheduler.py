"""Virtual time: a heap of things to do, and one event loop per process on top of it.

Nothing here sleeps or looks at a real clock. Events of the same moment run in the order in which they were scheduled,
so that one seed gives one history.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any

from cacheflow.net.loop import TURN_S

Call = Callable[..., Any]


class Scheduler:
    """The time of the whole simulation, in seconds. It begins at 1,000: 0 is a time that code may treat as "never"."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events = 0
        self._heap: list[tuple[float, int, ProcessLoop | None, Call, tuple[Any, ...]]] = []
        self._sequence = 0

    def at(self, delay: float, call: Call, *args: Any, owner: ProcessLoop | None = None) -> None:
        """Make a call after ``delay`` seconds: never if ``owner`` is dead then, later if it is paused."""
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
            else:
                owner.do(call, *args)
            if until is not None and until():
                return True
        self.now = max(self.now, end)
        return until is not None and until()


class Timer:
    """A call that was asked for, which may be taken back."""

    __slots__ = ("args", "call", "cancelled")

    def __init__(self, call: Call, args: tuple[Any, ...]) -> None:
        self.call = call
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        """Take the call back."""
        self.cancelled = True

    def run(self) -> None:
        """Make the call, unless it was taken back."""
        if not self.cancelled:
            self.call(*self.args)


class TurnBudget:
    """The time that the present turn of the loop has."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop

    @property
    def ends(self) -> float:
        """When the turn should end: in every third turn that is over already. No other turn of the moment has the same end."""
        turns = self._loop.turns
        return self._loop.time() + (TURN_S if turns % 3 else -TURN_S) - turns % 1000 * 1e-6


class ProcessLoop:
    """The event loop of one process, with the clock of its machine. It runs coroutines as asyncio's loops do.

    Calls are made in the order in which they come due, however often the process is busy or paused meanwhile: no system lets
    what has come later overtake.

    offset_s: its monotonic clock minus the simulation's; no two machines count from the same moment.
    rate: how fast it runs; no two machines agree on a second either.
    after: called after every callback that ran.
    """

    def __init__(self, scheduler: Scheduler, offset_s: float, rate: float, after: Callable[[], None]) -> None:
        self.alive = True
        self.paused = False
        self.after = after
        # The calls that have come due while the process could not make them, and whether ``_go_on`` is on its way for them.
        self._due: deque[tuple[Call, tuple[Any, ...]]] = deque()
        self._goes_on = False
        self._scheduler = scheduler
        self._offset_s = offset_s
        # How long the machine was suspended while this process ran; its monotonic clock stood still.
        self._suspended_s = 0.0
        self._paused_at_s = 0.0
        self._rate = rate
        # The time at which the process has done its present work; nothing else of it happens before.
        self._busy_until = 0.0
        # How many callbacks have run.
        self.turns = 0
        self.budget = TurnBudget(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        # What a task raised and nobody took.
        self.failed: BaseException | None = None

    def time(self) -> float:
        """Return the time of the process's monotonic clock."""
        return max(self._scheduler.now, self._busy_until) * self._rate + self._offset_s

    def passed(self) -> float:
        """Return the time of a clock that goes on while the machine is suspended."""
        return self.time() + self._suspended_s

    def do(self, call: Call, *args: Any) -> None:
        """Make a call now; behind those that wait if the process is busy or paused, never if it is dead."""
        if not self.alive:
            return
        if self._due or self.paused or self._busy_until > self._scheduler.now:
            self._due.append((call, args))
            self._go_on_soon()
        else:
            self._make(call, args)

    def _make(self, call: Call, args: tuple[Any, ...]) -> None:
        self.turns += 1
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        try:
            call(*args)
        finally:
            asyncio._set_running_loop(before)
        self.after()

    def _go_on_soon(self) -> None:
        """Make the calls that wait once the process has done its present work; those of a paused one wait for ``resume``."""
        if self._due and not self._goes_on and not self.paused:
            self._goes_on = True
            self._scheduler.at(max(0.0, self._busy_until - self._scheduler.now), self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        while self._due and not self.paused and self._busy_until <= self._scheduler.now:
            self._make(*self._due.popleft())
        self._go_on_soon()

    def work(self, seconds: float) -> None:
        """Keep the process busy for so many seconds with what it does at present."""
        self._busy_until = max(self._scheduler.now, self._busy_until) + seconds

    def call_soon(self, call: Call, *args: Any, context: object = None) -> Timer:
        """Make a call in the next turn."""
        timer = Timer(call, args)
        self._scheduler.at(0.0, timer.run, owner=self)
        return timer

    # No thread but the simulation's own ever asks.
    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, call: Call, *args: Any, context: object = None) -> Timer:
        """Make a call after ``delay`` seconds."""
        timer = Timer(call, args)
        self._scheduler.at(delay / self._rate, timer.run, owner=self)
        return timer

    def call_at(self, when: float, call: Call, *args: Any, context: object = None) -> Timer:
        """Make a call at a time of the process's clock."""
        return self.call_later(max(0.0, when - self.time()), call, *args)

    def create_future(self) -> asyncio.Future[Any]:
        """Do what asyncio's loops do."""
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do what asyncio's loops do."""
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_debug(self) -> bool:
        """Return False: debugging is off."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what a task or a future has raised and nobody took: a defect, unless its process has ended."""
        if self.alive and "exception" in context:
            self.failed = context["exception"]

    def pause(self) -> None:
        """Stop the process for a while, as SIGSTOP, a stalled virtual machine or a long garbage collection do."""
        self.paused = True
        self._paused_at_s = self._scheduler.now

    def resume(self, suspended: bool = False) -> None:
        """Let the process go on: what came due meanwhile happens now, in its order. suspended: the whole machine slept."""
        self.paused = False
        if suspended:
            slept_s = (self._scheduler.now - self._paused_at_s) * self._rate
            self._suspended_s += slept_s
            self._offset_s -= slept_s
        self._go_on_soon()

    def kill(self) -> None:
        """End the process: nothing of it runs any more."""
        self.alive = False
        self._due.clear()
        for task in self._tasks:
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it has not begun, and never will
        self._tasks.clear()
