"""Threads: a cache's own, for the blocking calls of its asyncio face.

An application's default executor serves the application: calls that wait for a node must not take its threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cacheflow.errors import NotCommitted

T = TypeVar("T")

# Threads of one cache: as many as wait for answers at once, each with a connection of its own.
THREADS_MAX: Final = 32


class Threads:
    """A pool of at most THREADS_MAX threads that run blocking calls for coroutines of any event loop, also after a fork.

    limit_s: seconds that a call may wait for a free thread; a blocking call counts its own timeout only from then on.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._executor: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    async def run(self, call: Callable[[], T]) -> T:
        """Call the function ``call`` in a thread of this pool, and return what the function returns.

        If the awaiting task is cancelled before a thread takes the call, nothing is called. Raises what ``call`` raises, and
        NotCommitted if every thread was busy for too long.
        """
        if self._executor is None or self._pid != os.getpid():
            # A forked process has none of its parent's threads.
            self._executor = ThreadPoolExecutor(THREADS_MAX, "cacheflow-client")
            self._pid = os.getpid()
        asked_at = time.monotonic()

        def in_time() -> T:
            if time.monotonic() - asked_at > self._limit_s:
                raise NotCommitted(
                    f"all {THREADS_MAX} threads of this cache were busy for {self._limit_s} s; nothing was sent"
                )
            return call()

        return await asyncio.get_running_loop().run_in_executor(self._executor, in_time)

    def close(self) -> None:
        """End the threads of this pool, without waiting for busy ones; the next call that needs a thread starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None and self._pid == os.getpid():
            executor.shutdown(wait=False)
