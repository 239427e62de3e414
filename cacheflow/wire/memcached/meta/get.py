"""The command mg: it returns one entry, and can tell one client that it is the one to fill or renew the entry.

Who *wins* that (W), after N, R or on a stale entry, is decided by a write that marks the entry, so that exactly one
client of the whole cluster is told: the winner's ``c`` is the version after it, and the others see Z. A Content-Type
from HTTP gives way to the mark.
"""

from __future__ import annotations

import functools

from cacheflow.contract import EXPIRES_AT_MS, KIND, Entry
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.values import VALUE_MAX
from cacheflow.wire.memcached.expiry import OVER, seconds_left
from cacheflow.wire.memcached.lines import FLAGS, STALE, WON, WRONG_KIND, bits_of
from cacheflow.wire.memcached.meta.flags import MetaRequest
from cacheflow.wire.memcached.meta.plan import Step
from cacheflow.wire.memcached.storage import failed


def plan_get(request: MetaRequest, now_ms: int, entry: Entry | None, may_win: bool = True) -> Step | bytes:
    """Return the step of a meta get (mg) that writes, or the reply of one that need not write.

    A step is the writes to be done and a function that makes the reply. entry: the present entry, None for an absent key.
    may_win: False for a client that may not write, which is shown a stale entry and not told to renew it.
    """
    if entry is None:
        vivified = request.number(b"N")
        if vivified is None:
            return b"" if request.quiet else b"EN" + request.echo() + b"\r\n"
        return _vivify(request, now_ms, vivified)
    if entry[KIND] > VALUE_MAX:
        return WRONG_KIND
    bits = bits_of(entry)
    wins = may_win and not bits & WON and (bool(bits & STALE) or _due(request, entry[EXPIRES_AT_MS], now_ms))
    ttl_ms = request.number(b"T")
    if ttl_ms is None and not wins:
        return _hit(request, entry, now_ms, False, [])
    data, kind, _, _, _ = entry
    writes: list[Command] = []
    if wins:
        kept = commands.TTL_KEEP if ttl_ms is None or ttl_ms == OVER else ttl_ms
        writes.append(commands.set_(request.key, data, kind, bits | WON, kept))
    elif ttl_ms != OVER:
        writes.append(commands.touch(request.key, ttl_ms or 0))
    if ttl_ms == OVER:
        writes.append(commands.delete(request.key))
    return Step(writes, functools.partial(_hit, request, entry, now_ms, wins))


def _vivify(request: MetaRequest, now_ms: int, ttl_ms: int) -> Step:
    """Return the step of a meta get that creates an empty entry (flag N) and tells this client that it is the one to fill it.

    A step is the writes to be done and a function that makes the reply.
    """
    writes = [commands.set_(request.key, b"", 0, WON, max(ttl_ms, 0), commands.IF_ABSENT)]
    if ttl_ms == OVER:
        writes.append(commands.delete(request.key))
    stub = (b"", 0, 0, 0, now_ms + ttl_ms if ttl_ms > 0 else 0)
    return Step(writes, functools.partial(_hit, request, stub, now_ms, True))


def _due(request: MetaRequest, expires_at_ms: int, now_ms: int) -> bool:
    """True if an entry's TTL is less than the number of flag R in the meta get ``request``: this client is to renew the entry.

    A flag T before R sets the TTL first.
    """
    least_ms = request.number(b"R")
    if least_ms is None:
        return False
    expires_at_ms = request.expiry_before(b"R", expires_at_ms, now_ms)
    return expires_at_ms != 0 and expires_at_ms - now_ms < least_ms


def _hit(request: MetaRequest, entry: Entry, now_ms: int, wins: bool, results: list[Result]) -> bytes:
    """Return the reply to a meta get: ``entry`` as the request's flags ask for it, or the first failure in ``results``.

    results: those of the writes that the request needed.
    wins: True if this client is told that it is the one to fill or renew the entry.
    """
    data, _, _, version, expires_at_ms = entry
    bits = bits_of(entry)
    shown = request.has(b"v") and request.number(b"C") != version
    for result in results:
        if result[0] != commands.OK:
            return failed(result)
    if wins:
        version = results[0][1]
    ttl_ms = request.number(b"T")
    told = b"VA %d" % len(data) if shown else b"HD"
    for token in request.tokens:
        flag = token[:1]
        if flag == b"t":
            told += b" t%d" % seconds_left(expires_at_ms, now_ms)
        elif flag == b"T" and ttl_ms is not None:
            expires_at_ms = now_ms + ttl_ms if ttl_ms else 0
        elif flag == b"s":
            told += b" s%d" % len(data)
        elif flag == b"c":
            told += b" c%d" % version
        elif flag == b"f":
            told += b" f%d" % (bits & FLAGS)
        elif flag == b"O":
            told += b" " + token
        elif flag == b"k":
            told += request.shown_key
    if bits & WON:
        told += b" Z"
    if bits & STALE:
        told += b" X"
    if wins:
        told += b" W"
    return told + (b"\r\n%b\r\n" % data if shown else b"\r\n")
