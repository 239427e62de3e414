"""Segments: the journal's files, which are read and judged at start and then appended to by the one writer.

1. A segment has its name only once its header is durable (temporary name, flush, rename, flush of the folder), and
   it is never shorter than its header says: space is reserved first, so a full disk shows before a record is torn.
2. A segment gets a successor only after a flush: all but the last are complete. A SEAL record at the end of each
   says that the next one exists, so that a lost newest segment is noticed. Only the SEAL record may be torn in an older
   segment: it is written last, and the successor's chain and state say whether anything else is missing.
3. Bytes are written once. A tail that a crash tore is overwritten with zeros and flushed before anything follows it.
4. Older segments are removed, oldest first, when the sentinel has passed all their entries and the record that says so
   is durable.

**Torn tail or damage.** A power failure may keep any part of what was not flushed: later records can be whole where
an earlier one is not. So "valid records behind a bad one" alone proves nothing. But each record carries ``synced``,
the length of the file that was durable when it was written. When the last segment has a bad record at byte *b*:

* some valid record behind it has ``synced > b``: byte *b* had been flushed, and no crash takes flushed bytes away.
  This is damage, and the journal is refused: the lost records may have been promised to others;
* no record has: everything from *b* on was written after the last flush that any record vouches for. This is a torn
  tail, never promised, and it is cut at *b*.

The last flush is vouched for by the next batch, or by a MARK record that is written when the journal falls idle.
Between the flush and that mark, at most about a second, damage to the last batch passes for a torn tail. These are
damage, too: a file shorter than reserved, a bad record in any other segment, a segment that is missing in the middle or
at the end, a chain that does not meet. A later format is no damage: NewerCacheFlow. Zeros from a record's end to the file's
end are the end of the records.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from cacheflow.measuring.histogram import Histogram
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.formats import FORMAT_BYTES, encode_format, is_format
from cacheflow.raft.log.records import (
    CLOCK,
    CLUSTER,
    ENTRY,
    FORMAT_VERSION,
    HEADER,
    MAGIC,
    MARK,
    PREAMBLE_BYTES,
    RECORD_BYTES,
    SALT_BYTES,
    SEAL,
    START,
    TRIM,
    VOTE,
    Clock,
    Codec,
    CorruptJournal,
    Header,
    LogState,
    Record,
    Replay,
    clock_payload,
)

V = TypeVar("V")
# (kind, index, term, payload) of a record that is not written yet.
Pending = tuple[int, int, int, bytes]

# Bytes that are kept free behind every batch, for a clock pair, a mark and the seal.
_RESERVE_BYTES = 3 * RECORD_BYTES + 16
# An upper bound of the bytes of preamble and header, the longest part of which is a node id of at most 63 bytes.
_HEADER_BYTES_MAX = 1024
_NAME = re.compile(r"journal-(\d{12})\.cfj")
_TEMPORARY = ".new"
_SIZE_OF = attrgetter("size")
# The reasons that pass when somebody closes files or makes room.
_PASSING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT))


def segment_name(sequence: int) -> str:
    """Return the name of the journal's file number ``sequence``."""
    return f"journal-{sequence:012}.cfj"


def list_segments(disk: Disk, directory: Path) -> list[tuple[int, Path]]:
    """Return (number, path) of each of the journal's files in ``directory``, oldest first."""
    matches = (_NAME.fullmatch(name) for name in disk.list(directory))
    return sorted((int(match[1]), directory / match[0]) for match in matches if match)


