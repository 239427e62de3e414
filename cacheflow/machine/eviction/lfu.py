"""LfuItems: a container of items that evicts the least often used item first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import cachetools

from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.use_order import UseOrder
from cacheflow.machine.state.entries import VERSION, Entry


class LfuItems(Items, cachetools.LFUCache[str, Entry]):
    """A container that evicts the least often used item first; among equals, the one that has had its count for longest.

    Items taken over from an LRU container and not used since count as used once and are evicted before all others.
    """

    # A ring of links in order of count; each holds the keys with that count in the order in which they came to it, as
    # {key: key}, so that the text of a key is in memory once.
    _LFUCache__root: Any
    _LFUCache__links: dict[str, Any]

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LfuItems:
        items = cls(raw)
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

    def __del__(self) -> None:
        self._break_ring()

    def _break_ring(self) -> list[OrderedDict[str, str]]:
        """Take apart the ring of links that hold the keys by number of uses; return the keys of each link.

        Without its cycles the ring leaves no work to the garbage collector.
        """
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
        groups = self._break_ring()
        root = self._LFUCache__root
        root.next = root.prev = root
        if 2 * len(self._order) >= len(self.raw):
            for group in groups:
                for key in group:
                    self._order.append(key, self.raw[key][3])
            return self._order
        groups.insert(0, OrderedDict(zip(self._order, self._order, strict=True)))
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

    def add(self, key: str, entry: Entry) -> None:
        self.raw[key] = entry
        self._place(key, 1, self._LFUCache__root.next)

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        self.raw[key] = entry
        self._use(key, 1, old[VERSION])

    def retime(self, key: str, entry: Entry) -> None:
        self.raw[key] = entry
        self._use(key, 1, entry[VERSION])

    def touch(self, key: str, entry: Entry, uses: int) -> None:
        self._use(key, uses, entry[VERSION])

    def _use(self, key: str, uses: int, version: int) -> None:
        link = self._LFUCache__links.get(key)
        if link is None:
            self._place(self._order.remove(key, version), 1 + uses, self._LFUCache__root.next)
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
        """Add ``key`` to the keys that were used ``count`` times, as the last of them.

        link: the link of the ring of counts at which the search for that count begins.
        """
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
            self._order.remove(key, entry[VERSION])
            return
        del link.keys[key]
        if not link.keys:
            link.unlink()

    def in_order(self) -> list[str]:
        keys = list(self._order)
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            keys.extend(link.keys)
            link = link.next
        return keys

    def ordered(self) -> Iterator[tuple[str, int]]:
        for key in self._order:
            yield key, 1
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            for key in link.keys:
                yield key, link.count
            link = link.next

    def uses_of(self, key: str) -> int:
        link = self._LFUCache__links.get(key)
        return 1 if link is None else int(link.count)

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        first = self._order.pop_first(protected)
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
        pop = self.raw.pop
        entries = []
        for key in keys:
            entry = pop(key)
            self._forget(key, entry)
            entries.append(entry)
        return entries

    def retire_first(self, count: int) -> dict[str, Entry]:
        pop = self.raw.pop
        forget = self._LFUCache__links.__delitem__
        entries = {key: pop(key) for key in self._order.pop_many(count)}
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
