"""Listing keys from any thread while the machine goes on.

Pages come in the order of the keys and the cursor is the last key of the page before: whatever comes and goes
meanwhile, a key that is there all the time is listed exactly once.
"""

from __future__ import annotations

from heapq import nsmallest

from cacheflow.machine.entries import Entry


def page(
    raw: dict[str, Entry], prefix: str, limit: int | None, after: str, now_ms: int
) -> tuple[list[str], str | None]:
    """(keys, cursor): up to ``limit`` live keys of ``raw`` behind ``after``; the cursor is None on the last page."""
    # list() of a dict is one step for CPython: no other thread changes the dict in the middle of it.
    keys = list(raw)
    if prefix or after:
        keys = [key for key in keys if key > after and key.startswith(prefix)]
    find = raw.get
    keys = [key for key in keys if (entry := find(key)) is not None and not 0 < entry[4] <= now_ms]
    if limit is None or len(keys) <= limit:
        return sorted(keys), None
    if limit < 1:
        return [], after
    keys = nsmallest(limit, keys)
    return keys, keys[-1]
