"""Condemnations: removals of many keys at once, in force when they are made and carried out a bounded number of keys an entry.

1. A condemnation is a target (a prefix, or database 0) and a revision. An item of the target whose version is not above that
   revision is dead: absent to every reader and command from then on. What is written later has a higher version.
2. *Passes* over all items sweep the dead out of memory. A pass serves all condemnations that there are when it begins; those
   made meanwhile wait for the next one, so many small ones cost no more than two passes.
3. How many keys a condemnation has removed is known when its pass is over. An item counts for the earliest condemnation that
   meets it, unless it had expired by then.
4. What a sweep removes is told to nobody: the condemnation itself was told, as one effect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, TypeAlias

from cacheflow.machine.language.databases import PREFIXES, database_of
from cacheflow.machine.state.entries import VERSION, Entry

# Condemnations in force at once, and lengths of their prefixes: a reader looks at one table for each length.
CONDEMNATIONS_MAX: Final = 4096
LENGTHS_MAX: Final = 64
# Counts of keys that are kept after their pass, for nodes that ask later.
COUNTS_KEPT: Final = 1000

_REVISION: Final = attrgetter("revision")
_WHOLE: Final = frozenset(PREFIXES)


class Condemnation:
    """One removal of all keys that start with ``prefix`` and whose versions are not above ``revision``.

    only_database_0: whether it removes only keys of database 0.  at_ms: the log's time when the removal was ordered.
    counted: whether somebody asks how many keys it removes.  count: how many of these keys have been found so far.
    """

    __slots__ = ("at_ms", "count", "counted", "only_database_0", "prefix", "revision")

    def __init__(
        self, prefix: str, only_database_0: bool, counted: bool, revision: int, at_ms: int, count: int = 0
    ) -> None:
        self.prefix = prefix
        self.only_database_0 = only_database_0
        self.counted = counted
        self.revision = revision
        self.at_ms = at_ms
        self.count = count

    def row(self) -> tuple[str, bool, bool, int, int, int]:
        """Return the fields of this condemnation (a removal of all keys with some prefix) in its constructor's order."""
        return self.prefix, self.only_database_0, self.counted, self.revision, self.at_ms, self.count

    @property
    def is_whole(self) -> bool:
        """True if this condemnation (a removal of all keys with some prefix) removes one whole database, or all."""
        return is_whole(self.prefix)


# (length, {prefix of that length: its condemnations, the oldest first}) for each length that a prefix has.
Tables: TypeAlias = tuple[tuple[int, dict[str, list[Condemnation]]], ...]


def is_whole(prefix: str) -> bool:
    """True if the keys that start with ``prefix`` are one whole database, or all databases."""
    return prefix in _WHOLE


