"""Listing of keys, in slices and in pages, while the machine goes on.

Pages come in the order of the keys and the cursor is the last key of the page before: whatever comes and goes
meanwhile, a key that is there all the time is listed exactly once.

The event loop waits while one call of C runs, in any thread, so no such call may copy or sort a million keys: they are
copied in slices, a few are picked by a heap, and many are sorted in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge, nsmallest
from itertools import islice
from typing import Final

from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import EXPIRES_AT_MS

# The largest page that is picked by a heap: for more keys a heap is slower than sorting all.
_PICKED_MAX: Final = 2000
# Keys that one call copies, and that one call sorts: each takes a few milliseconds at most.
SLICE_KEYS: Final = 32_768
_SORTED_KEYS: Final = 2048


class KeysCopy:
    """A copy of all keys of all databases, made slice by slice: a key that is there from the first slice to the last is in it.

    A dictionary keeps its order, new keys come at its end, and to pass over n keys takes time for each. So the first half is
    copied from the front and the rest from the back. Between two slices keys may go, and those behind them move up: how many
    have gone at most is known by the revision and the number of keys, and each slice begins so much earlier.

    Any thread may make and use one; the machine may change meanwhile.
    contents: returns the contents that the machine has now, for a snapshot may replace them.
    slices: the keys so far; some may be gone, condemned, or past their expiry.
    """

    def __init__(self, contents: Callable[[], Contents]) -> None:
        self._contents = contents
        self._begin()

    def _begin(self) -> None:
        contents = self._contents()
        self.slices: list[list[str]] = []
        self.done = False
        self._raw = contents.raw
        self._half = len(self._raw) // 2 if len(self._raw) > SLICE_KEYS else len(self._raw)
        self._seen = contents.revision, len(self._raw)
        # How many of the dictionary's first keys, and of its last, are copied; a lower bound.
        self._front = self._back = 0
        # Goes on where the last slice ended, as long as nothing has changed: then no key has to be passed over.
        self._further: Iterator[str] | None = None
        # How many keys behind the first of these bounds, and before the second, may be copied all the same.
        self._known_front = self._known_back = 0
        # The number of slices from the front, None as long as more of them come; and what the revision was then: a key that
        # was written later may be missing.
        self._turned: int | None = None
        self._came_before = -1

    @property
    def still_gathers(self) -> bool:
        """True as long as a key that is written now would still be copied, unless it is removed before."""
        return not self.done and self._turned is None and self._contents().raw is self._raw

    @property
    def has_all(self) -> bool:
        """True if this copy is complete and nothing was written since, so that no key of now is missing."""
        return self.done and self._came_before == self._contents().revision and self._contents().raw is self._raw

    def go_on(self) -> list[str]:
        """Copy the next slice and return its keys; ``done`` tells whether it was the last. It takes a few milliseconds.

        When the machine's contents were replaced it begins again, and keys may be returned twice.
        """
        while True:
            contents = self._contents()
            raw = contents.raw
            if raw is not self._raw:
                self._begin()
            revision, size = contents.revision, len(raw)
            written = revision - self._seen[0]
            gone = max(0, written + self._seen[1] - size)
            front, back = max(0, self._front - gone), max(0, self._back - gone)
            from_front = self._turned is None and front < self._half
            if not from_front and self._turned is None:
                self._turned, self._came_before = len(self.slices), revision
            wanted = SLICE_KEYS if from_front else min(SLICE_KEYS, max(0, size - front - back))
            if (revision, size) != self._seen or self._further is None or (self._turned == len(self.slices)):
                self._further = islice(raw, front, None) if from_front else islice(reversed(raw), back, None)
            try:
                found = list(islice(self._further, wanted))
            except RuntimeError:
                # Another thread has changed the dictionary while this one did not hold the interpreter.
                self._further = None
                continue
            if (contents.revision, len(raw)) == (revision, size):
                break
            self._further = None
        self._seen = revision, size
        self._known_front += gone
        length = len(found)
        if from_front:
            known = self._latest(self.slices, self._known_front)
            self._front, self._back = front + length, back
        else:
            self._known_back += 2 * gone + written
            known = self._latest(self.slices[self._turned :], self._known_back)
            known |= self._latest(self.slices[: self._turned], self._known_front)
            self._front, self._back = front, back + length
        if known:
            found = [key for key in found if key not in known]
            if from_front:
                self._known_front -= length - len(found)
            else:
                self._known_back -= length - len(found)
        self.slices.append(found)
        self.done = self._front + self._back >= size
        if self.done:
            self._further = None
        if self.done and self._turned is None:
            self._turned, self._came_before = len(self.slices), revision
        return found

    @staticmethod
    def _latest(slices: list[list[str]], count: int) -> set[str]:
        """Return the ``count`` keys that were copied last among those of ``slices``."""
        known: set[str] = set()
        for part in reversed(slices):
            if count <= 0:
                break
            known.update(part[-count:] if count < len(part) else part)
            count -= len(part)
        return known


def page(
    contents: Callable[[], Contents], prefix: str, limit: int | None, after: str, now_ms: int
) -> tuple[list[str], str | None]:
    """Return (keys, cursor): database 0's live keys in a machine's contents that have ``prefix`` and sort behind ``after``.

    At most ``limit`` keys, sorted; None for all. The cursor, for the next page's ``after``, is None on the last page.
    contents: returns the contents that the machine has now.
    """
    copy = KeysCopy(contents)
    least = max(after, OTHERS_BEFORE)
    keys: list[str] = []
    while not copy.done:
        begun = copy.slices
        some = copy.go_on()
        if copy.slices is not begun:
            keys.clear()
        keys += [key for key in some if key > least and key.startswith(prefix)]
    # A slice at a time, for a million references that are given up at once take milliseconds too.
    while copy.slices:
        copy.slices.pop()
    # What is condemned is not found.
    find = contents().get

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
    """Yield ``keys`` in sorted order; they are sorted in pieces of _SORTED_KEYS, so that no single step takes long."""
    return merge(*(sorted(keys[start : start + _SORTED_KEYS]) for start in range(0, len(keys), _SORTED_KEYS)))
