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


class LruItems(cachetools.LRUCache[str, Entry]):
    """Least recently used first. Not safe for concurrent use, except for reading ``raw``."""

    _Cache__data: dict[str, Entry]
    _Cache__currsize: int
    _LRUCache__order: OrderedDict[str, None]

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LruItems:
        """A container of ``raw``, which it takes over, with ``keys`` in eviction order; the uses mean nothing here."""
        items = cls()
        items.raw = items._Cache__data = raw
        items._Cache__currsize = len(raw)
        items._LRUCache__order = OrderedDict.fromkeys(keys)
        return items

    def in_order(self) -> list[str]:
        """The keys in eviction order."""
        return list(self._LRUCache__order)

    def ordered(self) -> Iterator[tuple[str, int]]:
        """(key, uses) in eviction order; LRU keeps no count, so uses is 1."""
        for key in self._LRUCache__order:
            yield key, 1

    def touch(self, key: str, uses: int) -> None:
        """Count ``key`` as used just now."""
        self._LRUCache__order.move_to_end(key)

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        """Remove and return the next item to evict that is not ``protected``; None when there is no other."""
        for key in self._LRUCache__order:
            if key != protected:
                entry = self.raw[key]
                del self[key]
                return key, entry
        return None

    def retire(self, keys: Iterable[str]) -> list[Entry]:
        """Remove all ``keys`` and return their entries."""
        forget = self._LRUCache__order.__delitem__
        pop = self.raw.pop
        entries = []
        for key in keys:
            forget(key)
            entries.append(pop(key))
        self._Cache__currsize = len(self.raw)
        return entries


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
            link.keys = OrderedDict.fromkeys(keys[start:end])
            link.insert(root)
            items._LFUCache__links.update(dict.fromkeys(link.keys, link))
            start = end
        return items

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
        higher.keys[key] = None
        del link.keys[key]
        if not link.keys:
            link.unlink()
        links[key] = higher

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


Items: TypeAlias = LruItems | LfuItems

POLICIES: dict[str, type[LruItems] | type[LfuItems]] = {"lru": LruItems, "lfu": LfuItems}
