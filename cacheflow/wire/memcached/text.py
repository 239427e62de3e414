"""The text commands that are one line: which there are, and what each does.

Left out, and answered by ERROR as unknown ones are: what tunes memcached's own memory (slabs, lru, lru_crawler,
cache_memlimit), watch, shutdown. ``consistency`` is not memcached's: it says how reads of its connection are answered.
"""

from __future__ import annotations

import importlib.metadata
from typing import Final

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.wire.connection import no_reply
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.expiry import OVER, exptime_of, ttl_ms_of
from cacheflow.wire.memcached.fetch import Fetch, fetch_and_touch
from cacheflow.wire.memcached.session import Handler, MemcachedSession
from cacheflow.wire.memcached.stats import statistics
from cacheflow.wire.memcached.storage import NOT_FOUND, failed

OK: Final = b"OK\r\n"
# flush_all with a delay would be a promise of this node alone: gone when it stops, and nobody would know.
NO_DELAY: Final = b"CLIENT_ERROR flush_all with a delay is not served\r\n"


def version_text() -> str:
    """Return the version of this package."""
    try:
        return importlib.metadata.version("cacheflow")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


_VERSION: Final = b"VERSION %b\r\n" % version_text().encode()


def _quiet(words: list[bytes]) -> bool:
    return words[-1] == b"noreply"


def _say(connection: MemcachedSession, words: list[bytes], answer: bytes) -> None:
    connection.reply(b"" if _quiet(words) else answer)


def _keys(words: list[bytes]) -> list[str] | None:
    keys = [lines.key_of(word) for word in words]
    return None if None in keys else [key for key in keys if key is not None]


def _get(connection: MemcachedSession, words: list[bytes]) -> None:
    keys = _keys(words[1:])
    if not keys:
        connection.reply(lines.BAD_FORMAT)
    else:
        connection.fetch(Fetch(words[1:], keys, words[0] == b"gets"))


def _gat(connection: MemcachedSession, words: list[bytes]) -> None:
    exptime = exptime_of(words[1]) if len(words) > 2 else None
    keys = _keys(words[2:])
    if len(words) > 2 and exptime is None:
        connection.reply(lines.BAD_EXPTIME)
    elif exptime is None or not keys:
        connection.reply(lines.BAD_FORMAT)
    else:
        fetch_and_touch(connection, words[2:], keys, ttl_ms_of(exptime, connection.wall_s()), words[0] == b"gats")


def _delete(connection: MemcachedSession, words: list[bytes]) -> None:
    key = lines.key_of(words[1]) if len(words) > 1 else None
    if key is None:
        _say(connection, words, lines.BAD_FORMAT)
    else:
        connection.write(commands.delete(key), no_reply if _quiet(words) else _deleted)


def _deleted(result: Result) -> bytes:
    return _said(result, b"DELETED\r\n")


def _touch(connection: MemcachedSession, words: list[bytes]) -> None:
    key = lines.key_of(words[1]) if len(words) > 2 else None
    if key is None:
        _say(connection, words, lines.BAD_FORMAT)
        return
    exptime = exptime_of(words[2])
    if exptime is None:
        _say(connection, words, lines.BAD_EXPTIME)
        return
    ttl_ms = ttl_ms_of(exptime, connection.wall_s())
    command = commands.delete(key) if ttl_ms == OVER else commands.touch(key, ttl_ms)
    connection.write(command, no_reply if _quiet(words) else _touched)


def _touched(result: Result) -> bytes:
    return _said(result, b"TOUCHED\r\n")


def _said(result: Result, answer: bytes) -> bytes:
    if result[0] == commands.OK:
        return answer
    return NOT_FOUND if result[0] == commands.MISSING else failed(result)


def _count(connection: MemcachedSession, words: list[bytes]) -> None:
    key = lines.key_of(words[1]) if len(words) > 2 else None
    if key is None:
        _say(connection, words, lines.BAD_FORMAT)
        return
    delta = lines.number_of(words[2])
    if delta is None:
        _say(connection, words, lines.BAD_DELTA)
        return
    command = commands.count(key, delta if words[0] == b"incr" else -delta)
    connection.write(command, no_reply if _quiet(words) else _counted)


def _counted(result: Result) -> bytes:
    return b"%d\r\n" % result[2] if result[0] == commands.OK else _said(result, b"")


def _flush_all(connection: MemcachedSession, words: list[bytes]) -> None:
    delay: int | None = 0
    if len(words) > (2 if _quiet(words) else 1):
        delay = exptime_of(words[1])
    if delay is None:
        _say(connection, words, lines.BAD_EXPTIME)
    elif delay > 0:
        _say(connection, words, NO_DELAY)
    else:
        connection.write(commands.delete_prefix(""), no_reply if _quiet(words) else _flushed)


def _flushed(result: Result) -> bytes:
    return OK if result[0] == commands.OK else failed(result)


def _version(connection: MemcachedSession, words: list[bytes]) -> None:
    connection.reply(_VERSION)


def _verbosity(connection: MemcachedSession, words: list[bytes]) -> None:
    """Answer verbosity, which has no effect: the log's level is the whole node's."""
    known = len(words) > 1 and lines.number_of(words[1], lines.UINT32_MAX) is not None
    _say(connection, words, OK if known else lines.BAD_FORMAT)


def _stats(connection: MemcachedSession, words: list[bytes]) -> None:
    connection.read(lambda: statistics(connection, words[1:]))


def _consistency(connection: MemcachedSession, words: list[bytes]) -> None:
    if words[1:] not in ([b"local"], [b"linearizable"]):
        connection.reply(b"CLIENT_ERROR usage: consistency local|linearizable\r\n")
        return
    connection.linearizable = words[1] == b"linearizable"
    connection.reply(OK)


def _quit(connection: MemcachedSession, words: list[bytes]) -> None:
    connection.close()


COMMANDS: Final[dict[bytes, Handler]] = {
    b"get": _get,
    b"gets": _get,
    b"gat": _gat,
    b"gats": _gat,
    b"delete": _delete,
    b"touch": _touch,
    b"incr": _count,
    b"decr": _count,
    b"flush_all": _flush_all,
    b"version": _version,
    b"verbosity": _verbosity,
    b"stats": _stats,
    b"consistency": _consistency,
    b"quit": _quit,
}
