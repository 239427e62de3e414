"""Scans: SCAN's pages of all keys, returned without blocking the event loop for long.

A scan goes through a copy of the keys that is taken when it begins (8 bytes a key, 10 ms a million). So a key that is
there from the beginning to the end of a scan is returned exactly once; one that comes meanwhile is not; one that goes
is not, unless its page was before. A cursor is this node's: the number of the copy and a place in it. Few copies are
kept, and a cursor whose copy is gone is an error, not an end.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.resp.replies import CommandError

SCANS_MAX: Final = 256
# The most keys that all copies but the newest hold: 32 MiB.
KEYS_KEPT_MAX: Final = 4 * 1024 * 1024
SAMPLE_S: Final = 1.0
SAMPLE_TRIES: Final = 100
_PLACE_BITS: Final = 32


class Scans:
    """The SCANs in progress on this node, of all its RESP clients. Not safe for concurrent use: the event loop owns it."""

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
        """Return a page of SCAN: up to ``count`` keys from ``cursor`` on, and the next cursor, 0 at the end.

        Some of the keys may have been removed since the scan began. Raises CommandError for an unknown cursor.
        """
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
        """Return a random key of the cache that exists now; None when the cache is empty.

        The key is drawn from a copy of all keys that is up to SAMPLE_S seconds old.
        """
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
