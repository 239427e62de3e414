"""Scans: SCAN's pages of all keys, returned without blocking the event loop for long.

A scan goes through a copy of the keys, of all databases, that is taken when it begins (8 bytes a key, 10 ms a million). So a
key that is there from the beginning to the end of a scan is returned exactly once; one that comes meanwhile is not; one that goes
is not, unless its page was before. A cursor is this node's: the number of the copy and a place in it. Few copies are
kept, and a cursor whose copy is gone is an error, not an end.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from typing import Final

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
_PLACE_BITS: Final = 32


class Scans:
    """The SCANs in progress on this node, of all its RESP clients. Not safe for concurrent use: the event loop owns it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By number: the database that is scanned, and the copy.
        self._copies: OrderedDict[int, tuple[int, list[str]]] = OrderedDict()
        # The number of keys in all copies.
        self.kept = 0
        # The number of the latest copy. It begins anywhere, so that cursors of an earlier start do not fit.
        self._number = random.getrandbits(28)
        # By database: its keys at the time of its sample.
        self._samples: dict[int, tuple[float, list[str]]] = {}

    def page(self, database: int, cursor: int, count: int) -> tuple[list[str], int]:
        """Return a page of SCAN: up to ``count`` keys of ``database`` from ``cursor`` on, and the next cursor, 0 at the end.

        Some of the keys may have been removed since the scan began. Raises CommandError for an unknown cursor.
        """
        number, place = cursor >> _PLACE_BITS, cursor & (1 << _PLACE_BITS) - 1
        if not cursor:
            keys = self._store.all_keys()
        elif number in self._copies and self._copies[number][0] == database:
            _, keys = self._copies[number]
            self._copies.move_to_end(number)
        else:
            raise CommandError("ERR invalid cursor: this node does not know it any more, begin again with 0")
        last = place + max(count, SEARCHED_MIN)
        found: list[str] = []
        while place < min(last, len(keys)) and len(found) < count:
            part = keys[place : place + count - len(found)]
            found += keys_of_database(part, database)
            place += len(part)
        if place >= len(keys):
            self._forget(number)
            return found, 0
        if not cursor:
            number = self._keep(database, keys)
        return found, number << _PLACE_BITS | place

    def _keep(self, database: int, keys: list[str]) -> int:
        self._number += 1
        self._copies[self._number] = database, keys
        self.kept += len(keys)
        while len(self._copies) > 1 and (len(self._copies) > SCANS_MAX or self.kept > KEYS_KEPT_MAX):
            self._forget(next(iter(self._copies)))
        return self._number

    def _forget(self, number: int) -> None:
        if number in self._copies:
            self.kept -= len(self._copies.pop(number)[1])

    def any_key(self, database: int) -> str | None:
        """Return a random key of ``database`` that exists now; None when it is empty.

        The key is drawn from a copy of the database's keys that is up to SAMPLE_S seconds old.
        """
        alive = self._store.lookup
        sampled_at, sample = self._samples.get(database, (-SAMPLE_S, []))
        if time.monotonic() - sampled_at >= SAMPLE_S or len(sample) < SAMPLE_TRIES:
            sample = keys_of_database(self._store.all_keys(), database)
            self._samples[database] = time.monotonic(), sample
        if not sample:
            return None
        for _ in range(SAMPLE_TRIES):
            key = random.choice(sample)
            if alive(key, count=False) is not None:
                return key
        left = keys_of_database(self._store.all_keys(), database)
        return next((key for key in left if alive(key, count=False) is not None), None)
