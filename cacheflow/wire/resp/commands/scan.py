"""The commands on the whole set of keys: SCAN, KEYS, RANDOMKEY and DBSIZE (see scans.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, array, bulk, bulks, integer, said_in_pieces
from cacheflow.wire.resp.scans import STEP_KEYS
from cacheflow.wire.resp.session import Arguments, Find, RespSession, Spec
from cacheflow.wire.streams import Reply, Stream

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 10_000


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

    def page(keys: list[str], following: int) -> bytes:
        return array([bulk(b"%d" % following), bulks(_live(store, keys, matches) if typed else [])])

    def first_page() -> Iterator[bytes]:
        yield page(*(yield from scans.first_page(count)))

    return page(*scans.page(cursor, count)) if cursor else Stream(said_in_pieces(first_page()))


def _live(store: Store, keys: list[str], matches: Callable[[bytes], object] | None) -> list[bytes]:
    raws = [key.encode() for key in store.live(keys)]
    return raws if matches is None else [raw for raw in raws if matches(raw)]


def keys(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    matches, store = _pattern(arguments[1]), session.service.store

    def listed() -> Iterator[bytes]:
        copied = yield from session.service.scans.copied()
        # The keys' own texts: a million of them encoded would be 50 MB for each client.
        found: list[str] = []
        for place in range(0, copied.count, STEP_KEYS):
            some = store.live(copied.part(place, STEP_KEYS))
            found += some if matches is None else [key for key in some if matches(key.encode())]
            yield b""
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
