"""Commands on keys: deleting, expiry, renaming."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from cacheflow.contract import EXPIRES_AT_MS, Entry
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.resp.arguments import SYNTAX, database_in, database_named, integer_of, key_of, keys_of
from cacheflow.wire.resp.commands.strings import entries_at_once, failed
from cacheflow.wire.resp.replies import OK, ONE, ZERO, CommandError, integer
from cacheflow.wire.resp.session import Arguments, Find, Plan, Planner, Read, RespSession, Spec
from cacheflow.wire.resp.typed import type_of

NO_KEY: Final = -2
NO_EXPIRY: Final = -1
OTHER_DATABASE: Final = (
    "ERR no command takes a key to another database: read it, SELECT the other one, and write it there"
)

_WHEN: Final = {b"NX": c.IF_UNSET, b"XX": c.IF_SET, b"GT": c.IF_LATER, b"LT": c.IF_EARLIER}


def delete(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    return [c.delete(key) for key in keys_of(arguments[1:])], _count


def _count(results: Sequence[Result]) -> bytes:
    return integer(sum([result[0] == c.OK for result in results]))


def exists(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(sum([find(key, count=False) is not None for key in keys_of(arguments[1:])]))


def touch(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    found = entries_at_once(session, find, keys_of(arguments[1:]))
    return integer(len(found) - found.count(None))


def type_(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    entry = find(key_of(arguments[1]), count=False)
    return b"+none\r\n" if entry is None else b"+%b\r\n" % type_of(entry).encode()


# Expiry ---------------------------------------------------------------------------------------------------------------


def _left(unit_ms: int, as_time: bool) -> Read:
    def answer(session: RespSession, find: Find, arguments: Arguments) -> bytes:
        entry = find(key_of(arguments[1]), count=False)
        if entry is None:
            return integer(NO_KEY)
        if not entry[EXPIRES_AT_MS]:
            return integer(NO_EXPIRY)
        left_ms = max(0, entry[EXPIRES_AT_MS] - session.service.store.now_ms())
        if as_time:
            left_ms += session.service.wall_ms()
        return integer((left_ms + unit_ms // 2) // unit_ms)

    return answer


def _expire(name: str, unit_ms: int, as_time: bool) -> Planner:
    def plan(session: RespSession, find: Find, arguments: Arguments) -> Plan:
        when = _condition(arguments[3:])
        key = key_of(arguments[1])
        number = integer_of(arguments[2])
        asked_ms = number * unit_ms
        ttl_ms = asked_ms - session.service.wall_ms() if as_time else asked_ms
        if asked_ms < c.INT64_MIN or ttl_ms > c.TTL_MS_MAX:
            raise CommandError(f"ERR invalid expire time in '{name}' command")
        return [c.expire(key, ttl_ms if ttl_ms > 0 else c.TTL_ENDED, when)], _done

    return plan


def _condition(options: Arguments) -> int:
    when = 0
    for raw in options:
        if raw.upper() not in _WHEN:
            raise CommandError(b"ERR Unsupported option " + raw)
        when |= _WHEN[raw.upper()]
    if when & c.IF_UNSET and when != c.IF_UNSET:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if when & c.IF_LATER and when & c.IF_EARLIER:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return when


def _done(results: Sequence[Result]) -> bytes:
    status = results[0][0]
    if status == c.OK:
        return ONE
    return ZERO if status in (c.MISSING, c.PRECONDITION) else failed(results[0])


def persist(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    return [c.expire(key_of(arguments[1]), c.TTL_NONE, c.IF_SET)], _done


# Renaming -------------------------------------------------------------------------------------------------------------


def _moved(session: RespSession, entry: Entry, key: str) -> Command:
    """Return the state machine's command that writes ``entry``, an entry of the cache, under another key, ``key``.

    The entry keeps its remaining TTL.
    """
    data, kind, meta, _, expires_at_ms = entry
    ttl_ms = max(1, expires_at_ms - session.service.store.now_ms()) if expires_at_ms else c.TTL_NONE
    return c.set_(key, data, kind, meta, ttl_ms)


def _answer(reply: bytes) -> Plan:
    return [], lambda results: reply


def _writes(commands: list[Command], reply: bytes) -> Plan:
    # Room for the new key may have taken the old one away.
    return commands, lambda results: reply if results[0][0] == c.OK else failed(results[0])


def rename(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    old, new = keys_of(arguments[1:])
    entry = find(old)
    if entry is None:
        raise CommandError("ERR no such key")
    if old == new:
        return _answer(OK)
    return _writes([_moved(session, entry, new), c.delete(old)], OK)


def renamenx(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    old, new = keys_of(arguments[1:])
    entry = find(old)
    if entry is None:
        raise CommandError("ERR no such key")
    if find(new, count=False) is not None:
        return _answer(ZERO)
    return _writes([_moved(session, entry, new), c.delete(old)], ONE)


def copy(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    old, new = keys_of(arguments[1:3])
    replaces = False
    options = iter(arguments[3:])
    for raw in options:
        option = raw.upper()
        if option == b"REPLACE":
            replaces = True
        elif option == b"DB" and (number := next(options, None)) is not None:
            if database_named(number) != database_in(arguments):
                raise CommandError(OTHER_DATABASE)
        else:
            raise CommandError(SYNTAX)
    if old == new:
        raise CommandError("ERR source and destination objects are the same")
    entry = find(old)
    if entry is None or (not replaces and find(new, count=False) is not None):
        return _answer(ZERO)
    return _writes([_moved(session, entry, new)], ONE)


_read = functools.partial(Spec, group="generic", flags=("readonly", "fast"), keys=(1, 1, 1))
_write = functools.partial(Spec, group="generic", flags=("write",), keys=(1, 1, 1))

SPECS: Final = (
    _write("del", -2, "Deletes keys.", keys=(1, -1, 1), plan=delete),
    _write("unlink", -2, "Deletes keys.", keys=(1, -1, 1), plan=delete),
    _read("exists", -2, "Returns how many of the keys exist.", keys=(1, -1, 1), read=exists),
    _read("touch", -2, "Counts keys as used and returns how many exist.", keys=(1, -1, 1), read=touch),
    _read("type", 2, "Returns the type of a value.", read=type_),
    _read("ttl", 2, "Returns the time to live of a key in seconds.", read=_left(1000, False)),
    _read("pttl", 2, "Returns the time to live of a key in milliseconds.", read=_left(1, False)),
    _read("expiretime", 2, "Returns when a key ends, in seconds since 1970.", read=_left(1000, True)),
    _read("pexpiretime", 2, "Returns when a key ends, in milliseconds since 1970.", read=_left(1, True)),
    _write("expire", -3, "Sets the expiry of a key in seconds.", plan=_expire("expire", 1000, False)),
    _write("pexpire", -3, "Sets the expiry of a key in milliseconds.", plan=_expire("pexpire", 1, False)),
    _write("expireat", -3, "Sets when a key ends, in seconds since 1970.", plan=_expire("expireat", 1000, True)),
    _write("pexpireat", -3, "Sets when a key ends, in milliseconds since 1970.", plan=_expire("pexpireat", 1, True)),
    _write("persist", 2, "Takes the expiry of a key away.", plan=persist),
    _write("rename", 3, "Gives a value another key.", keys=(1, 2, 1), plan=rename, steps=True),
    _write("renamenx", 3, "Gives a value another key that does not exist.", keys=(1, 2, 1), plan=renamenx, steps=True),
    _write("copy", -3, "Writes a value under another key too.", keys=(1, 2, 1), plan=copy, steps=True),
)
