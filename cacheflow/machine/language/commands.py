"""The log's vocabulary and its codec.

1. Commands, results and entries are plain tuples and lists, so that msgpack carries them and nothing else can arrive.
2. ``decode_*`` returns data of the right outer shape or raises CodecError; what is inside a command is checked by the
   machine.
3. The numbers below are on disk for ever: new ones are added, none is ever changed.

An *entry* of the log is ``[level, stamp_ms, [block, ...]]``, with the feature level that was in force where it was
appended (``levels.py``) in front, where it is found without decoding the rest; a *block* is one node's commands,
``[session, first, lowest, until_ms, [command, ...]]``, packed by the node that sends it and carried unopened by the leader.
Session 0 is for commands that may be applied twice: ticks, recency, opening a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from cacheflow.errors import CacheFlowError
from cacheflow.machine.language.databases import PREFIXES
from cacheflow.machine.language.levels import BUILD_LEVEL, FIRST_LEVEL

Command = tuple[Any, ...]
Result = list[Any]

# Opcodes. The comment is the command's shape, then its result after the status.
SET: Final = 1  # key, data, kind, meta, ttl_ms, when, version      -> version, created, expires_at_ms
DELETE: Final = 2  # key, version (0: any)                          -> version of the removal
INCR: Final = 3  # key, delta, initial or None, ttl_ms of a new key -> version, number, expires_at_ms
TOUCH: Final = 4  # key, ttl_ms                                     -> version, expires_at_ms
GET: Final = 5  # key; counts as a use                              -> data, kind, meta, version, expires_at_ms
RECENCY: Final = 6  # [[key, uses], ...] in order of last use       ->
DELETE_PREFIX: Final = 7  # prefix ("" is everything), only in database 0, counted ->; if counted: SWEEPING
CONFIGURE: Final = 8  # version (None: any), by whom, {name: value} -> the settings now, as the fields of Settings
MEMBERS: Final = 9  # cluster id, [[id, incarnation, raft_address, address, voter, observer], ...] ->
NOOP: Final = 10  #                                                 ->
OPEN_SESSION: Final = 11  # member id, incarnation, start, nonce, level -> session, nonce
BATCH: Final = 12  # atomic, [command, ...]                         -> [result, ...]
IDEMPOTENT: Final = 13  # client's key, first entry it may be in (0: not told), command -> the command's own result
APPEND: Final = 14  # key, data, front, create                      -> version, length, expires_at_ms
COUNT: Final = 15  # key, step, down, initial or None, ttl_ms of a new key -> version, number, expires_at_ms
GUARDED: Final = 16  # [[key, version, expires_at_ms (both 0: absent)], ...], [command, ...], atomic -> [result, ...]
EXPIRE: Final = 17  # key, ttl_ms (0: none, -2: past), when                   -> version, expires_at_ms
OPEN_SCOPE: Final = 18  # nonce                                     -> scope
SCOPED: Final = 19  # scope, nonce, number, lowest, command         -> the command's own result
RAISE_LEVEL: Final = 20  # level                                    -> level in force; PRECONDITION -> see below
SET_FIELDS: Final = (
    21  # key, kind, [field, value, ...], only_absent, bytes_max -> version (0: as before), new fields, expires_at_ms
)
REMOVE_FIELDS: Final = (
    22  # key, kind, [field, ...]                -> version (0: as before), fields removed, expires_at_ms
)
COUNT_FIELD: Final = 23  # key, field, delta, bytes_max             -> version, number, expires_at_ms
RESTORE_BEGIN: Final = 24  # id, the one before ("": none), number of items, the backup's revision, online -> revision
RESTORE_ITEMS: Final = (
    25  # id, number of items before these, [[key, data, kind, meta, expires_at_ms], ...] -> items so far
)
RESTORE_END: Final = 26  # id, given up                              ->
RECOVER: Final = 27  # cluster id, the table as in MEMBERS, [id of a cluster that it replaces, ...] -> revision

# The feature level that brought each command.
LEVELS: Final = dict.fromkeys(range(SET, RECOVER + 1), 1)

# Values of ``ttl_ms`` in SET and TOUCH; a number above 0 is counted from the entry's time.
TTL_NONE: Final = 0
TTL_KEEP: Final = -1
# A value of ``ttl_ms`` in EXPIRE alone: the end is past, and the key is removed where the condition holds.
TTL_ENDED: Final = -2
TTL_MS_MAX: Final = 10**14

# Values of ``when`` in SET: the condition under which it writes.
ALWAYS: Final = 0
IF_ABSENT: Final = 1
IF_PRESENT: Final = 2
IF_VERSION: Final = 3
# What is there is one value, no hash and no set; or that, or nothing.
IF_VALUE: Final = 4
IF_VALUE_OR_ABSENT: Final = 5

# Values of ``when`` in EXPIRE: ALWAYS, one of these, or IF_SET with IF_LATER or IF_EARLIER. No expiry counts as infinite.
IF_UNSET: Final = 1
IF_SET: Final = 2
IF_LATER: Final = 4
IF_EARLIER: Final = 8
# A value of ``when`` in EXPIRE by itself: what is there is one value, no hash and no set.
IF_ONE_VALUE: Final = 16

# Statuses, the first item of every result.
OK: Final = 0
MISSING: Final = 1
# -> present version, 0 when absent; of CONFIGURE that of the settings; of GUARDED: index of the condition that does not hold;
# of RAISE_LEVEL: the level in force and the first member that does not know the one asked for, "" for none; of a restore: its
# items so far, -1 if it is not the present one
PRECONDITION: Final = 2
NOT_AN_INTEGER: Final = 3  # -> message
TOO_LARGE: Final = 4  # -> message
MALFORMED: Final = 5  # -> message
ABORTED: Final = 6  # an atomic batch: -> index of the command that failed, its result
UNKNOWN_SESSION: Final = 7
OUT_OF_ORDER: Final = 8  # a gap: -> the number that was expected
KEY_REUSED: Final = 9  # an idempotency key, or a number in a scope, with another command
NOT_THIS_START: Final = 10  # a session for a process start that is not its member's latest
TOO_LATE: Final = 11  # the last moment of its block is over: its number is taken, and nothing is done
FORGOTTEN: Final = 12  # nothing was done now, nor will be; whether it took place before is not known any more
NOT_KEPT: Final = 13  # it took place before, and its answer is not kept
SWEEPING: Final = 14  # it took place -> the revision of the condemnation, under which the number of keys is found later
TOO_MANY: Final = 15  # nothing was done: too many condemnations are in force
WRONG_KIND: Final = 16  # the key holds a hash or a set, or holds none: -> message

# The most fields of a hash or set that one command writes or removes.
FIELDS_AT_ONCE_MAX: Final = 1000
# The largest hash or set: each change of it is a search and a copy, some ms. It is part of the replicated rules and must never
# change.
FIELDS_BYTES_MAX: Final = 1024 * 1024

# By how much a recovery raises all versions: more than a cluster writes in its life, so that no version of before, also of
# what only lost nodes had, is that of another value later.
RECOVERY_RAISE: Final = 2**40
# The most clusters that one recovery replaces, and that are remembered: each recovery of a recovered cluster adds one.
REPLACED_MAX: Final = 32

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1


class CodecError(CacheFlowError):
    """Raised when bytes from the log or the network are not a well-formed entry, block or snapshot."""


def set_(
    key: str,
    data: bytes,
    kind: int,
    meta: str | int | None = None,
    ttl_ms: int = TTL_NONE,
    when: int = ALWAYS,
    version: int = 0,
) -> Command:
    """Return the command that writes a value under ``key``. meta: a Content-Type, a wire protocol's flags, or None."""
    return (SET, key, data, kind, meta, ttl_ms, when, version)


