"""Which item goes when space is needed: LRU and LFU, kept by cachetools. The only importer of cachetools.

1. The machine decides *when* to evict, these containers only *who*: they have no limit, so cachetools never evicts by
   itself.
2. ``raw`` is the dictionary below. Reading it counts as nothing and is safe from any thread.
3. The order is part of the replicated state: ``ordered()`` tells it, ``filled()`` builds an equal container from it.

cachetools (8.0.1 or later: an O(1) LFU whose ties are decided by insertion) has no operation for a victim other than
a given key, for counting several uses at once, or for reading and building the order in one pass. Those reach for its
private structures, which a test checks against the installed release.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import cachetools

from cacheflow.machine.entries import Entry
from cacheflow.machine.order import UseOrder


class LruItems(cachetools.Cache[str, Entry]):
    """Least recently used first. Not safe for concurrent use, except for reading ``raw``."""

    _Cache__data: dict[str, Entry]

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data
        self._order = UseOrder()

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LruItems:
        """A container of ``raw``, which it takes over, with ``keys`` in eviction order; the uses mean nothing here."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._order = UseOrder.of(keys, [raw[key][3] for key in keys])
        return items

    @property
    def currsize(self) -> float:
        """How many items there are."""
        return len(self.raw)

    def in_order(self) -> list[str]:
        """The keys in eviction order."""
        return list(self._order)

    def ordered(self) -> Iterator[tuple[str, int]]:
        """(key, uses) in eviction order; LRU keeps no count, so uses is 1."""
        for key in self._order:
            yield key, 1

    def __setitem__(self, key: str, entry: Entry) -> None:
        old = self.raw.get(key)
        if old is None:
            self.add(key, entry)
        else:
            self.rewrite(key, old, entry)

    def add(self, key: str, entry: Entry) -> None:
        """Put in an item under a ``key`` that is not there."""
        self.raw[key] = entry
        self._order.add(key, entry[3])

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        """Put ``entry`` with a new version in the place of ``old``, which counts as a use."""
        self.raw[key] = entry
        self._order.rewrite(key, old[3], entry[3])

    def retime(self, key: str, entry: Entry) -> None:
        """Put ``entry`` in the place of one of the same version, which counts as a use."""
        self.raw[key] = entry
        self._order.use(key, entry[3])

    def __delitem__(self, key: str) -> None:
        self._order.remove(key, self.raw.pop(key)[3])

    def popitem(self) -> tuple[str, Entry]:
        """Remove and return the next item to evict."""
        item = self.pop_victim("")
        if item is None:
            raise KeyError("there is no item")
        return item

    def touch(self, key: str, uses: int) -> None:
        """Count ``key`` as used just now."""
        self._order.use(key, self.raw[key][3])

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
            forget(key, entry[3])
            entries.append(entry)
        return entries

    def retire_first(self, count: int) -> dict[str, Entry]:
        """Remove the next ``count`` items to evict and return them in that order."""
        pop = self.raw.pop
        first = self._order.pop_first
        return {key: pop(key) for _ in range(count) if (key := first()) is not None}


class LfuItems(cachetools.LFUCache[str, Entry]):
    """Least often used first, ties by who came to that count first. Not safe for concurrent use, except for ``raw``."""

    _Cache__data: dict[str, Entry]
    _Cache__currsize: int
    # A ring of links in order of count; each holds the keys with that count in the order in which they came to it.
    _LFUCache__root: Any
    _LFUCache__links: dict[str, Any]

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LfuItems:
        """A container of ``raw``, which it takes over, with ``keys`` in eviction order; the uses must not fall."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._Cache__currsize = len(raw)
        root = items._LFUCache__root
        start = 0
        for count, group in groupby(uses):
            end = start + len(list(group))
            link = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
            same = keys[start:end]
            link.keys = OrderedDict.fromkeys(same)
            link.insert(root)
            items._LFUCache__links.update(dict.fromkeys(same, link))
            start = end
        return items

    def add(self, key: str, entry: Entry) -> None:
        """Put in an item under a ``key`` that is not there."""
        self[key] = entry

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        """Put ``entry`` in the place of ``old``, which counts as a use."""
        self.raw[key] = entry
        self.touch(key, 1)

    def retime(self, key: str, entry: Entry) -> None:
        """Put ``entry`` in the place of one of the same version, which counts as a use."""
        self.raw[key] = entry
        self.touch(key, 1)

    def in_order(self) -> list[str]:
        """The keys in eviction order."""
        keys: list[str] = []
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            keys.extend(link.keys)
            link = link.next
        return keys

    def ordered(self) -> Iterator[tuple[str, int]]:
        """(key, uses) in eviction order."""
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            for key in link.keys:
                yield key, link.count
            link = link.next

    def touch(self, key: str, uses: int) -> None:
        """Count ``uses`` uses of ``key`` just now, ending where as many single ones would have ended."""
        links = self._LFUCache__links
        root = self._LFUCache__root
        link = links[key]
        count = link.count + uses
        higher = link.next
        while higher is not root and higher.count < count:
            higher = higher.next
        if higher is root or higher.count != count:
            if higher is link.next and len(link.keys) == 1:
                link.count = count
                return
            fresh = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
            fresh.insert(higher)
            higher = fresh
        # The text that is in there, not the equal one of the command: a key is in memory once.
        link.keys.move_to_end(key)
        held, _ = link.keys.popitem()
        higher.keys[held] = None
        if not link.keys:
            link.unlink()
        links[held] = higher

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        """Remove and return the next item to evict that is not ``protected``; None when there is no other."""
        for key, _ in self.ordered():
            if key != protected:
                entry = self.raw[key]
                del self[key]
                return key, entry
        return None

    def retire(self, keys: Iterable[str]) -> list[Entry]:
        """Remove all ``keys`` and return their entries."""
        links = self._LFUCache__links
        pop = self.raw.pop
        entries = []
        for key in keys:
            link = links.pop(key)
            del link.keys[key]
            if not link.keys:
                link.unlink()
            entries.append(pop(key))
        self._Cache__currsize = len(self.raw)
        return entries

    def retire_first(self, count: int) -> dict[str, Entry]:
        """Remove the next ``count`` items to evict and return them in that order."""
        forget = self._LFUCache__links.__delitem__
        pop = self.raw.pop
        entries: dict[str, Entry] = {}
        while len(entries) < count:
            link = self._LFUCache__root.next
            first = link.keys.popitem
            for _ in range(min(count - len(entries), len(link.keys))):
                key = first(False)[0]
                forget(key)
                entries[key] = pop(key)
            if not link.keys:
                link.unlink()
        self._Cache__currsize = len(self.raw)
        return entries


Items: TypeAlias = LruItems | LfuItems

POLICIES: dict[str, type[LruItems] | type[LfuItems]] = {"lru": LruItems, "lfu": LfuItems}