class SegmentReader:
    """Reads one of the journal's files from ``data``, its bytes at one moment.

    Raises CorruptJournal if the header, with which the bytes begin, is damaged or another file's; NewerCacheFlow for a later
    format.
    """

    def __init__(self, path: Path, data: bytes, sequence: int, group: int) -> None:
        self.path = path
        self.data = data
        if not data.startswith(MAGIC) or len(data) < PREAMBLE_BYTES:
            raise CorruptJournal(path, 0, "not a segment of a journal")
        if not is_format(data[len(MAGIC) : len(MAGIC) + FORMAT_BYTES], FORMAT_VERSION, f"the journal, {path},"):
            raise CorruptJournal(path, len(MAGIC), "its format is unreadable")
        self.codec = Codec(data[PREAMBLE_BYTES - SALT_BYTES : PREAMBLE_BYTES], group)
        first = self.codec.decode(data, PREAMBLE_BYTES)
        if first is None or first.kind != HEADER:
            raise CorruptJournal(path, PREAMBLE_BYTES, "the segment's header is unreadable")
        if first.group != group:
            raise CorruptJournal(path, PREAMBLE_BYTES, f"belongs to group {first.group}, not {group}")
        self.header = Header.unpack(first.payload)
        if self.header.sequence != sequence:
            raise CorruptJournal(path, PREAMBLE_BYTES, f"is segment {self.header.sequence} by its header")
        self.chain_before = first.previous
        self.check = first.check
        self.begin = self.end = first.end
        self.last_kind = HEADER

    def records(self) -> Iterator[Record]:
        """Yield the records of this journal file behind its header, up to the first damaged one.

        Meanwhile ``end``, ``check`` and ``last_kind`` tell where the last yielded record ends, its hash and its kind.
        """
        for record in self.codec.read(self.data, self.end, self.check):
            self.end, self.last_kind = record.end, record.kind
            if record.kind == SEAL:  # outside the chain: the successor's header was written before it
                return
            self.check = record.check
            yield record

    def judge(self, last: bool) -> int:
        """Return how many bytes behind this journal file's last good record a crash has torn: they may be cut off.

        last: whether this is the journal's newest file. Call this once ``records`` has yielded all records of the file.
        Raises CorruptJournal for damage.
        """
        sealed = self.last_kind == SEAL
        if sealed:
            if last:
                raise CorruptJournal(self.path, self.end, "the segment that follows this one is missing")
        elif len(self.data) < self.header.size:
            what = f"the file has been cut short: {len(self.data)} of {self.header.size} bytes"
            raise CorruptJournal(self.path, len(self.data), what)
        # Behind the records the file holds only zeros.
        torn = max(0, len(self.data.rstrip(b"\0")) - self.end)
        if torn and not last:
            # At most a seal may be torn here; the next segment's chain and state tell whether the torn record was one.
            if sealed or torn > RECORD_BYTES:
                raise CorruptJournal(self.path, self.end, "a bad record, and the journal goes on behind it")
        elif torn:
            for record in self.codec.find(self.data, self.end):
                if record.synced > self.end:
                    what = f"a bad record; the record at byte {record.offset} proves that it had been stored"
                    raise CorruptJournal(self.path, self.end, what)
        return torn


class NothingLost(OSError):
    """Raised when the operating system refuses, for now, what a new journal file needs, such as space.

    Nothing that was written before is lost, and the call that has raised this may be repeated.
    """


