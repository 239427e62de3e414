"""Listing of keys in pages, from any thread, while the machine goes on.

Pages come in the order of the keys and the cursor is the last key of the page before: whatever comes and goes
meanwhile, a key that is there all the time is listed exactly once.

The event loop waits while another thread is inside one call of C, so no such call may sort a million keys: a few
keys are picked by a heap, many are sorted in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge, nsmallest
from itertools import islice
from typing import Final

from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.state.entries import EXPIRES_AT_MS, Entry

# The largest page that is picked by a heap: for more keys a heap is slower than sorting all.
_PICKED_MAX: Final = 2000
# Keys that one call sorts, during which the event loop waits: some milliseconds at most.
_PIECE_KEYS: Final = 16_384


def page(
    raw: dict[str, Entry],
    find: Callable[[str], Entry | None],
    prefix: str,
    limit: int | None,
    after: str,
    now_ms: int,
) -> tuple[list[str], str | None]:
    """Return (keys, cursor): database 0's live keys in ``raw``, {key: entry}, that have ``prefix`` and sort behind ``after``.

    find: returns the entry of a key, None for one that counts as absent.
    At most ``limit`` keys, sorted; None for all. The cursor, for the next page's ``after``, is None on the last page.
    """
    # list() of a dict is one step for CPython: no other thread changes the dict in the middle of it.
    keys = list(raw)
    least = max(after, OTHERS_BEFORE)
    keys = [key for key in keys if key > least and key.startswith(prefix)]

    def live(some: Iterator[str]) -> Iterator[str]:
        return (key for key in some if (entry := find(key)) is not None and not 0 < entry[EXPIRES_AT_MS] <= now_ms)

    if limit is None:
        return list(live(_in_order(keys))), None
    limit = max(0, limit)
    # One key more than asked for tells whether a page follows. Keys that are past their expiry cost a second try at most.
    picked = nsmallest(limit + _PICKED_MAX, keys) if limit < _PICKED_MAX else []
    found = list(islice(live(iter(picked)), limit + 1))
    if len(found) <= limit and len(picked) < len(keys):
        found = list(islice(live(_in_order(keys)), limit + 1))
    if len(found) <= limit:
        return found, None
    del found[limit:]
    return found, found[-1] if found else after


def _in_order(keys: list[str]) -> Iterator[str]:
    """Yield ``keys`` in sorted order; they are sorted in pieces of _PIECE_KEYS, so that no single step takes long."""
    return merge(*(sorted(keys[start : start + _PIECE_KEYS]) for start in range(0, len(keys), _PIECE_KEYS)))
