"""Census: how many keys each database has, and how many of them expire and when; counted, never by a look at all keys.

Only keys of the databases above 0 are counted one by one, those that sort before OTHERS_BEFORE: nearly all caches use database 0
alone, which has what the others do not have.
"""

from __future__ import annotations

from collections.abc import Iterable

from cacheflow.machine.language.databases import DATABASES, OTHERS_BEFORE, database_of
from cacheflow.machine.state.entries import EXPIRES_AT_MS, Entry


class Census:
    """The numbers of keys in the databases above 0, by database. Not safe for concurrent use, except for reading."""

    __slots__ = ("expiries_ms", "expiring", "keys")

    def __init__(self) -> None:
        # The keys, those of them that have an expiry, and the sum of these expiries.
        self.keys = [0] * DATABASES
        self.expiring = [0] * DATABASES
        self.expiries_ms = [0] * DATABASES

    def came(self, key: str) -> None:
        """Count ``key``, a key before OTHERS_BEFORE that has no expiry yet."""
        self.keys[database_of(key)] += 1

    def retimed(self, key: str, before_ms: int, after_ms: int) -> None:
        """Count that the expiry of ``key``, a key before OTHERS_BEFORE, is ``after_ms`` instead of ``before_ms``; 0 is none."""
        database = database_of(key)
        self.expiring[database] += bool(after_ms) - bool(before_ms)
        self.expiries_ms[database] += after_ms - before_ms

    def went(self, key: str, entry: Entry) -> None:
        """Count that ``key``, a key before OTHERS_BEFORE, is gone with its ``entry``."""
        self.keys[database_of(key)] -= 1
        self.retimed(key, entry[EXPIRES_AT_MS], 0)

    def all_went(self, items: Iterable[tuple[str, Entry]]) -> None:
        """Count that all of the cache's ``items``, (key, entry) of whatever databases, are gone."""
        if any(self.keys):
            for key, entry in items:
                if key < OTHERS_BEFORE:
                    self.went(key, entry)
