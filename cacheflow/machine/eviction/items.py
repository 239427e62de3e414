"""Items: a container of items in eviction order, what LRU and LFU share and what the machine needs of both.

1. The machine decides *when* to evict, these containers only *which key*: they have no limit, so cachetools never
   evicts by itself.
2. ``raw`` is the plain dictionary of a container. Reading it counts as nothing and is safe from any thread.
3. The order is part of the replicated state: ``ordered()`` tells it, ``filled()`` builds an equal container from it.

Only this folder imports cachetools (8.0.1 or later: an O(1) LFU whose ties are decided by insertion). It has no operation
for a victim other than a given key, for counting several uses at once, or for reading and building the order in one pass.
The methods for these reach for its private structures, which a test checks against the installed release.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import cachetools

from cacheflow.machine.eviction.use_order import UseOrder
from cacheflow.machine.state.entries import VERSION, Entry


class Items(cachetools.Cache[str, Entry]):
    """A container of the cache's items that knows which item to evict next.

    raw: the items, {key: entry}.  order: their keys in eviction order, each used once so far.
    Both objects are kept without copying. Not safe for concurrent use, except for reading ``raw``.
    """

    _Cache__data: dict[str, Entry]

    # The parts of ``add``, ``rewrite`` and ``pop_victim`` that change the order alone: for who changes ``raw`` without a call.
    # Adds a new key, with its version.
    place: Callable[[str, int], None]
    # Counts a use of a key, with the version of the entry that was replaced and that of the new one.
    move: Callable[[str, int, int], None]
    # Removes the key that is to be evicted next, other than a given one, and returns it; None when there is no other.
    pop_first: Callable[[str], str | None]

    def __init__(self, raw: dict[str, Entry] | None = None, order: UseOrder | None = None) -> None:
        super().__init__(math.inf)
        self.raw = self._Cache__data = {} if raw is None else raw
        self._order = UseOrder() if order is None else order

    @classmethod
    @abc.abstractmethod
    def filled(cls, raw: dict[str, Entry], keys: Sequence[str], uses: Iterable[int]) -> Self:
        """Return a container that holds the items of ``raw``, {key: entry}, and keeps that dictionary without copying it.

        keys: all keys in eviction order.  uses: the number of uses of each of ``keys``, never falling from one to the next.
        """

    @abc.abstractmethod
    def give_order(self, version: int) -> UseOrder:
        """Return the order in which this container evicts its items, for a container that is to replace this one.

        This container must not be used any more.  version: the highest version of any item now.
        """

    @abc.abstractmethod
    def ordered(self) -> Iterator[tuple[str, int]]:
        """Yield (key, number of uses) of all items in this container, in eviction order."""

    def add(self, key: str, entry: Entry) -> None:
        """Add ``entry`` under ``key``, which must be absent, to this container of items; the item counts as used once."""
        self.raw[key] = entry
        self.place(key, entry[VERSION])

    def rewrite(self, key: str, old: Entry, entry: Entry) -> None:
        """Replace the entry ``old`` of ``key`` by ``entry``, which has a new version; this counts as a use of the key."""
        self.raw[key] = entry
        self.move(key, old[VERSION], entry[VERSION])

    def pop_victim(self, protected: str) -> tuple[str, Entry] | None:
        """Remove the item that is to be evicted next, but never that of the key ``protected``, and return (key, entry).

        Returns None when the container has no other item.
        """
        key = self.pop_first(protected)
        return None if key is None else (key, self.raw.pop(key))

    @abc.abstractmethod
    def retime(self, key: str, entry: Entry) -> None:
        """Replace the entry of ``key`` by ``entry``, which has the same version; this counts as a use of the key."""

    @abc.abstractmethod
    def touch(self, key: str, entry: Entry, uses: int) -> None:
        """Count ``uses`` uses of ``key``, whose entry is ``entry``; the eviction order is as after that many single uses."""

    @abc.abstractmethod
    def uses_of(self, key: str) -> int | None:
        """Return how often ``key``, which is in this container, was used; None if the eviction policy counts no uses."""

    @abc.abstractmethod
    def start_scan(self, passed: int = 0) -> None:
        """Begin a new scan of all keys in eviction order, as if the scan had returned the first ``passed`` keys already."""

    @abc.abstractmethod
    def scan(self, count: int) -> list[str]:
        """Return the next ``count`` keys of the scan of all keys that is under way, or fewer at its end.

        The scan gives every key that stays in the container and is not used from the scan's beginning to its end.
        """

    @abc.abstractmethod
    def passed(self) -> int:
        """Return how many of the container's items, in eviction order, the scan of all keys has passed."""

    @abc.abstractmethod
    def next_scanned(self) -> str | None:
        """Return the key that the scan of all keys gives next, if that key is not removed before; None at the scan's end."""

    def raise_versions(self, raw: dict[str, Entry], by: int) -> None:
        """Replace this container's entries by those of ``raw``, {key: entry}, which have versions higher by ``by``.

        Nothing else differs; the keys of ``raw`` are those of the container, in the same order.
        """
        self.raw = self._Cache__data = raw
        self._order.raise_versions(by)

    @property
    def currsize(self) -> float:
        """The number of items in the container."""
        return len(self.raw)

    def __setitem__(self, key: str, entry: Entry) -> None:
        old = self.raw.get(key)
        if old is None:
            self.add(key, entry)
        else:
            self.rewrite(key, old, entry)

    def popitem(self) -> tuple[str, Entry]:
        """Remove the item that this container is to evict next, and return (key, entry). Raises KeyError if it is empty."""
        item = self.pop_victim("")
        if item is None:
            raise KeyError("there is no item")
        return item
