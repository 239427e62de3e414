"""The commands on all keys of a database: SCAN, KEYS, RANDOMKEY and DBSIZE (see scans.py)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.machine.language.commands import UINT64_MAX
from cacheflow.machine.language.databases import PREFIXES, keys_of_database
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, database_in, integer_of
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
    database = database_in(arguments)
    keys, cursor = session.service.scans.page(database, int(raw), min(count, COUNT_MAX))
    found = _live(session.service.store, database, keys, matches) if typed else []
    return array([bulk(b"%d" % cursor), bulks(found)])


def _live(store: Store, database: int, keys: list[str], matches: Callable[[bytes], object] | None) -> list[bytes]:
    """Return those of ``keys``, of ``database``, that exist and that ``matches`` takes, as its clients know them."""
    lookup = store.lookup
    before = len(PREFIXES[database])
    return [
        raw
        for key in keys
        if (matches is None or matches(key[before:].encode())) and lookup(key, count=False) is not None
        if (raw := key[before:].encode())
    ]


def keys(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    """Return the reply to the Redis command KEYS inside a transaction, made without a pause."""
    store, database = session.service.store, database_in(arguments)
    keys = keys_of_database(store.all_keys(), database)
    return bulks(_live(store, database, keys, _pattern(arguments[1])))


def keys_in_slices(connection: RespSession, arguments: Arguments) -> None:
    """Answer the Redis command KEYS in slices of SLICE_S seconds, between which the event loop does its other work."""
    matches, store, database = _pattern(arguments[1]), connection.store, database_in(arguments)

    def begin(end: Callable[[bytes], None]) -> None:
        found: list[bytes] = []
        all_keys = store.all_keys()
        slices = (all_keys[start : start + SLICE_KEYS] for start in range(0, len(all_keys), SLICE_KEYS))

        def work() -> None:
            until = time.monotonic() + SLICE_S
            for part in slices:
                found.extend(_live(store, database, keys_of_database(part, database), matches))
                if time.monotonic() >= until:
                    asyncio.get_running_loop().call_soon(connection.contained, end, work)
                    return
            end(bulks(found))

        work()

    connection.behind_barrier(begin)


def randomkey(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    database = database_in(arguments)
    key = session.service.scans.any_key(database)
    return session.null if key is None else bulk(key[len(PREFIXES[database]) :].encode())


def dbsize(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(session.service.store.count_of(database_in(arguments)))


_generic = functools.partial(Spec, group="generic", flags=("readonly",))

SPECS: Final = (
    _generic("keys", 2, "Returns the keys that match a pattern.", read=keys, control=keys_in_slices),
    _generic("scan", -2, "Returns the keys page by page.", read=scan),
    _generic("randomkey", 1, "Returns some key.", read=randomkey),
    _generic("dbsize", 1, "Returns the number of keys in the database.", group="server", read=dbsize),
)
