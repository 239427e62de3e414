"""Journal: a node's term, vote and log, in memory for PySyncObj and on disk for the next start.

The event loop owns it. A change alters memory and adds a pending record, which costs about a microsecond; the
disk's work is done elsewhere by one writer, one piece at a time. Records that gather while a piece is under way go with
the next piece, so that one flush serves all that wait for it.

``position`` counts the records, ``durable_position`` says how many of them are durable as ``fsync`` understands it:
*always* flushed, *interval* written and flushed once a second, *never* written. A term or a vote is flushed in every
mode before ``durable_position`` passes it. Messages that must not leave this node before that wait for it.

The journal also says whose log it is: the cluster's id comes before the first entry, so that what an older cluster's members
have written into a log that was recovered since is never taken for this node's own cluster.

The log in memory is a list of (command, index, term). ``[0]`` is the *sentinel*: the last entry that the snapshot
covers, with command b"", or the entry that a new log began with. It is never removed, so the log is never empty.

The format is in records.py, the files and the difference between a torn tail and damage in segments.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, overload

from cacheflow.errors import ConfigError
from cacheflow.raft.log.disk import Disk, ThreadWriter
from cacheflow.raft.log.records import (
    CLOCK,
    CLUSTER,
    ENTRY,
    RECORD_BYTES,
    START,
    TRIM,
    TRUNCATE,
    VOTE,
    Clock,
    CorruptJournal,
    LogEntry,
    clock_payload,
)
from cacheflow.raft.log.segments import NothingLost, Pending, SegmentWriter

__all__ = ["CorruptJournal", "Journal", "Submit", "ThreadWriter"]

T = TypeVar("T")

# The size of a segment file: large enough that a new one, which takes a few flushes, is rare; small enough that a
# restart reads few trimmed entries.
SEGMENT_BYTES = 16 * 1024 * 1024
# An entry that nobody waits for is flushed this late at most: one flush for many entries costs about as much as for one.
RELAXED_S = 0.010
# Seconds until records are handed over again that the disk has refused, with nothing lost, for want of file handles or space.
TRY_AGAIN_S = 0.25
# Trimmed entries whose memory is freed in one step: 100,000 would hold the loop for 10 ms, these for less than one.
_FREED_AT_ONCE = 5_000


class Submit(Protocol):
    """Interface: gives the function ``work`` to the journal's disk thread, which runs such functions in order.

    The event loop then calls ``done`` with the result of ``work``, or with the exception that ``work`` raised.
    """

    def __call__(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None: ...


class Journal:
    """The durable log, term and vote of one Raft node, in memory and on disk, as PySyncObj (the Raft library) wants them.

    Not safe for concurrent use: the event loop owns it.
    position, durable_position: how many changes of log, term and vote were recorded, and how many of them are durable.
    on_durable: called on the loop whenever ``durable_position`` has moved.
    on_failure: called once, with the exception of a write or flush. Nothing is written after that: a flush that failed
    may have dropped what it could not write, and a second flush would report success. ``failed`` keeps the exception,
    ``durable_position`` stays where it is, and the log in memory works on.
    """

    def __init__(
        self,
        files: SegmentWriter,
        *,
        submit: Submit,
        fsync: str,
        on_durable: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        defer: Callable[[Callable[[], None]], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.on_durable = on_durable
        self.on_failure = on_failure
        self.failed: BaseException | None = None
        self.position = 0
        self.durable_position = 0
        # How long each write to the disk took, with its flush.
        self.flushes = files.flushes
        # Why the disk refuses to take the pending records for the moment; None while it takes them.
        self.trouble: str | None = None
        self._submit = submit
        self._defer = defer
        self._later = later
        self._fsync = fsync
        self._files = files
        replay = files.recover(lambda record: record.payload, b"")
        self._entries: list[LogEntry] = replay.entries
        self._pending: list[Pending] = []
        # Whether a hand-over to the writer is due or under way, so that a mutation need not start one.
        self._scheduled = False
        # Whether the timer runs that hands over entries which nobody waits for.
        self._timed = False
        # Whether the writer is at work on a piece.
        self._busy = False
        self._closed = False
        # Whether records are still written: the journal has neither failed nor been closed.
        self._accepting = True
        # Whether records were written and not flushed, which the mode *always* never leaves.
        self._unsynced = False
        # Whether a record vouches for the last flush already, see segments.py.
        self._marked = False
        # Whether the next piece must be flushed, in the mode *interval*.
        self._sync_due = False
        # Lists of trimmed entries whose memory waits to be freed.
        self._trimmed: list[list[LogEntry]] = []
        self._term = files.state.term
        self._vote = files.state.vote
        # The id of the cluster whose log this is; "" while it is no cluster's.
        self.cluster_id = files.state.cluster_id
        # The pair (cluster_ms, wall_ms) that was noted last, before a restart, too.
        self.clock_pair = files.state.clock
        self._clock_is_new = False
        # The indexes of the sentinel, of the last entry and of the last durable entry; 0 in an empty log. They are
        # plain attributes because every step of an entry reads them.
        self.first_index = self.last_index = 0
        self._note_ends()
        self.durable_index = self._handed_index = self.last_index
        # Bytes that the segments take on the disk, as of the last piece of work.
        self.disk_bytes = files.disk_bytes
        # The size of the entries behind the sentinel, in bytes of their records.
        self.log_bytes = _size_of(self._entries[1:])

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: Path,
        *,
        submit: Submit,
        fsync: str = "always",
        segment_bytes: int = SEGMENT_BYTES,
        on_durable: Callable[[], None] = lambda: None,
        on_failure: Callable[[BaseException], None] = lambda _: None,
        group: int = 0,
        defer: Callable[[Callable[[], None]], None] = lambda call: call(),
        later: Callable[[float, Callable[[], None]], object] = lambda _, call: call(),
        random_bytes: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.monotonic,
    ) -> Journal:
        """Read the journal (log, term and vote) in ``directory``, or create one, and return it, with everything in it durable.

        Blocks. defer: calls a function a little later on the event loop (``Turn.defer_flush``), so that all that one turn
        of the loop appends is one flush; by default at once.
        later: calls a function after some seconds, as the loop's call_later.
        random_bytes: makes the salt of each new file of the journal, which tells that file's records from another's.
        clock: returns seconds, in any thread.
        Raises CorruptJournal for a damaged journal, ConfigError when the disk refuses.
        """
        files = SegmentWriter(
            disk, directory, segment_bytes=segment_bytes, group=group, random_bytes=random_bytes, clock=clock
        )
        try:
            return cls(
                files,
                submit=submit,
                fsync=fsync,
                on_durable=on_durable,
                on_failure=on_failure,
                defer=defer,
                later=later,
            )
        except OSError as error:
            files.abandon()
            reason = error.strerror or str(error)
            raise ConfigError(f"the journal in {directory} cannot be opened: {reason}") from error
        except BaseException:
            files.abandon()
            raise

    # What PySyncObj calls.

    def add(self, command: bytes, idx: int, term: int, awaited: bool = True) -> None:
        """Append an entry, ``command``, to the log. Its index ``idx`` must follow the last entry's.

        In an empty log any index may be the first.
        awaited: a client waits until the entry is durable; otherwise the entry goes to the disk with the next ones, after at
        most RELAXED_S seconds.
        """
        entries = self._entries
        kind = ENTRY
        if not entries:
            kind = START
            self.first_index = idx
            self._lose_from(idx)
        elif entries[-1][1] + 1 != idx:
            raise ValueError(f"entry {idx} does not follow entry {entries[-1][1]}")
        entries.append((command, idx, term))
        self.last_index = idx
        self.position += 1
        # The sentinel, which the first entry becomes, does not count.
        self.log_bytes = self.log_bytes + RECORD_BYTES + len(command) if kind == ENTRY else 0
        if self._accepting:
            self._pending.append((kind, idx, term, command))
            if self._scheduled:
                return
            if awaited:
                self._scheduled = True
                self._defer(self.hand_over)
            elif not self._timed:
                self._timed = True
                self._later(RELAXED_S, self._hand_over_relaxed)

    def clear(self) -> None:
        """Remove all entries from the log in memory. The log on disk stays until ``add`` begins a new one in its place."""
        self._forget(len(self._entries))
        self._note_ends()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the log's entries from ``entryFrom`` on, a position in the log, whose first entry has position 0.

        Raises ValueError for position 0: the first entry stays, so that a log is never empty.
        """
        entries = self._entries
        if not 1 <= entryFrom <= len(entries):
            raise ValueError(
                f"cannot drop the log from position {entryFrom}: it has {len(entries)} and keeps its first"
            )
        if entryFrom == len(entries):
            return
        index = entries[entryFrom][1]
        self.log_bytes -= _size_of(entries[entryFrom:])
        del entries[entryFrom:]
        self._note_ends()
        self._lose_from(index)
        self._record(TRUNCATE, index, entries[-1][2], b"")

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        self.close()

    def onOneSecondTimer(self) -> None:
        """Flush what was written to the journal; called once a second, and does that in the fsync mode "interval" only.

        If nothing waits for a flush, write, once, a record which says that the last flush took place.
        """
        self._free_some()
        if not self._accepting:
            return
        if self._unsynced and self._fsync == "interval":
            self._sync_due = True
            self._hand_over()
        elif not (self._marked or self._unsynced or self._scheduled):
            self._marked = True
            self._scheduled = self._busy = True
            files, clock = self._files, self._take_clock()
            self._submit(lambda: files.mark(clock), self._marked_done)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Do nothing: the commit index is not stored, because after a restart only a leader can say what is committed."""

    def getRaftCommitIndex(self) -> int:
        """Return the commit index that a node starts with: the index of the first entry in its log, at least 1.

        That entry is the last one that the snapshot covers; none behind it is known to be committed.
        """
        return max(1, self.first_index)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Store this node's term and vote, which are flushed in every fsync mode. Raises ValueError if the term goes back."""
        if term < self._term:
            raise ValueError(f"term {term} is lower than {self._term}")
        if (term, votedForNodeId) != (self._term, self._vote):
            self._term, self._vote = term, votedForNodeId
            self._record(VOTE, 0, term, (votedForNodeId or "").encode())

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    # What the node calls.

    @property
    def last_term(self) -> int:
        return self._entries[-1][2] if self._entries else 0

    def bytes_up_to(self, index: int) -> int:
        """Return the size in bytes of the log entries up to ``index``, which must be in the log.

        The first entry, which the snapshot covers, does not count.
        """
        return _size_of(islice(self._entries, 1, index - self.first_index + 1))

    @property
    def waiting_bytes(self) -> int:
        """The size in bytes of the journal's records that wait because the disk thread still writes earlier ones."""
        return sum([RECORD_BYTES + len(payload) for _, _, _, payload in self._pending])

    def term_at(self, index: int) -> int | None:
        """Return the term of the log entry at ``index``; None outside the log.

        The log begins with the last entry that the snapshot covers."""
        entries = self._entries
        if not entries:
            return None
        position = index - entries[0][1]
        return entries[position][2] if 0 <= position < len(entries) else None

    def entries(self, first_index: int, max_bytes: int | None = None, last_index: int | None = None) -> list[LogEntry]:
        """Return the log's entries from ``first_index`` on, or all that the log has if it begins later.

        max_bytes: the most bytes of commands, but one entry is always returned if there is one.
        last_index: the index of the last entry to return; None for the log's end.
        """
        entries = self._entries
        if not entries:
            return []
        begin = max(0, first_index - entries[0][1])
        stop = len(entries) if last_index is None else min(len(entries), last_index - entries[0][1] + 1)
        if max_bytes is None:
            return entries[begin:stop]
        if begin >= stop:
            return []
        end, size = begin, 0
        for end in range(begin, stop):
            size += len(entries[end][0])
            if size > max_bytes and end > begin:
                return entries[begin:end]
        return entries[begin : end + 1]

    def note_clock(self, cluster_ms: int, wall_ms: int) -> None:
        """Store two clock readings in the journal: the cluster's time and this node's wall clock at one moment.

        The pair causes no flush of its own: the journal writes it with the next record, or when the journal is idle.
        """
        self.clock_pair = (cluster_ms, wall_ms)
        self._clock_is_new = True

    def enter_cluster(self, cluster_id: str) -> None:
        """Store the id of the cluster whose log this is from the next entry on. The id is flushed in every fsync mode."""
        if cluster_id != self.cluster_id:
            self.cluster_id = cluster_id
            self._record(CLUSTER, 0, 0, cluster_id.encode())

    def trim(self, index: int) -> None:
        """Remove the log's entries up to ``index``, which a durable snapshot covers.

        The entry at ``index`` stays as the sentinel, the log's first element, without its command. Does nothing at or
        before the present sentinel. Raises ValueError for an index behind the log's end.
        """
        position = index - self.first_index
        if position <= 0 and self._entries:
            return
        if position >= len(self._entries):
            raise ValueError(f"cannot trim to {index}: the log ends at {self.last_index}")
        term = self._entries[position][2]
        if position > len(self._entries) // 2:
            self.log_bytes = _size_of(islice(self._entries, position + 1, None))
        else:
            self.log_bytes -= self.bytes_up_to(index)
        self._forget(position)
        self._entries[0] = (b"", index, term)
        self._note_ends()
        self._record(TRIM, index, term, b"")

    def install(self, index: int, term: int) -> None:
        """Let the log go on behind ``index``, after a snapshot up to that index was received and is durable.

        term: that of the entry at ``index``. The entries behind it are kept if the log has the same entry there;
        otherwise the log begins anew (Raft dissertation 5.1). Raises ValueError if the log's first entry is behind ``index``.
        """
        if index < self.first_index:
            raise ValueError(f"a snapshot up to {index} is older than the log, which begins at {self.first_index}")
        if self.term_at(index) == term:
            self.trim(index)
            return
        self.clear()
        self.add(b"", index, term)

    def hand_over(self) -> None:
        """Give the journal's unwritten records to the disk thread now, or once that thread has written earlier ones."""
        if self._busy:
            return
        if self._pending and self._accepting:
            self._hand_over()
        else:
            self._scheduled = False

    def _hand_over_relaxed(self) -> None:
        self._timed = False
        if not self._scheduled:
            self.hand_over()

    def close(self) -> None:
        """Have the disk thread write and flush the journal's unwritten records, in every fsync mode, and close its files.

        Does not wait until that is done; closing the disk thread does.
        """
        if self._closed:
            return
        self._closed, self._accepting = True, False
        if not self._busy:
            self._finish()

    def _record(self, kind: int, index: int, term: int, payload: bytes) -> None:
        self.position += 1
        if self._accepting:
            self._pending.append((kind, index, term, payload))
            if not self._scheduled:
                self._scheduled = True
                self._defer(self.hand_over)

    def _hand_over(self) -> None:
        """Have the disk thread write all unwritten records of the journal at once, with a flush if one is due."""
        if self._busy or self._closed:
            return
        batch, self._pending = self._pending, []
        # Every write comes here: no call for what is seldom.
        if self._trimmed:
            self._free_some()
        if self._clock_is_new and (clock := self._take_clock()) is not None:
            batch.append((CLOCK, 0, 0, clock_payload(clock)))
        sync = self._sync_due or self._fsync == "always"
        self._sync_due = False
        self._scheduled = self._busy = True
        self._marked = False
        self._handed_index = self.last_index
        files, position = self._files, self.position

        def done(outcome: int | BaseException) -> None:
            self._busy = False
            if isinstance(outcome, NothingLost) and not self._closed:
                # The writer has taken out what it has written; the rest may be empty, and a new segment still be due.
                self.trouble = str(outcome)
                self._pending = batch + self._pending
                self._later(TRY_AGAIN_S, self._hand_over)
                return
            if isinstance(outcome, BaseException):
                self._fail(outcome)
                return
            self.trouble = None
            self._unsynced = not sync
            self.disk_bytes = outcome
            self.durable_position = position
            self.durable_index = self._handed_index
            self._continue()
            self.on_durable()

        self._submit(partial(files.append, batch, sync), done)

    def _marked_done(self, outcome: BaseException | None) -> None:
        self._busy = False
        if outcome is not None:
            self._fail(outcome)
        else:
            self._continue()

    def _continue(self) -> None:
        """Have the disk thread, whose previous write has ended, write the journal's unwritten records, or flush if due."""
        if self._closed:
            self._finish()
        elif self._pending or self._sync_due:
            self._hand_over()
        else:
            self._scheduled = False

    def _finish(self) -> None:
        """Have the disk thread write and flush the journal's last records and close the files."""
        self._busy = self._scheduled = True
        batch, self._pending = self._pending, []
        clock = self._take_clock()
        if clock is not None:
            batch.append((CLOCK, 0, 0, clock_payload(clock)))
        files, position, failed = self._files, self.position, self.failed

        def done(outcome: BaseException | None) -> None:
            self._busy = False
            if isinstance(outcome, BaseException):
                self._fail(outcome)
            elif failed is None and position != self.durable_position:
                self.durable_position = position
                self.durable_index = self.last_index
                self.on_durable()

        self._submit(files.abandon if failed is not None else lambda: files.close(batch), done)

    def _fail(self, error: BaseException) -> None:
        self._pending = []
        self._accepting = False
        if self.failed is None:
            self.failed = error
            if self._closed:
                self._submit(self._files.abandon, lambda _: None)
            self.on_failure(error)

    def _take_clock(self) -> Clock | None:
        """Return the clock pair (cluster's time, wall clock) if the journal has still to write it; None from then on."""
        if not self._clock_is_new:
            return None
        self._clock_is_new = False
        return self.clock_pair

    def _note_ends(self) -> None:
        entries = self._entries
        self.first_index, self.last_index = (entries[0][1], entries[-1][1]) if entries else (0, 0)

    def _lose_from(self, index: int) -> None:
        """Lower the index of the last durable entry below ``index``: the entries from there on were removed from the log."""
        self.durable_index = min(self.durable_index, index - 1)
        self._handed_index = min(self._handed_index, index - 1)

    def _forget(self, count: int) -> None:
        """Remove the first ``count`` entries from the log's list in memory.

        This moves the removed entries or the others, whichever are fewer. The memory is freed later.
        """
        gone = self._entries
        if count > len(gone) // 2:
            self._entries = gone[count:]
        else:
            gone = gone[:count]
            del self._entries[:count]
        self._trimmed.append(gone)

    def _free_some(self) -> None:
        if self._trimmed:
            gone = self._trimmed[-1]
            del gone[-_FREED_AT_ONCE:]
            if not gone:
                self._trimmed.pop()


def _size_of(entries: Iterable[LogEntry]) -> int:
    """Return how many bytes the log entries in ``entries`` take in the journal's files."""
    return sum([RECORD_BYTES + len(command) for command, _, _ in entries])
