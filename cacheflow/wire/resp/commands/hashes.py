"""The commands on hashes: one entry of the cache each, of which a command of the machine changes fields."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

from cacheflow.machine.language import commands as c
from cacheflow.machine.language import fields
from cacheflow.machine.language.commands import Result
from cacheflow.values import HASH
from cacheflow.wire.resp.arguments import NOT_A_FLOAT, SYNTAX, float_of, integer_of, key_of
from cacheflow.wire.resp.commands.strings import failed, float_sum, if_all_succeed
from cacheflow.wire.resp.field_replies import at_once, drawn, listed, looked_up, scanned, some_of
from cacheflow.wire.resp.replies import OK, ONE, ZERO, CommandError, array, bulk, error, integer, map_head, value_reply
from cacheflow.wire.resp.session import Arguments, Find, Finish, Plan, RespSession, Spec, wrong_arity
from cacheflow.wire.resp.typed import fields_of
from cacheflow.wire.streams import Reply

_FIELDS: Final = slice(0, None, 2)
_VALUES: Final = slice(1, None, 2)
_BOTH: Final = slice(None)


def _found(find: Find, raw: bytes) -> bytes:
    """Return the Redis hash under the client's key ``raw`` in its encoded form, b"" if there is none."""
    return fields_of(find(key_of(raw)), HASH)


# Reads --------------------------------------------------------------------------------------------------------------


def hget(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    value = fields.value_in(_found(find, arguments[1]), arguments[2])
    return session.null if value is None else value_reply(value)


def hmget(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    null = session.null
    return looked_up(_found(find, arguments[1]), arguments[2:], lambda value: null if value is None else bulk(value))


def hgetall(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    data = _found(find, arguments[1])
    return listed(map_head(session.protocol, fields.count(data)), data, _BOTH)


def _all(parts: slice) -> Callable[[RespSession, Find, Arguments], Reply]:
    def answer(session: RespSession, find: Find, arguments: Arguments) -> Reply:
        data = _found(find, arguments[1])
        return listed(b"*%d\r\n" % fields.count(data), data, parts)

    return answer


def hexists(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return ONE if fields.has(_found(find, arguments[1]), arguments[2]) else ZERO


def hlen(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(fields.count(_found(find, arguments[1])))


def hstrlen(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(len(fields.value_in(_found(find, arguments[1]), arguments[2]) or b""))


def hscan(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    return scanned(arguments, _found(find, arguments[1]), is_set=False)


def hrandfield(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    if len(arguments) == 2:
        some = at_once(drawn(_found(find, arguments[1]), 1))
        return bulk(some[0][0]) if some else session.null
    count = integer_of(arguments[2])
    if len(arguments) > 4 or (len(arguments) == 4 and arguments[3].upper() != b"WITHVALUES"):
        raise CommandError(SYNTAX)
    data = _found(find, arguments[1])
    if len(arguments) == 3:
        return some_of(data, count, lambda pair: bulk(pair[0]))
    if session.protocol == 3:
        return some_of(data, count, lambda pair: array([bulk(pair[0]), bulk(pair[1])]))
    return some_of(data, count, lambda pair: bulk(pair[0]) + bulk(pair[1]), each=2)


# Writes -------------------------------------------------------------------------------------------------------------


def told(results: Sequence[Result]) -> bytes:
    """Return Redis' reply to a command that writes or removes fields of a hash or set: how many were added, or removed."""
    status = results[0][0]
    return integer(results[0][2]) if status == c.OK else ZERO if status == c.MISSING else failed(results[0])


def _set(name: str, finish: Finish) -> Callable[[RespSession, Find, Arguments], Plan]:
    def plan(session: RespSession, find: Find, arguments: Arguments) -> Plan:
        if len(arguments) % 2:
            raise CommandError(wrong_arity(name))
        return [c.set_fields(key_of(arguments[1]), HASH, arguments[2:], session.service.value_bytes_max)], finish

    return plan


def hsetnx(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    bytes_max = session.service.value_bytes_max
    return [c.set_fields(key_of(arguments[1]), HASH, arguments[2:], bytes_max, only_absent=True)], told


def hdel(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    return [c.remove_fields(key_of(arguments[1]), HASH, arguments[2:])], told


def hincrby(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    delta = integer_of(arguments[3])
    return [c.count_field(key_of(arguments[1]), arguments[2], delta, session.service.value_bytes_max)], _counted


def _counted(results: Sequence[Result]) -> bytes:
    result = results[0]
    if result[0] == c.NOT_AN_INTEGER:
        words = "increment or decrement would overflow" if "sum" in result[1] else "hash value is not an integer"
        return error(f"ERR {words}")
    return integer(result[2]) if result[0] == c.OK else failed(result)


def hincrbyfloat(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    old = fields.value_in(_found(find, arguments[1]), arguments[2])
    if not float_of(arguments[3]).is_finite():
        raise CommandError("ERR value is NaN or Infinity")
    try:
        data = float_sum(b"0" if old is None else old, arguments[3])
    except CommandError as wrong:
        raise CommandError("ERR hash value is not a float") if str(wrong) == NOT_A_FLOAT else wrong from None
    write = c.set_fields(key_of(arguments[1]), HASH, [arguments[2], data], session.service.value_bytes_max)
    return [write], lambda results: bulk(data) if results[0][0] == c.OK else failed(results[0])


_read = functools.partial(Spec, group="hash", flags=("readonly", "fast"), keys=(1, 1, 1))
_slow = functools.partial(Spec, group="hash", flags=("readonly",), keys=(1, 1, 1))
_write = functools.partial(Spec, group="hash", flags=("write", "denyoom", "fast"), keys=(1, 1, 1))

SPECS: Final = (
    _read("hget", 3, "Returns the value of a field.", read=hget),
    _read("hmget", -3, "Returns the values of fields.", read=hmget, fields=1),
    _slow("hgetall", 2, "Returns all fields and values.", read=hgetall),
    _slow("hkeys", 2, "Returns all fields.", read=_all(_FIELDS)),
    _slow("hvals", 2, "Returns all values.", read=_all(_VALUES)),
    _read("hexists", 3, "Tells whether a field exists.", read=hexists),
    _read("hlen", 2, "Returns the number of fields.", read=hlen),
    _read("hstrlen", 3, "Returns the length of a field's value.", read=hstrlen),
    _slow("hscan", -3, "Returns the fields and values that match a pattern.", read=hscan),
    _slow("hrandfield", -2, "Returns some fields.", read=hrandfield),
    _write("hset", -4, "Sets fields.", plan=_set("hset", told), fields=2),
    _write("hmset", -4, "Sets fields.", plan=_set("hmset", if_all_succeed(OK)), fields=2),
    _write("hsetnx", 4, "Sets a field that does not exist.", plan=hsetnx),
    _write("hdel", -3, "Removes fields.", flags=("write", "fast"), plan=hdel, fields=1),
    _write("hincrby", 4, "Adds to the number in a field.", plan=hincrby),
    _write("hincrbyfloat", 4, "Adds to the number with decimals in a field.", plan=hincrbyfloat, steps=True),
)
