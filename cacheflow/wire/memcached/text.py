"""The table of memcached's text commands that have no value, and their handlers.

Left out, and answered by ERROR as unknown ones are: what tunes memcached's own memory (slabs, lru, lru_crawler,
cache_memlimit), watch, shutdown. ``consistency`` is not memcached's: it says how reads of its connection are answered.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Final

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import no_reply
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.expiry import OVER, exptime_of, ttl_ms_of
from cacheflow.wire.memcached.fetch import KEYS_MAX, TOO_MANY_TO_GET, Fetch, fetch_and_touch
from cacheflow.wire.memcached.lines import Refused
from cacheflow.wire.memcached.session import Handler, MemcachedSession
from cacheflow.wire.memcached.stats import statistics
from cacheflow.wire.memcached.storage import NOT_FOUND, failed

OK: Final = b"OK\r\n"
# flush_all with a delay would be a promise of this node alone: gone when it stops, and nobody would know.
NO_DELAY: Final = b"CLIENT_ERROR flush_all with a delay is not served\r\n"


def version_text() -> str:
    """Return the version of the cacheflow package, "0.0.0" if it is not installed."""
    try:
        return importlib.metadata.version("cacheflow")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


_VERSION: Final = b"VERSION %b\r\n" % version_text().encode()


def _quiet(words: list[bytes]) -> bool:
    return words[-1] == b"noreply"


def _refused(words: list[bytes], error: bytes) -> Refused:
    return Refused(b"" if _quiet(words) else error)


def _key(words: list[bytes], count: int) -> str:
    """Return the key in ``words``, the command line of a memcached request, which must have at least ``count`` words.

    Raises Refused when it has fewer words or no valid key.
    """
    key = lines.key_of(words[1]) if len(words) >= count else None
    if key is None:
        raise _refused(words, lines.BAD_FORMAT)
    return key


def _keys(words: list[bytes]) -> list[str]:
    """Return the words ``words`` of a memcached command as keys.

    Raises Refused when there are no words, or when one of them is no valid key.
    """
    keys = [key for word in words if (key := lines.key_of(word)) is not None]
    if not words or len(keys) != len(words):
        raise Refused(lines.BAD_FORMAT)
    return keys


def _write(connection: MemcachedSession, words: list[bytes], command: Command, answer: bytes) -> None:
    connection.write(command, no_reply if _quiet(words) else functools.partial(_said, answer))


def _said(answer: bytes, result: Result) -> bytes:
    if result[0] == commands.OK:
        return answer
    return NOT_FOUND if result[0] == commands.MISSING else failed(result)


def _get(connection: MemcachedSession, words: list[bytes]) -> None:
    if len(words) > KEYS_MAX + 1:
        raise Refused(TOO_MANY_TO_GET)
    connection.fetch = Fetch(words[1:], _keys(words[1:]), words[0] == b"gets")


def _gat(connection: MemcachedSession, words: list[bytes]) -> None:
    if len(words) < 3:
        raise Refused(lines.BAD_FORMAT)
    exptime = exptime_of(words[1])
    if exptime is None:
        raise Refused(lines.BAD_EXPTIME)
    ttl_ms = ttl_ms_of(exptime, connection.wall_s())
    fetch_and_touch(connection, words[2:], _keys(words[2:]), ttl_ms, words[0] == b"gats")


def _delete(connection: MemcachedSession, words: list[bytes]) -> None:
    _write(connection, words, commands.delete(_key(words, 2)), b"DELETED\r\n")


def _touch(connection: MemcachedSession, words: list[bytes]) -> None:
    key, exptime = _key(words, 3), exptime_of(words[2])
    if exptime is None:
        raise _refused(words, lines.BAD_EXPTIME)
    ttl_ms = ttl_ms_of(exptime, connection.wall_s())
    command = commands.delete(key) if ttl_ms == OVER else commands.touch(key, ttl_ms)
    _write(connection, words, command, b"TOUCHED\r\n")


def _count(connection: MemcachedSession, words: list[bytes]) -> None:
    key, delta = _key(words, 3), lines.number_of(words[2])
    if delta is None:
        raise _refused(words, lines.BAD_DELTA)
    command = commands.count(key, delta if words[0] == b"incr" else -delta)
    connection.write(command, no_reply if _quiet(words) else _counted)


def _counted(result: Result) -> bytes:
    return b"%d\r\n" % result[2] if result[0] == commands.OK else _said(b"", result)


def _flush_all(connection: MemcachedSession, words: list[bytes]) -> None:
    delay = exptime_of(words[1]) if len(words) > (2 if _quiet(words) else 1) else 0
    if delay is None:
        raise _refused(words, lines.BAD_EXPTIME)
    if delay > 0:
        raise _refused(words, NO_DELAY)
    _write(connection, words, commands.clear_database(0), OK)


def _verbosity(connection: MemcachedSession, words: list[bytes]) -> None:
    """Answer memcached's command verbosity, which has no effect: the log's level belongs to the whole node."""
    if len(words) < 2 or lines.number_of(words[1], lines.UINT32_MAX) is None:
        raise _refused(words, lines.BAD_FORMAT)
    connection.reply(b"" if _quiet(words) else OK)


def _consistency(connection: MemcachedSession, words: list[bytes]) -> None:
    if words[1:] not in ([b"local"], [b"linearizable"]):
        raise Refused(b"CLIENT_ERROR usage: consistency local|linearizable\r\n")
    connection.linearizable = words[1] == b"linearizable"
    connection.reply(OK)


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
    b"version": lambda connection, words: connection.reply(_VERSION),
    b"verbosity": _verbosity,
    b"stats": lambda connection, words: connection.read(lambda: statistics(connection, words[1:])),
    b"consistency": _consistency,
    b"quit": lambda connection, words: connection.close(),
}

# The commands that a user who may only read may use, meta commands too; every other one needs the role write.
READS: Final = frozenset(
    (b"get", b"gets", b"mg", b"me", b"mn", b"version", b"verbosity", b"stats", b"consistency", b"quit")
)
