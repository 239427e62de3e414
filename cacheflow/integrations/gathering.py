"""Gathering: hits of one process that come for the same window while one is under way go to the cluster together.

Compare-and-set lets one caller through at a time; 64 threads on one window would spend their time losing to each other.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class _Asked:
    """One caller's hits, to be counted in a rate limit's window. fits: whether they are within the limit; None until known."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.fits: bool | None = None
        self.error: Exception | None = None

    @property
    def settled(self) -> bool:
        """True once this caller's answer or error is known, so that the caller need not ask the cluster."""
        return self.fits is not None or self.error is not None

    def answer(self) -> bool:
        """Return whether this caller's hits fit into the window; if asking the cluster failed, raise that error."""
        if self.error is not None:
            # Each thread raises one of its own: they would write their tracebacks into the same.
            raise copy.copy(self.error)
        return bool(self.fits)


@dataclass
class _Desk:
    """All callers of one rate limit's window. waiting: their hits.  lock: held by the caller that asks the cluster for all."""

    lock: Any
    callers: int = 0
    waiting: list[_Asked] = field(default_factory=list)


class Gathering:
    """Joins callers who ask for the same rate limit's window at the same time: one of them asks the cluster for all.

    Safe for concurrent use, also after a fork.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        # Guards the desks and who waits there.
        self._lock = threading.Lock()
        self._desks: dict[Hashable, _Desk] = {}
        # Last: another thread of a forked child that sees this process's id must find nothing of the parent's any more.
        self._pid = os.getpid()

    def _enter(self, key: Hashable, amount: int, lock: Callable[[], Any]) -> tuple[_Desk, _Asked]:
        if self._pid != os.getpid():
            self._start()
        asked = _Asked(amount)
        with self._lock:
            desk = self._desks.get(key)
            if desk is None:
                desk = self._desks[key] = _Desk(lock())
            desk.callers += 1
            desk.waiting.append(asked)
        return desk, asked

    def _leave(self, key: Hashable, desk: _Desk, asked: _Asked) -> None:
        with self._lock:
            if asked in desk.waiting:
                desk.waiting.remove(asked)
            desk.callers -= 1
            if not desk.callers and self._desks.get(key) is desk:
                del self._desks[key]

    @contextmanager
    def _taken(self, desk: _Desk) -> Iterator[list[_Asked]]:
        """A context manager that takes all waiting callers of a rate limit's window from the queue ``desk`` and yields them.

        The ``with`` block, run with the desk's lock, asks the cluster for these callers; an error there becomes the error
        of each.
        """
        with self._lock:
            batch, desk.waiting = desk.waiting, []
        try:
            yield batch
        except Exception as error:
            for asked in batch:
                asked.error = error
        finally:
            # A caller that is cancelled, or interrupted, leaves the others to the next one.
            with self._lock:
                desk.waiting[:0] = [asked for asked in batch if not asked.settled]

    def ask(self, key: str, amount: int, decide: Callable[[Sequence[int]], list[bool]]) -> bool:
        """Return whether ``amount`` hits fit into the rate limit's window ``key``; simultaneous callers ask together.

        decide: a function that asks the cluster, given the hits of each caller; returns a bool for each.
        """
        desk, asked = self._enter(key, amount, threading.Lock)
        try:
            with desk.lock:
                if not asked.settled:
                    with self._taken(desk) as batch:
                        _settle(batch, decide([each.amount for each in batch]))
        finally:
            self._leave(key, desk, asked)
        return asked.answer()

    async def ask_async(self, key: str, amount: int, decide: Callable[[Sequence[int]], Awaitable[list[bool]]]) -> bool:
        """Return whether ``amount`` hits fit into the rate limit's window ``key``; callers of one event loop ask together.

        decide: a coroutine function that asks the cluster, given the hits of each caller; returns a bool for each.
        """
        place = (asyncio.get_running_loop(), key)
        desk, asked = self._enter(place, amount, asyncio.Lock)
        try:
            async with desk.lock:
                if not asked.settled:
                    with self._taken(desk) as batch:
                        _settle(batch, await decide([each.amount for each in batch]))
        finally:
            self._leave(place, desk, asked)
        return asked.answer()


def _settle(batch: Sequence[_Asked], fits: Sequence[bool]) -> None:
    for asked, fit in zip(batch, fits, strict=True):
        asked.fits = fit
