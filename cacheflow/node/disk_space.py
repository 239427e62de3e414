"""DiskSpace: how large the data directory's disk is and how much of it is free, looked up where nobody waits for the disk."""

from __future__ import annotations

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
    later: the event loop's ``call_later``.  submit: has the disk's thread do work.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(
        self, disk: Disk, directory: Path, submit: Submit, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.bytes: tuple[int, int] | None = None
        self._disk = disk
        self._directory = directory
        self._submit = submit
        self._later = later

    def look(self) -> None:
        """Look up how many bytes are free, and do it again every few seconds, one look at a time."""

        def done(outcome: tuple[int, int] | BaseException) -> None:
            self.bytes = None if isinstance(outcome, BaseException) else outcome
            self._later(LOOK_EVERY_S, self.look)

        disk, directory = self._disk, self._directory
        self._submit(lambda: (disk.free_bytes(directory), disk.size_bytes(directory)), done)
