"""Contents: the cache's items, their limits and their clock; the one place where an item is added, changed or removed.

1. Every change raises the revision by one for each key written or removed, keeps the account of bytes and notes its
   effect.
2. Room is made *before* a key is written and never with that key as the victim: a newcomer in a full LFU cache has the
   lowest count, and evicting afterwards would evict it.
3. An item past its expiry that still waits for its removal is absent to every command, counts as removed when it is
   written over, and still takes its room.
"""

from __future__ import annotations

import math
from sys import intern
from typing import Final

from cacheflow.machine.effects import APPENDED, DELETED, EVICTED, EXPIRED, TOUCHED, WRITTEN, Effect
from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.lfu import LfuItems
from cacheflow.machine.eviction.lru import LruItems
from cacheflow.machine.language.databases import MARK, OTHERS_BEFORE
from cacheflow.machine.state.census import Census
from cacheflow.machine.state.entries import DATA, ENTRY_BYTES, EXPIRES_AT_MS, META, Entry, entry_bytes, total_bytes
from cacheflow.machine.state.expiry import DueTimes
from cacheflow.machine.state.removals import WHOLE_LOT_MIN, Removals

POLICIES: Final[dict[str, type[Items]]] = {"lru": LruItems, "lfu": LfuItems}
# Items that one step of a lowered limit takes out: what belongs to them stays in the processor's cache during the step.
RETIRED_AT_ONCE: Final = 10_000


