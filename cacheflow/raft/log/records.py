"""Records of the journal: their bytes, and what a stream of them means.

A segment file is a preamble (magic, format: see formats.py, 16 random bytes: the *salt*), a HEADER record, records, and zeros.
A record is 43 bytes and its payload, little endian::

    tag 4 | check 8 | previous 4 | length 4 | kind 1 | group 2 | synced 4 | term 8 | index 8 | payload

* ``check`` is BLAKE2b-64, salted per segment, over everything behind it. A CRC would cost 0.2 µs less and finds any
  flipped bit of the payload for certain, but a bit flipped in ``length`` makes it cover other bytes, where it is right
  once in 2^32, and a client who stores a value that looks like records could make a damaged file pass for a whole
  one. With a salt that no client knows the odds are 2^-64, whatever is broken.
* ``previous`` is the first half of the check of the record before: a valid record from elsewhere does not fit in.
* ``tag`` comes from the salt, so that valid records behind a damaged one are found by a search for four bytes.
* ``synced`` says up to which byte the file was durable when the record was written. It is what tells a torn tail
  from damage: see segments.py.

The numbers and shapes below are on disk for ever: new ones are added, none is changed unless FORMAT_VERSION changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Final, Generic, TypeVar

import msgpack

from cacheflow.errors import ConfigError, NewerCacheFlow
from cacheflow.machine.language.commands import level_of
from cacheflow.raft.log.formats import FORMAT_BYTES

MAGIC: Final = b"CFJRNL"
FORMAT_VERSION: Final = 1
SALT_BYTES: Final = 16
PREAMBLE_BYTES: Final = len(MAGIC) + FORMAT_BYTES + SALT_BYTES

HEADER: Final = 1  # payload: see Header; always the first record of a segment, and only there
ENTRY: Final = 2  # index, term, payload: the command
TRUNCATE: Final = 3  # entries from index on are gone; term: that of the entry before index
VOTE: Final = 4  # term; payload: the id of the node that this node voted for, empty for none
CLOCK: Final = 5  # payload: cluster_ms, wall_ms
TRIM: Final = 6  # entries up to index are gone; index and term are the sentinel's
START: Final = 7  # the log begins anew with this one entry: after installing a snapshot, and in a new journal
MARK: Final = 8  # only its ``synced`` counts: it is written when the journal is idle and vouches for the last flush
SEAL: Final = 9  # the segment is complete and goes on in the next one
CLUSTER: Final = 10  # payload: the id of the cluster whose log this is from here on

# The fields of a record before its payload; then those of them that its check covers.
_HEAD: Final = struct.Struct("<4s8s4sIBHIQQ")
_COVERED: Final = struct.Struct("<4sIBHIQQ")
_CLOCK: Final = struct.Struct("<qq")
RECORD_BYTES: Final = _HEAD.size
_UNCOVERED: Final = RECORD_BYTES - _COVERED.size

# The first byte of an entry's command: what kind of entry it is. A configuration is a member table, alone in its entry.
# Behind it stands the packed entry, which begins with its feature level; a no-op is Raft's own and has neither.
REGULAR: Final = b"\x00"
NO_OP: Final = b"\x01"
CONFIGURATION: Final = b"\x02"
# The kinds of level 1 that hold an entry for the machine. Any other has no effect in an entry of that level, on every build.
ENTRY_KINDS: Final = frozenset((REGULAR, CONFIGURATION))

# (cluster_ms, wall_ms): two readings of one moment.
Clock = tuple[int, int]
# (payload, index, term) of one entry of the log.
LogEntry = tuple[bytes, int, int]
V = TypeVar("V")


def check_level(command: bytes, index: int, build_level: int) -> None:
    """Raise NewerCacheFlow if ``command``, the log entry at ``index``, is of a later feature level than this build knows."""
    level = level_of(command[1:3])
    if level > build_level:
        raise NewerCacheFlow.wrote(f"entry {index} of the log", level, build_level)


class CorruptJournal(ConfigError):
    """Raised for a journal that is damaged or incomplete. The message names the file, the byte and what is wrong there."""

    def __init__(self, file: object, offset: int, what: str) -> None:
        super().__init__(
            f"the journal is damaged: {file}, byte {offset}: {what}. Nothing was loaded: this node may have promised "
            "what it no longer knows. Remove its data directory and start it again with --seed; "
            "it rejoins the cluster as a new member"
        )


@dataclass(slots=True)
class Record:
    """One record of the journal's files, read from the bytes between ``offset`` and ``end`` of a file."""

    kind: int
    index: int
    term: int
    payload: bytes
    synced: int
    check: bytes
    previous: bytes
    group: int
    offset: int
    end: int


