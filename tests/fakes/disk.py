"""A disk in memory that forgets, and writers that run its work when they are told to.

What was not flushed survives a crash of the machine in part: every sector, every length and every name that was made,
renamed or removed, each as the given randomness decides.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from cacheflow.raft.log.disk import Disk

T = TypeVar("T")


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable_length: int = 0
    # Durable contents of the sectors that were written since the last flush.
    undo: dict[int, bytes] = field(default_factory=dict)


class FakeDisk(Disk):
    """A Disk in memory. ``counts`` counts the calls by name; ``fail`` makes one of them raise."""

    def __init__(self, *, sector_bytes: int = 512, capacity_bytes: int = 1 << 40) -> None:
        self.sector_bytes = sector_bytes
        self.capacity_bytes = capacity_bytes
        self.counts: Counter[str] = Counter()
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        # Changes since the folder was flushed: the name that went, the name that came, the file.
        self._name_changes: list[tuple[Path | None, Path | None, _File]] = []
        self._handles: dict[int, _File] = {}
        self._next_handle = 100
        self._failures: list[tuple[str, int, OSError]] = []

    # What tests do with it.

    def fail(self, operation: str, error: OSError, after: int = 0) -> None:
        """Let ``operation`` raise ``error`` once, after ``after`` more calls that work."""
        self._failures.append((operation, self.counts[operation] + after, error))

    def crash(self, random: Random) -> None:
        """The machine loses power: handles are gone, and any part of what was not flushed."""
        keep = random.random()
        for gone, new, file in self._name_changes:
            if random.random() < keep:
                if gone is not None:
                    self._durable_names.pop(gone, None)
                if new is not None:
                    self._durable_names[new] = file
        self._names = dict(self._durable_names)
        self._name_changes = []
        self._handles = {}
        for file in self._names.values():
            keep = random.random()
            for sector, before in file.undo.items():
                if random.random() >= keep:
                    begin = sector * self.sector_bytes
                    end = min(begin + self.sector_bytes, len(file.data))
                    file.data[begin:end] = before.ljust(self.sector_bytes, b"\0")[: end - begin]
            if len(file.data) != file.durable_length and random.random() >= keep:
                self._resize(file, file.durable_length)
            file.undo.clear()
            file.durable_length = len(file.data)

    def stop(self) -> None:
        """The process is killed: handles are gone, the system keeps everything."""
        self._handles = {}

    def contents(self, path: Path) -> bytearray:
        """The file's bytes, to look at and to damage."""
        return self._names[path].data

    def put(self, path: Path, data: bytes) -> None:
        """Place a durable file."""
        self._names[path] = self._durable_names[path] = _File(bytearray(data), len(data))

    def copy(self) -> FakeDisk:
        """The same files, all of them durable."""
        other = FakeDisk(sector_bytes=self.sector_bytes, capacity_bytes=self.capacity_bytes)
        for path, file in self._names.items():
            other.put(path, bytes(file.data))
        return other

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    # Disk.

    def list(self, directory: Path) -> list[str]:
        self._count("list")
        return [path.name for path in self._names if path.parent == directory]

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        self._count("read")
        data = self._named(path).data
        return bytes(data[offset:] if length < 0 else data[offset : offset + length])

    def size(self, path: Path) -> int:
        self._count("size")
        return len(self._named(path).data)

    def open(self, path: Path, create: bool = False) -> int:
        self._count("open")
        if create:
            self._names[path] = _File()
            self._name_changes.append((None, path, self._names[path]))
        self._next_handle += 1
        self._handles[self._next_handle] = self._named(path)
        return self._next_handle

    def close(self, handle: int) -> None:
        self._count("close")
        self._file(handle)
        del self._handles[handle]

    def preallocate(self, handle: int, length: int) -> None:
        self._count("preallocate")
        file = self._file(handle)
        if length > len(file.data):
            self._reserve(length - len(file.data))
            self._resize(file, length)

    def write(self, handle: int, offset: int, data: bytes) -> None:
        self._count("write")
        file = self._file(handle)
        end = offset + len(data)
        if end > len(file.data):
            self._reserve(end - len(file.data))
            self._resize(file, end)
        self._touch(file, offset, end)
        file.data[offset:end] = data

    def write_durably(self, handle: int, offset: int, data: bytes) -> None:
        self.write(handle, offset, data)
        self.sync(handle)

    def sync(self, handle: int) -> None:
        self._count("sync")
        file = self._file(handle)
        file.undo.clear()
        file.durable_length = len(file.data)

    def truncate(self, handle: int, length: int) -> None:
        self._count("truncate")
        file = self._file(handle)
        self._touch(file, min(length, len(file.data)), len(file.data))
        self._resize(file, length)

    def rename(self, old: Path, new: Path) -> None:
        self._count("rename")
        file = self._named(old)
        del self._names[old]
        self._names[new] = file
        self._name_changes.append((old, new, file))

    def remove(self, path: Path) -> None:
        self._count("remove")
        self._name_changes.append((path, None, self._named(path)))
        del self._names[path]

    def sync_directory(self, directory: Path) -> None:
        self._count("sync_directory")
        self._durable_names = dict(self._names)
        self._name_changes = []

    def free_bytes(self, directory: Path) -> int:
        self._count("free_bytes")
        return self.capacity_bytes - sum(len(file.data) for file in self._names.values())

    def _count(self, operation: str) -> None:
        calls = self.counts[operation]
        self.counts[operation] += 1
        for failure in self._failures:
            if failure[0] == operation and failure[1] <= calls:
                self._failures.remove(failure)
                raise failure[2]

    def _named(self, path: Path) -> _File:
        file = self._names.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    def _file(self, handle: int) -> _File:
        file = self._handles.get(handle)
        if file is None:
            raise OSError(errno.EBADF, "bad handle")
        return file

    def _reserve(self, size: int) -> None:
        if sum(len(file.data) for file in self._names.values()) + size > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space left")

    def _touch(self, file: _File, begin: int, end: int) -> None:
        size = self.sector_bytes
        for sector in range(begin // size, -(-end // size)):
            if sector not in file.undo:
                file.undo[sector] = bytes(file.data[sector * size : (sector + 1) * size])

    def _resize(self, file: _File, length: int) -> None:
        present = len(file.data)
        if length < present:
            del file.data[length:]
        else:
            file.data.extend(bytes(length - present))


class StepWriter:
    """Runs submitted work when told to: ``step`` one piece, ``drain`` all; ``work_only`` leaves ``done`` waiting."""

    def __init__(self) -> None:
        self._work: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._settled: deque[tuple[Callable[[Any], None], Any]] = deque()

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        self._work.append((work, done))

    def __len__(self) -> int:
        return len(self._work) + len(self._settled)

    def work_only(self) -> None:
        work, done = self._work.popleft()
        try:
            outcome = work()
        except Exception as error:
            outcome = error
        self._settled.append((done, outcome))

    def step(self) -> None:
        if not self._settled:
            self.work_only()
        done, outcome = self._settled.popleft()
        done(outcome)

    def drain(self) -> None:
        while len(self):
            self.step()


def inline(work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
    """A writer that is done before it returns."""
    try:
        outcome: T | BaseException = work()
    except Exception as error:
        outcome = error
    done(outcome)