def delete(key: str, version: int = 0) -> Command:
    """Return the command that removes ``key``; with a ``version`` above 0, only if the key is at that version."""
    return (DELETE, key, version)


def incr(key: str, delta: int, initial: int | None = None, ttl_ms: int = TTL_NONE) -> Command:
    """Return the command that adds ``delta`` to the integer under ``key``.

    An absent key gets the value ``initial + delta`` and the TTL ``ttl_ms``; if ``initial`` is None it stays absent.
    """
    return (INCR, key, delta, initial, ttl_ms)


def touch(key: str, ttl_ms: int) -> Command:
    """Return the command that gives ``key`` a new TTL; TTL_NONE lets the key live for ever. The key's version stays."""
    return (TOUCH, key, ttl_ms)


def get(key: str) -> Command:
    """Return the command that reads ``key`` through the log, linearizably, and counts the read as a use of the key."""
    return (GET, key)


def recency(uses: Sequence[tuple[str, int]]) -> Command:
    """Return the command that counts uses of keys by reads that a node has answered locally.

    uses: (key, number of reads) for each key, in the order of the keys' last reads.
    """
    return (RECENCY, uses)


def delete_prefix(prefix: str) -> Command:
    """Return the command that removes every key that starts with ``prefix``, and answers how many there were.

    The answer comes when all those keys are found. In a list of commands proposed together this one must be the last.
    """
    return (DELETE_PREFIX, prefix, False, True)


