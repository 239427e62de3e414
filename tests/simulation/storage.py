"""One machine's disk, and the writer of one process over it: slow, in order, and interrupted by crashes at any point."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from fakes.disk import FakeDisk
from simulation.scheduler import ProcessLoop

from cacheflow.raft.log.segments import NothingLost, SegmentReader, list_segments
from cacheflow.raft.snapshots.files import list_snapshots, snapshot_path

T = TypeVar("T")

DIRECTORY = Path("/data")
# Bytes of a journal's segment: few, so that a run sees many segments.
SEGMENT_BYTES = 16 * 1024


class MachineDisk(FakeDisk):
    """The disk of one machine.

    filled: true while others have filled it, as on a shared volume; writes are refused then.
    out_of_handles: true while its process may open no more files.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.filled = False
        self.out_of_handles = False
        self._random = random

    def forget_failures(self) -> None:
        """Let everything work again that was to fail."""
        self._failures.clear()

    def write(self, handle: int, offset: int, data: bytes) -> None:
        """Write to a file; on a full disk a part may fit, and on many file systems not even reserved space helps."""
        if self.filled:
            super().write(handle, offset, data[: self._random.randrange(len(data))] if data else data)
            raise OSError(errno.ENOSPC, "no space left on device")
        super().write(handle, offset, data)

    def preallocate(self, handle: int, length: int) -> None:
        """Reserve space for a file; refused while the disk is full."""
        if self.filled:
            raise OSError(errno.ENOSPC, "no space left on device")
        super().preallocate(handle, length)

    def open(self, path: Path, create: bool = False) -> int:
        """Open a file, if the process has a handle left for it."""
        self._need_handle()
        return super().open(path, create)

    def sync_directory(self, directory: Path) -> None:
        """Flush a folder, which needs a handle, too."""
        self._need_handle()
        super().sync_directory(directory)

    def _need_handle(self) -> None:
        if self.out_of_handles:
            raise OSError(errno.EMFILE, "too many open files")

    @property
    def names(self) -> list[Path]:
        """Return the paths of all files."""
        return sorted(self._names)


def vouched_bits(disk: FakeDisk, directory: Path) -> list[tuple[Path, int]]:
    """Return (file, bytes from its beginning) for the parts in which no bit may change unnoticed.

    The newest snapshot, and of each segment what a record behind it says was flushed (see segments.py: what was flushed
    last of all passes for a torn tail, and so does a seal in an older one).
    """
    found = [(snapshot_path(directory, index), -1) for index in list_snapshots(disk, directory)[-1:]]
    for sequence, path in list_segments(disk, directory):
        reader = SegmentReader(path, disk.read(path), sequence, 0)
        synced = max([reader.begin, *(record.synced for record in reader.records())])
        found.append((path, min(synced, reader.end)))
    return [(path, length if length >= 0 else disk.size(path)) for path, length in found]


class SimWriter:
    """The writer of one process, which runs submitted work piece by piece; each takes ``latency_s`` (least, most)."""

    def __init__(self, loop: ProcessLoop, disk: FakeDisk, random: Random, latency_s: tuple[float, float]) -> None:
        self.latency_s = latency_s
        # True once something that was submitted could not be written, and may be lost.
        self.refused = False
        # True while the disk hangs: what is under way does not return.
        self.hung = False
        self._loop = loop
        self._disk = disk
        self._random = random
        self._work: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._busy = False
        # Whether the piece under way would have returned by now.
        self._overdue = False

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

    def go_on(self) -> None:
        """Let the disk work again after it hung: what was under way returns."""
        self.hung = False
        if self._overdue:
            self._overdue = False
            self._finish()

    def _finish(self) -> None:
        if self.hung:
            self._overdue = True
            return
        work, done = self._work.popleft()
        outcome: Any
        try:
            outcome = work()
        except Exception as error:
            outcome = error
            self.refused = self.refused or not isinstance(error, NothingLost)
        if self._work:
            self._begin()
        else:
            self._busy = False
        done(outcome)

    def interrupt(self) -> None:
        """Stop, because the process is killed: the piece under way is not begun, half done, or done unheard of."""
        if not self._work or self._random.random() < 0.3:
            return
        if self._random.random() < 0.6:
            operation = self._random.choice(("write", "sync", "sync", "rename", "sync_directory"))
            self._disk.fail(operation, OSError("the process was killed"))
        try:
            self._work[0][0]()
        except Exception:
            return
