"""Runner: the thread in which a node's scripts run, one at a time, and what becomes of one that takes too long.

1. The event loop gives the thread one script, and the next one when it has the reply: so it knows what runs, and since when.
2. A script has TIME_S of its thread's own processor time, and WALL_S of any time. Then its caller is told, whatever the thread
   does; the thread is left to end by itself with its sandbox, and the next script has a new one.
3. While ABANDONED_MAX such threads have not ended yet, no script begins.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol, TypeVar

from cacheflow.wire.resp.replies import CommandError
from cacheflow.wire.resp.scripting.sandbox import GivenUp, Sandbox

logger = logging.getLogger("cacheflow.script")

TIME_S: Final = 0.1
# A thread that is not scheduled uses no time of its own; whoever waits for its script shall hear something all the same.
WALL_S: Final = 1.0
ABANDONED_MAX: Final = 4

TOO_SLOW: Final = f"ERR the script ran for more than {TIME_S * 1000:.0f} ms and was given up: nothing of it took place"
KILLED: Final = "ERR the script was ended by SCRIPT KILL: nothing of it took place"
BROKEN: Final = "ERR the script ended in a fault of this node, whose log says more: nothing of it took place"
BUSY: Final = "BUSY scripts that were given up have not ended yet on this node: try again later"

T = TypeVar("T")
Expired = Callable[[], bool]


class Runs(Protocol):
    """Interface: an object that runs scripts in a thread of their own.

    ``start`` has ``work`` called in the scripts' thread, and then ``done`` on the event loop.
    ``after`` has ``call`` called on the event loop after some seconds, and returns the function that cancels that.
    ``kill`` ends the script that runs, and returns whether there was one.
    work: the function that runs a script; may raise GivenUp. It is given the Lua sandbox, and a function that says whether
    the script's time is over.
    done: a function that is given what ``work`` has returned, or the error that says why it has returned nothing.
    """

    def start(self, work: Callable[[Sandbox, Expired], T], done: Callable[[T | CommandError], None]) -> None: ...
    def after(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]: ...
    def kill(self) -> bool: ...


class _Task:
    """One run of a script: the function ``work`` runs the script, and the function ``done`` is called with the outcome."""

    def __init__(
        self, work: Callable[[Sandbox, Expired], object], done: Callable[[object | CommandError], None]
    ) -> None:
        self.work = work
        self.done = done
        self.is_over = False
        self._began_s = 0.0

    def run(self, sandbox: Sandbox) -> object:
        self._began_s = time.thread_time()
        return self.work(sandbox, self._expired)

    def _expired(self) -> bool:
        return self.is_over or time.thread_time() - self._began_s >= TIME_S


class _Worker:
    """A thread with a Lua sandbox, which runs the scripts that it is given, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: weakref.ref[Runner]) -> None:
        self._loop = loop
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._runner = runner
        self.thread = threading.Thread(target=self._work, name="cacheflow-scripts", daemon=True)
        self.thread.start()

    def give(self, task: _Task) -> None:
        self._tasks.put(task)

    def stop(self) -> None:
        """End the thread that runs scripts, once it has run those that were given to it before."""
        self._tasks.put(None)

    def used_s(self) -> float:
        """Return the processor time, in seconds, that the scripts' thread has used. The thread must not have been stopped."""
        assert self.thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident))

    def _work(self) -> None:
        sandbox: Sandbox | None = None
        while (task := self._tasks.get()) is not None:
            outcome: object | CommandError
            try:
                sandbox = sandbox or Sandbox()
                outcome = task.run(sandbox)
            except GivenUp as why:
                sandbox = None
                outcome = CommandError(f"ERR the script was given up, because {why}: nothing of it took place")
            except Exception:
                logger.exception("a script ended in a fault")
                sandbox = None
                outcome = CommandError(BROKEN)
            try:
                self._loop.call_soon_threadsafe(self._tell, task, outcome)
            except RuntimeError:
                # The node has stopped, and its loop is closed.
                return
            # While the thread waits it keeps nobody's connection.
            del task, outcome

    def _tell(self, task: _Task, outcome: object | CommandError) -> None:
        runner = self._runner()
        if runner is not None:
            runner.ended(task, outcome)


class Runner:
    """The thread that runs a node's scripts, and the scripts that wait to be run.

    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Task] = deque()
        self._task: _Task | None = None
        self._worker: _Worker | None = None
        self._ends: weakref.finalize[[], Runner] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._used_s = self._began_s = 0.0
        self._abandoned: list[threading.Thread] = []

    def start(self, work: Callable[[Sandbox, Expired], T], done: Callable[[T | CommandError], None]) -> None:
        """Have ``work``, a function that runs a script, called in the scripts' thread when earlier scripts have ended.

        Then the event loop calls ``done`` with what ``work`` has returned, or with an error.
        """
        self._waiting.append(_Task(work, done))  # type: ignore[arg-type]
        self._next()

    def after(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Have the event loop call ``call`` after ``seconds``; return the function that cancels this."""
        return asyncio.get_running_loop().call_later(seconds, call).cancel

    def kill(self) -> bool:
        """End the script that runs now; return whether there was one."""
        if self._task is None:
            return False
        self._abandon(KILLED)
        return True

    def _next(self) -> None:
        while self._task is None and self._waiting:
            task = self._waiting.popleft()
            worker = self._worker = self._worker or self._new_worker()
            if worker is None:
                asyncio.get_running_loop().call_soon(task.done, CommandError(BUSY))
                continue
            self._task = task
            self._used_s, self._began_s = worker.used_s(), time.monotonic()
            self._look_in(TIME_S)
            worker.give(task)

    def _new_worker(self) -> _Worker | None:
        """Return a new worker: a thread that runs scripts; None while too many threads of abandoned scripts have not ended."""
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= ABANDONED_MAX:
            return None
        worker = _Worker(asyncio.get_running_loop(), weakref.ref(self))
        # A runner that nobody holds any more, because its port is gone, leaves no thread behind.
        self._ends = weakref.finalize(self, worker.stop)
        return worker

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        assert self._worker is not None
        left_s = TIME_S - (self._worker.used_s() - self._used_s)
        if left_s > 0 and time.monotonic() - self._began_s < WALL_S:
            self._look_in(max(left_s, 0.01))
        else:
            self._abandon(TOO_SLOW)

    def _abandon(self, why: str) -> None:
        assert self._task is not None and self._worker is not None and self._ends is not None
        self._task.is_over = True
        self._abandoned.append(self._worker.thread)
        self._ends()
        self._worker = None
        self._end(CommandError(why))

    def ended(self, task: _Task, outcome: object | CommandError) -> None:
        """Call the function that waits for the script run ``task`` with the run's ``outcome``, unless the run was abandoned.

        Called on the event loop.
        """
        # Nobody waits any more for the end of a script that was abandoned.
        if task is self._task:
            self._end(outcome)

    def _end(self, outcome: object | CommandError) -> None:
        task = self._task
        assert task is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._task = None
        try:
            task.done(outcome)
        finally:
            self._next()