def clear_all() -> Command:
    """Return the command that removes every key of every database, without an answer to how many there were."""
    return (DELETE_PREFIX, "", False, False)


def clear_database(number: int, counted: bool = False) -> Command:
    """Return the command that removes every key of the database ``number``, 0 to 15.

    counted: whether the answer is how many keys there were, which takes longer.
    """
    return (DELETE_PREFIX, PREFIXES[number], not number, counted)


def configure(settings: Mapping[str, Any], version: int | None = None, by: str = "") -> Command:
    """Return the command that changes replicated settings: policy, max_items, max_bytes, replicas, max_value_bytes.

    version: change them only if this is their version, which is 0 until somebody has set any; None: whatever it is.
    by: the name of whoever changes them, at most 64 characters.
    """
    return (CONFIGURE, version, by, settings)


def members(cluster_id: str, table: Sequence[Sequence[Any]]) -> Command:
    """Return the command that replaces the whole member table by ``table``; the command must be alone in its log entry."""
    return (MEMBERS, cluster_id, table)


def recover(cluster_id: str, table: Sequence[Sequence[Any]], replaced: Sequence[str]) -> Command:
    """Return the command that begins a recovered cluster: it sets the member table and raises all versions by RECOVERY_RAISE.

    The command must be alone in its log entry.
    replaced: the ids of the clusters in whose place this one comes, the latest last.
    """
    return (RECOVER, cluster_id, table, replaced)


def noop() -> Command:
    """Return the command that changes nothing, for a log entry that only carries the time, or that a read waits for."""
    return (NOOP,)


def open_session(member_id: str, incarnation: str, start: int, nonce: str, level: int = BUILD_LEVEL) -> Command:
    """Return the command that opens a session for one process start of a member and closes the member's older session.

    start: the number of this start within the incarnation.  nonce: a unique name of this start.  level: the highest feature
    level that the process's build knows.
    """
    return (OPEN_SESSION, member_id, incarnation, start, nonce, level)


def raise_level(level: int) -> Command:
    """Return the command that puts the feature level ``level`` in force.

    When the command is applied it changes nothing unless every member has told by then that its build knows that level.
    """
    return (RAISE_LEVEL, level)


def batch(commands: Sequence[Command], atomic: bool = False) -> Command:
    """Return the command that runs ``commands``, each on one key, in one log entry; with ``atomic`` all of them or none."""
    return (BATCH, atomic, commands)


def idempotent(client_key: str, command: Command, first_index: int = 0) -> Command:
    """Return ``command`` wrapped so that it takes place only once for a ``client_key`` within 10 minutes.

    The same command with the same key in that time gets the kept result.
    first_index: the index of the first log entry in which the command may be, by the time of its client's first try; 0 if the
    client does not tell that time.
    """
    return (IDEMPOTENT, client_key, first_index, command)


def open_scope(nonce: str) -> Command:
    """Return the command that opens a scope for one client's numbered writes.

    nonce: a text that names the scope beside its id, so that no scope of another cluster is taken for it.
    """
    return (OPEN_SCOPE, nonce)


def scoped(scope: int, nonce: str, number: int, lowest: int, command: Command) -> Command:
    """Return ``command`` wrapped so that it takes place only once as the write ``number`` of a client's ``scope``.

    nonce: the text that names the scope beside its id.  lowest: the lowest number for whose answer the client still waits, at
    most ``number``.
    """
    return (SCOPED, scope, nonce, number, lowest, command)


def append(key: str, data: bytes, *, front: bool = False, create: bool = False) -> Command:
    """Return the command that adds ``data`` behind the value of ``key``, or before it if ``front`` is true.

    The key's meta (Content-Type or flags) and TTL stay. An absent key is written if ``create`` is true, else it stays absent.
    """
    return (APPEND, key, data, front, create)


