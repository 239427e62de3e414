"""The commands on all keys of a database: SCAN, KEYS, RANDOMKEY and DBSIZE (see scans.py)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Final

from cacheflow.machine.language.commands import UINT64_MAX
from cacheflow.machine.language.databases import PREFIXES, keys_of_database
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, array, bulk, bulks, integer
from cacheflow.wire.resp.session import Arguments, Find, RespSession, Spec

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 10_000
# The time that KEYS works before others get their turn, and the keys between two looks at the clock.
SLICE_S: Final = 0.005
SLICE_KEYS: Final = 256


def _pattern(raw: bytes) -> Callable[[bytes], object] | None:
    """Return the function that tests a key against the glob pattern ``raw``; None if every key matches.

    Raises CommandError for a pattern that is too long.
    """
    if len(raw) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    return None if raw == b"*" else matcher(raw)


def scan(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    raw = arguments[1]
    if not raw.isdigit() or len(raw) > 20 or int(raw) > UINT64_MAX:
        raise CommandError("ERR invalid cursor")
    matches, count, typed = None, COUNT_DEFAULT, True
    options = arguments[2:]
    if len(options) % 2:
        raise CommandError(SYNTAX)
    for name, value in zip(options[::2], options[1::2], strict=True):
        option = name.upper()
        if option == b"COUNT":
            count = integer_of(value, NOT_AN_INTEGER)
            if count < 1:
                raise CommandError(SYNTAX)
        elif option == b"MATCH":
            matches = _pattern(value)
        elif option == b"TYPE":
            typed = value.lower() == b"string"
        else:
            raise CommandError(SYNTAX)
    keys, cursor = session.service.scans.page(session.database, int(raw), min(count, COUNT_MAX))
    found = _live(session, keys, matches) if typed else []
    return array([bulk(b"%d" % cursor), bulks(found)])


def _live(session: RespSession, keys: list[str], matches: Callable[[bytes], object] | None) -> list[bytes]:
    """Return those of ``keys`` that exist and that ``matches`` takes, as the client of their database knows them.

    keys: of the client's database.
    """
    lookup = session.service.store.lookup
    before = len(PREFIXES[session.database])
    return [
        raw
        for key in keys
        if (matches is None or matches(key[before:].encode())) and lookup(key, count=False) is not None
        if (raw := key[before:].encode())
    ]


def keys(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    """Return the reply to the Redis command KEYS inside a transaction, made without a pause."""
    keys = keys_of_database(session.service.store.all_keys(), session.database)
    return bulks(_live(session, keys, _pattern(arguments[1])))


def keys_in_slices(connection: RespSession, arguments: Arguments) -> None:
    """Answer the Redis command KEYS in slices of SLICE_S seconds, between which the event loop does its other work."""
    matches = _pattern(arguments[1])

    def begin(end: Callable[[bytes], None]) -> None:
        found: list[bytes] = []
        all_keys = connection.store.all_keys()
        slices = (all_keys[start : start + SLICE_KEYS] for start in range(0, len(all_keys), SLICE_KEYS))

        def work() -> None:
            until = time.monotonic() + SLICE_S
            for part in slices:
                found.extend(_live(connection, keys_of_database(part, connection.database), matches))
                if time.monotonic() >= until:
                    asyncio.get_running_loop().call_soon(connection.contained, end, work)
                    return
            end(bulks(found))

        work()

    connection.behind_barrier(begin)


def randomkey(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    key = session.service.scans.any_key(session.database)
    return session.null if key is None else bulk(key[len(PREFIXES[session.database]) :].encode())


def dbsize(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(session.service.store.count_of(session.database))


_generic = functools.partial(Spec, group="generic", flags=("readonly",))

SPECS: Final = (
    _generic("keys", 2, "Returns the keys that match a pattern.", read=keys, control=keys_in_slices),
    _generic("scan", -2, "Returns the keys page by page.", read=scan),
    _generic("randomkey", 1, "Returns some key.", read=randomkey),
    _generic("dbsize", 1, "Returns the number of keys in the database.", group="server", read=dbsize),
)
