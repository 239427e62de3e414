"""Scans: copies of all keys, made in slices of the event loop's time, for SCAN, KEYS and RANDOMKEY.

A scan goes through a copy of the keys, of all databases, that is made when it begins. So a key that is there from the beginning
to the end of a scan is returned exactly once; one that comes meanwhile may be missing; one that goes is not returned, unless its
page was before. All who begin while a copy is being made share it, and so do those who begin before anything else is written. A
cursor is this node's: the scan's number and a place in its copy. A scan is of one database. Few scans are kept, and a cursor of
one that is gone is an error, not an end.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator
from itertools import accumulate
from typing import Final

from cacheflow.contract import KeysCopy
from cacheflow.contract import WireStore as Store
from cacheflow.machine.language.databases import keys_of_database
from cacheflow.wire.resp.replies import CommandError

SCANS_MAX: Final = 256
# The most keys that all copies but the newest hold: 32 MiB.
KEYS_KEPT_MAX: Final = 4 * 1024 * 1024
# Places of a copy that a page looks at, at least: a database with few keys among many others takes several pages without any.
SEARCHED_MIN: Final = 10_000
SAMPLE_S: Final = 1.0
SAMPLE_TRIES: Final = 100
# Keys that are looked at between two looks at the clock.
STEP_KEYS: Final = 256
_PLACE_BITS: Final = 32


class Keys:
    """A complete copy of the cache's keys: some may be gone by now.

    slices: the keys, in lists.  count: their number.
    """

    def __init__(self, slices: list[list[str]]) -> None:
        self.slices = slices
        self._starts = [0, *accumulate(map(len, slices))]
        self.count = self._starts[-1]

    def part(self, place: int, count: int) -> list[str]:
        """Return up to ``count`` of the keys, from ``place`` on."""
        number = bisect_right(self._starts, place) - 1
        found: list[str] = []
        while len(found) < count and number < len(self.slices):
            start = place + len(found) - self._starts[number]
            found += self.slices[number][start : start + count - len(found)]
            number += 1
        return found


class Scans:
    """The SCANs in progress on this node, of all its RESP clients. Not safe for concurrent use: the event loop owns it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By number: the database that is scanned, and the copy.
        self._scans: OrderedDict[int, tuple[int, Keys]] = OrderedDict()
        # The latest copy, which may not be complete, and the same as keys once it is.
        self._copy: KeysCopy | None = None
        self._keys = Keys([])
        # The number of the latest scan. It begins anywhere, so that cursors of an earlier start do not fit.
        self._number = random.getrandbits(28)
        # By database: its keys at the time of its sample.
        self._samples: dict[int, tuple[float, Keys]] = {}

    def copied(self) -> Generator[bytes, None, Keys]:
        """Make a copy of all keys, or share one, and return it: a generator, which yields nothing's bytes between slices.

        Raises NotReady.
        """
        copy = self._copy
        if copy is None or not (copy.still_gathers or copy.has_all):
            copy = self._copy = self._store.copy_keys()
        while not copy.done:
            copy.go_on()
            if not copy.done:
                yield b""
        if copy is not self._copy:
            return Keys(copy.slices)
        if self._keys.slices is not copy.slices:
            self._keys = Keys(copy.slices)
        return self._keys

    def forget_copy(self) -> None:
        """Let whoever begins next share no copy that was made before, because there is something else to list now."""
        self._copy = None

    def first_page(self, database: int, count: int) -> Generator[bytes, None, tuple[list[str], int]]:
        """Begin a scan of ``database``; return about its first ``count`` keys and the next cursor, 0 at the end: a generator.

        Raises NotReady.
        """
        keys = yield from self.copied()
        found, place = _search(keys, database, 0, count)
        return found, 0 if place >= keys.count else self._keep(database, keys) << _PLACE_BITS | place

    def page(self, database: int, cursor: int, count: int) -> tuple[list[str], int]:
        """Return a further page of SCAN: up to ``count`` keys of ``database``, and the next cursor, 0 at the end.

        Some of the keys may have been removed since the scan began. Raises CommandError for an unknown cursor.
        """
        number, place = cursor >> _PLACE_BITS, cursor & (1 << _PLACE_BITS) - 1
        of, keys = self._scans.get(number, (None, None))
        if keys is None or of != database:
            raise CommandError("ERR invalid cursor: this node does not know it any more, begin again with 0")
        self._scans.move_to_end(number)
        found, place = _search(keys, database, place, count)
        if place < keys.count:
            return found, number << _PLACE_BITS | place
        del self._scans[number]
        return found, 0

    @property
    def kept(self) -> int:
        """The number of keys in the copies that scans in progress keep."""
        return sum({id(keys): keys.count for _, keys in self._scans.values()}.values())

    def _keep(self, database: int, keys: Keys) -> int:
        self._number += 1
        self._scans[self._number] = database, keys
        while len(self._scans) > 1 and (len(self._scans) > SCANS_MAX or self.kept > KEYS_KEPT_MAX):
            self._scans.popitem(last=False)
        return self._number

    def any_key(self, database: int) -> Generator[bytes, None, str | None]:
        """Return a random key of ``database`` that exists now, None when it is empty: a generator, as ``copied``.

        The key is drawn from a copy of the database's keys that is up to SAMPLE_S seconds old.
        """
        sampled_at, sample = self._samples.get(database, (-SAMPLE_S, Keys([])))
        if time.monotonic() - sampled_at >= SAMPLE_S or sample.count < SAMPLE_TRIES:
            sample = yield from self._sampled(database)
        if sample.count:
            for _ in range(SAMPLE_TRIES):
                if alive := self._store.live(sample.part(random.randrange(sample.count), 1)):
                    return alive[0]
        # Nearly all of them are gone.
        sample = yield from self._sampled(database)
        for place in range(0, sample.count, STEP_KEYS):
            if alive := self._store.live(sample.part(place, STEP_KEYS)):
                return alive[0]
            yield b""
        return None

    def _sampled(self, database: int) -> Generator[bytes, None, Keys]:
        copied = yield from self.copied()
        slices = []
        for some in copied.slices:
            slices.append(keys_of_database(some, database))
            yield b""
        sample = Keys(slices)
        self._samples[database] = time.monotonic(), sample
        return sample


def _search(keys: Keys, database: int, place: int, count: int) -> tuple[list[str], int]:
    """Return up to ``count`` of those of ``keys`` from ``place`` on that are of ``database``, and the place behind them."""
    last = min(keys.count, place + max(count, SEARCHED_MIN))
    found: list[str] = []
    while place < last and len(found) < count:
        part = keys.part(place, min(STEP_KEYS, last - place))
        own = keys_of_database(part, database)[: count - len(found)]
        found += own
        place += part.index(own[-1]) + 1 if len(found) == count else len(part)
    return found, place
