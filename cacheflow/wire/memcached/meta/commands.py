"""The meta commands without a value: mg, md, ma, me and mn. (ms has a value: store.py.)"""

from __future__ import annotations

import functools
from typing import Final

from cacheflow.contract import DATA, KIND, VERSION, Entry
from cacheflow.errors import NotReady
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.values import VALUE_MAX
from cacheflow.wire.memcached.expiry import OVER, seconds_left
from cacheflow.wire.memcached.fetch import not_ready
from cacheflow.wire.memcached.lines import BAD_FORMAT, NON_NUMERIC, STALE, WON, WRONG_KIND, Refused, bits_of, number_of
from cacheflow.wire.memcached.meta.flags import MetaRequest, parse
from cacheflow.wire.memcached.meta.get import plan_get
from cacheflow.wire.memcached.meta.plan import Step, carry_out
from cacheflow.wire.memcached.session import Handler, MemcachedSession
from cacheflow.wire.memcached.storage import failed

BAD_ARITHMETIC_FLAG: Final = b"CLIENT_ERROR invalid or duplicate flag\r\n"
BAD_MODE: Final = b"CLIENT_ERROR invalid mode for ma M token\r\n"
_DIRECTIONS: Final = {b"": 1, b"I": 1, b"i": 1, b"+": 1, b"D": -1, b"d": -1, b"-": -1}


def _get(connection: MemcachedSession, words: list[bytes]) -> None:
    request = parse(words, 2, connection.wall_s())
    counts = not request.has(b"u")
    may_write = connection.may_write
    if not may_write and (request.has(b"N") or request.has(b"R") or request.has(b"T")):
        raise Refused(connection.forbidden(b"mg with N, R or T"))

    def plan(entry: Entry | None) -> Step | bytes:
        return plan_get(request, connection.store.now_ms(), entry, may_win=may_write)

    if not connection.answers_at_once:
        carry_out(connection, request.key, plan, count=counts)
        return
    try:
        answer = plan(connection.store.lookup(request.key, count=counts))
    except NotReady as error:
        answer = not_ready(error)
    if isinstance(answer, bytes):
        connection.reply(answer)
    else:
        carry_out(connection, request.key, plan)


def _delete(connection: MemcachedSession, words: list[bytes]) -> None:
    request = parse(words, 2, connection.wall_s())
    version = request.number(b"C")
    # A version of 0 is any version to the command DELETE, and no version to the flag C.
    if request.has(b"I") or request.has(b"x") or version == 0:
        carry_out(connection, request.key, functools.partial(_plan_delete, request))
    else:
        connection.write(commands.delete(request.key, version or 0), functools.partial(_deleted, request))


def _deleted(request: MetaRequest, result: Result) -> bytes:
    if result[0] == commands.OK:
        return b"" if request.quiet else b"HD" + request.echo() + b"\r\n"
    if result[0] in (commands.MISSING, commands.PRECONDITION):
        # A condition that failed at version 0 has found no key.
        status = b"EX" if result[0] == commands.PRECONDITION and result[1] else b"NF"
        return status + request.echo() + b"\r\n"
    return failed(result)


def _plan_delete(request: MetaRequest, entry: Entry | None) -> Step:
    """Return the step of a meta delete (md) that marks the entry as stale (flag I), empties it (flag x), or both.

    A step is the writes to be done and a function that makes the reply. entry: the present entry, None for an absent key.
    """
    if entry is None:
        return Step([], lambda _: _deleted(request, [commands.MISSING]))
    version = request.number(b"C")
    if version is not None and version != entry[VERSION]:
        return Step([], lambda _: _deleted(request, [commands.PRECONDITION, entry[VERSION]]))
    data, kind, bits, ttl_ms = entry[DATA], entry[KIND], bits_of(entry), request.number(b"T")
    if request.has(b"x"):
        data, kind, bits, ttl_ms = b"", 0, request.number(b"F") or 0, ttl_ms or commands.TTL_NONE
    if request.has(b"I"):
        if kind > VALUE_MAX:
            # No mark of memcached's goes on a hash or a set.
            return Step([], lambda _: WRONG_KIND)
        # Without WON the next client may win again.
        bits = bits & ~WON | STALE
    kept = commands.TTL_KEEP if ttl_ms is None else max(ttl_ms, 0)
    writes: list[Command] = [commands.set_(request.key, data, kind, bits or None, kept)]
    if ttl_ms == OVER:
        writes.append(commands.delete(request.key))
    return Step(writes, lambda results: _deleted(request, results[0]))


