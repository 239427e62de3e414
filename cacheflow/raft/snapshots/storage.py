"""SnapshotStorage: a node's snapshots on its disk, and who reads, writes and builds them. The event loop owns it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cacheflow.errors import ConfigError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import CorruptJournal, Journal, Submit
from cacheflow.raft.log.records import check_level
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.files import SnapshotMeta

logger = logging.getLogger(__name__)


class Builder(Protocol):
    """Interface: a function that builds a node's snapshot up to the log entry ``index``, then calls ``done`` once.

    done: gets the snapshot's description or an exception. In a simulation ``done`` is called before the function returns.
    """

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None: ...


@dataclass(slots=True)
class SnapshotStorage:
    """The snapshots on a node's disk, and the functions that work on them.

    newest: describes the newest complete snapshot, None without one.  run: does disk work away from the event loop, in
    order.
    build: builds another snapshot.  sending: returns the indexes of the snapshots that are on their way to followers.
    machine_type: the class of the state machine that is loaded from a snapshot.
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
        """The index of the last log entry that the newest snapshot covers; 1, where a log begins, without a snapshot."""
        return self.newest.index if self.newest is not None else 1

    def keep(self, meta: SnapshotMeta) -> None:
        """Make the stored snapshot ``meta`` the node's newest one; remove older ones that are not being sent to followers."""
        self.newest = meta
        sending = list(self.sending())
        self.run(
            lambda: files.remove_older(self.disk, self.directory, meta.index, sending),
            lambda outcome: logger.warning("old snapshots stay: %s", outcome) if outcome is not None else None,
        )

    def discard(self, meta: SnapshotMeta, done: Callable[[], None]) -> None:
        """Remove the file of the snapshot ``meta``, which must not be loaded; then call ``done``, even if that has failed."""

        def removed(outcome: BaseException | None) -> None:
            if outcome is not None:
                logger.error("the snapshot at %d, which is not to be used, stays on the disk: %s", meta.index, outcome)
            done()

        self.run(lambda: files.discard(self.disk, self.directory, meta), removed)


def load_machine(
    disk: Disk, directory: Path, machine_type: type[CacheMachine] = CacheMachine
) -> tuple[SnapshotMeta | None, CacheMachine]:
    """Return the description of a node's newest snapshot and the state machine in it. Called at start.

    Returns (None, an empty state machine) if there is no snapshot. Raises CorruptSnapshot, NewerCacheFlow, ConfigError.
    """
    newest = files.load_newest(disk, directory)
    if newest is None:
        return None, machine_type()
    path = files.snapshot_path(directory, newest.index)
    try:
        return newest, files.restored(disk, path, newest, machine_type)
    except MemoryError:
        raise ConfigError(
            f"{path} does not fit into this process's memory; it is not damaged: give the process more, or raise its limit"
        ) from None


def check_levels(journal: Journal, build_level: int) -> None:
    """Raise NewerCacheFlow if an entry of the journal's log is of a later feature level than this build knows."""
    for command, index, _ in journal.entries(0, None):
        check_level(command, index, build_level)


def begin_journal_at(journal: Journal, newest: SnapshotMeta | None, directory: Path) -> None:
    """Let the journal's log begin where the newest snapshot ends. Raises CorruptJournal if entries after that are missing."""
    index = newest.index if newest is not None else 1
    if journal.first_index > index:
        raise CorruptJournal(
            directory, 0, f"it begins behind entry {journal.first_index}, the newest snapshot ends at {index}"
        )
    if newest is not None and journal.first_index < index:
        journal.install(index, newest.term)