class Codec:
    """Encodes and decodes the records of one of the journal's files, which are marked by the file's random salt. Immutable."""

    def __init__(self, salt: bytes, group: int) -> None:
        self.salt = salt
        self._group = group
        # The first byte is not zero: otherwise the zeros at the end of a file could be full of tags.
        self._tag = b"\xcf" + salt[:3]
        self._hash = blake2b(digest_size=8, salt=salt)

    def encode(self, kind: int, index: int, term: int, payload: bytes, previous: bytes, synced: int) -> list[bytes]:
        """Return the bytes of a journal record in four parts: [tag, check, head, payload].

        The check is a hash of head and payload; the tag marks the file's records.
        previous: the check of the record before this one.  synced: up to which byte the file is durable.
        """
        covered = _COVERED.pack(previous[:4], len(payload), kind, self._group, synced, term, index)
        digest = self._hash.copy()
        digest.update(covered)
        digest.update(payload)
        return [self._tag, digest.digest(), covered, payload]

    def decode(self, data: bytes, offset: int) -> Record | None:
        """Return the journal record at ``offset`` of ``data`` if the hash in the record is right; else None.

        Whether that record follows the one before is not checked.
        """
        begin = offset + RECORD_BYTES
        if begin > len(data):
            return None
        tag, check, previous, length, kind, group, synced, term, index = _HEAD.unpack_from(data, offset)
        end = begin + length
        if tag != self._tag or end > len(data):
            return None
        digest = self._hash.copy()
        digest.update(memoryview(data)[offset + _UNCOVERED : end])
        if digest.digest() != check:
            return None
        return Record(kind, index, term, data[begin:end], synced, check, previous, group, offset, end)

    def read(self, data: bytes, offset: int, previous: bytes) -> Iterator[Record]:
        """Yield the journal's records in ``data`` from ``offset`` on, until one is damaged or does not follow the one before.

        previous: the check (a hash) of the record before ``offset``, which the first record must repeat.
        """
        while True:
            record = self.decode(data, offset)
            if record is None or record.previous != previous[:4] or record.group != self._group:
                return
            yield record
            offset, previous = record.end, record.check

    def find(self, data: bytes, offset: int) -> Iterator[Record]:
        """Yield the undamaged journal records in ``data`` from ``offset`` on, at whatever byte they begin."""
        while (offset := data.find(self._tag, offset)) >= 0:
            record = self.decode(data, offset)
            if record is None:
                offset += 1
            else:
                yield record
                offset = record.end


@dataclass(slots=True)
class LogState:
    """The state of a node's log: term, vote, first and last entry, cluster, clock. Each journal file begins with that state.

    So a new file does not need the older ones, which can be removed. The owner updates the state with each record.
    """

    term: int = 0
    vote: str | None = None
    sentinel_index: int = 0
    sentinel_term: int = 0
    last_index: int = 0
    last_term: int = 0
    cluster_id: str = ""
    clock: Clock | None = None

    def note(self, kind: int, index: int, term: int, payload: bytes) -> None:
        """Update this state of a node's log (its term, vote, first and last entry, cluster, clock) by a journal record.

        kind, index, term, payload: the fields of the record."""
        if kind == ENTRY:
            self.last_index, self.last_term = index, term
        elif kind == TRUNCATE:
            self.last_index, self.last_term = index - 1, term
        elif kind == VOTE:
            self.term, self.vote = term, payload.decode() or None
        elif kind == CLOCK:
            self.clock = _CLOCK.unpack(payload)
        elif kind == TRIM:
            self.sentinel_index, self.sentinel_term = index, term
        elif kind == START:
            self.sentinel_index, self.sentinel_term = self.last_index, self.last_term = index, term
        elif kind == CLUSTER:
            self.cluster_id = payload.decode()


