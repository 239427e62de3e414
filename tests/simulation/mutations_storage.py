"""Promises of the disk taken away: the journal, its compaction, snapshots, and the clock's notes in them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from simulation.cluster import Process
from simulation.scheduler import ProcessLoop
from simulation.storage import DIRECTORY, MachineDisk

from cacheflow.machine.machine import CacheMachine
from cacheflow.node.clock import ClusterClock
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import CorruptJournal, Journal
from cacheflow.raft.membership.removed import Removal
from cacheflow.raft.snapshots import files, helper, storage
from cacheflow.raft.snapshots.building import Building
from cacheflow.raft.snapshots.files import CorruptSnapshot, SnapshotMeta, snapshot_path


def throw_the_log_away_behind_a_new_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Let a start drop the whole journal when it finds a snapshot newer than the journal's beginning."""
    begin = storage.begin_journal_at

    def begin_journal_at(journal: Journal, newest: SnapshotMeta | None, directory: Path) -> None:
        if newest is not None and journal.first_index < newest.index:
            journal.clear()
            journal.add(b"", newest.index, newest.term)
        begin(journal, newest, directory)

    patch.setattr(storage, "begin_journal_at", begin_journal_at)


def compact_by_writing_the_tail_again(patch: pytest.MonkeyPatch) -> None:
    """Trim by beginning a new log on the disk and adding what is left again."""

    def trim(self: Any, index: int) -> None:
        if index <= self.first_index:
            return
        term, tail = self.term_at(index), self.entries(index + 1)
        self.clear()
        self.add(b"", index, term)
        for command, at, of in tail:
            self.add(command, at, of)

    patch.setattr(Journal, "trim", trim)


def trim_past_the_end_of_the_log(patch: pytest.MonkeyPatch) -> None:
    """Let a snapshot that is ahead of the log leave it without a single entry."""
    install = Journal.install

    def _install(self: Any, index: int, term: int) -> None:
        if index > self.last_index:
            self.clear()
        else:
            install(self, index, term)

    patch.setattr(Journal, "install", _install)


def start_empty_when_something_is_damaged(patch: pytest.MonkeyPatch) -> None:
    """Let a node with files that cannot be read start without log and contents, and vote."""
    begin = Process.__init__

    def __init__(self: Any, cluster: Any, host: Any) -> None:
        try:
            begin(self, cluster, host)
        except (CorruptSnapshot, CorruptJournal):
            forget(host)
            begin(self, cluster, host)

    patch.setattr(Process, "__init__", __init__)


def promise_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """Send votes and acknowledgements at once, before what they promise is durable."""

    def hold_message(self: Any, node_id: str, message: Any, complete: Any = None) -> None:
        if complete is not None:
            complete()
        self.send(node_id, message)

    patch.setattr(Links, "hold_message", hold_message)


def restart_without_a_memory(patch: pytest.MonkeyPatch) -> None:
    """Let a member that keeps nothing on a disk come back with the same incarnation."""
    begin = Process.__init__

    def __init__(self: Any, cluster: Any, host: Any) -> None:
        if host.starts:
            forget(host)
        begin(self, cluster, host)

    patch.setattr(Process, "__init__", __init__)


def name_a_snapshot_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    """Put a new snapshot file in the old one's place at once, and finish it some time later."""

    def _build(self: Any, index: int, done: Any) -> None:
        disk = self.host.disk
        path = snapshot_path(DIRECTORY, index)

        def begin() -> None:
            # It may stumble over its own unfinished file; that alone harms nobody.
            with contextlib.suppress(OSError, CorruptSnapshot):
                meta = helper.build(disk, DIRECTORY, index)
                whole = disk.read(path)
                handle = disk.open(path)
                disk.truncate(handle, len(whole) // 2)
                disk.sync(handle)
                self.loop.call_later(0.3, finish, handle, whole)
                done(meta)

        def finish(handle: int, whole: bytes) -> None:
            disk.write(handle, 0, whole)
            disk.sync(handle)
            disk.close(handle)

        self.loop.call_later(0.05, begin)

    patch.setattr(Process, "_build", _build)


def keep_a_snapshot_that_nobody_has_loaded(patch: pytest.MonkeyPatch) -> None:
    """Let the helper give a snapshot its name without having loaded what it has written."""
    write = files.write_snapshot
    patch.setattr(
        helper, "write_snapshot", lambda disk, directory, meta, chunks, check: write(disk, directory, meta, chunks)
    )


def never_hear_of_a_helper_that_failed(patch: pytest.MonkeyPatch) -> None:
    """Let a node whose snapshot helper failed wait for it for ever."""
    built = Building._built

    def _built(self: Any, own: Any, outcome: Any) -> None:
        if isinstance(outcome, SnapshotMeta):
            built(self, own, outcome)

    patch.setattr(Building, "_built", _built)


def turn_the_clock_back_at_a_start(patch: pytest.MonkeyPatch) -> None:
    """Take the journal's pair for the present time: the time while the process was down is lost."""
    restore = ClusterClock.restore
    patch.setattr(ClusterClock, "restore", lambda self, cluster_ms, wall_ms: restore(self, cluster_ms, self.wall_ms()))


def forget(host: Any) -> None:
    """Empty a machine's disk, and let it be the same member."""
    host.disk = MachineDisk(Random(host.starts))
    host.founds = False


def compare_what_was_done_alone(patch: pytest.MonkeyPatch) -> None:
    """Leave out of the comparison with a snapshot what no effect has told: the order of use, sessions, kept answers."""
    patch.setattr(CacheMachine, "outlook", lambda self: b"")


def keep_contents_that_the_disk_contradicts(patch: pytest.MonkeyPatch) -> None:
    """Throw a snapshot away that differs from the contents, and go on with these."""

    def _reload(self: Any, meta: SnapshotMeta) -> None:
        self._discard(meta)
        self._divergence.settle()

    patch.setattr(Building, "_reload", _reload)


def say_that_it_was_removed_before_it_is_noted(patch: pytest.MonkeyPatch) -> None:
    """Let a removed node show it while its mark is on its way to the disk."""
    believe = Removal._removed

    def _removed(self: Any, index: int) -> None:
        believe(self, index)
        self._noted(index)

    patch.setattr(Removal, "_removed", _removed)


def stand_still_in_sleep(patch: pytest.MonkeyPatch) -> None:
    """Take a clock for the age of the contents that stands still while the machine is suspended."""
    patch.setattr(ProcessLoop, "passed", ProcessLoop.time)
