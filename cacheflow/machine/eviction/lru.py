"""LruItems: a container of items that evicts the least recently used item first.

cachetools' LRUCache keeps the order in one OrderedDict; here it is in pieces (use_order.py), and a test holds the two side
by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.use_order import UseOrder
from cacheflow.machine.state.entries import VERSION, Entry


class LruItems(Items):
    """A container of the cache's items that evicts the least recently used item first.

    An item's number of uses does not matter and is always given as 1.
    """

    def __init__(self, raw: dict[str, Entry] | None = None, order: UseOrder | None = None) -> None:
        super().__init__(raw, order)
        # The order's own methods, so that a write makes no call in between.
        self.place, self.move, self.pop_first = self._order.add, self._order.rewrite, self._order.pop_first

    @classmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> LruItems:
        return cls(raw, UseOrder.of(keys, [raw[key][3] for key in keys]))

    def give_order(self, version: int) -> UseOrder:
        return self._order

    def ordered(self) -> Iterator[tuple[str, int]]:
        for key in self._order:
            yield key, 1

    def retime(self, key: str, entry: Entry) -> None:
        self.raw[key] = entry
        self._order.use(key, entry[VERSION])

    def __delitem__(self, key: str) -> None:
        self._order.remove(key, self.raw.pop(key)[3])

    def touch(self, key: str, entry: Entry, uses: int) -> None:
        self._order.use(key, entry[VERSION])

    def uses_of(self, key: str) -> None:
        return None

    def start_scan(self, passed: int = 0) -> None:
        self._order.start_scan(passed)

    def scan(self, count: int) -> list[str]:
        return self._order.scan(count)

    def next_scanned(self) -> str | None:
        return self._order.next_scanned()

    def passed(self) -> int:
        return self._order.passed()
