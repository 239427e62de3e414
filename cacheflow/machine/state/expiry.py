"""DueTimes: the expiries of items, in the order of (expires_at_ms, key), in sorted blocks.

An expiry that ends early, because its item was written again or removed, is taken out at once. Were it left until it comes up,
a million that are outdated together would have to be passed over in one go, and stop the node for longer than an
election takes. Here no operation looks at more than a few blocks.

Keys come up in the order of (time, key), so a machine restored from its entries expires the same keys in the same order.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TypeAlias

# The keys at which a block is cut in two: so many that the blocks of a million keys are some thousand, so few that a key is put
# into one within a microsecond.
BLOCK_KEYS_MAX = 1024

# Keys in the order of (time, key), and beside them their times in ms: the numbers take 8 bytes each and are found quickly.
Block: TypeAlias = "tuple[array[int], list[str]]"


class DueTimes:
    """The expiries of all items that have one, earliest first. Not safe for concurrent use."""

    __slots__ = ("_blocks", "_count", "_lasts")

    def __init__(self) -> None:
        # The blocks in order, of which none is empty, and a block of the last time and key of each.
        self._blocks: list[Block] = []
        self._lasts: Block = (array("q"), [])
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, expires_at_ms: int, key: str) -> None:
        """Note that ``key``, for which no expiry is noted, expires at ``expires_at_ms``."""
        self._count += 1
        last_times, last_keys = self._lasts
        place = _place(self._lasts, expires_at_ms, key)
        if place < len(last_times):
            block = self._blocks[place]
            inside = _place(block, expires_at_ms, key)
            block[0].insert(inside, expires_at_ms)
            block[1].insert(inside, key)
        elif place and len(self._blocks[-1][0]) < BLOCK_KEYS_MAX:
            block = self._blocks[-1]
            block[0].append(expires_at_ms)
            block[1].append(key)
            last_times[-1], last_keys[-1] = expires_at_ms, key
        else:
            # Where times only rise nothing comes into a block any more: it stays full.
            self._blocks.append((array("q", (expires_at_ms,)), [key]))
            last_times.append(expires_at_ms)
            last_keys.append(key)
            return
        times, keys = block
        if len(times) > BLOCK_KEYS_MAX:
            cut = BLOCK_KEYS_MAX // 2
            self._blocks.insert(place + 1, (times[cut:], keys[cut:]))
            del times[cut:], keys[cut:]
            last_times.insert(place, times[-1])
            last_keys.insert(place, keys[-1])

    def remove(self, expires_at_ms: int, key: str) -> None:
        """Forget that ``key`` expires at ``expires_at_ms``; do nothing if that is not noted."""
        last_times, last_keys = self._lasts
        place = _place(self._lasts, expires_at_ms, key)
        if place == len(last_times):
            return
        times, keys = block = self._blocks[place]
        inside = _place(block, expires_at_ms, key)
        if times[inside] != expires_at_ms or keys[inside] != key:
            return
        self._count -= 1
        del times[inside], keys[inside]
        if not times:
            del self._blocks[place], last_times[place], last_keys[place]
            return
        if inside == len(times):
            last_times[place], last_keys[place] = times[-1], keys[-1]
        if len(times) < BLOCK_KEYS_MAX // 4:
            self._join(place)

    def next_ms(self) -> int | None:
        """Return the earliest expiry of any item in ms; None when no item has one."""
        return self._blocks[0][0][0] if self._blocks else None

    def pop(self, now_ms: int, keys_max: int) -> list[str]:
        """Return the next ``keys_max`` keys that are past their expiry at ``now_ms``, or fewer, and forget their expiries."""
        popped: list[str] = []
        while self._blocks and len(popped) < keys_max:
            times, keys = self._blocks[0]
            taken = min(bisect_right(times, now_ms), keys_max - len(popped))
            popped += keys[:taken]
            if taken < len(keys):
                del times[:taken], keys[:taken]
                break
            del self._blocks[0], self._lasts[0][0], self._lasts[1][0]
        self._count -= len(popped)
        return popped

    def _join(self, place: int) -> None:
        """Merge one of the sorted lists in which the expiries of all items are kept, that at ``place``, with a neighbour.

        Do nothing unless the two lists together are half as long, at most, as one list may be.
        """
        blocks, (last_times, last_keys) = self._blocks, self._lasts
        for left in (place - 1, place):
            if 0 <= left < len(blocks) - 1 and len(blocks[left][0]) + len(blocks[left + 1][0]) <= BLOCK_KEYS_MAX // 2:
                blocks[left][0].extend(blocks[left + 1][0])
                blocks[left][1].extend(blocks[left + 1][1])
                del blocks[left + 1], last_times[left], last_keys[left]
                return


def _place(block: Block, at_ms: int, key: str) -> int:
    """Return how many pairs (expiry, key) in ``block``, a sorted list of such pairs, come before (``at_ms``, ``key``)."""
    times, keys = block
    first = bisect_left(times, at_ms)
    if first == len(times) or times[first] != at_ms:
        return first
    return bisect_left(keys, key, first, bisect_right(times, at_ms, first))
