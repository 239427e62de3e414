"""The machine's whole state as a stream of msgpack records, and back.

    [name, format, {field: value}]          the small fields
    [SESSION, id, member id, start, nonce, level, last]   followed by this session's results and reads
    [RESULT, result]                        one result of the session before it, in order
    [READ, last, bytes]                     of the session before it: what its block up to ``last`` has read, in order
    [MEMBER, id, incarnation, raft_address, address, voter, observer]
    [REMOVED, id, incarnation]              in the order of their removals
    [KEPT, client key, when it took place, index, fingerprint, packed result or nothing]
    [SCOPE, id, nonce, floor, used]         in the order of their use, followed by this scope's results
    [NUMBER, number, fingerprint, packed result or nothing]  one result of the scope before it
    [ANSWER, scope or 0, number or client key, packed result]  a large result, in order
    [CONDEMNATION, prefix, only database 0, counted, revision, at_ms, count]   in the order of their revisions
    [COUNTED, revision, count]              of condemnations that are over, in the order of their ends
    [ENTRY, key, data, kind, meta, version, expires_at_ms, uses]    in eviction order
    [END, number of records before it]

Everything is written in an order that the machine itself follows, so equal machines give equal bytes. What comes back
is checked: a file may be damaged and a peer may lie.

The small fields name the feature level in force (``language/levels.py``), which is looked at before anything else: a record,
or a field, that a later level brings is written once that level is in force, so a build that does not know it never reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, replace
from sys import intern
from typing import Any, ClassVar, Final

import msgpack

from cacheflow.errors import CacheFlowError, NewerCacheFlow
from cacheflow.machine.language.commands import FIELDS_BYTES_MAX, CodecError
from cacheflow.machine.language.fields import is_well_formed
from cacheflow.machine.language.levels import BUILD_LEVEL, FIRST_LEVEL
from cacheflow.machine.state.answers import LargeAnswers
from cacheflow.machine.state.condemnations import Condemnation, Condemnations
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import (
    KEY_BYTES_MAX,
    KIND_MAX,
    KIND_SET,
    KIND_VALUE_MAX,
    Entry,
    key_bytes,
)
from cacheflow.machine.state.idempotency import IdempotencyTable
from cacheflow.machine.state.restore import Restore, restore_of
from cacheflow.machine.state.scopes import Scope, Scopes
from cacheflow.machine.state.sessions import Session, Sessions
from cacheflow.machine.state.settings import Member, Settings, changed, member_table

NAME: Final = "cacheflow machine"
FORMAT: Final = 1
# Size of a snapshot's chunks: large enough that a chunk costs little beside its bytes, small beside a node's memory.
CHUNK_BYTES: Final = 256 * 1024
DIGEST_BYTES: Final = 16

SESSION: Final = 1
RESULT: Final = 2
MEMBER: Final = 3
KEPT: Final = 4
CONDEMNATION: Final = 5
COUNTED: Final = 6
ENTRY: Final = 7
END: Final = 8
REMOVED: Final = 9
READ: Final = 10
SCOPE: Final = 11
NUMBER: Final = 12
ANSWER: Final = 13

# The most that one record may take: several times the largest answer of a batch, or value. It is less than what is read at
# once, which is limited because a damaged length must not make us reserve memory for it.
RECORD_BYTES_MAX: Final = 2**29
_READ_BYTES_MAX: Final = 2**31 - 1
_LIST_ITEMS_MAX: Final = 1_000_000

# The counters of Contents that are part of the state.
COUNTERS: Final = ("written", "deleted", "expired", "evicted", "condemnations", "swept")


class State:
    """The whole state of a node's copy of the cache's state machine: exactly what a snapshot holds."""

    # The highest feature level that this build knows. Tests stand for a newer build by a subclass.
    build_level: ClassVar[int] = BUILD_LEVEL

    def __init__(self) -> None:
        # The feature level in force: entries are appended at this level from now on.
        self.level = FIRST_LEVEL
        # Raft's entry 1 is never applied.
        self.applied_index = 1
        # The rolling digest over all effects so far.
        self.digest = bytes(DIGEST_BYTES)
        self.settings = Settings()
        self.cluster_id = ""
        self.members: dict[str, Member] = {}
        # (id, incarnation) of the nodes that were members and are none any more, the latest last: a dictionary for its order.
        self.removed: dict[tuple[str, str], None] = {}
        # The ids of the clusters in whose place this one has come, the latest last: a dictionary for its order.
        self.replaced: dict[str, None] = {}
        self.contents = Contents()
        self.sessions = Sessions()
        self.answers = LargeAnswers()
        self.idempotency = IdempotencyTable(self.answers)
        self.scopes = Scopes(self.answers)
        # The restore that was begun last, and whether it keeps clients from being served.
        self.restoring: Restore | None = None
        self.is_closed = False


def records(machine: State) -> Iterator[tuple[Any, ...]]:
    """Yield the snapshot records that hold the whole state of ``machine``, which must not change before the last is taken."""
    contents = machine.contents
    fields = {
        "level": machine.level,
        "applied_index": machine.applied_index,
        "digest": machine.digest,
        "settings": asdict(machine.settings),
        "cluster_id": machine.cluster_id,
        "replaced": list(machine.replaced),
        "latest_session": machine.sessions.latest_id,
        "latest_scope": machine.scopes.latest_id,
        "idempotency_reaches_index": machine.idempotency.reaches_index,
        "idempotency_reaches_ms": machine.idempotency.reaches_ms,
        "now_ms": contents.now_ms,
        "revision": contents.revision,
        "restore": None if machine.restoring is None else machine.restoring.row(),
        "passing": contents.condemned.passing,
        "passed": contents.items.passed(),
        **{name: getattr(contents, name) for name in COUNTERS},
    }
    yield NAME, FORMAT, fields
    for session_id, session in machine.sessions:
        yield SESSION, session_id, session.member_id, session.start, session.nonce, session.level, session.last
        for result in session.kept:
            yield RESULT, result
        for block_last, size in session.reads:
            yield READ, block_last, size
    for member in machine.members.values():
        yield MEMBER, *astuple(member)
    for node_id, incarnation in machine.removed:
        yield REMOVED, node_id, incarnation
    for client_key, kept in machine.idempotency.kept.items():
        yield KEPT, client_key, *kept
    for scope_id, scope in machine.scopes.by_id.items():
        yield SCOPE, scope_id, scope.nonce, scope.floor, scope.used_ms
        for number, (command_print, packed) in scope.kept.items():
            yield NUMBER, number, command_print, packed
    for owner, packed in machine.answers:
        yield ANSWER, *owner, packed
    for condemnation in contents.condemned.present:
        yield CONDEMNATION, *condemnation.row()
    for revision, count in contents.condemned.counts.items():
        yield COUNTED, revision, count
    raw = contents.raw
    for key, uses in contents.items.ordered():
        yield ENTRY, key, *raw[key], uses


def pack(stream: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """Pack the snapshot records of ``stream``, with an END record behind them; yield the bytes in chunks of about 256 KiB.

    Raises CodecError for a record too large to be read again.
    """
    pack_one = msgpack.Packer().pack
    parts: list[bytes] = []
    size = count = 0
    for record in stream:
        part = pack_one(record)
        if len(part) > RECORD_BYTES_MAX:
            raise CodecError(f"a record of kind {record[0]} has {len(part)} bytes; at most {RECORD_BYTES_MAX} are read")
        parts.append(part)
        size += len(part)
        count += 1
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    parts.append(pack_one((END, count)))
    yield b"".join(parts)


def unpack(chunks: Iterable[bytes]) -> Iterator[list[Any]]:
    """Yield the records of the snapshot whose bytes are ``chunks``, without its END record. Raises CodecError.

    Nothing may follow the END record.
    """
    try:
        unpacker = msgpack.Unpacker(
            max_buffer_size=_READ_BYTES_MAX,
            max_array_len=_LIST_ITEMS_MAX,
            max_map_len=_LIST_ITEMS_MAX,
        )
        count = 0
        ended = False
        for chunk in chunks:
            unpacker.feed(chunk)
            for record in unpacker:
                if ended or type(record) is not list or not record:
                    raise CodecError("not a snapshot: a record has the wrong shape")
                if record[0] == END and record == [END, count]:
                    ended = True
                    continue
                count += 1
                yield record
        if not ended:
            raise CodecError("not a snapshot: its end is missing")
    except (CacheFlowError, OSError, MemoryError, RecursionError):
        # What the reader of the chunks says, or this process's own lack of room: neither is damage.
        raise
    except Exception as error:
        raise CodecError(f"not a snapshot: {error}") from None


def load(machine: State, stream: Iterator[list[Any]]) -> None:
    """Load the snapshot records of ``stream`` into ``machine``, a new state machine.

    Raises CodecError if the records are damaged, NewerCacheFlow if a later release wrote them.
    """
    try:
        _load(machine, stream)
    except (CacheFlowError, OSError, MemoryError, RecursionError):
        raise
    except Exception as error:
        raise CodecError(f"not a snapshot: {error}") from None


def _load(machine: State, stream: Iterator[list[Any]]) -> None:
    passing, passed = _load_fields(machine, next(stream, []))
    contents = machine.contents
    rows: list[list[Any]] = []
    condemned = Condemnations()
    present: list[Condemnation] = []
    session: Session | None = None
    scope: Scope | None = None
    scope_ids: set[int] = set()
    session_id_before = 0
    raw: dict[str, Entry] = {}
    uses: list[int] = []
    least = 1
    revision = contents.revision
    for record in stream:
        kind = record[0]
        if kind == ENTRY:
            key, entry, used = _entry(record, revision)
            if key in raw or used < least:
                raise CodecError("not a snapshot: an item comes twice or out of order")
            raw[key] = entry
            uses.append(used)
            least = used
        elif kind == RESULT and session is not None:
            session.kept.append(_typed(record[1], list))
            if len(session.kept) > session.last:
                raise CodecError("not a snapshot: more results than commands")
        elif kind == READ and session is not None:
            session.adopt_read(_count(record[1]), _count(record[2]))
        elif kind == NUMBER and scope is not None:
            _, number, command_print, packed = record
            if number in scope.kept or _count(number) < scope.floor:
                raise CodecError("not a snapshot: a number of a scope comes twice or too late")
            machine.scopes.adopt_result(scope, number, (_typed(command_print, bytes), _packed(packed)))
        elif kind == SCOPE:
            _, scope_id, nonce, floor, used_ms = record
            if scope_id in scope_ids or not 0 < _count(scope_id) <= machine.scopes.latest_id:
                raise CodecError("not a snapshot: a scope comes twice, or before it is opened")
            scope_ids.add(scope_id)
            scope = Scope(_typed(nonce, str), _count(used_ms), _count(floor))
            machine.scopes.adopt(scope_id, scope)
        elif kind == ANSWER:
            _, whose, which, packed = record
            if type(which) is not (int if _count(whose) else str) or not _packed(packed):
                raise CodecError("not a snapshot: an answer is nobody's")
            machine.answers.adopt((whose, which), packed)
        elif kind == SESSION:
            _, session_id, member_id, start, nonce, level, last = record
            if not session_id_before < _count(session_id) <= machine.sessions.latest_id:
                raise CodecError("not a snapshot: the sessions are out of order")
            session_id_before = session_id
            session = Session(_typed(member_id, str), _count(start), _typed(nonce, str), _count(level))
            session.last = _count(last)
            machine.sessions.adopt(session_id, session)
        elif kind == MEMBER:
            rows.append(record[1:])
        elif kind == REMOVED:
            _, node_id, incarnation = record
            machine.removed[_typed(node_id, str), _typed(incarnation, str)] = None
        elif kind == KEPT:
            _, client_key, at_ms, index, command_print, packed = record
            kept = (_count(at_ms), _count(index), _typed(command_print, bytes), _packed(packed))
            machine.idempotency.adopt(_typed(client_key, str), kept)
        elif kind == CONDEMNATION:
            present.append(_condemnation(record, present[-1].revision if present else 0, revision))
        elif kind == COUNTED:
            _, counted_at, count = record
            condemned.counts[_count(counted_at)] = _count(count)
        else:
            raise CodecError("not a snapshot: a record of an unknown kind")
    machine.members = member_table(rows)
    if any(one.member_id not in machine.members for _, one in machine.sessions):
        raise CodecError("not a snapshot: a session is no member's")
    if passing > len(present) or passed > (len(raw) if passing else 0):
        raise CodecError("not a snapshot: a pass has seen more than there is")
    condemned.adopt(present, passing)
    contents.adopt(machine.settings.policy, raw, uses, condemned, passed)
    contents.set_limits(machine.settings.max_items, machine.settings.max_bytes)


def _load_fields(machine: State, header: list[Any]) -> tuple[int, int]:
    """Load the first record ``header`` of a snapshot into ``machine``: the settings, counters and other single values.

    Returns two numbers about the sweep, which takes removed keys out of memory: how many removals it carries out, and how many
    items it has looked at.
    """
    if len(header) != 3 or header[0] != NAME:
        raise CodecError("not a snapshot")
    if _count(header[1]) > FORMAT:
        raise NewerCacheFlow.wrote("the snapshot", header[1], FORMAT, number="format")
    if header[1] != FORMAT:
        raise CodecError(f"the snapshot has format {header[1]}, this release reads {FORMAT}")
    fields = header[2]
    machine.level = _count(fields["level"])
    if machine.level > machine.build_level:
        raise NewerCacheFlow.wrote("the snapshot", machine.level, machine.build_level)
    if machine.level < FIRST_LEVEL:
        raise CodecError("not a snapshot: its level is none")
    contents = machine.contents
    machine.applied_index = _count(fields["applied_index"])
    machine.digest = _typed(fields["digest"], bytes)
    if len(machine.digest) != DIGEST_BYTES:
        raise CodecError("not a snapshot: the digest has the wrong length")
    machine.cluster_id = _typed(fields["cluster_id"], str)
    machine.replaced = dict.fromkeys(_typed(each, str) for each in _typed(fields["replaced"], list))
    machine.sessions.latest_id = _count(fields["latest_session"])
    machine.scopes.latest_id = _count(fields["latest_scope"])
    machine.idempotency.reaches_index = _count(fields["idempotency_reaches_index"])
    machine.idempotency.reaches_ms = _count(fields["idempotency_reaches_ms"])
    contents.now_ms = _count(fields["now_ms"])
    contents.revision = _count(fields["revision"])
    machine.restoring = restore_of(fields["restore"])
    machine.is_closed = machine.restoring is not None and machine.restoring.closes
    for name in COUNTERS:
        setattr(contents, name, _count(fields[name]))
    machine.settings = _settings(fields["settings"])
    return _count(fields["passing"]), _count(fields["passed"])


def _settings(fields: Any) -> Settings:
    """Return the settings of the cache that a snapshot holds in ``fields``, {name: value}. Raises CodecError or ValueError."""
    fields = _typed(fields, dict)
    version, by, at_ms = _count(fields.pop("version")), fields.pop("changed_by"), _count(fields.pop("changed_at_ms"))
    if fields["replicas"] is None:
        # Nobody has set it: a value that no command can give it.
        del fields["replicas"]
    return replace(changed(Settings(), fields, by, at_ms), version=version)


def _condemnation(record: list[Any], before: int, revision: int) -> Condemnation:
    """Return the condemnation (a removal of all keys with some prefix) that a snapshot's ``record`` holds. Raises CodecError.

    The condemnation's own revision must be above ``before``, that of the condemnation before, and at most the snapshot's
    ``revision``.
    """
    _, prefix, only_database_0, counted, made_at, at_ms, count = record
    if not before < _count(made_at) <= revision or len(_typed(prefix, str)) > KEY_BYTES_MAX:
        raise CodecError("not a snapshot: a condemnation is none, or out of order")
    if prefix and _typed(only_database_0, bool):
        raise CodecError("not a snapshot: a condemnation has two targets")
    return Condemnation(
        prefix, _typed(only_database_0, bool), _typed(counted, bool), made_at, _count(at_ms), _count(count)
    )


def _entry(record: list[Any], revision: int) -> tuple[str, Entry, int]:
    """Return (key, entry, number of uses) of ``record``, a snapshot's record of one item.

    Raises CodecError if the record is damaged or the item's version is above the snapshot's ``revision``. The checks are
    written out in this function: a million calls of a helper would take half a second.
    """
    _, key, data, kind, meta, version, expires_at_ms, uses = record
    if meta is not None:
        if type(meta) is str:
            meta = intern(meta)
        elif type(meta) is not int:
            raise CodecError("not a snapshot: an item's metadata has the wrong type")
    if type(data) is not bytes or type(kind) is not int or not 0 <= kind <= KIND_MAX:
        raise CodecError("not a snapshot: an item's value has the wrong type")
    if kind > KIND_VALUE_MAX and not (len(data) <= FIELDS_BYTES_MAX and is_well_formed(data, kind == KIND_SET)):
        raise CodecError("not a snapshot: a hash or set is none")
    if type(version) is not int or type(uses) is not int or not 0 < version <= revision or uses < 1:
        raise CodecError("not a snapshot: an item's version or count is impossible")
    if type(expires_at_ms) is not int or expires_at_ms < 0:
        raise CodecError("not a snapshot: an item's expiry is none")
    if type(key) is not str or not 0 < (len(key) if key.isascii() else key_bytes(key)) <= KEY_BYTES_MAX:
        raise CodecError("not a snapshot: a key is none")
    return key, (data, kind, meta, version, expires_at_ms), uses


def _typed(value: Any, wanted: type) -> Any:
    if type(value) is not wanted:
        raise CodecError("not a snapshot: a field has the wrong type")
    return value


def _packed(value: Any) -> Any:
    if _typed(value, bytes):
        _typed(msgpack.unpackb(value), list)
    return value


def _count(value: Any) -> Any:
    if type(value) is not int or value < 0:
        raise CodecError("not a snapshot: a number is none")
    return value
