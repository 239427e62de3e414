"""The commands on sets: a set is kept as a hash whose fields have no values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Final

from cacheflow.machine.deciding.field_decisions import FIELDS_TOGETHER_MAX
from cacheflow.machine.language import commands as c
from cacheflow.machine.language import fields
from cacheflow.values import SET
from cacheflow.wire.resp.arguments import SYNTAX, integer_of, key_of, keys_of
from cacheflow.wire.resp.commands.hashes import told
from cacheflow.wire.resp.commands.strings import failed
from cacheflow.wire.resp.field_replies import (
    SLICE_BYTES,
    at_once,
    drawn,
    listed,
    looked_up,
    members_in,
    scanned,
    some_of,
    taken_from,
)
from cacheflow.wire.resp.replies import ONE, ZERO, CommandError, bulk, integer, said_in_pieces, set_head
from cacheflow.wire.resp.session import Arguments, Find, Plan, RespSession, Spec
from cacheflow.wire.resp.typed import fields_of
from cacheflow.wire.streams import Reply, Stream

_NOT_POSITIVE: Final = "ERR value is out of range, must be positive"
_NO_NUMBER_OF_KEYS: Final = "ERR numkeys should be greater than 0"
_NEGATIVE_LIMIT: Final = "ERR LIMIT can't be negative"
_MEMBERS: Final = slice(0, None, 2)
# The bytes that the sets of one SUNION, SINTER, SINTERCARD or SDIFF may have together: their members are all in memory then.
COMBINED_BYTES_MAX: Final = 16 * 1024 * 1024
# The bytes of sets whose members are kept in one dictionary: it takes 1 ms to grow.
PART_BYTES: Final = 256 * 1024
# The members that the sets may have of which another one is made, which cannot be done in slices: 5 ms of work.
STORED_MEMBERS_MAX: Final = 10_000


def _found(find: Find, raw: bytes) -> bytes:
    """Return the Redis set under the client's key ``raw`` in its encoded form, b"" if there is none."""
    return fields_of(find(key_of(raw)), SET)


