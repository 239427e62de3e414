"""SCAN, KEYS, RANDOMKEY, DBSIZE: all keys, without holding up the loop.

A scan goes through a copy of the keys that is taken when it begins (8 bytes a key, 10 ms a million). So a key that is
there from the beginning to the end of a scan is returned exactly once; one that comes meanwhile is not; one that goes
is not, unless its page was before. A cursor is this node's: the number of the copy and a place in it. Few copies are
kept, and a cursor whose copy is gone is an error, not an end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, array, bulk, bulks, integer
from cacheflow.wire.resp.session import RespSession
from cacheflow.wire.resp.spec import Arguments, Find, Session, Spec

SCANS_MAX: Final = 256
# The most keys that all copies but the newest hold: 32 MiB.
KEYS_KEPT_MAX: Final = 4 * 1024 * 1024
COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 10_000
# The time that KEYS works before others get their turn, and the keys between two looks at the clock.
SLICE_S: Final = 0.005
SLICE_KEYS: Final = 256
SAMPLE_S: Final = 1.0
SAMPLE_TRIES: Final = 100
_PLACE_BITS: Final = 32


class Scans:
    """The scans under way on this node, over all connections. Not safe for concurrent use: the event loop owns it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._copies: OrderedDict[int, list[str]] = OrderedDict()
        # The number of keys in all copies.
        self.kept = 0
        # The number of the latest copy. It begins anywhere, so that cursors of an earlier start do not fit.
        self._number = random.getrandbits(28)
        self._sample: list[str] = []
        self._sampled_at = -SAMPLE_S

    def page(self, cursor: int, count: int) -> tuple[list[str], int]:
        """Return (the keys of the page at ``cursor``, the next cursor or 0). Some keys may be gone. Raises CommandError."""
        number, place = cursor >> _PLACE_BITS, cursor & (1 << _PLACE_BITS) - 1
        if not cursor:
            keys = self._store.all_keys()
        elif number in self._copies:
            keys = self._copies[number]
            self._copies.move_to_end(number)
        else:
            raise CommandError("ERR invalid cursor: this node does not know it any more, begin again with 0")
        end = place + count
        if end >= len(keys):
            self._forget(number)
            return keys[place:], 0
        if not cursor:
            number = self._keep(keys)
        return keys[place:end], number << _PLACE_BITS | end

    def _keep(self, keys: list[str]) -> int:
        self._number += 1
        self._copies[self._number] = keys
        self.kept += len(keys)
        while len(self._copies) > 1 and (len(self._copies) > SCANS_MAX or self.kept > KEYS_KEPT_MAX):
            self._forget(next(iter(self._copies)))
        return self._number

    def _forget(self, number: int) -> None:
        self.kept -= len(self._copies.pop(number, ()))

    def any_key(self) -> str | None:
        """Return a live key, of those that were there a second ago; None when there is none."""
        alive = self._store.lookup
        if time.monotonic() - self._sampled_at >= SAMPLE_S or len(self._sample) < SAMPLE_TRIES:
            self._sample = self._store.all_keys()
            self._sampled_at = time.monotonic()
        if not self._sample:
            return None
        for _ in range(SAMPLE_TRIES):
            key = random.choice(self._sample)
            if alive(key, count=False) is not None:
                return key
        return next((key for key in self._store.all_keys() if alive(key, count=False) is not None), None)


def _pattern(raw: bytes) -> Callable[[bytes], object] | None:
    """Return the function that a key must match; None when every key matches. Raises CommandError."""
    if len(raw) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    return None if raw == b"*" else matcher(raw)


def scan(session: Session, find: Find, arguments: Arguments) -> bytes:
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
    keys, cursor = session.service.scans.page(int(raw), min(count, COUNT_MAX))
    found = _live(session.service.store, keys, matches) if typed else []
    return array([bulk(b"%d" % cursor), bulks(found)])


def _live(store: Store, keys: list[str], matches: Callable[[bytes], object] | None) -> list[bytes]:
    lookup = store.lookup
    return [
        raw
        for key in keys
        if (matches is None or matches(key.encode())) and lookup(key, count=False) is not None
        if (raw := key.encode())
    ]


def keys(session: Session, find: Find, arguments: Arguments) -> bytes:
    """Answer KEYS at once, inside a transaction."""
    store = session.service.store
    return bulks(_live(store, store.all_keys(), _pattern(arguments[1])))


def keys_in_slices(connection: RespSession, arguments: Arguments) -> None:
    """Answer KEYS with the loop's other work in between."""
    matches = _pattern(arguments[1])
    store = connection.store

    def begin(end: Callable[[bytes], None]) -> None:
        found: list[bytes] = []
        slices = _slices(store.all_keys())

        def work() -> None:
            until = time.monotonic() + SLICE_S
            for part in slices:
                found.extend(_live(store, part, matches))
                if time.monotonic() >= until:
                    asyncio.get_running_loop().call_soon(connection.contained, end, work)
                    return
            end(bulks(found))

        work()

    connection.behind_barrier(begin)


def _slices(all_keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(all_keys), SLICE_KEYS):
        yield all_keys[start : start + SLICE_KEYS]


def randomkey(session: Session, find: Find, arguments: Arguments) -> bytes:
    key = session.service.scans.any_key()
    return session.null if key is None else bulk(key.encode())


def dbsize(session: Session, find: Find, arguments: Arguments) -> bytes:
    return integer(len(session.service.store))


_READONLY = ("readonly",)

SPECS: Final = (
    Spec(
        name="keys", arity=2, summary="Returns the keys that match a pattern.", group="generic", flags=_READONLY,
        read=keys, control=keys_in_slices,
    ),
    Spec(name="scan", arity=-2, summary="Returns the keys page by page.", group="generic", flags=_READONLY, read=scan),
    Spec(name="randomkey", arity=1, summary="Returns some key.", group="generic", flags=_READONLY, read=randomkey),
    Spec(name="dbsize", arity=1, summary="Returns the number of keys.", group="server", flags=_READONLY, read=dbsize),
)  # fmt: skip
