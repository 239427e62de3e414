"""DiskSpace: how much of the data directory's disk is free, and whether the directory is there, looked up where nobody waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import Submit

# Seconds between two looks: often enough for an alarm, and a look takes some microseconds.
LOOK_EVERY_S: Final = 5.0


class DiskSpace:
    """Looks up every few seconds how much of a disk is free, by a thread that works on the disk anyway and may wait for it.

    bytes: (free, in all) as of the last look; None before the first one, or when that has failed. Any thread may read it.
    lock: the descriptor of the directory's lock file.  gone: called once that file was removed, and with it, mostly, all others:
    a process goes on writing to what it has open, and nothing of that is there when it is started again.
    later: the event loop's ``call_later``.  submit: has the disk's thread do work.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        lock: int,
        *,
        submit: Submit,
        later: Callable[[float, Callable[[], None]], object],
        gone: Callable[[], object],
    ) -> None:
        self.bytes: tuple[int, int] | None = None
        self._disk = disk
        self._directory = directory
        self._lock = lock
        self._gone = gone
        self._submit = submit
        self._later = later

    def look(self) -> None:
        """Look up how many bytes are free, and do it again every few seconds, one look at a time."""

        def done(outcome: tuple[int, int] | BaseException | None) -> None:
            self.bytes = None if isinstance(outcome, BaseException) else outcome
            if outcome is None:
                self._gone()
            else:
                self._later(LOOK_EVERY_S, self.look)

        self._submit(self._look, done)

    def _look(self) -> tuple[int, int] | None:
        """Return (free bytes, bytes in all) of the directory's disk; None if the directory's lock file was removed."""
        if not os.fstat(self._lock).st_nlink:
            return None
        return self._disk.free_bytes(self._directory), self._disk.size_bytes(self._directory)
