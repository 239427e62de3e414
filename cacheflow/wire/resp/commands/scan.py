"""The commands on all keys of a database: SCAN, KEYS, RANDOMKEY and DBSIZE (see scans.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import compress
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.machine.language.commands import UINT64_MAX
from cacheflow.machine.language.databases import PREFIXES, keys_of_database
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, database_in, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, array, bulk, bulks, integer, said_in_pieces
from cacheflow.wire.resp.scans import STEP_KEYS
from cacheflow.wire.resp.session import Arguments, Find, RespSession, Spec
from cacheflow.wire.resp.typed import type_of
from cacheflow.wire.streams import Reply, Stream

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 2000
# The marks of a step's keys of which all were found.
_ALL: Final = b"\x01" * STEP_KEYS


def _pattern(raw: bytes) -> Callable[[bytes], object] | None:
    """Return the function that tests a key against the glob pattern ``raw``; None if every key matches.

    Raises CommandError for a pattern that is too long.
    """
    if len(raw) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    return None if raw == b"*" else matcher(raw)


def scan(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    raw = arguments[1]
    if not raw.isdigit() or len(raw) > 20 or int(raw) > UINT64_MAX:
        raise CommandError("ERR invalid cursor")
    matches, count, wanted = None, COUNT_DEFAULT, None
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
            wanted = value.lower().decode("latin-1")
        else:
            raise CommandError(SYNTAX)
    scans, store, cursor, count = session.service.scans, session.service.store, int(raw), min(count, COUNT_MAX)
    database = database_in(arguments)
    if not cursor:
        begun = scans.first_page(database, count)
    else:
        # An unknown cursor is told before anything else.
        known = scans.page(database, cursor, count)
        begun = _at_once(known)

    def listed() -> Iterator[bytes]:
        keys, following = yield from begun
        found = yield from _matching(store, database, keys, matches, wanted)
        before = len(PREFIXES[database])
        yield array([bulk(b"%d" % following), bulks([key[before:].encode() for key in found])])

    return Stream(said_in_pieces(listed()))


def _at_once(page: tuple[list[str], int]) -> Generator[bytes, None, tuple[list[str], int]]:
    yield from ()
    return page


def _matching(
    store: Store, database: int, keys: list[str], matches: Callable[[bytes], object] | None, wanted: str | None = None
) -> Generator[bytes, None, list[str]]:
    """Return those of ``keys`` that exist, belong to the Redis database ``database`` and pass the tests.

    A generator, which yields b"" now and then, so that the event loop can do other work.
    matches: the test of a key without its database's prefix; None if every key passes.
    wanted: the Redis type that keys must have; None for any.
    """
    found: list[str] = []
    for place in range(0, len(keys), STEP_KEYS):
        found += _matching_now(store, database, keys[place : place + STEP_KEYS], matches, wanted)
        yield b""
    return found


def _matching_now(
    store: Store,
    database: int,
    keys: Sequence[str],
    matches: Callable[[bytes], object] | None,
    wanted: str | None = None,
) -> list[str]:
    """Return those of ``keys`` that exist, belong to the Redis database ``database`` and pass the tests.

    matches: the test of a key without its database's prefix; None if every key passes.
    wanted: the Redis type that keys must have; None for any.
    """
    some = store.live(keys_of_database(keys, database))
    if wanted is not None:
        some = [key for key in some if _type_of(store, key) == wanted]
    before = len(PREFIXES[database])
    return some if matches is None else [key for key in some if matches(key[before:].encode())]


def _type_of(store: Store, key: str) -> str | None:
    entry = store.lookup(key, count=False)
    return None if entry is None else type_of(entry)


def keys(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    matches, store, database = _pattern(arguments[1]), session.service.store, database_in(arguments)

    def listed() -> Iterator[bytes]:
        copied = yield from session.service.scans.copied()
        # Which keys of each step were found: a byte for each key. Lists of a million would be looked through by the garbage
        # collector and freed in one step, and encoded keys would be 50 MB for each client.
        marks: list[bytes] = []
        count = 0
        for place in range(0, copied.count, STEP_KEYS):
            some = copied.part(place, STEP_KEYS)
            found = set(_matching_now(store, database, some, matches))
            count += len(found)
            marks.append(_ALL if len(found) == len(some) else bytes([key in found for key in some]))
            yield b""
        yield b"*%d\r\n" % count
        before = len(PREFIXES[database])
        for number, marked in enumerate(marks):
            some = copied.part(number * STEP_KEYS, STEP_KEYS)
            yield b"".join([bulk(key[before:].encode()) for key in compress(some, marked)])

    return Stream(said_in_pieces(listed()))


def randomkey(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    database = database_in(arguments)

    def chosen() -> Iterator[bytes]:
        key = yield from session.service.scans.any_key(database)
        yield session.null if key is None else bulk(key[len(PREFIXES[database]) :].encode())

    return Stream(said_in_pieces(chosen()))


def dbsize(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(session.service.store.count_of(database_in(arguments)))


_generic = functools.partial(Spec, group="generic", flags=("readonly",))

SPECS: Final = (
    _generic("keys", 2, "Returns the keys that match a pattern.", read=keys),
    _generic("scan", -2, "Returns the keys page by page.", read=scan),
    _generic("randomkey", 1, "Returns some key.", read=randomkey),
    _generic("dbsize", 1, "Returns the number of keys in the database.", group="server", read=dbsize),
)