def count(key: str, delta: int, initial: int | None = None, ttl_ms: int = TTL_NONE) -> Command:
    """Return the command that counts as memcached does: an unsigned number that goes from 2^64 - 1 on to 0, never below 0.

    An absent key gets the value ``initial`` itself and the TTL ``ttl_ms``; if ``initial`` is None it stays absent.
    """
    # The command holds a step and a direction: a step down may be 2^64 - 1, and msgpack has no number below -2^63.
    return (COUNT, key, abs(delta), delta < 0, initial, ttl_ms)


def guarded(
    conditions: Sequence[tuple[str, int, int]], commands: Sequence[Command], *, atomic: bool = False
) -> Command:
    """Return the command that runs ``commands`` if every key in ``conditions`` has its given version and expiry.

    conditions: (key, version, expires_at_ms), with both numbers 0 for a key that must be absent.  atomic: the commands take
    place all or none; otherwise one after the other, and each succeeds or fails for itself. Several conditions or commands may
    name one key.
    """
    return (GUARDED, conditions, commands, atomic)


def expire(key: str, ttl_ms: int, when: int = ALWAYS) -> Command:
    """Return the command that gives ``key`` a new TTL on a condition, ``when``, like those of Redis's EXPIRE.

    The result is PRECONDITION if that condition does not hold.
    """
    return (EXPIRE, key, ttl_ms, when)


def restore_begin(restore_id: str, after: str, items: int, revision: int, online: bool) -> Command:
    """Return the command that removes everything, raises the revision, and begins a restore of a backup with ``items`` items.

    restore_id: a new unique name of the restore; the command counts once however often it is sent.  after: the name of the
    restore begun last, "" if there was none; the command is refused if another one was begun by then.
    revision: that of the backup, above which the cache's is raised.  online: whether clients are served during the restore.
    """
    return (RESTORE_BEGIN, restore_id, after, items, revision, online)


def restore_items(restore_id: str, first: int, items: Sequence[Sequence[Any]]) -> Command:
    """Return the command that brings ``items``, those of a backup behind its first ``first`` items, to a restore.

    items: [key, data, kind, meta, expires_at_ms] of each.
    """
    return (RESTORE_ITEMS, restore_id, first, items)


def restore_end(restore_id: str, *, given_up: bool = False) -> Command:
    """Return the command that ends the restore of a backup, all of whose items must have come.

    given_up: end the restore although items may be missing.
    """
    return (RESTORE_END, restore_id, given_up)


def set_fields(key: str, kind: int, pairs: Sequence[bytes], bytes_max: int, *, only_absent: bool = False) -> Command:
    """Return the command that writes fields of the hash or set under ``key``; an absent key gets one with these fields.

    kind: values.HASH or values.SET.  pairs: field, value, field, value, ...; a set's values are empty.
    bytes_max: the most bytes that the hash or set may have after the command.
    only_absent: do nothing if the field is there already; only for one field of a hash.
    """
    return (SET_FIELDS, key, kind, pairs, only_absent, bytes_max)


def remove_fields(key: str, kind: int, names: Sequence[bytes]) -> Command:
    """Return the command that removes the fields ``names`` of the hash or set under ``key``.

    Where no field is left the key is removed, too.
    """
    return (REMOVE_FIELDS, key, kind, names)


def count_field(key: str, field: bytes, delta: int, bytes_max: int) -> Command:
    """Return the command that adds ``delta`` to the integer in ``field`` of the hash ``key``; an absent field is 0."""
    return (COUNT_FIELD, key, field, delta, bytes_max)


def measured(commands: Sequence[Command]) -> tuple[int, int]:
    """Return (bytes, number) of ``commands``: the most bytes that they take when packed, and how many a node has to run.

    The first number is an upper bound, mostly a close one. Commands in batches are counted one by one; a malformed batch
    counts as one command, which the state machine refuses.
    """
    size, number = 0, len(commands)
    for command in commands:
        if command[0] == SET:
            key, meta = command[1], command[4]
            size += 64 + len(command[2]) + (len(key) if key.isascii() else 4 * len(key))
            if meta is not None and type(meta) is not int:
                size += _text_bytes(meta)
        else:
            more_bytes, more = _measured_other(command)
            size += more_bytes
            number += more
    return size, number


def size_of(command: Command) -> int:
    """Return an upper bound, mostly a close one, of the bytes that ``command`` and its inner commands take when packed."""
    return measured((command,))[0]


