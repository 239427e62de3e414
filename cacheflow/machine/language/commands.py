"""The log's vocabulary and its codec.

1. Commands, results and entries are plain tuples and lists, so that msgpack carries them and nothing else can arrive.
2. What comes out of ``decode_*`` is data of the right outer shape or CodecError; what is inside a command is checked by
   the machine.
3. Numbers here are on disk for ever: they are added to, never changed.

An *entry* of the log is ``[stamp_ms, [block, ...]]``; a *block* is one node's commands,
``[session, first, lowest, [command, ...]]``, packed by the node that sends it and carried unopened by the leader.
Session 0 is for what needs no exactly-once: ticks, recency, opening a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgpack

from cacheflow.errors import CacheFlowError

Command = tuple[Any, ...]
Result = list[Any]

# Opcodes. The comment is the command's shape, then its result after the status.
SET: Final = 1  # key, data, kind, meta, ttl_ms, when, version      -> version, created, expires_at_ms
DELETE: Final = 2  # key, version (0: any)                          -> version of the removal
INCR: Final = 3  # key, delta, initial or None, ttl_ms of a new key -> version, number, expires_at_ms
TOUCH: Final = 4  # key, ttl_ms                                     -> version, expires_at_ms
GET: Final = 5  # key; counts as a use                              -> data, kind, meta, version, expires_at_ms
RECENCY: Final = 6  # [[key, uses], ...] in order of last use       ->
DELETE_PREFIX: Final = 7  # prefix ("" is everything)               -> keys removed
CONFIGURE: Final = 8  # only_if_unset, {name: value}                -> whether it took effect
MEMBERS: Final = 9  # cluster id, [[id, incarnation, raft_address, address, voter], ...] ->
NOOP: Final = 10  #                                                 ->
OPEN_SESSION: Final = 11  # member id, nonce                        -> session, nonce
BATCH: Final = 12  # atomic, [command, ...]                         -> [result, ...]
IDEMPOTENT: Final = 13  # client's key, command                     -> the command's own result
APPEND: Final = 14  # key, data, front, create                      -> version, length, expires_at_ms
COUNT: Final = 15  # key, step, down, initial or None, ttl_ms of a new key -> version, number, expires_at_ms
GUARDED: Final = 16  # [[key, version (0: absent)], ...], [command, ...]  -> [result, ...]
EXPIRE: Final = 17  # key, ttl_ms (0: none), when                   -> version, expires_at_ms

# ttl_ms of SET and TOUCH: above 0 from the entry's time on, or one of these.
TTL_NONE: Final = 0
TTL_KEEP: Final = -1
TTL_MS_MAX: Final = 10**14

# ``when`` of SET.
ALWAYS: Final = 0
IF_ABSENT: Final = 1
IF_PRESENT: Final = 2
IF_VERSION: Final = 3

# ``when`` of EXPIRE: 0, one of these, or IF_SET with IF_LATER or IF_EARLIER. No expiry counts as an infinite one.
IF_UNSET: Final = 1
IF_SET: Final = 2
IF_LATER: Final = 4
IF_EARLIER: Final = 8

# Statuses, the first item of every result.
OK: Final = 0
MISSING: Final = 1
PRECONDITION: Final = 2  # -> present version, 0 when absent; of GUARDED: index of the condition that does not hold
NOT_AN_INTEGER: Final = 3  # -> message
TOO_LARGE: Final = 4  # -> message
MALFORMED: Final = 5  # -> message
ABORTED: Final = 6  # an atomic batch: -> index of the command that failed, its result
UNKNOWN_SESSION: Final = 7
OUT_OF_ORDER: Final = 8  # a gap: -> the number that was expected
KEY_REUSED: Final = 9  # an idempotency key with another command

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1


class CodecError(CacheFlowError):
    """Bytes that are no entry or block."""


def set_(
    key: str,
    data: bytes,
    kind: int,
    meta: str | int | None = None,
    ttl_ms: int = TTL_NONE,
    when: int = ALWAYS,
    version: int = 0,
) -> Command:
    """Write ``key``. meta: a Content-Type, wire flags or None."""
    return (SET, key, data, kind, meta, ttl_ms, when, version)


def delete(key: str, version: int = 0) -> Command:
    """Remove ``key``, when ``version`` is not 0 only at that version."""
    return (DELETE, key, version)


def incr(key: str, delta: int, initial: int | None = None, ttl_ms: int = TTL_NONE) -> Command:
    """Add ``delta``; an absent key becomes ``initial + delta`` with ``ttl_ms``, or stays absent without ``initial``."""
    return (INCR, key, delta, initial, ttl_ms)


def touch(key: str, ttl_ms: int) -> Command:
    """Give ``key`` a new TTL; TTL_NONE makes it persist. The version stays."""
    return (TOUCH, key, ttl_ms)


def get(key: str) -> Command:
    """Read through the log and count the use exactly."""
    return (GET, key)


def recency(uses: Sequence[tuple[str, int]]) -> Command:
    """Uses counted by local reads, in order of last use."""
    return (RECENCY, uses)


def delete_prefix(prefix: str) -> Command:
    """Remove every key that starts with ``prefix``; the empty prefix clears the cache."""
    return (DELETE_PREFIX, prefix)


def configure(settings: dict[str, Any], only_if_unset: bool = False) -> Command:
    """Change replicated settings: policy, max_items, max_bytes, replicas."""
    return (CONFIGURE, only_if_unset, settings)


def members(cluster_id: str, table: Sequence[Sequence[Any]]) -> Command:
    """The whole member table; always alone in its entry."""
    return (MEMBERS, cluster_id, table)


def noop() -> Command:
    """Nothing but the entry's time: a tick or a barrier."""
    return (NOOP,)


