"""Contents: the cache's items, their limits and their clock; the one place where an item is added, changed or removed.

1. Every change raises the revision by one for each key written or removed, keeps the account of bytes and notes its
   effect.
2. Room is made *before* a key is written and never with that key as the victim: a newcomer in a full LFU cache has the
   lowest count, and evicting afterwards would evict it.
3. An item is *dead* when it is past its expiry or condemned (``condemnations.py``). It is absent to every command, is removed
   when its key is written again, and still takes its room until then or until its turn; where room is needed, the dead go
   before the living.
4. What goes in bulk goes in the entries that follow, a bounded number of keys each: expired keys, condemned ones, and what is
   above a lowered limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from sys import intern
from typing import Any, Final, cast

from cacheflow.machine.effects import (
    CONDEMNED,
    DELETED,
    EVICTED,
    EXPIRED,
    REVISION_RAISED,
    TOUCHED,
    WRITTEN,
    Effect,
)
from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.lfu import LfuItems
from cacheflow.machine.eviction.lru import LruItems
from cacheflow.machine.language.databases import OTHERS_BEFORE, database_of
from cacheflow.machine.state.census import Census, Tally
from cacheflow.machine.state.condemnations import Condemnation, Condemnations, is_whole
from cacheflow.machine.state.entries import (
    DATA,
    ENTRY_BYTES,
    EXPIRES_AT_MS,
    META,
    VERSION,
    Entry,
    entry_bytes,
    total_bytes,
)
from cacheflow.machine.state.expiry import DueTimes

POLICIES: Final[dict[str, type[Items]]] = {"lru": LruItems, "lfu": LfuItems}
# What one entry may do of what goes in bulk: up to 5 ms of work each with a million items, and one of the three an entry. Keys
# that expire; keys that a sweep looks at, and of these the dead that it removes; keys evicted because a limit was lowered: fewer,
# because an entry with clients' writes evicts as many, and so do the next ones for as long as that takes.
EXPIRED_PER_ENTRY_MAX: Final = 1000
SWEPT_PER_ENTRY_MAX: Final = 5000
BURIED_PER_ENTRY_MAX: Final = 1000
EVICTED_PER_ENTRY_MAX: Final = 60
# Keys that a sweep looks at in one step, and those that the writes of one entry may have it look at beyond its turn, where they
# need room.
SWEPT_AT_ONCE: Final = 256
SWEPT_FOR_ROOM_MAX: Final = 5000


class Contents:
    """The cache's items, with their eviction policy, limits and expiries.

    Not safe for concurrent use, except for reading ``raw``, the dictionary of the items.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        # The version of the latest key written or removed.
        self.revision = 0
        self.items_max: float = math.inf
        self.bytes_max: float = math.inf
        # The size of all items by the formula of ``entry_bytes``, which ``bytes_max`` limits.
        self.bytes_used = 0
        # Bytes of the values that commands have read so far: what a block adds to it is what its kept results hold.
        self.read_bytes = 0
        # The number of items that have an expiry, and the sum of these expiries.
        self.with_ttl = 0
        self.expiries_ms = 0
        # The keys of each database, and those with an expiry.
        self.census = Census()
        # Counters since the cluster began: keys written, deleted one by one, expired, evicted; condemnations, and keys that they
        # have removed.
        self.written = 0
        self.deleted = 0
        self.expired = 0
        self.evicted = 0
        self.condemnations = 0
        self.swept = 0
        # The effects of the latest entry, in order; and how many uses of keys it has counted beside them.
        self.effects: list[Effect] = []
        self.uses = 0
        # How often a restore or a recovery has replaced the items, or the versions of all, since this object was made.
        self.breaks = 0
        self.items: Items = POLICIES["lru"]()
        # ``items.raw`` itself: whatever is in memory, dead or alive.
        self.raw: dict[str, Entry] = self.items.raw
        self.due = DueTimes()
        # Removals in bulk: what is condemned.
        self.condemned = Condemnations()
        # Whether something is to go that has not had its turn: items that are dead, or above a lowered limit; and whether any
        # may be dead.
        self.behind = False
        self.has_dead = False
        # Whether more keys have expired than this entry has removed; and keys that may still be swept for room in it.
        self._overdue = False
        self._swept_for_room = 0
        # Returns the entry of a key, past its expiry or not; None for one that is absent or condemned. Any thread may call it.
        # While nothing is condemned it is the dictionary's own method.
        self.get: Callable[[str], Entry | None] = self.raw.get

    def find(self, key: str) -> Entry | None:
        """Return the living entry of ``key``; None when the key is absent, removed by its prefix, or past its expiry."""
        entry = self.get(key)
        if entry is not None and 0 < entry[EXPIRES_AT_MS] <= self.now_ms:
            return None
        return entry

    def write(self, key: str, data: bytes, kind: int, meta: str | int | None, expires_at_ms: int) -> int:
        """Write an item under ``key`` and return its version; a present key counts as used.

        The item must fit into an empty cache. Other items are evicted where a limit needs that.
        """
        old = self.get(key)
        if old is not None and 0 < old[EXPIRES_AT_MS] <= self.now_ms:
            self._remove(key, old, EXPIRED)
            old = None
        growth = ENTRY_BYTES + len(data) + (len(key) if key.isascii() else len(key.encode()))
        if type(meta) is str:
            growth += len(meta)
            # A million items with the same Content-Type share one text object.
            meta = intern(meta)
        if old is None:
            if self.has_dead and key in self.raw:
                self._bury(key, self.raw[key])
            if self.bytes_used + growth > self.bytes_max or len(self.raw) >= self.items_max:
                self.make_room(key, 1, growth)
            old_expires_at_ms = 0
        else:
            growth -= entry_bytes(key, old[DATA], old[META])
            if self.bytes_used + growth > self.bytes_max:
                self.make_room(key, 0, growth)
            old_expires_at_ms = old[EXPIRES_AT_MS]
        version = self.revision = self.revision + 1
        entry = (data, kind, meta, version, expires_at_ms)
        if old is None:
            self.items.add(key, entry)
            if key < OTHERS_BEFORE:
                self.census.came(key)
        else:
            self.items.rewrite(key, old, entry)
        self.bytes_used += growth
        self.written += 1
        if expires_at_ms != old_expires_at_ms:
            self._expiry_changed(key, old_expires_at_ms, expires_at_ms)
        self.effects.append((WRITTEN, key, version, expires_at_ms, data, kind, meta))
        return version

    def extend(
        self, key: str, data: bytes, kind: int, meta: str | int | None, expires_at_ms: int, effect: int, *change: Any
    ) -> int:
        """Write ``data``, the value under ``key`` with some part of it changed, and return the new version.

        The effect that is recorded for the digest tells the change, not the whole value.
        effect: the number of the kind of effect that is recorded.  change: the parts of the effect that tell what has changed.
        """
        present = self.find(key) is not None
        version = self.write(key, data, kind, meta, expires_at_ms)
        if present:
            # An effect with the whole value would cost the value's length at every short addition.
            self.effects[-1] = (effect, key, version, expires_at_ms, *change, kind)
        return version

    def retime(self, key: str, expires_at_ms: int) -> None:
        """Give ``key`` the expiry ``expires_at_ms`` and count a use of it; do nothing if the key is absent."""
        old = self.find(key)
        if old is None:
            return
        data, kind, meta, version, old_expires_at_ms = old
        self.items.retime(key, (data, kind, meta, version, expires_at_ms))
        if expires_at_ms != old_expires_at_ms:
            self._expiry_changed(key, old_expires_at_ms, expires_at_ms)
        self.effects.append((TOUCHED, key, version, expires_at_ms))

    def use(self, key: str, uses: int) -> None:
        """Count ``uses`` uses of ``key`` for the eviction order; do nothing if the key is absent."""
        entry = self.find(key)
        if entry is not None:
            self.uses += 1
            self.items.touch(key, entry, uses)

    def remove(self, key: str) -> int:
        """Remove ``key`` if it is present; return the cache's revision."""
        old = self.find(key)
        if old is not None:
            self._remove(key, old, DELETED)
        return self.revision

    def raise_revision(self, least: int) -> None:
        """Raise the revision to ``least``, unless it is as high already; later changes get revisions above it."""
        if least > self.revision:
            self.revision = least
            self.effects.append((REVISION_RAISED, least))

    def begin_entry(self) -> None:
        """Remove some expired items, in the order of (expiry, key), or else evict some if the cache is above a lowered limit.

        Called before a log entry's commands, so that nothing that the entry writes is evicted by this.
        """
        self._overdue = self._expire(EXPIRED_PER_ENTRY_MAX) == EXPIRED_PER_ENTRY_MAX
        self._swept_for_room = SWEPT_FOR_ROOM_MAX
        self._note_backlog()
        self._evict_surplus()

    def _expire(self, keys_max: int) -> int:
        """Remove up to ``keys_max`` items that are past their expiry; return how many were removed."""
        raw, remove, tell = self.raw, self.items.__delitem__, self.effects.append
        keys = self.due.pop(self.now_ms, keys_max)
        kills = self.condemned.kills if self.condemned.present else None
        for key in keys:
            entry = raw[key]
            if kills is not None and kills(key, entry[VERSION]):
                self._bury(key, entry)
                continue
            # As ``_remove`` does it, without its calls: a million may expire at once.
            remove(key)
            if key < OTHERS_BEFORE:
                self.census.went(key, entry)
            self.bytes_used -= entry_bytes(key, entry[DATA], entry[META])
            self.with_ttl -= 1
            self.expiries_ms -= entry[EXPIRES_AT_MS]
            self.expired += 1
            self.revision += 1
            tell((EXPIRED, key, self.revision, 0))
        return len(keys)

    def condemn(self, prefix: str, only_database_0: bool, counted: bool) -> int | None:
        """Make every key that starts with ``prefix`` absent at once; return the revision of this removal.

        only_database_0: with the empty prefix, only the keys of database 0.  counted: whether somebody asks for the number of
        keys, which is then kept when it is known. Returns None, with nothing done, when too many such removals are in force.
        """
        if not self.condemned.has_room_for(prefix, counted):
            return None
        revision = self.revision = self.revision + 1
        if is_whole(prefix):
            database = database_of(prefix)
            self.census.condemn(database if database or only_database_0 else None, self._in_memory())
        self.condemned.add(Condemnation(prefix, only_database_0, counted, revision, self.now_ms))
        self.get = self.condemned.reader(self.raw)
        self.condemnations += 1
        self.effects.append((CONDEMNED, prefix, revision, only_database_0))
        if not self.has_dead:
            self._swept_for_room = SWEPT_FOR_ROOM_MAX
        self._note_backlog()
        return revision

    def end_entry(self) -> None:
        """At the end of a log entry, take some items out of memory that were removed by prefix.

        Do nothing if the entry has removed as many expired items as one entry may.
        """
        if self.condemned.present and not self._overdue:
            # A pass must come nearer to its end whatever the entry has moved to there.
            self._sweep(SWEPT_PER_ENTRY_MAX + len(self.effects) + self.uses, BURIED_PER_ENTRY_MAX)
            self._note_backlog()

    def _evict_surplus(self) -> None:
        """Evict some items, in eviction order, of a cache that is above a lowered limit.

        Do nothing while the cache may hold dead items, which are expired or were removed by prefix.
        """
        if self.has_dead or not self.behind:
            return
        left = EVICTED_PER_ENTRY_MAX
        while left and self.is_over() and (victim := self.items.pop_victim("")) is not None:
            self.evict(*victim)
            left -= 1
        self._note_backlog()

    def _sweep(self, keys_max: int, dead_max: int) -> None:
        """Let the sweep, which takes items removed by prefix out of memory, look at the next ``keys_max`` items.

        Remove about ``dead_max`` such items at most.
        """
        condemned = self.condemned
        while condemned.present and keys_max > 0 and dead_max > 0:
            if not condemned.passing:
                condemned.begin_pass()
            wanted = min(keys_max, SWEPT_AT_ONCE)
            keys = self.items.scan(wanted)
            for key in keys:
                entry = self.raw[key]
                if condemned.kills(key, entry[VERSION]):
                    self._bury(key, entry)
                    # One with an expiry costs about twice as much.
                    dead_max -= 2 if entry[EXPIRES_AT_MS] else 1
            keys_max -= len(keys)
            if len(keys) < wanted:
                condemned.end_pass()
                self.items.start_scan()
                self.get = condemned.reader(self.raw) if condemned.present else self.raw.get

    def _note_backlog(self) -> None:
        self.has_dead = self._overdue or bool(self.condemned.present)
        self.behind = self.has_dead or self.is_over()

    def is_over(self) -> bool:
        """True if there is more in the cache than the present limits allow, because they were lowered."""
        return len(self.raw) > self.items_max or self.bytes_used > self.bytes_max

    def count_of(self, database: int | None) -> int:
        """Return how many living items the database with the number ``database`` has, None for all. Any thread may call it.

        Items past their expiry, and items removed by a prefix, count as living until they are out of memory.
        """
        return self._tally_of(database).keys

    def expiring_of(self, database: int) -> tuple[int, int]:
        """Return (number, sum): how many living items of ``database`` have an expiry, and the sum of these expiries in ms.

        Any thread may call it.
        """
        tally = self._tally_of(database)
        return tally.expiring, tally.expiries_ms

    def _tally_of(self, database: int | None) -> Tally:
        """Return three numbers about ``database``, None for all: living items, those with an expiry, the sum of the expiries.

        Any thread may call it.
        """
        while True:
            before = self.revision, self.swept
            tally = self.census.of(database, self._in_memory())
            # Another thread may be in the middle of an entry: the numbers are those of one moment, but for one key.
            if before == (self.revision, self.swept):
                return Tally(max(0, tally.keys), max(0, tally.expiring), max(0, tally.expiries_ms))

    def _in_memory(self) -> Tally:
        return Tally(len(self.raw), self.with_ttl, self.expiries_ms)

    def set_limits(self, items_max: int | None, bytes_max: int | None) -> None:
        """Set the cache's limits of items and bytes; None is no limit.

        What exceeds a lowered limit is evicted in steps, from the next log entry on, however often one entry changes the
        limits.
        """
        self.items_max = math.inf if items_max is None else items_max
        self.bytes_max = math.inf if bytes_max is None else bytes_max
        self._note_backlog()

    def set_policy(self, policy: str) -> None:
        """Change the eviction policy to ``policy``; the items keep their eviction order and count as used once each.

        A sweep over the items that is under way begins again.
        """
        self.items = POLICIES[policy](self.raw, self.items.give_order(self.revision))
        self.items.start_scan()

    def adopt(self, policy: str, raw: dict[str, Entry], uses: list[int], condemned: Condemnations, passed: int) -> None:
        """Fill an empty cache with the items in ``raw``, {key: entry}, which are in eviction order under ``policy``.

        uses: the number of uses of each item, in the same order.  condemned: the removals by prefix that are in force.
        passed: how many of the items a sweep that is under way has looked at.
        """
        keys = list(raw)
        self.bytes_used = total_bytes(keys, list(raw.values()))
        for key, entry in raw.items():
            if entry[EXPIRES_AT_MS]:
                self.with_ttl += 1
                self.expiries_ms += entry[EXPIRES_AT_MS]
                self.due.add(entry[EXPIRES_AT_MS], key)
        self.items = POLICIES[policy].filled(raw, keys, uses)
        self.items.start_scan(passed)
        self.raw = raw
        self.condemned = condemned
        self.get = condemned.reader(raw) if condemned.present else raw.get
        for key, entry in raw.items():
            if condemned.present and condemned.is_in_dead_database(key, entry[VERSION]):
                self.census.dead.keys += 1
                self.census.dead.retimed(0, entry[EXPIRES_AT_MS])
            elif key < OTHERS_BEFORE:
                self.census.came(key)
                self.census.retimed(key, 0, entry[EXPIRES_AT_MS])

    def raise_versions(self, by: int) -> None:
        """Raise the revision and the version of every item by ``by``; nothing else of any item changes.

        Takes about a second for a million items, and memory for all items' tuples a second time.
        """
        raised = {
            key: (data, kind, meta, version + by, expires_at_ms)
            for key, (data, kind, meta, version, expires_at_ms) in self.raw.items()
        }
        self.revision += by
        self.breaks += 1
        self.condemned = self.condemned.raised(by)
        self.items.raise_versions(raised, by)
        self.raw = raised
        # In one step, for readers in other threads: an item's new version goes with the condemnations' new revisions.
        self.get = self.condemned.reader(raised) if self.condemned.present else raised.get

    def track_items(self) -> None:
        """Have Python's garbage collector track the dictionary of items, which it does not while all items are untracked tuples.

        To be called between two log entries.
        """
        # No key is empty, so nobody finds this.
        self.raw[""] = cast(Entry, [])
        del self.raw[""]

    def next_due_ms(self) -> int | None:
        """Return the earliest time in ms at which a log entry without commands would remove some item.

        Returns 0 for now, None for never.
        """
        return 0 if self.behind else self.due.next_ms()

    def make_room(self, protected: str, items: int, size: int) -> None:
        """Evict items, but never the key ``protected``, until a number of new items fits into the cache's limits.

        items: the number of these new items.  size: the bytes that they take together.
        """
        # What is above a lowered limit goes in its turn; a write does not add to it.
        items_max, bytes_max = max(self.items_max, len(self.raw)), max(self.bytes_max, self.bytes_used)
        while len(self.raw) + items > items_max or self.bytes_used + size > bytes_max:
            if self.has_dead and self._remove_dead():
                continue
            victim = self.items.pop_victim(protected)
            if victim is None:
                return
            self.evict(*victim)

    def _remove_dead(self) -> bool:
        """Remove a dead item (expired, or removed by prefix) to make room, or look for dead items among the next few items.

        Returns False when there is none, or once the log entry has looked at as many items as one entry may.
        """
        if self._overdue:
            if self._expire(1):
                return True
            self._overdue = False
        if not self.condemned.present or self._swept_for_room <= 0:
            return False
        self._swept_for_room -= SWEPT_AT_ONCE
        self._sweep(SWEPT_AT_ONCE, SWEPT_AT_ONCE)
        return True

    def evict(self, key: str, entry: Entry) -> None:
        """Account for an item just evicted: subtract its bytes and expiry from the sums; record a revision and an effect."""
        if self.has_dead and self.condemned.kills(key, entry[VERSION]):
            self._account_for_dead(key, entry)
            return
        self._account_for_loss(key, entry)
        self._tell(key, EXPIRED if 0 < entry[EXPIRES_AT_MS] <= self.now_ms else EVICTED)

    def _bury(self, key: str, entry: Entry) -> None:
        """Take an item out of memory that was removed by prefix before; the effect of that removal is recorded already."""
        del self.items[key]
        self._account_for_dead(key, entry)

    def _account_for_dead(self, key: str, entry: Entry) -> None:
        self.swept += 1
        if self.condemned.bury(key, entry[VERSION], entry[EXPIRES_AT_MS]):
            self.census.dead.went(entry)
        elif key < OTHERS_BEFORE:
            self.census.went(key, entry)
        self._subtract(key, entry)

    def _remove(self, key: str, entry: Entry, how: int) -> None:
        del self.items[key]
        self._account_for_loss(key, entry)
        self._tell(key, how)

    def _account_for_loss(self, key: str, entry: Entry) -> None:
        if key < OTHERS_BEFORE:
            self.census.went(key, entry)
        self._subtract(key, entry)

    def _subtract(self, key: str, entry: Entry) -> None:
        self.bytes_used -= entry_bytes(key, entry[DATA], entry[META])
        if entry[EXPIRES_AT_MS]:
            self.with_ttl -= 1
            self.expiries_ms -= entry[EXPIRES_AT_MS]
            self.due.remove(entry[EXPIRES_AT_MS], key)

    def _tell(self, key: str, how: int) -> None:
        """Record that ``key`` is removed, with a new revision and an effect, and count the removal under its cause ``how``.

        how: DELETED, EXPIRED or EVICTED.
        """
        version = self.revision = self.revision + 1
        if how == EVICTED:
            self.evicted += 1
        elif how == EXPIRED:
            self.expired += 1
        else:
            self.deleted += 1
        self.effects.append((how, key, version, 0))

    def _expiry_changed(self, key: str, before_ms: int, after_ms: int) -> None:
        if key < OTHERS_BEFORE:
            self.census.retimed(key, before_ms, after_ms)
        self.expiries_ms += after_ms - before_ms
        if before_ms:
            self.with_ttl -= 1
            self.due.remove(before_ms, key)
        if after_ms:
            self.with_ttl += 1
            self.due.add(after_ms, key)
