"""Supervisor: the background tasks of one node; a task that raises is logged, shown by ``/readyz`` and started again.

A task that asyncio runs by itself ends in silence when it raises: a node whose task of joining or of dialing a peer has
ended looks healthy and never becomes a member, or never speaks to that peer again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

logger = logging.getLogger(__name__)

# Seconds between the failure of a task and its next start: what fails at once every time must not take the processor.
RESTART_AFTER_S: Final = 1.0
# Seconds for which a failure is shown. A task that fails again within them is shown without a gap.
SHOWN_S: Final = 10.0


class Supervisor:
    """Starts and ends the background tasks of one node, and restarts those that fail.

    The event loop owns this object; any thread may call ``problems``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        # By the task's name: what it raised last, and when by the loop's clock.
        self._failures: dict[str, tuple[str, float]] = {}

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run the coroutine function ``work`` as a background task until it returns; if it raises, run it again after a pause.

        name: the task's name for people.
        """
        task = self._loop.create_task(self._keep(name, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel all of the node's background tasks and return when they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def problems(self) -> list[str]:
        """Return a text for people for each background task that has failed within the last SHOWN_S seconds.

        Any thread may call this.
        """
        now = self._loop.time()
        return [f"{name}: {what}" for name, (what, at) in list(self._failures.items()) if now - at < SHOWN_S]

    async def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await work()
                return
            except Exception as error:
                self._failures[name] = (f"{type(error).__name__}: {error}", self._loop.time())
                logger.exception("%s has failed and starts again in %g s", name, RESTART_AFTER_S)
            await asyncio.sleep(RESTART_AFTER_S)
