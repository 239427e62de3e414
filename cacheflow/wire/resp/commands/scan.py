"""The commands on the whole set of keys: SCAN, KEYS, RANDOMKEY and DBSIZE (see scans.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, array, bulk, bulks, integer, said_in_pieces
from cacheflow.wire.resp.scans import STEP_KEYS
from cacheflow.wire.resp.session import Arguments, Find, RespSession, Spec
from cacheflow.wire.streams import Reply, Stream

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 2000


def _pattern(raw: bytes) -> Callable[[bytes], object] | None:
    """Return the function that tests a key against the glob pattern ``raw``; None if every key matches.

    Raises CommandError for a pattern that is too long.
    """
    if len(raw) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    return None if raw == b"*" else matcher(raw)


def scan(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    raw = arguments[1]
    if not raw.isdigit() or len(raw) > 20:
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
    scans, store, cursor, count = session.service.scans, session.service.store, int(raw), min(count, COUNT_MAX)
    if not cursor:
        begun = scans.first_page(count)
    else:
        # An unknown cursor is told before anything else.
        known = scans.page(cursor, count)
        begun = _at_once(known)

    def listed() -> Iterator[bytes]:
        keys, following = yield from begun
        found = yield from _matching(store, keys if typed else [], matches)
        yield array([bulk(b"%d" % following), bulks([key.encode() for key in found])])

    return Stream(said_in_pieces(listed()))


def _at_once(page: tuple[list[str], int]) -> Generator[bytes, None, tuple[list[str], int]]:
    yield from ()
    return page


def _matching(
    store: Store, keys: list[str], matches: Callable[[bytes], object] | None
) -> Generator[bytes, None, list[str]]:
    """Return those of ``keys`` that are there and match; a generator, which yields no bytes between steps.

    The keys' own texts: a million of them encoded would be 50 MB for each client.
    """
    found: list[str] = []
    for place in range(0, len(keys), STEP_KEYS):
        some = store.live(keys[place : place + STEP_KEYS])
        found += some if matches is None else [key for key in some if matches(key.encode())]
        yield b""
    return found


def keys(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    matches, store = _pattern(arguments[1]), session.service.store

    def listed() -> Iterator[bytes]:
        copied = yield from session.service.scans.copied()
        found: list[str] = []
        for some in copied.slices:
            found += yield from _matching(store, some, matches)
        yield b"*%d\r\n" % len(found)
        for start in range(0, len(found), STEP_KEYS):
            yield b"".join([bulk(key.encode()) for key in found[start : start + STEP_KEYS]])

    return Stream(said_in_pieces(listed()))


def randomkey(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    def chosen() -> Iterator[bytes]:
        key = yield from session.service.scans.any_key()
        yield session.null if key is None else bulk(key.encode())

    return Stream(said_in_pieces(chosen()))


def dbsize(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    return integer(len(session.service.store))


_generic = functools.partial(Spec, group="generic", flags=("readonly",))

SPECS: Final = (
    _generic("keys", 2, "Returns the keys that match a pattern.", read=keys),
    _generic("scan", -2, "Returns the keys page by page.", read=scan),
    _generic("randomkey", 1, "Returns some key.", read=randomkey),
    _generic("dbsize", 1, "Returns the number of keys.", group="server", read=dbsize),
)