def smembers(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    data = _found(find, arguments[1])
    return listed(set_head(session.protocol, fields.count(data)), data, _MEMBERS)


def sismember(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return ONE if fields.has(_found(find, arguments[1]), arguments[2]) else ZERO


def smismember(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    return looked_up(_found(find, arguments[1]), arguments[2:], lambda value: ZERO if value is None else ONE)


def scard(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(fields.count(_found(find, arguments[1])))


def sscan(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    return scanned(arguments, _found(find, arguments[1]), is_set=True)


def srandmember(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    if len(arguments) > 3:
        raise CommandError(SYNTAX)
    if len(arguments) == 2:
        some = at_once(drawn(_found(find, arguments[1]), 1))
        return bulk(some[0][0]) if some else session.null
    return some_of(_found(find, arguments[1]), integer_of(arguments[2]), lambda pair: bulk(pair[0]))


# Several sets -------------------------------------------------------------------------------------------------------

# Members, in one dictionary or several: a large one takes long to grow, and to free.
Parts = list[dict[bytes, None]]
# A generator, which yields no bytes between steps, that returns the members that are asked for of sets, given as their bytes.
Combine = Callable[[list[bytes]], Generator[bytes, None, Parts]]


def _union(sets: list[bytes]) -> Generator[bytes, None, Parts]:
    parts: Parts = [{} for _ in range(1 + sum(map(len, sets)) // PART_BYTES)]
    for data in sets:
        for some in members_in(data):
            if len(parts) == 1:
                parts[0].update(dict.fromkeys(some))
            else:
                for member in some:
                    parts[hash(member) % len(parts)][member] = None
            yield b""
    return parts


def _intersection(sets: list[bytes]) -> Generator[bytes, None, Parts]:
    smallest, *others = sorted(sets, key=len)
    parts = yield from _union([smallest])
    for data in others:
        if not any(parts):
            break
        common: Parts = [{} for _ in parts]
        for some in members_in(data):
            for member in some:
                at = hash(member) % len(parts)
                if member in parts[at]:
                    common[at][member] = None
            yield b""
        parts = common
    return parts


def _difference(sets: list[bytes]) -> Generator[bytes, None, Parts]:
    parts = yield from _union(sets[:1])
    for data in sets[1:]:
        for some in members_in(data):
            for member in some:
                parts[hash(member) % len(parts)].pop(member, None)
            yield b""
    return parts


def _size_together(sets: list[bytes]) -> int:
    size = sum(map(len, sets))
    if size > COMBINED_BYTES_MAX:
        raise CommandError(f"ERR the sets have more than {COMBINED_BYTES_MAX} bytes together")
    return size


def _combined(combine: Combine) -> Callable[[RespSession, Find, Arguments], Reply]:
    def answer(session: RespSession, find: Find, arguments: Arguments) -> Reply:
        sets = [fields_of(find(key), SET) for key in keys_of(arguments[1:])]
        size = _size_together(sets)
        protocol = session.protocol

        def pieces() -> Iterator[bytes]:
            parts = yield from combine(sets)
            # What waits for its client is the reply: small members take ten times as much, and nobody counts them.
            sets.clear()
            said = [set_head(protocol, sum(map(len, parts)))]
            while parts:
                for some in taken_from(list(parts.pop())):
                    said.append(b"".join(map(bulk, some)))
                    yield b""
            yield from said

        return b"".join(pieces()) if size <= SLICE_BYTES else Stream(said_in_pieces(pieces()), size)

    return answer


def sintercard(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    count = integer_of(arguments[1], _NO_NUMBER_OF_KEYS)
    if count < 1:
        raise CommandError(_NO_NUMBER_OF_KEYS)
    options = arguments[2 + count :]
    if len(arguments) < 2 + count:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if options and (len(options) != 2 or options[0].upper() != b"LIMIT"):
        raise CommandError(SYNTAX)
    most = integer_of(options[1], _NEGATIVE_LIMIT) if options else 0
    if most < 0:
        raise CommandError(_NEGATIVE_LIMIT)
    sets = [fields_of(find(key), SET) for key in keys_of(arguments[2 : 2 + count])]
    size = _size_together(sets)

    def pieces() -> Iterator[bytes]:
        found = sum(map(len, (yield from _intersection(sets))))
        yield integer(min(found, most) if most else found)

    return b"".join(pieces()) if size <= SLICE_BYTES else Stream(said_in_pieces(pieces()), size)


# Writes -------------------------------------------------------------------------------------------------------------


def sadd(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    pairs = [part for member in arguments[2:] for part in (member, b"")]
    return [c.set_fields(key_of(arguments[1]), SET, pairs, session.service.value_bytes_max)], told


def srem(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    return [c.remove_fields(key_of(arguments[1]), SET, arguments[2:])], told


def _store(combine: Combine) -> Callable[[RespSession, Find, Arguments], Plan]:
    def plan(session: RespSession, find: Find, arguments: Arguments) -> Plan:
        to, *keys = keys_of(arguments[1:])
        sets = [fields_of(find(key), SET) for key in keys]
        if sum(map(fields.count, sets)) > STORED_MEMBERS_MAX:
            raise CommandError(
                f"ERR sets of more than {STORED_MEMBERS_MAX} members together are not stored as another one"
            )
        members = [member for part in at_once(combine(sets)) for member in part]
        if not members:
            return [c.delete(to)], lambda results: ZERO
        data = fields.set_of(members)
        _check_size(session, data)
        reply = integer(len(members))
        return [c.set_(to, data, SET)], lambda results: reply if results[0][0] == c.OK else failed(results[0])

    return plan


def smove(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    old, new = keys_of(arguments[1:3])
    member = arguments[3]
    data = _found(find, arguments[1])
    others = fields_of(find(new, count=False), SET) if data else b""
    if not fields.has(data, member):
        return [], lambda results: ZERO
    if old == new:
        return [], lambda results: ONE
    # What is taken away must find its place.
    _check_size(session, fields.with_members(others, [member])[0])
    pair = [member, b""]
    writes = [c.set_fields(new, SET, pair, session.service.value_bytes_max), c.remove_fields(old, SET, [member])]
    return writes, lambda results: ONE if results[0][0] == c.OK else failed(results[0])


def _check_size(session: RespSession, data: bytes) -> None:
    most = min(session.service.value_bytes_max, c.FIELDS_BYTES_MAX)
    if len(data) > most:
        raise CommandError(f"OOM a hash or set has at most {most} bytes")


def spop(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key, data = key_of(arguments[1]), _found(find, arguments[1])
    if len(arguments) > 3:
        raise CommandError(SYNTAX)
    count = integer_of(arguments[2], _NOT_POSITIVE) if len(arguments) == 3 else 1
    if count < 0:
        raise CommandError(_NOT_POSITIVE)
    total = fields.count(data)
    if min(count, total) > c.FIELDS_AT_ONCE_MAX:
        raise CommandError(f"ERR at most {c.FIELDS_AT_ONCE_MAX} members are taken at once")
    if count > 1 and total > FIELDS_TOGETHER_MAX:
        raise CommandError(
            f"OOM a hash or set of more than {FIELDS_TOGETHER_MAX} fields is changed one field a command"
        )
    taken = [member for member, _ in at_once(drawn(data, count))]
    if len(arguments) == 3:
        reply = set_head(session.protocol, len(taken)) + b"".join(map(bulk, taken))
    else:
        reply = bulk(taken[0]) if taken else session.null
    if not taken:
        return [], lambda results: reply
    write = c.delete(key) if len(taken) == total else c.remove_fields(key, SET, taken)
    return [write], lambda results: reply if results[0][0] == c.OK else failed(results[0])


_read = functools.partial(Spec, group="set", flags=("readonly", "fast"), keys=(1, 1, 1))
_slow = functools.partial(Spec, group="set", flags=("readonly",), keys=(1, 1, 1))
_several = functools.partial(Spec, group="set", flags=("readonly",), keys=(1, -1, 1))
_write = functools.partial(Spec, group="set", flags=("write", "fast"), keys=(1, 1, 1))
_stored = functools.partial(Spec, group="set", flags=("write", "denyoom"), keys=(1, -1, 1), steps=True)

SPECS: Final = (
    _slow("smembers", 2, "Returns all members.", read=smembers),
    _read("sismember", 3, "Tells whether something is a member.", read=sismember),
    _read("smismember", -3, "Tells of several whether they are members.", read=smismember, fields=1),
    _read("scard", 2, "Returns the number of members.", read=scard),
    _slow("sscan", -3, "Returns the members that match a pattern.", read=sscan),
    _slow("srandmember", -2, "Returns some members.", read=srandmember),
    _several("sunion", -2, "Returns the members of any of the sets.", read=_combined(_union)),
    _several("sinter", -2, "Returns the members of all of the sets.", read=_combined(_intersection)),
    _several(
        "sintercard",
        -3,
        "Returns how many members are in all of the sets.",
        keys=(2, -1, 1),
        counted=1,
        read=sintercard,
    ),
    _several("sdiff", -2, "Returns the members of the first set and no other.", read=_combined(_difference)),
    _write("sadd", -3, "Adds members.", flags=("write", "denyoom", "fast"), plan=sadd, fields=1),
    _write("smove", 4, "Moves a member to another set.", keys=(1, 2, 1), plan=smove, steps=True),
    _stored("sunionstore", -3, "Stores the members of any of the sets.", plan=_store(_union)),
    _stored("sinterstore", -3, "Stores the members of all of the sets.", plan=_store(_intersection)),
    _stored("sdiffstore", -3, "Stores the members of the first set and no other.", plan=_store(_difference)),
    _write("srem", -3, "Removes members.", plan=srem, fields=1),
    _write("spop", -2, "Returns some members and removes them.", plan=spop, steps=True),
)
