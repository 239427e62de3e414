"""SnapshotStorage: a node's snapshots on its disk, and who reads, writes and builds them. The event loop owns it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import CorruptJournal, Journal, Submit
from cacheflow.raft.log.records import check_level
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.files import SnapshotMeta

logger = logging.getLogger(__name__)


class Builder(Protocol):
    """A function that builds the snapshot up to ``index``, then calls ``done`` with its meta or an exception.

    In a node a helper process builds it; in a simulation it is built before the function returns.
    """

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None: ...


@dataclass(slots=True)
class SnapshotStorage:
    """The place of a node's snapshots.

    newest: the newest complete snapshot, None without one.  run: does disk work away from the loop, in order.
    build: builds another snapshot.  sending: the indexes of the snapshots that are on their way to followers.
    machine_type: the machine of this build.
    """

    disk: Disk
    directory: Path
    newest: SnapshotMeta | None
    run: Submit
    build: Builder
    sending: Callable[[], Collection[int]] = tuple
    machine_type: type[CacheMachine] = CacheMachine

    @property
    def newest_index(self) -> int:
        """The index of the newest snapshot; 1, where a log begins, when there is no snapshot."""
        return self.newest.index if self.newest is not None else 1

    def keep(self, meta: SnapshotMeta) -> None:
        """Make a snapshot that is on the disk the newest one, and remove older ones that no follower is being sent."""
        self.newest = meta
        sending = list(self.sending())
        self.run(
            lambda: files.remove_older(self.disk, self.directory, meta.index, sending),
            lambda outcome: logger.warning("old snapshots stay: %s", outcome) if outcome is not None else None,
        )

    def discard(self, meta: SnapshotMeta) -> None:
        """Remove the file of a snapshot that must not be loaded."""
        files.discard(self.disk, self.directory, meta)


def load_machine(
    disk: Disk, directory: Path, machine_type: type[CacheMachine] = CacheMachine
) -> tuple[SnapshotMeta | None, CacheMachine]:
    """Return a node's newest snapshot and the machine in it; (None, an empty machine) without one. For a node's start.

    Raises CorruptSnapshot, NewerCacheFlow.
    """
    newest = files.load_newest(disk, directory)
    if newest is None:
        return None, machine_type()
    return newest, files.restored(disk, files.snapshot_path(directory, newest.index), newest, machine_type)


def check_levels(journal: Journal, build_level: int) -> None:
    """Raise NewerCacheFlow if an entry of the journal is of a later feature level than this build knows."""
    for command, index, _ in journal.entries(0, None):
        check_level(command, index, build_level)


def begin_journal_at(journal: Journal, newest: SnapshotMeta | None, directory: Path) -> None:
    """Let the journal begin at the newest snapshot. Raises CorruptJournal when entries between the two are missing."""
    index = newest.index if newest is not None else 1
    if journal.first_index > index:
        raise CorruptJournal(
            directory, 0, f"it begins behind entry {journal.first_index}, the newest snapshot ends at {index}"
        )
    if newest is not None and journal.first_index < index:
        journal.install(index, newest.term)
