"""LfuItems: a container of items that evicts the least often used item first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, Final

import cachetools

from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.use_order import Segment, UseOrder
from cacheflow.machine.state.entries import VERSION, Entry

# Keys of one link: a scan notes all of them whenever it comes to a link, also where those that it has given are gone.
LINK_KEYS_MAX = 2_000
# Keys of links that become one segment where another policy takes over: larger ones stay as they are, as moving keys takes time;
# and of a count that few keys have there are many.
JOINED_KEYS_MAX: Final = 250


class LfuItems(Items, cachetools.LFUCache[str, Entry]):
    """A container of the cache's items that evicts the least often used item first.

    Among items used equally often it evicts the one first that has had its number of uses for longest.
    Items taken over from an LRU container and not used since count as used once and are evicted before all others.
    """

    # A ring of links in order of count; each holds keys with that count in the order in which they came to it, as {key: key},
    # so that the text of a key is in memory once. Where one count has many keys it has several links, for a table of a
    # million keys takes a quarter of a second to grow, and a scan can begin at a link and not inside of one.
    _LFUCache__root: Any
    _LFUCache__links: dict[str, Any]

    def __init__(self, raw: dict[str, Entry] | None = None, order: UseOrder | None = None) -> None:
        super().__init__(raw, order)
        # {count: its last link}.
        self._last: dict[int, Any] = {}
        # The link of the last key that a scan has given and that is still in its place, the ring's root where there is none;
        # and the keys of that link that the scan has still to give. What comes in behind that last key is given later: so a
        # scan goes on alike wherever the links of one count begin.
        self._scanned: Any = self._LFUCache__root
        self._pending: dict[str, None] = {}

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LfuItems:
        items = cls(raw)
        root = items._LFUCache__root
        every = iter(keys)
        for count, group in groupby(uses):
            left = len(list(group))
            while left:
                link = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
                same = list(islice(every, min(left, LINK_KEYS_MAX)))
                left -= len(same)
                link.keys = OrderedDict(zip(same, same, strict=True))
                link.insert(root)
                items._LFUCache__links.update(dict.fromkeys(same, link))
                items._last[count] = link
        return items

    def __del__(self) -> None:
        self._break_ring()

    def _break_ring(self) -> list[Segment]:
        """Take apart the ring of links in this LFU container; return the keys in eviction order, in a list of dictionaries.

        Each link holds keys that were used equally often; the keys of small links go into one dictionary together, and a
        link's ``keys`` is then that dictionary. Once apart, the ring has no reference cycles, which the garbage collector
        would have to find.
        """
        groups: list[Segment] = []
        root = self._LFUCache__root
        link = root.next
        while link is not root:
            if groups and len(groups[-1]) + len(link.keys) <= JOINED_KEYS_MAX:
                groups[-1].update(link.keys)
                link.keys = groups[-1]
            else:
                groups.append(link.keys)
            link.prev.next = link.prev = None
            link = link.next
        root.next = root.prev = self._scanned = None
        self._last.clear()
        return groups

    def give_order(self, version: int) -> UseOrder:
        groups = self._break_ring()
        root = self._LFUCache__root
        root.next = root.prev = self._scanned = root
        links, self._LFUCache__links = self._LFUCache__links, {}
        self._order.take_over(groups, links, version)
        return self._order

    def place(self, key: str, version: int) -> None:
        self._place(key, 1, self._LFUCache__root.next)

    def move(self, key: str, before: int, version: int) -> None:
        self._use(key, 1, before)

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
        if len(link.keys) == 1 and link is not self._scanned and self._last[link.count] is link:
            higher = link.next
            if link.prev.count != link.count and (higher is self._LFUCache__root or higher.count > count):
                del self._last[link.count]
                link.count = count
                self._last[count] = link
                return
        held = link.keys.pop(key)
        self._place(held, count, link)
        if link is self._scanned or not link.keys:
            self._has_left(key, link)

    def _place(self, key: str, count: int, link: Any) -> None:
        """Add ``key``, which was used ``count`` times, behind the other keys with that number of uses.

        The container's keys are in a ring of links, each for one number of uses, which rises along the ring. link: where the
        search for the right link begins: a link whose number is not above ``count``, or the first of the ring.
        """
        last = self._last.get(count)
        if last is None:
            root = self._LFUCache__root
            while link is not root and link.count < count:
                # From the last link of one count to the first one of the next.
                link = self._last[link.count].next
            last = self._new_link(count, link)
        elif len(last.keys) >= LINK_KEYS_MAX or last is self._scanned:
            # A link that a scan is in must get no new keys.
            last = self._new_link(count, last.next)
        last.keys[key] = key
        self._LFUCache__links[key] = last

    def _new_link(self, count: int, higher: Any) -> Any:
        """Return a new link for keys used ``count`` times, added to a ring of links in front of the link ``higher``.

        The links of the ring are in the order of their numbers of uses; each holds the keys with one such number.
        """
        fresh = cachetools.LFUCache._Link(count)  # type: ignore[attr-defined]
        fresh.insert(higher)
        self._last[count] = fresh
        return fresh

    def _has_left(self, key: str, link: Any) -> None:
        """Note that ``key`` was taken out of ``link``, one link of a ring; each link holds keys that were used equally often.

        A link without keys leaves the ring, and a scan of the link does not give the key any more.
        """
        if link is self._scanned:
            self._pending.pop(key, None)
            if len(self._pending) == len(link.keys):
                self._scanned, self._pending = link.prev, {}
        if link.keys:
            return
        if self._last[link.count] is link:
            if link.prev is not self._LFUCache__root and link.prev.count == link.count:
                self._last[link.count] = link.prev
            else:
                del self._last[link.count]
        link.unlink()

    def __delitem__(self, key: str) -> None:
        version = self.raw.pop(key)[VERSION]
        link = self._LFUCache__links.get(key)
        if link is None:
            self._order.remove(key, version)
        else:
            self._take(key, link)

    def _take(self, key: str, link: Any) -> None:
        """Take ``key`` out of ``link``, one link of a ring; each link holds keys that were used equally often."""
        del self._LFUCache__links[key]
        del link.keys[key]
        if link is self._scanned or not link.keys:
            self._has_left(key, link)

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

    def pop_first(self, protected: str) -> str | None:
        first = self._order.pop_first(protected)
        if first is not None:
            return first
        link = self._LFUCache__root.next
        while link is not self._LFUCache__root:
            keys: OrderedDict[str, str] = link.keys
            for key in keys:
                if key != protected:
                    self._take(key, link)
                    return key
            link = link.next
        return None

    def start_scan(self, passed: int = 0) -> None:
        self._order.start_scan(passed)
        self._scanned, self._pending = self._LFUCache__root, {}
        passed -= len(self._order)
        while passed > 0 and (some := self._scan_link(passed)):
            passed -= len(some)

    def scan(self, count: int) -> list[str]:
        keys = self._order.scan(count)
        while len(keys) < count and (some := self._scan_link(count - len(keys))):
            keys += some
        return keys

    def next_scanned(self) -> str | None:
        first = self._order.next_scanned()
        if first is None:
            first = next(iter(self._pending or self._scanned.next.keys), None)
        return first

    def passed(self) -> int:
        total = self._order.passed() - len(self._pending)
        link = self._LFUCache__root
        while link is not self._scanned:
            link = link.next
            total += len(link.keys)
        return total

    def _scan_link(self, count: int) -> list[str]:
        """Return the next keys of a scan of all keys, up to ``count``, all used equally often; none at the scan's end."""
        if not self._pending:
            link = self._scanned.next
            if link is self._LFUCache__root:
                return []
            self._scanned, self._pending = link, dict.fromkeys(link.keys)
        keys = list(islice(self._pending, count))
        for key in keys:
            del self._pending[key]
        return keys
