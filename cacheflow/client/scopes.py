"""Scopes: a client numbers its writes in a scope that the cluster has opened for it, so that each takes place once.

1. A write keeps its number however often it is sent. It is told as answered, or as unknown, before the next lowest number
   rises past it: what comes later is never done.
2. A scope is opened before the first write, and anew when it was not used for so long that the cluster may close it soon.
3. A process forked from this one opens its own: two that number the same scope would take each other's answers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from cacheflow.errors import NotCommitted

# Seconds after which an unused scope is not used again: half of the time after which the cluster closes it.
UNUSED_S_MAX: Final = 300.0


class Scope:
    """One client's open scope: numbers the client's writes, knows which wait for answers. Safe for concurrent use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        # Both guarded by the lock. The numbers that wait are in order: the first is the lowest.
        self._latest = 0
        self._waiting: dict[int, None] = {}
        self.used_at = time.monotonic()

    def take(self) -> tuple[int, int]:
        """Give a new write the next number of this scope.

        Returns (that number, the lowest number of a write that still waits for its answer).
        """
        with self._lock:
            self._latest = number = self._latest + 1
            self._waiting[number] = None
            lowest = next(iter(self._waiting))
            self.used_at = time.monotonic()
        return number, lowest

    def told(self, number: int) -> None:
        """Note that the write numbered ``number`` has ended, by an answer or an error, and will not be sent again."""
        with self._lock:
            del self._waiting[number]


class Scopes:
    """Opens and keeps the scope in which a client's writes are numbered. Safe for concurrent use, also after a fork.

    open_scope: asks the cluster to open a scope, until a deadline, and returns the scope's name.
    """

    def __init__(self, open_scope: Callable[[float], str]) -> None:
        self._open_scope = open_scope
        self._start()

    def _start(self) -> None:
        # Held while a scope is opened, so that writes of several threads go into one.
        self._lock = threading.Lock()
        self._present: Scope | None = None
        # Last: another thread of a forked child that sees this process's id must find nothing of the parent's any more.
        self._pid = os.getpid()

    def present(self, deadline: float) -> Scope:
        """Return the scope in which the client's next write is numbered.

        If there is none, or the last one was unused for too long, a new one is opened, which may raise. Raises NotCommitted if
        another thread is still opening one at ``deadline``.
        """
        if self._pid != os.getpid():
            self._start()
        scope = self._present
        if scope is not None and time.monotonic() - scope.used_at < UNUSED_S_MAX:
            return scope
        # Whoever opens one waits as long as its own call may last, and that one may have begun later.
        lock = self._lock
        if not lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise NotCommitted("no scope could be opened in time by another thread, and the write was not sent")
        try:
            # Another thread may have opened one meanwhile.
            present = self._present
            if present is None or present is scope:
                present = self._present = Scope(self._open_scope(deadline))
            return present
        finally:
            lock.release()

    def leave(self, scope: Scope) -> None:
        """Stop using ``scope`` for writes, because the cluster has closed it."""
        if self._present is scope:
            self._present = None