class Contents:
    """The cache's items, with a policy of eviction, limits and expiry.

    Not safe for concurrent use, except for reading ``raw``.
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
        # The keys of the databases above 0, and those with an expiry.
        self.census = Census()
        # Counters since the cluster began: keys written, deleted, expired, evicted.
        self.written = 0
        self.deleted = 0
        self.expired = 0
        self.evicted = 0
        # The effects of the latest entry, in order.
        self.effects: list[Effect] = []
        self.items: Items = POLICIES["lru"]()
        # ``items.raw`` itself, for readers in other threads: another container takes its place in one assignment.
        self.raw: dict[str, Entry] = self.items.raw
        self.due = DueTimes()
        # Keys that are absent already and whose removal is still to be told: removed by a command, and by a lowered limit.
        self.to_delete = Removals()
        self.to_evict = Removals()
        # The number of keys in ``to_delete`` and ``to_evict``.
        self.waiting = 0

    def find(self, key: str) -> Entry | None:
        """Return the live entry of ``key``; None when the key is absent or past its expiry."""
        entry = self.raw.get(key)
        if entry is not None and 0 < entry[EXPIRES_AT_MS] <= self.now_ms:
            return None
        return entry

    def write(self, key: str, data: bytes, kind: int, meta: str | int | None, expires_at_ms: int) -> int:
        """Write an item under ``key`` and return its version; a present key counts as used.

        The item alone must be no larger than the whole cache may be. Other items are evicted where a limit needs that.
        """
        old = self.raw.get(key)
        if old is not None and 0 < old[EXPIRES_AT_MS] <= self.now_ms:
            self._remove(key, old, EXPIRED)
            old = None
        growth = ENTRY_BYTES + len(data) + (len(key) if key.isascii() else len(key.encode()))
        if type(meta) is str:
            growth += len(meta)
            # A million items with the same Content-Type share one text object.
            meta = intern(meta)
        if old is None:
            if self.waiting:
                self._tell_early(key)
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

    def count_of(self, database: int) -> int:
        """Return how many keys ``database`` has. Any thread may call it."""
        counts = self.census.keys
        return counts[database] if database else len(self.raw) - sum(counts[1:])

    def expiring_of(self, database: int) -> tuple[int, int]:
        """Return (how many keys of ``database`` have an expiry, the sum of these expiries in ms). Any thread may call it."""
        census = self.census
        if database:
            return census.expiring[database], census.expiries_ms[database]
        return self.with_ttl - sum(census.expiring[1:]), self.expiries_ms - sum(census.expiries_ms[1:])

    def extend(
        self, key: str, data: bytes, kind: int, meta: str | int | None, expires_at_ms: int, added: bytes, front: bool
    ) -> int:
        """Write a value that extends the one of ``key`` and return its version; the recorded effect holds only the addition.

        data: the whole new value.  added: the part of it that is new.  front: whether that part comes first.
        """
        present = self.find(key) is not None
        version = self.write(key, data, kind, meta, expires_at_ms)
        if present:
            # An effect with the whole value would cost the value's length at every short addition.
            self.effects[-1] = (APPENDED, key, version, expires_at_ms, added, front, kind)
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
        """Count ``uses`` uses of ``key`` at this moment; do nothing if the key is absent."""
        entry = self.find(key)
        if entry is not None:
            self.items.touch(key, entry, uses)

    def remove(self, key: str) -> int:
        """Remove ``key`` if it is present; return the machine's revision."""
        old = self.find(key)
        if old is not None:
            self._remove(key, old, DELETED)
        return self.revision

    def expire(self, keys_max: int) -> int:
        """Remove up to ``keys_max`` expired items, in the order of (expiry, key), and return how many were removed."""
        for removed in range(keys_max):
            key = self.due.pop(self.raw, self.now_ms)
            if key is None:
                return removed
            self._remove(key, self.raw[key], EXPIRED)
        return keys_max

    def tell_removals(self, keys_max: int) -> int:
        """Record up to ``keys_max`` waiting removals, of keys that are absent already: each gets a revision and an effect.

        Returns how many were recorded.
        """
        told = 0
        for queue, how in ((self.to_delete, DELETED), (self.to_evict, EVICTED)):
            while told < keys_max and (key := queue.pop()) is not None:
                self._tell(key, how)
                told += 1
        self.waiting -= told
        return told

    def remove_prefix(self, prefix: str, only_database_0: bool) -> int:
        """Make every key that starts with ``prefix`` absent at once; return how many of these keys had not expired.

        only_database_0: only the keys of database 0.
        """
        keys = [key for key in self.raw if key.startswith(prefix)] if prefix else list(self.raw)
        if only_database_0:
            keys = [key for key in keys if not key.startswith(MARK)]
        live = len(keys) - self._count_due(keys)
        if len(keys) == len(self.raw):
            self._clear()
        elif keys:
            # The order of ``raw`` is not part of the state, so the removals are told in another order: the cheaper one of two.
            if len(keys) < len(self.raw) // 8:
                keys.sort()
            else:
                chosen = set(keys)
                keys = [key for key in self.items.in_order() if key in chosen]
            entries = dict(zip(keys, self.items.retire(keys), strict=True))
            self._account_for_losses(entries)
            self.due.trim_all(self.raw, self.with_ttl)
            self.to_delete.add(entries)
            self.waiting += len(entries)
        return live

    def set_limits(self, items_max: int | None, bytes_max: int | None) -> None:
        """Set the limits of items and bytes, and evict at once, in eviction order, what exceeds them. None: no limit."""
        self.items_max = math.inf if items_max is None else items_max
        self.bytes_max = math.inf if bytes_max is None else bytes_max
        if len(self.raw) > self.items_max:
            self._evict_first(len(self.raw) - int(self.items_max))
        if self.bytes_used > self.bytes_max:
            left, count = self.bytes_used, 0
            for key, _ in self.items.ordered():
                entry = self.raw[key]
                left -= entry_bytes(key, entry[DATA], entry[META])
                count += 1
                if left <= self.bytes_max:
                    break
            self._evict_first(count)

    def set_policy(self, policy: str) -> None:
        """Keep the items under another eviction policy, in the present eviction order and counted as used once each."""
        self._replace_items(POLICIES[policy](self.raw, self.items.give_order(self.revision)))

    def adopt(self, policy: str, raw: dict[str, Entry], uses: list[int]) -> None:
        """Replace all items of the cache by those in ``raw``, {key: entry}, which are in eviction order.

        uses: the number of uses of each item, in the same order.
        """
        keys = list(raw)
        self.bytes_used = total_bytes(keys, list(raw.values()))
        for key, entry in raw.items():
            if entry[EXPIRES_AT_MS]:
                self.with_ttl += 1
                self.expiries_ms += entry[EXPIRES_AT_MS]
                self.due.add(entry[EXPIRES_AT_MS], key)
            if key < OTHERS_BEFORE:
                self.census.came(key)
                self.census.retimed(key, 0, entry[EXPIRES_AT_MS])
        self._replace_items(POLICIES[policy].filled(raw, keys, uses))

    def _replace_items(self, items: Items) -> None:
        """Use the container ``items``, which holds all items of the cache, in place of the present container."""
        self.items = items
        self.raw = items.raw

    def next_due_ms(self) -> int | None:
        """Return the earliest time in ms at which an expired key is to be removed, or a removal made before to be recorded.

        Returns 0 for now, None for never.
        """
        return 0 if self.waiting else self.due.next_ms(self.raw)

    def _evict_first(self, count: int) -> None:
        """Evict the next ``count`` items, and queue their removals, each to be given a revision and an effect later."""
        self.waiting += count
        while count:
            # Everything about one part is done while it is in the processor's cache.
            some = min(count, RETIRED_AT_ONCE)
            count -= some
            entries = self.items.retire_first(some)
            self._account_for_losses(entries)
            self.to_evict.add(entries)
        self.due.trim_all(self.raw, self.with_ttl)

    def _account_for_losses(self, entries: dict[str, Entry]) -> None:
        """Subtract ``entries``, which were removed from the cache, from its sum of bytes and its number of expiries."""
        removed = list(entries.values())
        self.bytes_used -= total_bytes(list(entries), removed)
        self.census.all_went(entries.items())
        expiries_ms = [entry[EXPIRES_AT_MS] for entry in removed]
        self.with_ttl -= len(removed) - expiries_ms.count(0)
        self.expiries_ms -= sum(expiries_ms)

    def _clear(self) -> None:
        """Remove all items at once: start an empty container, and queue the items of the old one as deleted."""
        cleared = self.items
        self._replace_items(type(cleared)())
        self.bytes_used = self.with_ttl = self.expiries_ms = 0
        self.due = DueTimes()
        self.census = Census()
        self.waiting += len(cleared)
        if len(cleared) >= WHOLE_LOT_MIN:
            self.to_delete.add_whole(cleared)
        else:
            self.to_delete.add({key: cleared.raw[key] for key in cleared.in_order()})

    def _count_due(self, keys: list[str]) -> int:
        """Return how many of ``keys``, which are all in the cache, are past their expiry."""
        first_ms = self.due.next_ms(self.raw)
        if first_ms is None or first_ms > self.now_ms:
            return 0
        return sum([1 for key in keys if self.find(key) is None])

    def make_room(self, protected: str, items: int, size: int) -> None:
        """Evict items, but never the key ``protected``, until a number of new items fits into the cache's limits.

        items: the number of these new items.  size: the bytes that they take together.
        """
        while len(self.raw) + items > self.items_max or self.bytes_used + size > self.bytes_max:
            victim = self.items.pop_victim(protected)
            if victim is None:
                return
            self.evict(*victim)

    def evict(self, key: str, entry: Entry) -> None:
        """Account for an item that was just evicted: subtract its bytes and expiry, and record a revision and an effect."""
        self._account_for_loss(key, entry)
        self._tell(key, EXPIRED if 0 < entry[EXPIRES_AT_MS] <= self.now_ms else EVICTED)

    def _remove(self, key: str, entry: Entry, how: int) -> None:
        del self.items[key]
        self._account_for_loss(key, entry)
        self._tell(key, how)

    def _account_for_loss(self, key: str, entry: Entry) -> None:
        self.bytes_used -= entry_bytes(key, entry[DATA], entry[META])
        if key < OTHERS_BEFORE:
            self.census.went(key, entry)
        if entry[EXPIRES_AT_MS]:
            self.with_ttl -= 1
            self.expiries_ms -= entry[EXPIRES_AT_MS]
            self.due.trim(self.raw, self.with_ttl)

    def _tell(self, key: str, how: int) -> None:
        """Record the removal of ``key`` with a revision and an effect, and count it.

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

    def _tell_early(self, key: str) -> None:
        """Record a waiting removal of ``key``, if there is one, now, because the key is about to be written again."""
        for queue, how in ((self.to_delete, DELETED), (self.to_evict, EVICTED)):
            if queue.discard(key):
                self.waiting -= 1
                self._tell(key, how)

    def _expiry_changed(self, key: str, before_ms: int, after_ms: int) -> None:
        if key < OTHERS_BEFORE:
            self.census.retimed(key, before_ms, after_ms)
        self.expiries_ms += after_ms - before_ms
        if after_ms:
            if not before_ms:
                self.with_ttl += 1
            self.due.add(after_ms, key)
        else:
            self.with_ttl -= 1
        self.due.trim(self.raw, self.with_ttl)
