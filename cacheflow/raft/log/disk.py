"""Disk: the file operations that durable state needs; ThreadWriter: a thread that runs them in order.

Every call is synchronous and may block; errors are OSError. A simulation replaces ``Disk`` with a disk in memory
that loses and tears what was not flushed, and ``ThreadWriter`` with a scheduler of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The zeros of one write where the file system cannot reserve space: 1 MiB.
_ZEROS = bytes(1 << 20)
# The flag that makes one write durable; only Linux has it, 0 elsewhere.
_RWF_DSYNC: int = getattr(os, "RWF_DSYNC", 0)


class Disk:
    """The operating system's file operations that journal and snapshots use. Safe to use from any thread.

    A handle is an opaque int that stands for an open file; offsets and lengths are in bytes.
    """

    def __init__(self) -> None:
        # Whether the kernel takes the flag that makes one write durable.
        self._writes_durably = _RWF_DSYNC != 0

    def list(self, directory: Path) -> list[str]:
        """Return the names of the entries in the folder ``directory``, in no particular order."""
        return os.listdir(directory)  # noqa: PTH208 - names, not paths

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        """Return ``length`` bytes (-1: all) of a file from ``offset`` on; fewer bytes only at the end of the file."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def size(self, path: Path) -> int:
        """Return the length of a file in bytes."""
        return path.stat().st_size

    def open(self, path: Path, create: bool = False) -> int:
        """Open a file and return a handle for writing. With ``create`` the file is made, or emptied if it exists."""
        flags = os.O_RDWR | os.O_CLOEXEC
        return os.open(path, flags | os.O_CREAT | os.O_TRUNC if create else flags, 0o600)

    def close(self, handle: int) -> None:
        """Close the open file ``handle`` without flushing what was written to it."""
        os.close(handle)

    def preallocate(self, handle: int, length: int) -> None:
        """Make an open file at least ``length`` bytes long: reserve disk space, with zeros, behind its present content."""
        present = os.fstat(handle).st_size
        if present >= length:
            return
        try:
            os.posix_fallocate(handle, 0, length)
            return
        except AttributeError:  # not on this system
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        for offset in range(present, length, len(_ZEROS)):
            self.write(handle, offset, _ZEROS[: length - offset])

    def write(self, handle: int, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset`` of an open file; until ``sync``, a machine's crash may lose any of that."""
        written = os.pwrite(handle, data, offset)
        if written == len(data):
            return
        rest = memoryview(data)
        while written < len(data):  # a nearly full disk or a signal: go on, or meet the error
            step = os.pwrite(handle, rest[written:], offset + written)
            if step == 0:
                raise OSError(errno.EIO, "nothing was written")
            written += step

    def write_durably(self, handle: int, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset`` of an open file and return once it is durable.

        Bytes that were written to the file before may stay unflushed.
        """
        # One system call instead of two, between which this thread would have to wait for the interpreter again.
        if self._writes_durably:
            try:
                if os.pwritev(handle, [data], offset, _RWF_DSYNC) == len(data):
                    return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                self._writes_durably = False
                logger.warning("this kernel does not know durable writes (%s): each is two calls now", error.strerror)
        self.write(handle, offset, data)
        self.sync(handle)

    def sync(self, handle: int) -> None:
        """Return once the bytes and the length of an open file are durable (fdatasync)."""
        if sys.platform == "darwin":
            # macOS calls fsync done when the drive's cache has the data.
            import fcntl

            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(handle)

    def truncate(self, handle: int, length: int) -> None:
        """Cut an open file to its first ``length`` bytes."""
        os.ftruncate(handle, length)

    def rename(self, old: Path, new: Path) -> None:
        """Rename the file ``old`` to ``new``, atomically replacing a file of that name; durable after ``sync_directory``."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file; the removal is durable after ``sync_directory``."""
        path.unlink()

    def sync_directory(self, directory: Path) -> None:
        """Return once all creations, renames and removals of files in ``directory`` so far are durable."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def free_bytes(self, directory: Path) -> int:
        """Return the number of free bytes that this user may fill on the file system of ``directory``."""
        return shutil.disk_usage(directory).free

    def size_bytes(self, directory: Path) -> int:
        """Return the size of the file system of ``directory``."""
        return shutil.disk_usage(directory).total


class ThreadWriter:
    """A thread that runs disk operations in the order of their submission; the event loop gets each result by a callback.

    The event loop owns the object: ``submit`` and ``close`` are called on the loop's thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "cacheflow-journal") -> None:
        self._loop = loop
        self._work: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._settled: SimpleQueue[tuple[Callable[[Any], None], Any]] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Queue ``work``, a function, for the disk thread. Does not block.

        The event loop then calls ``done`` with the result of ``work``, or with the exception that ``work`` raised. Once the
        thread is stopped, ``work`` and ``done`` are called within this call.
        """
        if self._closed:
            self._tell(done, _outcome(work))
        else:
            self._work.put((work, done))

    def close(self) -> None:
        """Stop the disk thread once all functions submitted to it, even by callbacks meanwhile, are run. Blocks until then."""
        if self._closed:
            return
        self._work.put(None)
        self._thread.join()
        self._closed = True
        while not self._settled.empty():
            self._tell(*self._settled.get())

    def _tell(self, done: Callable[[Any], None], outcome: object) -> None:
        """Call ``done`` with ``outcome`` when the event loop may be closed: what ``done`` would have it do then is never done."""
        try:
            done(outcome)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            self._settled.put((done, _outcome(work)))
            # A closed loop gets no more calls; close() settles what is left.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        # What ends meanwhile has a turn of its own: the next flush, which ends while this entry is applied, would make its entry
        # a part of this turn, and so on without an end.
        for _ in range(self._settled.qsize()):
            done, outcome = self._settled.get()
            done(outcome)


def _outcome(work: Callable[[], T]) -> T | BaseException:
    """Call the function ``work``, an operation on the disk, and return its result or the exception that it raised."""
    try:
        return work()
    except BaseException as error:  # any exception is for the caller to judge; the thread must not die of it
        return error
