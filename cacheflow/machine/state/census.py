"""Census: how many living keys each database has, and how many of them expire and when; counted, never by a look at all keys.

1. Only keys of the databases above 0 are counted one by one, those that sort before OTHERS_BEFORE: nearly all caches use
   database 0 alone. That one has what is neither another's nor dead.
2. *Dead* are here the keys of databases that were cleared as a whole, until they are swept out of memory. Keys that are
   condemned by another prefix count as living until then: how many these are nobody knows.
"""

from __future__ import annotations

from cacheflow.machine.language.databases import DATABASES, database_of
from cacheflow.machine.state.entries import EXPIRES_AT_MS, Entry


class Tally:
    """Three numbers about a group of keys: how many keys, how many with an expiry, and the sum of the expiries in ms."""

    __slots__ = ("expiries_ms", "expiring", "keys")

    def __init__(self, keys: int = 0, expiring: int = 0, expiries_ms: int = 0) -> None:
        self.keys = keys
        self.expiring = expiring
        self.expiries_ms = expiries_ms

    def add(self, other: Tally, times: int = 1) -> None:
        """Multiply the counts in ``other``, three numbers about some keys, by ``times``, and add them to the counts here."""
        self.keys += times * other.keys
        self.expiring += times * other.expiring
        self.expiries_ms += times * other.expiries_ms

    def went(self, entry: Entry) -> None:
        """Count one key less in this tally of keys: a key whose item is ``entry``; subtract the item's expiry, too."""
        self.keys -= 1
        self.retimed(entry[EXPIRES_AT_MS], 0)

    def retimed(self, before_ms: int, after_ms: int) -> None:
        """Count in this tally of keys that one key's expiry is ``after_ms`` instead of ``before_ms``; 0 stands for none."""
        self.expiring += bool(after_ms) - bool(before_ms)
        self.expiries_ms += after_ms - before_ms


class Census:
    """Counts the living keys in each database above 0, and all dead keys: those of databases cleared as a whole.

    Not safe for concurrent use, except for reading.
    """

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        # The dead keys, and the living ones of each database; the first database has no meaning but for keys with a mark that no
        # database has. Both in one attribute: when a database is condemned its keys go from one to the other, and a reader in
        # another thread must not find them in both.
        self._numbers = Tally(), [Tally() for _ in range(DATABASES)]

    @property
    def dead(self) -> Tally:
        """The tally of dead keys: those of databases that were cleared as a whole, while the keys are still in memory."""
        return self._numbers[0]

    def came(self, key: str) -> None:
        """Count one key more in its database: ``key``, a new key of a database above 0, which has no expiry yet."""
        self._numbers[1][database_of(key)].keys += 1

    def retimed(self, key: str, before_ms: int, after_ms: int) -> None:
        """Count that the expiry of ``key``, a key of a database above 0, is ``after_ms``, not ``before_ms``; 0 is none."""
        self._numbers[1][database_of(key)].retimed(before_ms, after_ms)

    def went(self, key: str, entry: Entry) -> None:
        """Count one living key fewer in the database of ``key``, a database above 0; ``entry`` is the item that has gone."""
        self._numbers[1][database_of(key)].went(entry)

    def of(self, database: int | None, memory: Tally) -> Tally:
        """Return the tally (number and expiries) of the living keys in ``database``, None for all databases.

        memory: the tally of all keys in memory, also of dead ones, whose databases were cleared as a whole.
        """
        dead, databases = self._numbers
        if database:
            return databases[database]
        living = Tally()
        living.add(memory)
        living.add(dead, -1)
        if database == 0:
            for other in databases[1:]:
                living.add(other, -1)
        return living

    def condemn(self, database: int | None, memory: Tally) -> None:
        """Count all living keys of ``database``, None for all databases, as dead, because the database is cleared.

        memory: the tally of all keys in memory, also of those that were dead before.
        """
        dead, databases = Tally(), list(self._numbers[1])
        dead.add(self._numbers[0])
        dead.add(self.of(database, memory))
        if database is None:
            databases = [Tally() for _ in range(DATABASES)]
        elif database:
            databases[database] = Tally()
        self._numbers = dead, databases