def _count(connection: MemcachedSession, words: list[bytes]) -> None:
    try:
        request = parse(words, 2, connection.wall_s())
    except Refused:
        raise Refused(BAD_FORMAT if len(words) < 2 else BAD_ARITHMETIC_FLAG) from None
    if request.mode not in _DIRECTIONS:
        raise Refused(BAD_MODE)
    now_ms = connection.store.now_ms
    if request.has(b"T") or request.number(b"C") or request.number(b"N") == OVER:
        carry_out(connection, request.key, lambda entry: _plan_count(request, now_ms(), entry))
    else:
        connection.write(_counting(request), lambda result: _counted(request, now_ms(), result))


def _counting(request: MetaRequest) -> Command:
    delta = request.number(b"D")
    delta = _DIRECTIONS[request.mode] * (1 if delta is None else delta)
    if not request.has(b"N"):
        return commands.count(request.key, delta)
    return commands.count(request.key, delta, request.number(b"J") or 0, max(request.number(b"N") or 0, 0))


def _plan_count(request: MetaRequest, now_ms: int, entry: Entry | None) -> Step:
    """Return the step of a meta arithmetic (ma) that compares a version (flag C) or sets a TTL (flag T, or N for a new entry).

    A step is the writes to be done and a function that makes the reply. entry: the present entry, None for an absent key.
    """
    version, over = request.number(b"C"), request.number(b"T")
    if entry is None:
        over = request.number(b"N") if over is None else over
    elif version and version != entry[VERSION]:
        return Step([], lambda _: b"EX" + request.echo() + b"\r\n")
    elif number_of(entry[DATA]) is None:
        # Without a number to add to, nothing else of the request may take place either.
        refusal = WRONG_KIND if entry[KIND] > VALUE_MAX else NON_NUMERIC
        return Step([], lambda _: refusal)
    writes: list[Command] = [_counting(request)]
    if over == OVER:
        writes.append(commands.delete(request.key))
    elif request.has(b"T"):
        writes.append(commands.touch(request.key, over or 0))

    def told(results: list[Result]) -> bytes:
        return _counted(request, now_ms, results[0])

    return Step(writes, told)


def _counted(request: MetaRequest, now_ms: int, result: Result) -> bytes:
    if result[0] == commands.MISSING:
        return b"NF" + request.echo() + b"\r\n"
    if result[0] != commands.OK:
        return failed(result)
    if request.quiet:
        return b""
    _, version, number, expires_at_ms = result
    value = b"%d" % number
    left = seconds_left(request.expiry_before(b"t", expires_at_ms, now_ms), now_ms)
    shown = {b"c": b" c%d" % version, b"t": b" t%d" % left}
    if not request.has(b"v"):
        return request.line(b"HD", shown)
    return b"%b%b\r\n" % (request.line(b"VA %d" % len(value), shown), value)


def _debug(connection: MemcachedSession, words: list[bytes]) -> None:
    """Answer memcached's command me (meta debug): show expiry, version and size of an entry, but not when it was last used."""
    try:
        request = parse(words[:2] + words[2:3] * (words[2:3] == [b"b"]), 2, 0.0)
    except Refused:
        raise Refused(BAD_FORMAT) from None

    def told() -> bytes:
        try:
            entry = connection.store.lookup(request.key, count=False)
        except NotReady as error:
            return not_ready(error)
        if entry is None:
            return b"EN\r\n"
        data, _, _, version, expires_at_ms = entry
        left = seconds_left(expires_at_ms, connection.store.now_ms())
        return b"ME %b exp=%d cas=%d size=%d\r\n" % (words[1], left, version, len(data))

    connection.read(told)


META: Final[dict[bytes, Handler]] = {
    b"mg": _get,
    b"md": _delete,
    b"ma": _count,
    b"me": _debug,
    b"mn": lambda connection, words: connection.reply(b"MN\r\n"),
}