_STATE_FIELDS: Final = len(fields(LogState))


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a journal file, its first record: the file's number, the log's state, and the file's reserved length."""

    sequence: int
    size: int
    state: LogState

    def pack(self) -> bytes:
        state = self.state
        packed: bytes = msgpack.packb(
            (
                self.sequence,
                self.size,
                state.term,
                state.vote,
                state.sentinel_index,
                state.sentinel_term,
                state.last_index,
                state.last_term,
                state.cluster_id,
                state.clock,
            )
        )
        return packed

    @classmethod
    def unpack(cls, payload: bytes) -> Header:
        """Decode the header of a journal file from ``payload``, that of the file's first record. Raises NewerCacheFlow."""
        sequence, size, *state = msgpack.unpackb(payload)
        if len(state) > _STATE_FIELDS:
            raise NewerCacheFlow.wrote("the journal", len(state), _STATE_FIELDS, number="fields in a header")
        state[-1] = state[-1] and tuple(state[-1])
        return cls(sequence, size, LogState(*state))


def clock_payload(clock: Clock) -> bytes:
    """Return the bytes by which a journal record holds ``clock``, which is (cluster's time, wall clock) in ms."""
    return _CLOCK.pack(*clock)


class Replay(Generic[V]):
    """Builds a node's log, a list of (value, index, term), from the journal's records, which are fed to this object in order.

    The value of an entry is what the function ``value_of`` returns for the entry's record. If the first element is no entry
    and only says where the log begins, its value is ``nothing``.
    Raises CorruptJournal where a valid record contradicts the ones before it, NewerCacheFlow for one of an unknown kind.
    """

    def __init__(self, state: LogState, value_of: Callable[[Record], V], nothing: V) -> None:
        self.entries: list[tuple[V, int, int]] = []
        self._value_of = value_of
        self._nothing = nothing
        # The entries between the sentinel and the last entry of the first header were in segments that are removed. A
        # trim or a new start further on must cover them; if none does, segments are missing that this program has not removed.
        self._gap = state.sentinel_index < state.last_index
        if state.last_index:
            self.entries.append((nothing, state.last_index, state.last_term))

    def feed(self, file: object, record: Record) -> None:
        """Apply ``record``, the journal's next record, to the log that is built from these records.

        file: the file that holds the record, for the message of CorruptJournal.
        """
        kind, index, term = record.kind, record.index, record.term
        entries = self.entries
        if kind == ENTRY:
            if not entries or index != entries[-1][1] + 1 or term < entries[-1][2]:
                raise CorruptJournal(
                    file, record.offset, f"entry {index} of term {term} does not follow {self._last()}"
                )
            entries.append((self._value_of(record), index, term))
        elif kind == TRUNCATE:
            if entries and entries[0][1] < index <= entries[-1][1]:
                del entries[index - entries[0][1] :]
            elif entries and self._gap and index <= entries[0][1]:
                self.entries = [(self._nothing, index - 1, term)]
            else:
                raise CorruptJournal(file, record.offset, f"cuts the log at {index}, which ends with {self._last()}")
        elif kind == TRIM:
            self._trim(file, record)
        elif kind == START:
            self.entries = [(self._value_of(record), index, term)]
            self._gap = False
        elif kind > CLUSTER:
            raise NewerCacheFlow.wrote(
                f"the journal, {file}, byte {record.offset},", kind, CLUSTER, number="kind of record"
            )
        elif kind == HEADER:
            raise CorruptJournal(file, record.offset, f"a record of kind {kind} has no place here")

    def finish(self, first_file: object) -> None:
        """Raise CorruptJournal if the journal's records that were read do not hold the beginning of the log.

        Called after the last record. first_file: the journal's oldest file, for the message.
        """
        if self._gap:
            raise CorruptJournal(first_file, 0, "the segments before this one are missing")

    def _trim(self, file: object, record: Record) -> None:
        entries, index = self.entries, record.index
        if self._gap and entries and index < entries[0][1]:
            return
        if not entries or not entries[0][1] <= index <= entries[-1][1]:
            raise CorruptJournal(file, record.offset, f"trims the log to {index}, which ends with {self._last()}")
        position = index - entries[0][1]
        if entries[position][2] != record.term:
            raise CorruptJournal(
                file, record.offset, f"trims to {index} of term {record.term}, which is of another term"
            )
        del entries[:position]
        entries[0] = (self._nothing, index, record.term)
        self._gap = False

    def _last(self) -> str:
        return f"entry {self.entries[-1][1]} of term {self.entries[-1][2]}" if self.entries else "nothing"