class Condemnations:
    """All condemnations (removals of all keys with some prefix) in force. Not safe for concurrent use.

    Any thread may call the functions that the method ``reader`` returns.
    """

    __slots__ = ("_database_0", "_newest", "_tables", "counts", "passing", "present")

    def __init__(self) -> None:
        # All that are in force, the oldest first; the first ``passing`` of them are served by the pass that is under way.
        self.present: list[Condemnation] = []
        self.passing = 0
        # {revision of a counted condemnation: how many keys it has removed}, of those that are over, the latest last.
        self.counts: dict[int, int] = {}
        # Condemnations of database 0 alone are in a list beside the tables.
        self._tables: Tables = ()
        self._database_0: list[Condemnation] = []
        self._newest = 0

    def has_room_for(self, prefix: str, counted: bool) -> bool:
        """True if there may be one more removal by prefix, of all keys that start with ``prefix``, beside those in force.

        Always true for the prefix of a whole database, or of all, if ``counted`` is false: nobody asks how many keys there
        are.
        """
        if not counted and is_whole(prefix):
            return True
        lengths = [length for length, _ in self._tables]
        return len(self.present) < CONDEMNATIONS_MAX and (len(prefix) in lengths or len(lengths) < LENGTHS_MAX)

    def add(self, new: Condemnation) -> None:
        """Put the condemnation ``new`` (a removal of all keys with some prefix) in force; its revision must be the highest."""
        found = self._list_of(new)
        old = None
        if not new.counted and new.is_whole:
            old = next((one for one in reversed(found) if not one.counted), None)
        if old is None or (self.passing and old.revision <= self.present[self.passing - 1].revision):
            found.append(new)
        else:
            # The new one does all that the old one would, and takes its place in the next pass. In one step, for readers in
            # other threads look at the list.
            place = bisect_left(found, old.revision, key=_REVISION)
            found[place:] = [*found[place + 1 :], new]
            del self.present[bisect_left(self.present, old.revision, key=_REVISION)]
        self.present.append(new)
        self._newest = new.revision

    def _list_of(self, new: Condemnation) -> list[Condemnation]:
        """Return the list of all removals by prefix in force that concern the same keys as the removal ``new``, oldest first.

        The list is empty if there is none; the caller adds ``new`` to it.
        """
        if new.only_database_0:
            return self._database_0
        length = len(new.prefix)
        table = next((table for known, table in self._tables if known == length), None)
        if table is None:
            table = {}
            self._tables = (*self._tables, (length, table))
        return table.setdefault(new.prefix, [])

    def adopt(self, present: Iterable[Condemnation], passing: int) -> None:
        """Replace all removals by prefix that are under way by those in ``present``, the oldest first.

        passing: how many of these, from the first on, are carried out by the sweep of all items that is under way.
        """
        self._set(list(present))
        self.passing = passing

    def raised(self, by: int) -> Condemnations:
        """Return a copy of this collection of removals by prefix, with the revision of each higher by ``by``.

        A sweep that is under way, which takes the removed items out of memory, goes on with the copy.
        """
        other = Condemnations()
        rows = [one.row() for one in self.present]
        other.adopt([Condemnation(*row[:3], row[3] + by, *row[4:]) for row in rows], self.passing)
        other.counts = {revision + by: count for revision, count in self.counts.items()}
        return other

    def _set(self, present: list[Condemnation]) -> None:
        tables: dict[int, dict[str, list[Condemnation]]] = {}
        database_0: list[Condemnation] = []
        for one in present:
            if one.only_database_0:
                database_0.append(one)
            else:
                tables.setdefault(len(one.prefix), {}).setdefault(one.prefix, []).append(one)
        # New objects, for readers in other threads still look at the old ones.
        self._newest = present[-1].revision if present else 0
        self._database_0 = database_0
        self._tables = tuple(tables.items())
        self.present = present

    def begin_pass(self) -> None:
        """Begin a sweep of all items, which takes out of memory what the removals by prefix in force now have removed."""
        self.passing = len(self.present)

    def end_pass(self) -> None:
        """End the removals by prefix that the sweep of all items, now complete, has carried out; keep their counts of keys."""
        for one in self.present[: self.passing]:
            if one.counted:
                self.counts[one.revision] = one.count
        while len(self.counts) > COUNTS_KEPT:
            del self.counts[next(iter(self.counts))]
        self.adopt(self.present[self.passing :], 0)

    def is_counting(self, revision: int) -> bool:
        """True if the removal by prefix ordered at ``revision`` is in force: how many keys it removes is not known yet."""
        place = bisect_left(self.present, revision, key=_REVISION)
        return place < len(self.present) and self.present[place].revision == revision

    def kills(self, key: str, version: int) -> bool:
        """True if an item under ``key`` with this ``version`` is dead: a removal of all keys with some prefix has met it."""
        return version <= self._newest and _meets(self._tables, self._database_0, key, version)

    def is_in_dead_database(self, key: str, version: int) -> bool:
        """True if the item under ``key`` with this ``version`` was removed by clearing whole databases."""
        return any(found[-1].revision >= version and found[-1].is_whole for found in self._about(key))

    def bury(self, key: str, version: int, expires_at_ms: int) -> bool:
        """Count an item that removals by prefix have removed, under ``key`` with ``version``, for the earliest of these.

        An item whose expiry had passed by then is not counted. Returns True if one of these has removed a whole database.
        """
        first: Condemnation | None = None
        whole = False
        for found in self._about(key):
            if found[-1].revision >= version:
                one = found[bisect_left(found, version, key=_REVISION)]
                whole = whole or one.is_whole
                if first is None or one.revision < first.revision:
                    first = one
        if first is not None and not 0 < expires_at_ms <= first.at_ms:
            first.count += 1
        return whole

    def _about(self, key: str) -> list[list[Condemnation]]:
        """Return the removals by prefix in force that concern ``key``: a list for each prefix, the oldest removal first."""
        lists = [table[key[:length]] for length, table in self._tables if key[:length] in table]
        if self._database_0 and not database_of(key):
            lists.append(self._database_0)
        return lists

    def reader(self, raw: dict[str, Entry]) -> Callable[[str], Entry | None]:
        """Return a function that returns the entry of a key in ``raw``, {key: entry}; None if the key is absent or removed.

        A key may be removed by prefix and still be in ``raw``. Any thread may call the returned function.
        """
        find = raw.get
        # As they are now: a thread may stand still behind ``find`` until the sweep is over, and must still know the dead.
        tables, database_0, newest = self._tables, self._database_0, self._newest

        def get(key: str) -> Entry | None:
            entry = find(key)
            if entry is None or entry[VERSION] > newest or not _meets(tables, database_0, key, entry[VERSION]):
                return entry
            return None

        return get


def _meets(tables: Tables, database_0: list[Condemnation], key: str, version: int) -> bool:
    """True if the item under ``key`` with this ``version`` is dead: removed by one of ``tables`` or ``database_0``.

    tables: the removals in force of all keys with some prefix.  database_0: those of database 0's keys.
    """
    for length, table in tables:
        found = table.get(key[:length])
        # A list that another thread is making has nothing in it for a moment.
        if found and found[-1].revision >= version:
            return True
    return bool(database_0) and database_0[-1].revision >= version and not database_of(key)
