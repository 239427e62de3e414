"""The command ms: store a value in one of five modes, compare versions, or leave a stale value for others to replace."""

from __future__ import annotations

import functools
from typing import Final

from cacheflow import values
from cacheflow.contract import VERSION, Entry
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.meta.flags import MetaRequest, parse
from cacheflow.wire.memcached.meta.plan import Step, carry_out
from cacheflow.wire.memcached.session import MemcachedSession
from cacheflow.wire.memcached.storage import INCOMPLETE, failed, outgrows, refuse, set_command, set_result, value_behind

BAD_MODE: Final = b"CLIENT_ERROR invalid mode for ms M token\r\n"

_WHEN: Final = {
    b"": commands.ALWAYS,
    b"S": commands.ALWAYS,
    b"E": commands.IF_ABSENT,
    b"R": commands.IF_PRESENT,
}
_GROWING: Final = (b"A", b"P")


def meta_set(connection: MemcachedSession, words: list[bytes], data: bytes, end: int) -> int:
    """Handle memcached's meta set (ms); ``words`` is its command line, which ends at position ``end`` of the input ``data``.

    Returns the position behind the value, or INCOMPLETE when the value has not arrived in full.
    """
    size = lines.number_of(words[2], lines.VALUE_BYTES_LAST) if len(words) >= 3 else None
    if size is None:
        connection.reply(lines.BAD_FORMAT)
        return end + 1
    try:
        request = parse(words, 3, connection.wall_s())
        if request.mode not in _WHEN and request.mode not in _GROWING:
            raise lines.Refused(BAD_MODE)
    except lines.Refused as refused:
        connection.reply(refused.reply)
        connection.skip = size + 2
        return end + 1
    if size > connection.shared.value_bytes_max:
        refuse(connection, request.key, request.mode in (b"", b"S"), False)
        connection.skip = size + 2
        return end + 1
    value = value_behind(connection, data, end, size)
    if value is None:
        return INCOMPLETE
    behind = end + size + 3
    if request.mode in _GROWING and outgrows(connection, request.key, value):
        connection.reply(lines.TOO_LARGE)
    elif data.startswith(b"\r\n", behind - 2):
        _store(connection, request, value)
    else:
        connection.reply(lines.BAD_CHUNK)
    return behind


def _store(connection: MemcachedSession, request: MetaRequest, value: bytes) -> None:
    version = request.number(b"C")
    if request.mode in _GROWING:
        # A version of 0 compares with nothing, as with memcached.
        if version or request.has(b"N"):
            carry_out(connection, request.key, functools.partial(_plan_growth, request, value))
        else:
            connection.write(_growth(request, value), functools.partial(_grown, request, len(value)))
        return
    when = _WHEN[request.mode]
    if version is not None and when != commands.IF_ABSENT:
        if request.has(b"I"):
            carry_out(connection, request.key, functools.partial(_plan_stale, request, value, version))
            return
        when = commands.IF_VERSION
    command = _set(request, value, request.number(b"T") or 0, when, version or 0)
    connection.write(command, functools.partial(_stored, request, len(value)))


def _set(request: MetaRequest, value: bytes, ttl_ms: int, when: int = commands.ALWAYS, version: int = 0) -> Command:
    return set_command(request.key, value, request.number(b"F") or 0, ttl_ms, when, version)


def _growth(request: MetaRequest, value: bytes) -> Command:
    return commands.append(request.key, value, front=request.mode == b"P")


def _plan_growth(request: MetaRequest, value: bytes, entry: Entry | None) -> Step:
    """Return the step of an append or prepend by meta set that compares a version (flag C) or may create the entry (flag N).

    A step is the writes to be done and a function that makes the reply. entry: the present entry, None for an absent key.
    """
    version = request.number(b"C")
    if entry is None:
        if not request.has(b"N"):
            return Step([], lambda _: _told(request, b"NS", 0, len(value)))
        made = _set(request, value, request.number(b"N") or 0)
        return Step([made], lambda results: _stored(request, len(value), results[0]))
    if version and entry[VERSION] != version:
        return Step([], lambda _: _told(request, b"EX", 0, len(value)))
    return Step([_growth(request, value)], lambda results: _grown(request, len(value), results[0]))


def _plan_stale(request: MetaRequest, value: bytes, version: int, entry: Entry | None) -> Step:
    """Return the step of a meta set with the flags C and I: it stores a client's ``value``, made from version ``version``.

    If the entry is newer, the value is stored as stale, and keeps the entry's TTL and WON mark. If the entry is older or the
    key is absent, the reply is a refusal.
    A step is the writes to be done and a function that makes the reply. entry: the present entry, None for an absent key.
    """
    if entry is None:
        return Step([], lambda _: _told(request, b"NF", 0, len(value)))
    ttl_ms = request.number(b"T") or 0
    bits = request.number(b"F") or 0
    # With version 0 nothing is compared, and so nothing is older either.
    if version == 0 or entry[VERSION] < version:
        return Step([], lambda _: _told(request, b"EX", 0, len(value)))
    if entry[VERSION] > version:
        ttl_ms = commands.TTL_KEEP
        bits |= lines.STALE | lines.bits_of(entry) & lines.WON
        command = commands.set_(request.key, value, values.kind_of(value), bits, ttl_ms)
    else:
        command = set_command(request.key, value, bits, ttl_ms)
    return Step([command], lambda results: _stored(request, len(value), results[0]))


def _stored(request: MetaRequest, size: int, result: Result) -> bytes:
    told = set_result(result)
    if told[0] == commands.OK:
        return b"" if request.quiet else _told(request, b"HD", told[1], size)
    if told[0] == commands.PRECONDITION:
        if request.has(b"C") and request.mode != b"E":
            return _told(request, b"EX" if told[1] else b"NF", 0, size)
        return _told(request, b"NS", 0, size)
    return failed(told)


def _grown(request: MetaRequest, added: int, result: Result) -> bytes:
    if result[0] == commands.OK:
        return b"" if request.quiet else _told(request, b"HD", result[1], result[2])
    return _told(request, b"NS", 0, added) if result[0] == commands.MISSING else failed(result)


def _told(request: MetaRequest, status: bytes, version: int, size: int) -> bytes:
    return request.line(status, {b"c": b" c%d" % version, b"s": b" s%d" % size})
