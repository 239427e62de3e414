"""DueTimes: the expiries of items, in heaps of (expires_at_ms, key), one heap for every four seconds.

Removing from the middle of a heap is slow, so nothing is removed: a heap's item is stale when the key's entry no longer
has that expiry, and is skipped when it comes up. Stale items of the far future are cleared away heap by heap, a few for
each change, because clearing a million at once would stop the node for longer than an election takes. A heap may hold a million
by itself, so a large one is *sifted*: it gives its last items, piece by piece, to a new heap of the same slot, and what is left
of it is a heap all the time.

Keys come up in the order of (time, key), whatever the heaps look like inside, so a machine restored from its
entries expires the same keys in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from cacheflow.machine.state.entries import EXPIRES_AT_MS, Entry

# A heap covers 2^12 = 4,096 ms: at 20,000 writes a second one is cleared in some 20 ms, and TTLs of up to a month share
# 600,000 heaps.
_SLOT_BITS: Final = 12
# Stale items that are always allowed, so that a small cache is not busy clearing.
STALE_ALLOWED: Final = 1024
# The largest heap that is cleared in one step, and the items that one step of sifting looks at: about a millisecond.
SIFTED_AT_ONCE = 4096
# Items that each change of an expiry looks at while clearing is needed: with 4 the heaps stay below three times the keys.
_CLEARED_PER_CHANGE: Final = 4


class DueTimes:
    """The expiries of all items that have one, earliest first. Not safe for concurrent use."""

    __slots__ = ("_budget", "_count", "_heaps", "_rotation", "_sifted", "_sifted_slot", "_slots")

    def __init__(self) -> None:
        # {slot: heap}, a slot being expires_at_ms >> _SLOT_BITS.
        self._heaps: dict[int, list[tuple[int, str]]] = {}
        # A heap of the slots in ``_heaps``, and of some slots whose heaps became empty early.
        self._slots: list[int] = []
        # What is left of the heap that is sifted, and its slot; ``_heaps`` has the new one.
        self._sifted: list[tuple[int, str]] = []
        self._sifted_slot = 0
        # The number of items in all heaps, stale ones included.
        self._count = 0
        # The slots that the present round of clearing has not visited, and how many items it may still look at.
        self._rotation: Iterator[int] = iter(())
        self._budget = 0

    def __len__(self) -> int:
        return self._count

    def add(self, expires_at_ms: int, key: str) -> None:
        """Note that ``key`` now expires at ``expires_at_ms``."""
        slot = expires_at_ms >> _SLOT_BITS
        heap = self._heaps.get(slot)
        if heap is None:
            self._heaps[slot] = [(expires_at_ms, key)]
            heappush(self._slots, slot)
        else:
            heappush(heap, (expires_at_ms, key))
        self._count += 1

    def trim(self, raw: dict[str, Entry], with_ttl: int, changes: int = 1) -> None:
        """Drop some outdated expiries, of keys that were changed or removed, if more than half of all are outdated.

        Called whenever expiries were added or have ended. raw: the items, {key: entry}.  with_ttl: how many of them expire.
        changes: how many expiries it were.
        """
        if self._count <= 2 * with_ttl + STALE_ALLOWED:
            return
        self._budget += _CLEARED_PER_CHANGE * changes
        while self._budget > 0:
            if self._sifted:
                self._budget -= self._sift(raw)
                continue
            slot = next(self._rotation, None)
            if slot is None:
                self._start_rotation()
                return
            self._budget -= self._clear(slot, raw)

    def next_ms(self, raw: dict[str, Entry]) -> int | None:
        """Return the earliest expiry of any item in ``raw``, {key: entry}, in ms; None when no item has one."""
        heap = self._first(raw)
        return heap[0][0] if heap else None

    def pop(self, raw: dict[str, Entry], now_ms: int, keys_max: int) -> list[str]:
        """Return the next ``keys_max`` keys of ``raw``, {key: entry}, that are past their expiry at ``now_ms``, or fewer.

        The caller removes the keys from ``raw``.
        """
        keys: list[str] = []
        last = ""
        while len(keys) < keys_max and self._slots and self._slots[0] << _SLOT_BITS <= now_ms:
            heap = self._first(raw)
            if not heap or heap[0][0] > now_ms:
                break
            # One that was noted twice comes up twice in a row.
            key = heappop(heap)[1]
            self._count -= 1
            if key != last:
                keys.append(key)
                last = key
        return keys

    def _first(self, raw: dict[str, Entry]) -> list[tuple[int, str]] | None:
        """Return the earliest of the heaps of (expiry, key) that has a pair which is still true, and is first in it then.

        Returns None when there is none. raw: the items, {key: entry}, by which a pair is true or outdated.
        """
        while self._slots:
            slot = self._slots[0]
            heap = self._without_stale(self._heaps.get(slot), raw)
            if self._sifted and slot == self._sifted_slot:
                old = self._without_stale(self._sifted, raw)
                if old and (not heap or old[0] < heap[0]):
                    heap = old
            if heap:
                return heap
            self._heaps.pop(heappop(self._slots), None)
        return None

    def _without_stale(self, heap: list[tuple[int, str]] | None, raw: dict[str, Entry]) -> list[tuple[int, str]] | None:
        """Remove the first pairs of ``heap`` until one is true, and return it; None or an empty one if none is."""
        while heap:
            expires_at_ms, key = heap[0]
            entry = raw.get(key)
            if entry is not None and entry[EXPIRES_AT_MS] == expires_at_ms:
                return heap
            heappop(heap)
            self._count -= 1
        return heap

    def _sift(self, raw: dict[str, Entry]) -> int:
        """Move the true ones of some pairs of the heap that is sifted to its new heap; return how many were looked at."""
        old = self._sifted
        some = old[-SIFTED_AT_ONCE:]
        del old[-SIFTED_AT_ONCE:]
        live = self._live(some, raw)
        self._count -= len(some) - len(live)
        into = self._heaps[self._sifted_slot]
        for pair in live:
            heappush(into, pair)
        return len(some)

    @staticmethod
    def _live(pairs: list[tuple[int, str]], raw: dict[str, Entry]) -> list[tuple[int, str]]:
        find = raw.get
        live = [item for item in pairs if (entry := find(item[1])) and entry[EXPIRES_AT_MS] == item[0]]
        return list(dict.fromkeys(live))

    def _start_rotation(self) -> None:
        """Start a new round of dropping outdated expiries, through all slots of time for which there are expiries now."""
        self._slots = list(self._heaps)
        self._rotation = iter(self._slots.copy())
        heapify(self._slots)

    def _clear(self, slot: int, raw: dict[str, Entry]) -> int:
        """Drop outdated and duplicate expiries of one ``slot`` of time; return how many expiries were looked at."""
        heap = self._heaps.get(slot)
        if heap is None:
            return 1
        if len(heap) > SIFTED_AT_ONCE:
            self._sifted, self._sifted_slot = heap, slot
            self._heaps[slot] = []
            return 1
        live = self._live(heap, raw)
        self._count -= len(heap) - len(live)
        if live:
            heapify(live)
            self._heaps[slot] = live
        else:
            del self._heaps[slot]
        return len(heap)
