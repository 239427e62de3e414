"""Watch and AsyncWatch: the changes of a cache's keys as they happen, one after the other, for an application to iterate over."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Final

from cacheflow.forms.form import Form
from cacheflow.results import Change

# Changes that wait in this process for the application to take them; what comes then waits at the node.
WAITING_MAX: Final = 1000


class Watch(abc.ABC, Iterator[Change]):
    """An iterator over the changes of a cache's keys, which waits for the next one. A context manager; ``close`` ends it.

    It tells all changes from the call of ``watch`` on: a list of keys read after that call, and these changes, miss nothing.
    ``position`` is that of the last change, or a later one, up to which there was no other. A later ``watch`` takes it as
    ``since`` to go on behind it, on any node.
    Raises PositionGone when changes were missed: list the keys anew and watch on. For one thread; any thread may close it.
    """

    position: str

    def __init__(self, form: Form) -> None:
        self._form = form
        # Called with each position that this watch has come to without a change, in the thread that takes the changes.
        self.on_quiet: Callable[[str], object] = lambda position: None

    def __next__(self) -> Change:
        change = self._next()
        prefix = self._form.prefix
        if not prefix:
            return change
        if change.key is not None:
            return change._replace(key=self._form.own(change.key))
        gone = change.prefix or ""
        # Of a shorter prefix than this cache's own all of its keys have gone.
        return change._replace(prefix=self._form.own(gone) if gone.startswith(prefix) else "")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def _next(self) -> Change:
        """Return the next change, with keys as the cluster has them. Raises StopIteration once this watch is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """End this watch, and the iteration over it."""


class AsyncWatch:
    """A ``Watch`` for asyncio: an asynchronous iterator and context manager. A thread of its own waits for the changes.

    ``position`` is that of the change that was taken last, or a later one, as a ``Watch`` has it. For use on the event loop on
    which this object was made.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.position = ""
        self._loop = loop
        self._watch: Watch
        # The changes, the positions of a quiet watch, and the end.
        self._came: deque[Change | str | BaseException] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._room = threading.Semaphore(WAITING_MAX)
        self._closed = False

    @classmethod
    async def begin(cls, begin: Callable[[], Watch]) -> AsyncWatch:
        """Return a watch for asyncio of the same changes as the blocking watch that the function ``begin`` returns.

        A thread of its own calls ``begin``. Raises what ``begin`` raises.
        """
        watch = cls(asyncio.get_running_loop())
        began: Future[Watch] = Future()
        threading.Thread(target=watch._run, args=(begin, began), name="cacheflow-watch", daemon=True).start()
        try:
            watch._watch = await asyncio.wrap_future(began)
        except BaseException:
            # Nobody is there any more for the watch that the thread has begun meanwhile.
            began.add_done_callback(watch._abandon)
            raise
        watch.position = watch._watch.position
        return watch

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Change:
        next_: Change | str | BaseException = ""
        while isinstance(next_, str):
            self.position = next_ or self.position
            while not self._came:
                if self._closed:
                    raise StopAsyncIteration
                if self._waiter is not None and not self._waiter.done():
                    raise RuntimeError("another task waits for this watch's next change")
                self._waiter = self._loop.create_future()
                await self._waiter
            next_ = self._came.popleft()
        if isinstance(next_, BaseException):
            self._closed = True
            raise next_
        self._room.release()
        self.position = next_.position
        return next_

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End this watch, and the iteration over it."""
        self._closed = True
        self._came.clear()
        self._wake()
        self._watch.close()
        self._room.release()

    def _abandon(self, began: Future[Watch]) -> None:
        """End the watch that ``began`` holds, if it holds one."""
        self._closed = True
        if not began.cancelled() and began.exception() is None:
            began.result().close()
        self._room.release()

    def _run(self, begin: Callable[[], Watch], began: Future[Watch]) -> None:
        try:
            watch = begin()
        except BaseException as error:  # whoever waits is told, whatever it is
            if began.set_running_or_notify_cancel():
                began.set_exception(error)
            return
        if not began.set_running_or_notify_cancel():
            watch.close()
            return
        watch.on_quiet = self._put_soon
        began.set_result(watch)
        end: BaseException = StopAsyncIteration()
        try:
            for change in watch:
                self._room.acquire()
                if self._closed:
                    break
                self._loop.call_soon_threadsafe(self._put, change)
        except Exception as error:
            end = error
        watch.close()
        self._put_soon(end)

    def _put_soon(self, next_: str | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._put, next_)

    def _put(self, next_: Change | str | BaseException) -> None:
        if self._closed:
            return
        if isinstance(next_, str):
            if self._came and isinstance(self._came[-1], str):
                self._came.pop()
            if not self._came:
                self.position = next_
                return
        self._came.append(next_)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
