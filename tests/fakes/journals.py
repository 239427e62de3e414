"""Journals on a disk in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fakes.disk import FakeDisk, inline

from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import Journal, Submit
from cacheflow.raft.log.records import LogEntry

DIRECTORY = Path("/data")

# (entries, term, vote): what a restart must bring back.
State = tuple[tuple[LogEntry, ...], int, str | None]


def open_journal(disk: Disk, submit: Submit = inline, **options: Any) -> Journal:
    """A journal with small segments and repeatable salts."""
    if isinstance(disk, FakeDisk):
        options.setdefault("random_bytes", Random(disk.counts["open"] + 1).randbytes)
    return Journal.open(disk, options.pop("directory", DIRECTORY), submit=submit, **{"segment_bytes": 2048, **options})


def state_of(journal: Journal) -> State:
    return tuple(journal[:]), journal.getCurrentTerm(), journal.getVotedForNodeId()


def fill(
    journal: Journal, last_index: int, term: int = 1, command: Callable[[int], bytes] = lambda i: b"c%d" % i
) -> None:
    """Entries up to ``last_index``; the first one as PySyncObj makes it."""
    if len(journal) == 0:
        journal.add(b"\x01", 1, 0)
    for index in range(journal.last_index + 1, last_index + 1):
        journal.add(command(index), index, term)


def segments(disk: Disk, directory: Path = DIRECTORY) -> list[str]:
    return sorted(name for name in disk.list(directory) if name.endswith(".cfj"))