@contextlib.contextmanager
def _nothing_lost() -> Iterator[None]:
    """Context manager: turns an OSError raised inside into NothingLost if its cause may pass, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in _PASSING:
            raise NothingLost(error.errno, error.strerror) from error
        raise


@dataclass(slots=True)
class _Segment:
    """One of the journal's files, with what the journal's writer has to remember of that file."""

    path: Path
    size: int
    # The highest index of its entries; 0 when the log has begun anew since, so that none of them counts.
    max_index: int = 0


class SegmentWriter:
    """Reads the whole journal at the start of a node, then appends records to the journal's newest file.

    The disk thread owns it: one call at a time, and none after a call has raised, except for NothingLost. ``recover``
    comes first, then ``append``, ``mark`` and ``close``.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        segment_bytes: int,
        group: int,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        # How long each ``append`` took.
        self.flushes = Histogram()
        self._clock = clock
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._group = group
        self._random_bytes = random_bytes
        self._segments: list[_Segment] = []
        self._sequence = 0
        self._handle = -1
        self._codec = Codec(bytes(SALT_BYTES), group)
        self._check = bytes(8)
        # In the newest segment: where its records begin, where they end, and where they ended at the last flush.
        self._begin = 0
        self._offset = 0
        self._synced = 0
        # Whether anything was written and not flushed; a mark does not count.
        self._dirty = False
        # Whether the last record is a mark or a header, which says that everything before it was flushed.
        self._vouched = False
        # What is due since NothingLost was raised: a new segment with room for a record of so many bytes, a flush, and the
        # removal of segments.
        self._roll_due: int | None = None
        self._sync_due = False
        self._removal_due = False
        self.state = LogState()

    @property
    def disk_bytes(self) -> int:
        """The number of bytes that all of the journal's files take on the disk."""
        return sum(map(_SIZE_OF, self._segments))

    def recover(self, value_of: Callable[[Record], V], nothing: V) -> Replay[V]:
        """Read all of the journal's files, cut off what a crash has torn at the end, prepare to append, and return the log.

        A new journal gets its first file. Everything that was read is durable afterwards.
        value_of: returns, for an entry's record, what the returned log holds for that entry.  nothing: what it holds for its
        first element if that is no entry and only says where the log begins. Raises CorruptJournal, OSError.
        """
        for name in self._disk.list(self._directory):
            if name.endswith(_TEMPORARY) and _NAME.fullmatch(name.removesuffix(_TEMPORARY)):
                self._disk.remove(self._directory / name)
        # The newest segment's name may only be in the system's memory, when the process died before it was flushed.
        self._disk.sync_directory(self._directory)
        found = list_segments(self._disk, self._directory)
        if not found:
            self._roll(0)
            return Replay(self.state, value_of, nothing)
        replay: Replay[V] | None = None
        for sequence, path in found:
            reader = SegmentReader(path, self._disk.read(path), sequence, self._group)
            if replay is None:
                self.state = reader.header.state
                replay = Replay(self.state, value_of, nothing)
            elif sequence != self._sequence + 1:
                raise CorruptJournal(path, 0, f"{segment_name(self._sequence + 1)} before it is missing")
            elif reader.chain_before != self._check[:4] or reader.header.state != self.state:
                before = f"{segment_name(self._sequence)}, which ends at byte {self._offset}"
                raise CorruptJournal(path, PREAMBLE_BYTES, f"does not continue {before}")
            self._segments.append(_Segment(path, len(reader.data)))
            for record in reader.records():
                replay.feed(path, record)
                self.state.note(record.kind, record.index, record.term, record.payload)
                self._count(record.kind, record.index)
            torn = reader.judge(last=path == found[-1][1])
            self._sequence, self._check, self._codec = sequence, reader.check, reader.codec
            self._begin, self._offset = reader.begin, reader.end
        assert replay is not None
        replay.finish(found[0][1])
        self._handle = self._disk.open(path)
        if torn:
            self._disk.write(self._handle, self._offset, bytes(torn))
        # This is needed without a torn tail, too: the bytes that were read may only have been in the system's memory.
        self._disk.sync(self._handle)
        self._synced = self._offset
        self._vouched = reader.last_kind in (HEADER, MARK)
        return replay

    def append(self, batch: list[Pending], sync: bool) -> int:
        """Write the records in ``batch`` to the journal and return how many bytes the journal's files now take on the disk.

        A flush follows if ``sync`` is true or a record is a vote or names a cluster. If NothingLost is raised, the
        written records were removed from ``batch``: call this again with the rest and with newer records. After an OSError
        nothing may be written any more.
        """
        began = self._clock()
        buffer: list[bytes] = []
        written = 0
        sync = sync or self._sync_due
        trimmed, removal = False, self._removal_due
        state = self.state
        try:
            if self._roll_due is not None:
                self._roll(self._roll_due)
            end = self._offset
            for position, (kind, index, term, payload) in enumerate(batch):
                size = RECORD_BYTES + len(payload)
                if end + size + _RESERVE_BYTES > self._segments[-1].size:
                    self._write(buffer)
                    written = position
                    self._roll(size)
                    end, buffer = self._offset, []
                pieces = self._codec.encode(kind, index, term, payload, self._check, self._synced)
                self._check = pieces[1]
                buffer += pieces
                end += size
                state.note(kind, index, term, payload)
                self._count(kind, index)
                if kind != ENTRY:
                    sync = sync or kind in (VOTE, CLUSTER)
                    trimmed = trimmed or kind == TRIM
                    removal = removal or kind in (TRIM, START)
            self._write(buffer, sync)
            written = len(batch)
            if trimmed and self._offset - self._begin > self._segment_bytes // 4:
                self._roll(0)  # what is in this segment can go with the next trim
            if removal:
                self._remove_segments()
        except NothingLost:
            del batch[:written]
            self._sync_due, self._removal_due = sync, removal
            raise
        if sync:
            self._sync()
        self._sync_due = self._removal_due = False
        self.flushes.note(self._clock() - began)
        return self.disk_bytes

    def mark(self, clock: Clock | None) -> None:
        """Write a record to the journal which says that the last flush took place, without flushing it.

        clock: a pair of clock readings, which is written before that record; None for none.
        """
        if self._dirty or (self._vouched and clock is None) or self._offset + _RESERVE_BYTES > self._segments[-1].size:
            return
        check, pieces = self._check, []
        if clock is not None:
            self.state.clock = clock
            pieces = self._codec.encode(CLOCK, 0, 0, clock_payload(clock), check, self._synced)
            check = pieces[1]
        mark = self._codec.encode(MARK, 0, 0, b"", check, self._synced)
        self._check = mark[1]
        self._write(pieces + mark)
        # Neither record promises anything, so they are flushed with the next batch.
        self._dirty, self._vouched = False, True

    def close(self, batch: list[Pending]) -> None:
        """Write the journal records in ``batch``, flush, write a record which says so, and close the journal's newest file."""
        self.append(batch, True)
        self.mark(None)
        self._sync()
        self.abandon()

    def abandon(self) -> None:
        """Close the journal's newest file without writing or flushing anything."""
        if self._handle >= 0:
            self._disk.close(self._handle)
            self._handle = -1

    def _write(self, pieces: list[bytes], sync: bool = False) -> None:
        """Write the bytes in ``pieces`` at the end of the journal's newest file.

        sync: make these bytes durable, too, unless earlier bytes of the file wait for a flush; the caller then has to flush.
        """
        if pieces:
            data = b"".join(pieces)
            self._vouched = False
            if sync and self._synced == self._offset:
                self._disk.write_durably(self._handle, self._offset, data)
                self._offset += len(data)
                self._synced = self._offset
            else:
                self._disk.write(self._handle, self._offset, data)
                self._offset += len(data)
                self._dirty = True

    def _sync(self) -> None:
        if self._synced != self._offset:
            self._disk.sync(self._handle)
            self._synced = self._offset
        self._dirty = False

    def _count(self, kind: int, index: int) -> None:
        if kind == ENTRY:
            segment = self._segments[-1]
            if index > segment.max_index:
                segment.max_index = index
        elif kind == START:
            for segment in self._segments:
                segment.max_index = 0
            self._segments[-1].max_index = index

    def _remove_segments(self) -> None:
        """Remove the oldest journal files, whose log entries are all covered by the node's snapshot."""
        while len(self._segments) > 1 and self._segments[0].max_index <= self.state.sentinel_index:
            self._sync()
            with contextlib.suppress(FileNotFoundError):  # removed, and then the folder could not be flushed
                self._disk.remove(self._segments[0].path)
            # One at a time: after a power failure no segment may be missing while an older one is left.
            with _nothing_lost():
                self._disk.sync_directory(self._directory)
            del self._segments[0]

    def _roll(self, record_bytes: int) -> None:
        """Flush the journal's newest file and create the next one, with room for a record of ``record_bytes``.

        Raises NothingLost when the disk refuses for now. Then nothing may be written before a repeated call has succeeded,
        because the new file may be there already.
        """
        disk = self._disk
        if self._segments:
            self._sync()
        self._roll_due = record_bytes
        sequence = self._sequence + 1
        path = self._directory / segment_name(sequence)
        temporary = path.with_name(path.name + _TEMPORARY)
        codec = Codec(self._random_bytes(SALT_BYTES), self._group)
        size = max(self._segment_bytes, _HEADER_BYTES_MAX + record_bytes + _RESERVE_BYTES)
        pieces = codec.encode(HEADER, 0, 0, Header(sequence, size, self.state).pack(), self._check, 0)
        data = b"".join([MAGIC, encode_format(FORMAT_VERSION), codec.salt, *pieces])
        with _nothing_lost():
            handle = disk.open(temporary, create=True)
            try:
                disk.preallocate(handle, size)
                disk.write(handle, 0, data)
                disk.sync(handle)
                disk.rename(temporary, path)
                disk.sync_directory(self._directory)
            except OSError:
                disk.close(handle)
                with contextlib.suppress(OSError):
                    disk.remove(temporary)
                raise
        self._roll_due = None
        if self._segments:
            self._seal()
        self._handle, self._codec, self._check = handle, codec, pieces[1]
        self._sequence = sequence
        self._begin = self._offset = self._synced = len(data)
        self._dirty, self._vouched = False, True
        self._segments.append(_Segment(path, size))

    def _seal(self) -> None:
        """Write a last record into the journal's newest file, which says that another file follows.

        Then cut off the unused space of that file and close it.
        """
        self._write(self._codec.encode(SEAL, 0, 0, b"", self._check, self._synced))
        self._disk.sync(self._handle)
        self._disk.truncate(self._handle, self._offset)
        self._disk.close(self._handle)
        self._segments[-1].size = self._offset
