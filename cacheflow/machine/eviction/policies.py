"""The eviction policies LRU and LFU: which item goes when space is needed. The only importer of cachetools.

1. The machine decides *when* to evict, these containers only *which key*: they have no limit, so cachetools never
   evicts by itself.
2. ``raw`` is the plain dictionary of a container. Reading it counts as nothing and is safe from any thread.
3. The order is part of the replicated state: ``ordered()`` tells it, ``filled()`` builds an equal container from it.

cachetools (8.0.1 or later: an O(1) LFU whose ties are decided by insertion) has no operation for a victim other than
a given key, for counting several uses at once, or for reading and building the order in one pass. The methods for these
reach for its private structures, which a test checks against the installed release. Its LRUCache keeps the order in one
OrderedDict; here the order is in pieces (use_order.py), and a test holds the two side by side.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import cachetools

from cacheflow.machine.eviction.use_order import UseOrder
from cacheflow.machine.state.entries import VERSION, Entry


class LruItems(cachetools.Cache[str, Entry]):
    """A container that evicts the least recently used item first. Not safe for concurrent use, except for reading ``raw``."""

    _Cache__data: dict[str, Entry]

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data
        self._order = UseOrder()

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LruItems:
        """Return a container of ``raw``, which it takes over, with ``keys`` in eviction order; LRU does not look at the uses."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._order = UseOrder.of(keys, [raw[key][3] for key in keys])
        return items

    @classmethod
    def with_order(cls, raw: dict[str, Entry], order: UseOrder) -> LruItems:
        """Return a container of ``raw`` in the eviction ``order``; both are taken over, which takes no time."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._order = order
        return items

    def give_order(self, version: int) -> UseOrder:
        """Hand the eviction order to another container; this one must not be used any more.

        version: the highest version of any item.
        """
        return self._order

    @property
    def currsize(self) -> float:
        """The number of items."""
        return len(self.raw)

    def in_order(self) -> list[str]:
        """The keys in eviction order."""
        return list(self._order)

    def ordered(self) -> Iterator[tuple[str, int]]:
        """Yield (key, uses) in eviction order; LRU keeps no count, so uses is 1."""
        for key in self._order:
            yield key, 1

    def __setitem__(self, key: str, entry: Entry) -> None:
        old = self.raw.get(key)
        if old is None:
            self.add(key, entry)
        else:
            self.rewrite(key, old, entry)

    def add(self, key: str, entry: Entry) -> None:
        """Add ``entry`` under a ``key`` that is absent."""
        self.raw[key] = entry
        self._order.add(key, entry[VERSION])

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        """Replace ``old`` by ``entry``, which has a new version; counts as a use."""
        self.raw[key] = entry
        self._order.rewrite(key, old[VERSION], entry[VERSION])

    def retime(self, key: str, entry: Entry) -> None:
        """Replace the entry of ``key`` by ``entry``, which has the same version; counts as a use."""
        self.raw[key] = entry
        self._order.use(key, entry[VERSION])

    def __delitem__(self, key: str) -> None:
        self._order.remove(key, self.raw.pop(key)[3])

    def popitem(self) -> tuple[str, Entry]:
        """Remove and return the next item to evict."""
        item = self.pop_victim("")
        if item is None:
            raise KeyError("there is no item")
        return item

    def touch(self, key: str, entry: Entry, uses: int) -> None:
        """Count ``key``, whose entry is ``entry``, as used just now; LRU does not look at the number of uses."""
        self._order.use(key, entry[VERSION])

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        """Remove and return the next item to evict that is not ``protected``; None when there is no other."""
        key = self._order.pop_first(protected)
        return None if key is None else (key, self.raw.pop(key))

    def retire(self, keys: Iterable[str]) -> list[Entry]:
        """Remove all ``keys`` and return their entries."""
        pop = self.raw.pop
        forget = self._order.remove
        entries = []
        for key in keys:
            entry = pop(key)
            forget(key, entry[VERSION])
            entries.append(entry)
        return entries

    def retire_first(self, count: int) -> dict[str, Entry]:
        """Remove the next ``count`` items to evict and return them in that order."""
        keys = self._order.pop_many(count)
        return dict(zip(keys, map(self.raw.pop, keys), strict=True))


class LfuItems(cachetools.LFUCache[str, Entry]):
    """A container that evicts the least often used item first, and of equal counts the one that has had that count longest.

    Items that came from LRU and were not used since stay in LRU's order: they count as used once, before all others.
    Not safe for concurrent use, except for reading ``raw``.
    """

    _Cache__data: dict[str, Entry]
    # A ring of links in order of count; each holds the keys with that count in the order in which they came to it, as
    # {key: key}, so that the text of a key is in memory once.
    _LFUCache__root: Any
    _LFUCache__links: dict[str, Any]

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data
        # The items that came from LRU and were not used since.
        self._before = UseOrder()

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LfuItems:
        """Return a container of ``raw``, which it takes over, with ``keys`` in eviction order and ``uses`` that never fall."""
        items = cls()
        items.raw = items._Cache__data = raw
        root = items._LFUCache__root
        start = 0
        for count, group in groupby(uses):
            end = start + len(list(group))
            link = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
            same = keys[start:end]
            link.keys = OrderedDict(zip(same, same, strict=True))
            link.insert(root)
            items._LFUCache__links.update(dict.fromkeys(same, link))
            start = end
        return items

    @classmethod
    def with_order(cls, raw: dict[str, Entry], order: UseOrder) -> LfuItems:
        """Return a container of ``raw`` in the eviction ``order`` with one use each; both are taken over, which takes no time."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._before = order
        return items

    def __del__(self) -> None:
        self._break_ring()

    def _break_ring(self) -> list[OrderedDict[str, str]]:
        """Take the ring of links apart, so that it needs no garbage collector, and return the keys that each link had."""
        groups: list[OrderedDict[str, str]] = []
        root = self._LFUCache__root
        link = root.next
        while link is not root:
            groups.append(link.keys)
            link.prev.next = link.prev = None
            link = link.next
        root.next = root.prev = None
        return groups

    def give_order(self, version: int) -> UseOrder:
        """Hand the eviction order to another container; this one must not be used any more.

        version: the highest version of any item.
        """
        groups = self._break_ring()
        root = self._LFUCache__root
        root.next = root.prev = root
        if 2 * len(self._before) >= len(self.raw):
            for group in groups:
                for key in group:
                    self._before.append(key, self.raw[key][3])
            return self._before
        groups.insert(0, OrderedDict(zip(self._before, self._before, strict=True)))
        # The other groups are added to the largest one, mostly that of the keys used once, at its two ends.
        largest = max(range(len(groups)), key=lambda number: len(groups[number]))
        order = groups[largest]
        for group in reversed(groups[:largest]):
            for key in reversed(group):
                order[key] = key
                order.move_to_end(key, last=False)
        for group in groups[largest + 1 :]:
            order.update(group)
        return UseOrder.of_one(order, version)

    @property
    def currsize(self) -> float:
        """The number of items."""
        return len(self.raw)

    def __setitem__(self, key: str, entry: Entry) -> None:
        old = self.raw.get(key)
        if old is None:
            self.add(key, entry)
        else:
            self.rewrite(key, old, entry)

    def add(self, key: str, entry: Entry) -> None:
        """Add ``entry`` under a ``key`` that is absent."""
        self.raw[key] = entry
        self._place(key, 1, self._LFUCache__root.next)

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        """Replace ``old`` by ``entry``, which has a new version; counts as a use."""
        self.raw[key] = entry
        self._use(key, 1, old[VERSION])

    def retime(self, key: str, entry: Entry) -> None:
        """Replace the entry of ``key`` by ``entry``, which has the same version; counts as a use."""
        self.raw[key] = entry
        self._use(key, 1, entry[VERSION])

    def touch(self, key: str, entry: Entry, uses: int) -> None:
        """Count ``uses`` uses of ``key``, whose entry is ``entry``: with the same order as that many single uses."""
        self._use(key, uses, entry[VERSION])

    def _use(self, key: str, uses: int, version: int) -> None:
        link = self._LFUCache__links.get(key)
        if link is None:
            self._place(self._before.remove(key, version), 1 + uses, self._LFUCache__root.next)
            return
        count = link.count + uses
        higher = link.next
        if len(link.keys) == 1 and (higher is self._LFUCache__root or higher.count > count):
            link.count = count
            return
        held = link.keys.pop(key)
        if not link.keys:
            link.unlink()
        self._place(held, count, higher)

    def _place(self, key: str, count: int, link: Any) -> None:
        """Put ``key`` behind all keys with the same ``count``. link: where to begin to look for them."""
        root = self._LFUCache__root
        while link is not root and link.count < count:
            link = link.next
        if link is root or link.count != count:
            fresh = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
            fresh.insert(link)
            link = fresh
        link.keys[key] = key
        self._LFUCache__links[key] = link

    def __delitem__(self, key: str) -> None:
        self._forget(key, self.raw.pop(key))

    def _forget(self, key: str, entry: Entry) -> None:
        link = self._LFUCache__links.pop(key, None)
        if link is None:
            self._before.remove(key, entry[VERSION])
            return
        del link.keys[key]
        if not link.keys:
            link.unlink()

    def in_order(self) -> list[str]:
        """The keys in eviction order."""
        keys = list(self._before)
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            keys.extend(link.keys)
            link = link.next
        return keys

    def ordered(self) -> Iterator[tuple[str, int]]:
        """Yield (key, uses) in eviction order."""
        for key in self._before:
            yield key, 1
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            for key in link.keys:
                yield key, link.count
            link = link.next

    def popitem(self) -> tuple[str, Entry]:
        """Remove and return the next item to evict."""
        item = self.pop_victim("")
        if item is None:
            raise KeyError("there is no item")
        return item

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        """Remove and return the next item to evict that is not ``protected``; None when there is no other."""
        first = self._before.pop_first(protected)
        if first is not None:
            return first, self.raw.pop(first)
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            for key in link.keys:
                if key != protected:
                    entry = self.raw.pop(key)
                    self._forget(key, entry)
                    return key, entry
            link = link.next
        return None

    def retire(self, keys: Iterable[str]) -> list[Entry]:
        """Remove all ``keys`` and return their entries."""
        pop = self.raw.pop
        entries = []
        for key in keys:
            entry = pop(key)
            self._forget(key, entry)
            entries.append(entry)
        return entries

    def retire_first(self, count: int) -> dict[str, Entry]:
        """Remove the next ``count`` items to evict and return them in that order."""
        pop = self.raw.pop
        forget = self._LFUCache__links.__delitem__
        entries = {key: pop(key) for key in self._before.pop_many(count)}
        while len(entries) < count:
            link = self._LFUCache__root.next
            first = link.keys.popitem
            for _ in range(min(count - len(entries), len(link.keys))):
                key = first(False)[0]
                forget(key)
                entries[key] = pop(key)
            if not link.keys:
                link.unlink()
        return entries


Items: TypeAlias = LruItems | LfuItems

POLICIES: dict[str, type[LruItems] | type[LfuItems]] = {"lru": LruItems, "lfu": LfuItems}
