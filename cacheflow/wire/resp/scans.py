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
from collections.abc import Callable, Generator, Sequence
from itertools import accumulate
from typing import Final

from cacheflow.contract import KeysCopy
from cacheflow.contract import WireStore as Store
from cacheflow.machine.language.databases import keys_of_database
from cacheflow.net.slices import Slices
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
    """A complete copy of the keys in the cache, some of which may have been removed from the cache since it was made.

    slices: the keys, in lists.  count: the number of keys.
    """

    def __init__(self, slices: Sequence[tuple[str, ...]]) -> None:
        self.slices = slices
        self._starts = [0, *accumulate(map(len, slices))]
        self.count = self._starts[-1]

    def part(self, place: int, count: int) -> list[str]:
        """Return up to ``count`` keys of this copy of the cache's keys, from position ``place`` on."""
        number = bisect_right(self._starts, place) - 1
        found: list[str] = []
        while len(found) < count and number < len(self.slices):
            start = place + len(found) - self._starts[number]
            found += self.slices[number][start : start + count - len(found)]
            number += 1
        return found


class GivenUp:
    """Lists of keys that nobody needs any more. They are freed one list after the other, in later turns of the event loop.

    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._left: list[tuple[str, ...]] = []

    def take(self, slices: list[tuple[str, ...]]) -> None:
        """Have the lists of keys ``slices``, which nobody needs any more, freed in later turns of the event loop."""
        if not slices:
            return
        if not self._left:
            try:
                self._slices.put(self._free)
            except RuntimeError:
                # The event loop has ended, and waits for nothing any more.
                return
        self._left += slices

    def _free(self) -> None:
        self._left.pop()
        while self._left and not self._slices.over():
            self._left.pop()
        if self._left:
            self._slices.put(self._free)


class Scans:
    """The SCANs in progress on this node, of all its RESP clients. Not safe for concurrent use: the event loop owns it.

    give_up: the function that frees a copy of the cache's keys, given as lists, once no SCAN needs it any more.
    """

    def __init__(self, store: Store, give_up: Callable[[list[tuple[str, ...]]], object]) -> None:
        self._store = store
        self._give_up = give_up
        # By number: the database that is scanned, and the copy.
        self._scans: OrderedDict[int, tuple[int, Keys]] = OrderedDict()
        # The latest copy, which may not be complete, and the same as keys once it is, with the time at which it was.
        self._copy: KeysCopy | None = None
        self._keys = Keys([])
        self._copied_at = -SAMPLE_S
        # The number of the latest scan. It begins anywhere, so that cursors of an earlier start do not fit.
        self._number = random.getrandbits(28)

    def copied(self) -> Generator[bytes, None, Keys]:
        """Return a copy of all keys of the cache, a new one or one that other callers share. Raises NotReady.

        A generator, which yields b"" now and then, so that the event loop can do other work.
        """
        copy = self._copy
        if copy is None or not (copy.still_gathers or copy.has_all):
            copy = self._copy = self._store.copy_keys(self._give_up)
        while not copy.done:
            copy.go_on()
            if not copy.done:
                yield b""
        if copy is not self._copy:
            return Keys(copy.slices)
        if self._keys.slices is not copy.slices:
            self._keys, self._copied_at = Keys(copy.slices), time.monotonic()
        return self._keys

    def forget_copy(self) -> None:
        """Forget the latest copy of the cache's keys, because keys have changed: the next SCAN or KEYS makes a new copy."""
        self._copy = None

    def first_page(self, database: int, count: int) -> Generator[bytes, None, tuple[list[str], int]]:
        """Begin a SCAN of ``database``: return about its first ``count`` keys and the next cursor, which is 0 at the end.

        A generator, which yields b"" now and then, so that the event loop can do other work. Raises NotReady.
        """
        keys = yield from self.copied()
        found, place = _search(keys, database, 0, count)
        return found, 0 if place >= keys.count else self._keep(database, keys) << _PLACE_BITS | place

    def page(self, database: int, cursor: int, count: int) -> tuple[list[str], int]:
        """Return the page of a SCAN at ``cursor``: up to ``count`` keys of ``database``, and the next cursor, 0 at the end.

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
        """Return a random key of ``database`` that exists now, None when there is none.

        A generator, which yields b"" now and then, so that the event loop can do other work. The key is drawn from a copy of
        all keys that is up to SAMPLE_S seconds old.
        """
        if not self._store.count_of(database):
            return None
        keys = self._keys
        if keys.count and time.monotonic() - self._copied_at < SAMPLE_S:
            found = yield from self._drawn(keys, database)
            if found is not None:
                return found
        # No key of that time is there, or none is of this database.
        keys = yield from self.copied()
        return (yield from self._drawn(keys, database))

    def _drawn(self, keys: Keys, database: int) -> Generator[bytes, None, str | None]:
        """Return a random key among ``keys`` that exists now and belongs to ``database``; None when there is none.

        Where such keys are few, the first one behind a random place is returned. A generator, which yields b"" now and
        then, so that the event loop can do other work.
        """
        if not keys.count:
            return None
        for _ in range(SAMPLE_TRIES):
            if alive := self._alive(keys.part(random.randrange(keys.count), 1), database):
                return alive[0]
        begin = random.randrange(keys.count)
        for first, last in ((begin, keys.count), (0, begin)):
            for place in range(first, last, STEP_KEYS):
                if alive := self._alive(keys.part(place, min(STEP_KEYS, last - place)), database):
                    return alive[0]
                yield b""
        return None

    def _alive(self, keys: list[str], database: int) -> list[str]:
        return self._store.live(keys_of_database(keys, database))


def _search(keys: Keys, database: int, place: int, count: int) -> tuple[list[str], int]:
    """Return up to ``count`` of ``keys`` that belong to ``database``, from the position ``place`` on, and the next position.

    keys: a copy of all keys of the cache.  database: the number of a Redis database.
    """
    last = min(keys.count, place + max(count, SEARCHED_MIN))
    found: list[str] = []
    while place < last and len(found) < count:
        part = keys.part(place, min(STEP_KEYS, last - place))
        own = keys_of_database(part, database)[: count - len(found)]
        found += own
        place += part.index(own[-1]) + 1 if len(found) == count else len(part)
    return found, place