def open_session(member_id: str, nonce: str) -> Command:
    """Open a session for one process start of ``member_id``; closes the member's older one."""
    return (OPEN_SESSION, member_id, nonce)


def batch(commands: Sequence[Command], atomic: bool = False) -> Command:
    """Several commands in one entry; with ``atomic`` all or none."""
    return (BATCH, atomic, commands)


def idempotent(client_key: str, command: Command) -> Command:
    """``command`` at most once for ``client_key`` within 10 minutes; later ones get the kept result."""
    return (IDEMPOTENT, client_key, command)


def append(key: str, data: bytes, *, front: bool = False, create: bool = False) -> Command:
    """Add ``data`` behind or in ``front`` of the value. meta and TTL stay; an absent key needs ``create``."""
    return (APPEND, key, data, front, create)


def count(key: str, delta: int, initial: int | None = None, ttl_ms: int = TTL_NONE) -> Command:
    """Count as memcached does: unsigned, past 2^64 - 1 from 0 on again, down to 0 and no further.

    An absent key becomes ``initial`` itself with ``ttl_ms``, or stays absent without ``initial``.
    """
    # Step and direction: msgpack has no number below -2^63.
    return (COUNT, key, abs(delta), delta < 0, initial, ttl_ms)


def guarded(conditions: Sequence[tuple[str, int]], commands: Sequence[Command]) -> Command:
    """``commands`` one after the other, if every key of ``conditions`` is at its version (0: absent).

    They succeed or fail each for itself. A key may be named twice.
    """
    return (GUARDED, conditions, commands)


def expire(key: str, ttl_ms: int, when: int = ALWAYS) -> Command:
    """As ``touch``, under the condition ``when``; PRECONDITION when it is not met."""
    return (EXPIRE, key, ttl_ms, when)


def size_of(command: Command) -> int:
    """About how many bytes ``command`` takes on its way, also those of the commands that it holds."""
    op = command[0]
    if op in (SET, APPEND):
        return 64 + len(command[2])
    if op in (BATCH, GUARDED):
        return 64 + sum([size_of(inner) for inner in command[2]])
    return size_of(command[2]) if op == IDEMPOTENT else 64


def encode_block(session: int, first: int, lowest: int, commands: Sequence[Command]) -> bytes:
    """One node's commands, numbered ``first`` and up; results below ``lowest`` were all received."""
    packed: bytes = msgpack.packb((session, first, lowest, commands))
    return packed


def decode_block(block: bytes) -> tuple[int, int, int, list[list[Any]]]:
    """(session, first, lowest, commands). Raises CodecError."""
    try:
        session, first, lowest, commands = msgpack.unpackb(block)
    except Exception as error:  # msgpack raises a dozen kinds; all mean the same here
        raise CodecError(f"not a block: {error}") from None
    if not (type(session) is type(first) is type(lowest) is int and type(commands) is list):
        raise CodecError("not a block: a field has the wrong type")
    return session, first, lowest, commands


def encode_entry(stamp_ms: int, blocks: Sequence[bytes]) -> bytes:
    """One entry of the log."""
    packed: bytes = msgpack.packb((stamp_ms, blocks))
    return packed


def decode_entry(payload: bytes) -> tuple[int, list[bytes]]:
    """(stamp_ms, blocks). Raises CodecError."""
    try:
        stamp_ms, blocks = msgpack.unpackb(payload)
    except Exception as error:
        raise CodecError(f"not an entry: {error}") from None
    if type(stamp_ms) is not int or type(blocks) is not list or not {*map(type, blocks)} <= {bytes}:
        raise CodecError("not an entry: a field has the wrong type")
    return stamp_ms, blocks
