"""The commands on string values: GET, SET and their variants, counters, parts of values."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from cacheflow.contract import DATA, KIND, META, Entry
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.values import VALUE_MAX, kind_of
from cacheflow.wire.resp.arguments import (
    NOT_AN_INTEGER,
    SYNTAX,
    TOO_LONG,
    float_of,
    integer_of,
    key_of,
    keys_of,
    lifetime_ms,
)
from cacheflow.wire.resp.gets import bulks_of
from cacheflow.wire.resp.replies import EMPTY, OK, ONE, ZERO, CommandError, array, bulk, error, integer, value_reply
from cacheflow.wire.resp.session import Arguments, Find, Finish, Plan, RespSession, Spec, wrong_arity
from cacheflow.wire.resp.typed import WRONG_TYPE_REPLY, string_of
from cacheflow.wire.streams import JOINED_BYTES_MAX, WHOLE_BYTES_MAX, Reply, Stream

# Entries whose answers are made in one step.
_WHOLE_ENTRIES: Final = 512
_UNITS: Final = (b"EX", b"PX", b"EXAT", b"PXAT")
# The longest answer: a request of some kilobytes can name the same large value thousands of times.
ANSWER_BYTES_MAX: Final = 128 * 1024 * 1024
_SEVENTEEN_DECIMALS = Decimal("1e-17")
_PRECISE = Context(prec=800, rounding=ROUND_HALF_EVEN)


def failed(result: Result) -> bytes:
    """Return the Redis error reply for a command that the state machine refused, for the reason in its ``result``."""
    if result[0] == c.TOO_LARGE:
        return error(f"OOM {result[1]}")
    if result[0] == c.WRONG_KIND:
        return WRONG_TYPE_REPLY
    return error(f"ERR the command was refused ({result[0]}): {', '.join(map(str, result[1:]))}")


def if_all_succeed(reply: bytes) -> Finish:
    """Return a function that makes the reply from commands' results: ``reply`` if all succeeded, else the first error."""
    return lambda results: next((failed(result) for result in results if result[0] != c.OK), reply)


def check_value(session: RespSession, data: bytes) -> bytes:
    """Return the value ``data`` unchanged. Raises CommandError when it is longer than a value of the cache may be."""
    if len(data) > session.service.value_bytes_max:
        raise CommandError(TOO_LONG)
    return data


# Reads --------------------------------------------------------------------------------------------------------------


