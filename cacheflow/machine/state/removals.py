"""Removals: keys that are absent already, but whose removal still has to get a revision and an effect.

Clearing a million keys in one entry would stop every node for seconds. So they leave the container in one sweep (from
then on they are absent to every command, reader, count and limit) and wait here for their turn: with each entry a
bounded number gets its revision and its place among the effects. A key that is written again while it waits has its
turn at once, so that the effects of one key come in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cacheflow.machine.eviction.items import Items

# The smallest cleared container that is queued as it is, in no time; a smaller one is copied, so that lots stay few.
WHOLE_LOT_MIN: Final = 10_000
# The size from which a lot gets no more keys: a larger dictionary takes long to grow, many small lots take long to search.
LOT_KEYS_MAX: Final = 40_000


class _Fifo:
    """A queue of removed items, first in, first out; an item may leave it before its turn."""

    __slots__ = ("_entries", "_order", "_void")

    def __init__(self) -> None:
        # The entries are kept only so that their memory is freed a few at a time, too; each is None after a restore.
        self._entries: dict[str, Any] = {}
        self._order: deque[str] = deque()
        # {key: how many of its earliest places in ``_order`` do not count}, for keys that were taken out of their turn:
        # such a key may have come again behind them, and its turn must not depend on how this lot came about.
        self._void: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __delitem__(self, key: str) -> None:
        del self._entries[key]
        self._void[key] = self._void.get(key, 0) + 1

    def extend(self, entries: dict[str, Any]) -> None:
        self._order.extend(entries)
        if self._entries:
            self._entries.update(entries)
        else:
            self._entries = entries

    def popitem(self) -> tuple[str, Any]:
        while True:
            key = self._order.popleft()
            if not _skips(self._void, key):
                return key, self._entries.pop(key)

    def in_order(self) -> list[str]:
        void = self._void.copy()
        return [key for key in self._order if not _skips(void, key)]


def _skips(void: dict[str, int], key: str) -> bool:
    """True if ``key``, met at a place in a queue, has left the queue before that place's turn.

    void: {key: number of its places to skip}; the key's number is then lowered by one.
    """
    count = void.get(key)
    if count is None:
        return False
    if count == 1:
        del void[key]
    else:
        void[key] = count - 1
    return True


class Removals:
    """A queue of removed keys, first in, first out, whose removal is still to be given a revision and an effect.

    Not safe for concurrent use.
    """

    __slots__ = ("_lots", "count")

    def __init__(self) -> None:
        # Lots of removed items; a whole container of eviction/ is one, too.
        self._lots: deque[_Fifo | Items] = deque()
        self.count = 0

    def add(self, entries: dict[str, Any]) -> None:
        """Queue the keys of ``entries``, {key: entry}, as removed; the queue keeps and changes that dictionary."""
        last = self._lots[-1] if self._lots else None
        if not isinstance(last, _Fifo) or len(last) >= LOT_KEYS_MAX:
            last = _Fifo()
            self._lots.append(last)
        last.extend(entries)
        self.count += len(entries)

    def add_whole(self, items: Items) -> None:
        """Queue all items of a container as removed, in its eviction order; nobody else may use the container any more."""
        self._lots.append(items)
        self.count += len(items)

    def pop(self) -> str | None:
        """Remove the next key from the queue of removed keys and return it; None when the queue is empty."""
        while self._lots:
            if len(self._lots[0]):
                self.count -= 1
                return self._lots[0].popitem()[0]
            self._lots.popleft()
        return None

    def discard(self, key: str) -> bool:
        """Remove ``key`` from the queue of removed keys before its turn; return False when it is not queued."""
        for lot in self._lots:
            if key in lot:
                del lot[key]
                self.count -= 1
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in the queue of removed keys, in the order of their turns."""
        for lot in self._lots:
            yield from lot.in_order()

    @classmethod
    def of(cls, keys: Iterable[str]) -> Removals:
        """Return a new queue of the removed ``keys``, in their order."""
        removals = cls()
        removals.add(dict.fromkeys(keys))
        return removals
