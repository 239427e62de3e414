"""The commands with a value behind their line: set, add, replace, append, prepend, cas."""

from __future__ import annotations

from typing import Final

from cacheflow import values
from cacheflow.contract import DATA
from cacheflow.errors import NotReady
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import no_reply
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.expiry import OVER, exptime_of, ttl_ms_of
from cacheflow.wire.memcached.session import MemcachedSession

STORED: Final = b"STORED\r\n"
NOT_STORED: Final = b"NOT_STORED\r\n"
EXISTS: Final = b"EXISTS\r\n"
NOT_FOUND: Final = b"NOT_FOUND\r\n"
# The position behind a request that is not complete.
INCOMPLETE: Final = -1

_WHEN: Final = {
    b"set": commands.ALWAYS,
    b"add": commands.IF_ABSENT,
    b"replace": commands.IF_PRESENT,
    b"cas": commands.IF_VERSION,
}


def store(connection: MemcachedSession, words: list[bytes], data: bytes, end: int) -> int:
    """Handle memcached's set, add, replace, append, prepend or cas, and return the position behind its value.

    words: the command line, which ends at position ``end`` of the client's input ``data``.
    Returns INCOMPLETE when the value has not arrived in full.
    """
    size = lines.number_of(words[4], lines.VALUE_BYTES_LAST) if len(words) >= 5 else None
    if size is None:
        connection.reply(lines.BAD_FORMAT)
        return end + 1
    quiet = words[-1] == b"noreply"
    key = lines.key_of(words[1])
    flags = lines.number_of(words[2], lines.UINT32_MAX)
    exptime = exptime_of(words[3])
    version: int | None = 0
    if words[0] == b"cas":
        version = lines.number_of(words[5]) if len(words) > 5 else None
    if key is None or flags is None or exptime is None or version is None:
        connection.reply(b"" if quiet else lines.BAD_FORMAT)
        connection.skip = size + 2
        return end + 1
    if size > connection.shared.value_bytes_max:
        refuse(connection, key, words[0] == b"set", quiet)
        connection.skip = size + 2
        return end + 1
    value = value_behind(connection, data, end, size)
    if value is None:
        return INCOMPLETE
    behind = end + size + 3
    if not data.startswith(b"\r\n", behind - 2):
        connection.reply(b"" if quiet else lines.BAD_CHUNK)
    elif words[0] in _WHEN:
        ttl_ms = ttl_ms_of(exptime, connection.wall_s()) if exptime else 0
        command = set_command(key, value, flags, ttl_ms, _WHEN[words[0]], version)
        connection.write(command, no_reply if quiet else cas_stored if words[0] == b"cas" else stored)
    elif outgrows(connection, key, value):
        connection.reply(b"" if quiet else lines.TOO_LARGE)
    else:
        command = commands.append(key, value, front=words[0] == b"prepend")
        connection.write(command, no_reply if quiet else stored)
    return behind


def value_behind(connection: MemcachedSession, data: bytes, end: int, size: int) -> bytes | None:
    """Return the ``size`` bytes of a value in a client's input ``data``, behind the command line that ends at ``end``.

    Returns None until the value and its line end have arrived; sets the connection's attribute ``missing`` to the number of
    bytes still to come.
    """
    missing = end + size + 3 - len(data)
    if missing > 0:
        connection.missing = missing
        return None
    return data[end + 1 : end + 1 + size]


def outgrows(connection: MemcachedSession, key: str, added: bytes) -> bool:
    """True if appending ``added`` to the value of ``key`` in this node's memory would exceed the limit of a value's length."""
    try:
        entry = connection.store.lookup(key, count=False)
    except NotReady:
        return False  # the write itself is refused then
    return entry is not None and len(entry[DATA]) + len(added) > connection.shared.value_bytes_max


def refuse(connection: MemcachedSession, key: str, replaces: bool, quiet: bool) -> None:
    """Answer a memcached set of ``key`` to a value over the limit.

    If ``replaces`` is true the old value is removed, as memcached does. quiet: the client wants no reply.
    """
    if not replaces:
        connection.reply(b"" if quiet else lines.TOO_LARGE)
        return
    connection.write(commands.delete(key), no_reply if quiet else too_large)


def set_command(key: str, value: bytes, bits: int, ttl_ms: int, when: int = 0, version: int = 0) -> Command:
    """Return the state machine's command for a memcached set. when, version: the condition under which the entry is written.

    If ``ttl_ms`` is OVER, the expiry is in the past, and the command removes the entry where the condition holds.
    """
    if ttl_ms == OVER:
        emptied = commands.set_(key, b"", 0, None, commands.TTL_NONE, when, version)
        return commands.batch([emptied, commands.delete(key)], atomic=True)
    return commands.set_(key, value, values.kind_of(value), bits or None, ttl_ms, when, version)


def set_result(result: Result) -> Result:
    """Return the result of a SET out of ``result``: the state machine's, of that SET alone or of a batch that contains it."""
    if result[0] == commands.ABORTED:
        return list(result[2])
    return list(result[1][0]) if result[0] == commands.OK and type(result[1]) is list else result


def stored(result: Result) -> bytes:
    """Return memcached's reply to set, add, replace, append or prepend, by ``result``, what the state machine has returned."""
    if result[0] == commands.OK:
        return STORED
    if set_result(result)[0] in (commands.PRECONDITION, commands.MISSING):
        return NOT_STORED
    return failed(set_result(result))


def cas_stored(result: Result) -> bytes:
    """Return memcached's reply to the command cas, by ``result``, what the state machine has returned for it."""
    if result[0] == commands.OK:
        return STORED
    told = set_result(result)
    if told[0] == commands.PRECONDITION:
        return EXISTS if told[1] else NOT_FOUND
    return failed(told)


def too_large(_: Result) -> bytes:
    """Return memcached's error reply to a set of a value over the limit, whose old value has been removed."""
    return lines.TOO_LARGE


def failed(result: Result) -> bytes:
    """Return memcached's error reply to a request whose command the state machine refused with ``result``."""
    if result[0] == commands.TOO_LARGE:
        return lines.TOO_LARGE
    if result[0] == commands.NOT_AN_INTEGER:
        return lines.NON_NUMERIC
    if result[0] == commands.WRONG_KIND:
        return lines.WRONG_KIND
    return lines.server_error(str(result[1]) if len(result) > 1 else f"unexpected status {result[0]}")