def get(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    entry = find(key_of(arguments[1]))
    return session.null if entry is None else value_reply(string_of(entry))


def entries_at_once(session: RespSession, find: Find, keys: list[str]) -> list[Entry | None]:
    """Return the cache's entries under ``keys``, all as of one moment, None for an absent one.

    find: the function that looks up a key.
    """
    store = session.store
    # Memory itself is looked into in one step, not key by key.
    found = store.lookup_all(keys, sys.maxsize) if find == store.lookup else None
    return [find(key) for key in keys] if found is None else found


def mget(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    found = entries_at_once(session, find, keys_of(arguments[1:]))
    entries = [None if entry is None or entry[KIND] > VALUE_MAX else entry for entry in found]
    size = sum([len(entry[DATA]) for entry in entries if entry is not None])
    if size > ANSWER_BYTES_MAX:
        raise CommandError(f"ERR the answer is larger than {ANSWER_BYTES_MAX} bytes")
    null = session.null
    if size <= WHOLE_BYTES_MAX and len(entries) <= _WHOLE_ENTRIES:
        return array([answer or null for answer in bulks_of(entries)[0]])

    def pieces() -> Iterator[bytes]:
        yield b"*%d\r\n" % len(entries)
        if size <= WHOLE_BYTES_MAX:
            for start in range(0, len(entries), _WHOLE_ENTRIES):
                yield b"".join([answer or null for answer in bulks_of(entries[start : start + _WHOLE_ENTRIES])[0]])
            return
        for entry in entries:
            if entry is None:
                yield null
            elif len(entry[DATA]) <= JOINED_BYTES_MAX:
                yield bulk(entry[DATA])
            else:
                yield b"$%d\r\n" % len(entry[DATA])
                yield entry[DATA]
                yield b"\r\n"

    return Stream(pieces(), size)


def strlen(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    entry = find(key_of(arguments[1]))
    return ZERO if entry is None else integer(len(string_of(entry)))


def getrange(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    start, end = integer_of(arguments[2]), integer_of(arguments[3])
    entry = find(key_of(arguments[1]))
    length = 0 if entry is None else len(string_of(entry))
    if entry is None or (start < 0 and end < 0 and start > end):
        return EMPTY
    start = max(0, start + length if start < 0 else start)
    end = max(0, end + length if end < 0 else end)
    return value_reply(entry[DATA][start : end + 1]) if start <= end else EMPTY


# SET and what sets ----------------------------------------------------------------------------------------------------


def set_(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    when, ttl_ms, returns = _set_options(session, arguments)
    key, data = key_of(arguments[1]), check_value(session, arguments[2])
    null = session.null
    ends = ttl_ms is not None and ttl_ms < 0
    if returns and when != c.IF_ABSENT:
        # What cannot be returned is not written over either.
        when = c.IF_VALUE if when == c.IF_PRESENT else c.IF_VALUE_OR_ABSENT
    if ends and when in (c.ALWAYS, c.IF_VALUE_OR_ABSENT):
        write = c.delete(key) if when == c.ALWAYS else c.expire(key, c.TTL_ENDED, c.IF_ONE_VALUE)
    elif ends:
        # The end is past. Under a condition the value lives for a millisecond: the machine's SET takes no less.
        write = c.set_(key, data, kind_of(data), None, 1, when)
    else:
        write = c.set_(key, data, kind_of(data), None, c.TTL_KEEP if ttl_ms is None else ttl_ms, when)

    def finish(results: Sequence[Result]) -> Reply:
        status = results[-1][0]
        if status not in (c.OK, c.MISSING, c.PRECONDITION):
            return failed(results[-1])
        if returns:
            return _value(results[0], null)
        return null if status == c.PRECONDITION else OK

    return ([c.get(key), write] if returns else [write]), finish


def _set_options(session: RespSession, arguments: Arguments) -> tuple[int, int | None, bool]:
    """Return the options of the Redis command SET as (when, ttl_ms, returns_old). Raises CommandError for a wrong option.

    when: the condition that NX or XX sets.  ttl_ms: the TTL, None for KEEPTTL.  returns_old: True if the option GET is given.
    """
    when, returns, keeps = c.ALWAYS, False, False
    unit = number = None
    options = iter(arguments[3:])
    for raw in options:
        option = raw.upper()
        if option == b"NX" and when != c.IF_PRESENT:
            when = c.IF_ABSENT
        elif option == b"XX" and when != c.IF_ABSENT:
            when = c.IF_PRESENT
        elif option == b"GET":
            returns = True
        elif option == b"KEEPTTL" and unit is None:
            keeps = True
        elif option in _UNITS and unit is None and not keeps and (number := next(options, None)) is not None:
            unit = option
        else:
            raise CommandError(SYNTAX)
    if unit is not None and number is not None:
        return when, lifetime_ms(number, unit, "set", session.service.wall_ms()), returns
    return when, None if keeps else c.TTL_NONE, returns


def getset(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key, data = key_of(arguments[1]), check_value(session, arguments[2])
    write = c.set_(key, data, kind_of(data), None, c.TTL_NONE, c.IF_VALUE_OR_ABSENT)
    return [c.get(key), write], _old_value(session.null)


def _old_value(null: bytes) -> Finish:
    """Return a function that makes the reply to GETSET, GETDEL and their kin: the old value of the string that they change.

    The function is given the results of a GET and of the change.  null: the reply when the key was absent.
    """

    def finish(results: Sequence[Result]) -> Reply:
        if results[-1][0] not in (c.OK, c.MISSING, c.PRECONDITION):
            return failed(results[-1])
        return _value(results[0], null)

    return finish


def _value(result: Result, null: bytes) -> Reply:
    """Return the Redis reply that shows the result of a GET: the value, ``null`` for an absent key, or an error."""
    if result[0] == c.OK and result[2] > VALUE_MAX:
        return WRONG_TYPE_REPLY
    return value_reply(result[1]) if result[0] == c.OK else null if result[0] == c.MISSING else failed(result)


def getdel(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key = key_of(arguments[1])
    return [c.get(key), c.expire(key, c.TTL_ENDED, c.IF_ONE_VALUE)], _old_value(session.null)


def getex(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key = key_of(arguments[1])
    options = [argument.upper() for argument in arguments[2:3]]
    if not options:
        return [c.get(key)], _old_value(session.null)
    if options == [b"PERSIST"] and len(arguments) == 3:
        ttl_ms = c.TTL_NONE
    elif options[0] in _UNITS and len(arguments) == 4:
        ttl_ms = lifetime_ms(arguments[3], options[0], "getex", session.service.wall_ms())
        ttl_ms = ttl_ms if ttl_ms > 0 else c.TTL_ENDED
    else:
        raise CommandError(SYNTAX)
    return [c.get(key), c.expire(key, ttl_ms, c.IF_ONE_VALUE)], _old_value(session.null)


def _set_for(unit: bytes, name: str) -> Callable[[RespSession, Find, Arguments], Plan]:
    def plan(session: RespSession, find: Find, arguments: Arguments) -> Plan:
        data = check_value(session, arguments[3])
        ttl_ms = lifetime_ms(arguments[2], unit, name, 0)
        return [c.set_(key_of(arguments[1]), data, kind_of(data), None, ttl_ms)], if_all_succeed(OK)

    return plan


def setnx(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    data = check_value(session, arguments[2])

    def finish(results: Sequence[Result]) -> bytes:
        status = results[0][0]
        return ONE if status == c.OK else ZERO if status == c.PRECONDITION else failed(results[0])

    return [c.set_(key_of(arguments[1]), data, kind_of(data), None, c.TTL_NONE, c.IF_ABSENT)], finish


def _pairs(session: RespSession, arguments: Arguments, name: str) -> list[Command]:
    if len(arguments) % 2 == 0:
        raise CommandError(wrong_arity(name))
    return [
        c.set_(key_of(raw), check_value(session, data), kind_of(data))
        for raw, data in zip(arguments[1::2], arguments[2::2], strict=True)
    ]


def mset(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    return _pairs(session, arguments, "mset"), if_all_succeed(OK)


def msetnx(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    writes = _pairs(session, arguments, "msetnx")
    if any(find(write[1], count=False) is not None for write in writes):
        return [], lambda results: ZERO
    return writes, if_all_succeed(ONE)


# Counters and parts ---------------------------------------------------------------------------------------------------


def incr_by(raw: bytes, delta: int) -> Plan:
    """Return (the state machine's commands, the function that makes the reply) for the Redis command INCR.

    INCR adds ``delta`` to the number under the key ``raw``; the reply is the new number.
    """
    return [c.incr(key_of(raw), delta, 0)], lambda results: counted(results[0])


def counted(result: Result) -> bytes:
    """Return the Redis reply to the state machine's ``result`` of adding to a number: the new number, or Redis' error."""
    if result[0] == c.OK:
        return b":%d\r\n" % result[2]
    if result[0] != c.NOT_AN_INTEGER:
        return failed(result)
    return error("ERR increment or decrement would overflow" if "sum" in result[1] else NOT_AN_INTEGER)


def decrby(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    delta = integer_of(arguments[2])
    if delta == c.INT64_MIN:
        raise CommandError("ERR decrement would overflow")
    return incr_by(arguments[1], -delta)


def float_sum(old: bytes, added: bytes) -> bytes:
    """Return the sum of two numbers with decimals as Redis shows it.

    Raises CommandError when one of the two is no number, or the sum is infinite or no number.
    """
    present, step = float_of(old), float_of(added)
    total = _PRECISE.add(present, step) if present.is_finite() else present
    if not total.is_finite() or total.adjusted() > 308:
        raise CommandError("ERR increment would produce NaN or Infinity")
    return _shortest(total)


def incrbyfloat(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key = key_of(arguments[1])
    entry = find(key)
    data = float_sum(b"0" if entry is None else string_of(entry), arguments[2])
    kind, meta = (kind_of(data), None) if entry is None else (entry[KIND], entry[META])
    return [c.set_(key, data, kind, meta, c.TTL_KEEP)], if_all_succeed(bulk(data))


def _shortest(number: Decimal) -> bytes:
    """Return ``number`` as Redis shows floats: in decimal digits, rounded to 17 decimals, without zeros at the end."""
    digits = format(number.quantize(_SEVENTEEN_DECIMALS, context=_PRECISE), "f")
    digits = digits.rstrip("0").rstrip(".")
    return b"0" if digits in ("-0", "") else digits.encode()


def append(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    key, data = key_of(arguments[1]), arguments[2]
    entry = find(key, count=False)
    if len(data) + (0 if entry is None else len(string_of(entry))) > session.service.value_bytes_max:
        raise CommandError(TOO_LONG)
    return [
        c.append(key, data, create=True)
    ], lambda results: integer(results[0][2]) if results[0][0] == c.OK else failed(results[0])


def setrange(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    offset, added = integer_of(arguments[2]), arguments[3]
    if offset < 0:
        raise CommandError("ERR offset is out of range")
    key = key_of(arguments[1])
    entry = find(key)
    old = b"" if entry is None else string_of(entry)
    if not added:
        return [], lambda results: integer(len(old))
    if offset + len(added) > session.service.value_bytes_max:
        raise CommandError(TOO_LONG)
    data = old[:offset].ljust(offset, b"\0") + added + old[offset + len(added) :]
    write = c.set_(key, data, kind_of(data), None if entry is None else entry[META], c.TTL_KEEP)
    return [write], if_all_succeed(integer(len(data)))


_read = functools.partial(Spec, group="string", flags=("readonly", "fast"), keys=(1, 1, 1))
_write = functools.partial(Spec, group="string", flags=("write", "denyoom"), keys=(1, 1, 1))

SPECS: Final = (
    _read("get", 2, "Returns the string value of a key.", read=get),
    _read("mget", -2, "Returns the values of keys, all at one moment.", keys=(1, -1, 1), read=mget),
    _read("strlen", 2, "Returns the length of a value.", read=strlen),
    _read("getrange", 4, "Returns a part of a value.", read=getrange),
    _read("substr", 4, "Returns a part of a value.", read=getrange),
    _write("set", -3, "Sets the value of a key, whatever it was.", plan=set_),
    _write("getset", 3, "Sets the value of a key and returns the old one.", plan=getset),
    _write("getdel", 2, "Returns the value of a key and deletes it.", plan=getdel),
    _write("getex", -2, "Returns the value of a key and sets its expiry.", plan=getex),
    _write("setex", 4, "Sets the value of a key and its expiry in seconds.", plan=_set_for(b"EX", "setex")),
    _write("psetex", 4, "Sets the value of a key and its expiry in milliseconds.", plan=_set_for(b"PX", "psetex")),
    _write("setnx", 3, "Sets the value of a key that does not exist.", plan=setnx),
    _write("mset", -3, "Sets several keys, all or none.", keys=(1, -1, 2), plan=mset),
    _write("msetnx", -3, "Sets several keys if none exists.", keys=(1, -1, 2), plan=msetnx, steps=True),
    _write("append", 3, "Adds to the end of a value.", plan=append),
    _write("incr", 2, "Adds one to a number.", plan=lambda session, find, a: incr_by(a[1], 1)),
    _write("decr", 2, "Takes one from a number.", plan=lambda session, find, a: incr_by(a[1], -1)),
    _write("incrby", 3, "Adds to a number.", plan=lambda session, find, a: incr_by(a[1], integer_of(a[2]))),
    _write("decrby", 3, "Takes from a number.", plan=decrby),
    _write("incrbyfloat", 3, "Adds to a number with decimals.", plan=incrbyfloat, steps=True),
    _write("setrange", 4, "Writes over a part of a value.", plan=setrange, steps=True),
)