def _measured_other(command: Command) -> tuple[int, int]:
    """Return (bytes, more) of ``command``, which is no SET; bytes: the most that it takes when packed.

    more: how many commands beyond one a node has to run for ``command``: those in a batch, 0 for a plain command.
    """
    op = command[0]
    if op in (BATCH, GUARDED):
        size, number = measured(command[2])
        if op == GUARDED:
            size += sum([32 + _text_bytes(key) for key, _, _ in command[1]])
        return 64 + size, number
    if op == IDEMPOTENT:
        size, number = measured((command[3],))
        return 64 + _text_bytes(command[1]) + size, number - 1
    if op == SCOPED:
        size, number = measured((command[5],))
        return 96 + _text_bytes(command[2]) + size, number - 1
    if op == CONFIGURE:
        return 256 + _text_bytes(command[2]), 0
    # Other commands have one text and some numbers, or are a node's own, which are small.
    size = 64 + _text_bytes(command[1]) if len(command) > 1 and type(command[1]) is str else 256
    if op in (APPEND, COUNT_FIELD):
        size += len(command[2])
    elif op == RESTORE_ITEMS:
        size += sum([64 + _text_bytes(item[0]) + len(item[1]) + 4 * len(str(item[3])) for item in command[3]])
    elif op in (SET_FIELDS, REMOVE_FIELDS):
        size += sum([5 + len(part) for part in command[3]])
    return size, 0


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def packed_bytes(command: Command) -> int:
    """Return the number of bytes that ``command`` takes when packed.

    Raises what msgpack raises for what it cannot pack.
    """
    return len(msgpack.packb(command))


def encode_block(session: int, first: int, lowest: int, commands: Sequence[Command], until_ms: int = 0) -> bytes:
    """Pack a block: ``commands`` of one node, numbered from ``first`` on in the node's session with the id ``session``.

    lowest: the lowest number whose result the node still waits for.  until_ms: the last moment of the cluster's time at which
    the commands may take place; 0 for no limit.
    """
    packed: bytes = msgpack.packb((session, first, lowest, until_ms, commands))
    return packed


def session_of(block: bytes) -> int:
    """Return the session id in a packed block, its first field, without unpacking the rest; 0 if the field is no number."""
    kind = block[1:2]
    if kind < b"\x80":
        return kind[0] if kind else 0
    width = {b"\xcc": 1, b"\xcd": 2, b"\xce": 4, b"\xcf": 8}.get(kind, 0)
    return int.from_bytes(block[2 : 2 + width], "big")


def decode_block(block: bytes) -> tuple[int, int, int, int, list[list[Any]]]:
    """Unpack a block: return (session id, first number, lowest awaited number, time limit in ms, commands).

    Raises CodecError.
    """
    try:
        session, first, lowest, until_ms, commands = msgpack.unpackb(block)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # msgpack raises a dozen kinds; all mean the same here
        raise CodecError(f"not a block: {error}") from None
    if not (type(session) is type(first) is type(lowest) is type(until_ms) is int and type(commands) is list):
        raise CodecError("not a block: a field has the wrong type")
    return session, first, lowest, until_ms, commands


def encode_entry(stamp_ms: int, blocks: Sequence[bytes], level: int = FIRST_LEVEL) -> bytes:
    """Pack ``blocks`` into one entry of the log.

    stamp_ms: the cluster's time when the entry is appended.  level: the feature level in force then.
    """
    packed: bytes = msgpack.packb((level, stamp_ms, blocks))
    return packed


def level_of(payload: bytes) -> int:
    """Return the feature level of a packed log entry without unpacking it; 0 for bytes that are no entry.

    A level that takes several bytes is given as some number from 128 on. The level comes first in entries of every level.
    """
    if len(payload) < 2 or not 0x93 <= payload[0] < 0xA0:
        return 0
    level = payload[1]
    return level if level < 0x80 else 128 if 0xCC <= level <= 0xCF else 0


def decode_entry(payload: bytes) -> tuple[int, int, list[bytes]]:
    """Unpack an entry of the log: return (feature level, time stamp in ms, blocks). Raises CodecError."""
    try:
        level, stamp_ms, blocks = msgpack.unpackb(payload)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise CodecError(f"not an entry: {error}") from None
    if not (
        type(level) is type(stamp_ms) is int and level > 0 and type(blocks) is list and {*map(type, blocks)} <= {bytes}
    ):
        raise CodecError("not an entry: a field has the wrong type")
    return level, stamp_ms, blocks
