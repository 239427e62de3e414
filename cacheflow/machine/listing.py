"""Listing of keys, in slices and in pages, while the machine goes on.

Pages come in the order of the keys and the cursor is the last key of the page before: whatever comes and goes
meanwhile, a key that is there all the time is listed exactly once.

The event loop waits while one call of C runs, in any thread, so no such call may copy, sort or free a million keys: they are
copied and given up in slices, and sorted in pieces; of the first few, only those are sorted that are before the last of these. A
pass of Python's garbage collector is such a call, too: it goes through each list that is young, for 20 ms if it has a million
keys. Tuples of texts it forgets when it has seen them once, so every slice is one, and is seen at once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import EXPIRES_AT_MS

# The longest page for which only the first keys are kept, and how many more of them than asked for, as some may be past their
# expiry.
_PICKED_MAX: Final = 2000
# Keys that one call copies, and that one call sorts: half a millisecond, or one, where no key is in a cache of the processor.
SLICE_KEYS: Final = 4096
_SORTED_KEYS: Final = 2048
# Keys that are gone through between two calls that give way to the event loop.
STEP_KEYS: Final = 256

Keys = tuple[str, ...]


def _forgotten(keys: Iterable[str]) -> Keys:
    """Return ``keys`` as a tuple that the garbage collector, if switched on, has seen and will not look at again."""
    some = tuple(keys)
    if gc.isenabled():
        gc.collect(0)
    return some


class KeySlices(list[Keys]):
    """A list of tuples of keys ("slices"), which together are a copy of all keys of the cache.

    When nobody needs the list any more, the function ``give_up`` is called with its slices in a plain list: to free a million
    keys in one step would take 6 ms.
    """

    __slots__ = ("_give_up",)

    def __init__(self, give_up: Callable[[list[Keys]], object]) -> None:
        super().__init__()
        self._give_up = give_up

    def __del__(self) -> None:
        self._give_up(list(self))


class KeysCopy:
    """A copy of all keys of all databases, made slice by slice; a key that is present all the while is in the copy.

    A dictionary keeps its order, new keys come at its end, and to pass over n keys takes time for each. So the first half is
    copied from the front and the rest from the back. Between two slices keys may go, and those behind them move up: how many
    have gone at most is known by the revision and the number of keys, and each slice begins so much earlier.

    Any thread may make and use such a copy; the cache may change meanwhile.
    contents: a function that returns the present items of the cache, for a snapshot may replace them.
    give_up: a function that is handed the slices when nobody needs them any more, in whatever thread that is.
    slices: the keys copied so far, in tuples; some may be removed meanwhile, also by prefix, or past their expiry.
    """

    def __init__(
        self, contents: Callable[[], Contents], give_up: Callable[[list[Keys]], object] = list[Keys].clear
    ) -> None:
        self._contents = contents
        self._give_up = give_up
        self._begin()

    def _begin(self) -> None:
        contents = self._contents()
        self.slices = KeySlices(self._give_up)
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
        """True as long as this copy of the cache's keys would still take in a key that is written now."""
        return not self.done and self._turned is None and self._contents().raw is self._raw

    @property
    def has_all(self) -> bool:
        """True if this copy of the cache's keys is complete and no key was written since, so that none is missing."""
        return self.done and self._came_before == self._contents().revision and self._contents().raw is self._raw

    def go_on(self) -> Keys:
        """Copy the next slice of the cache's keys and return these keys; the copy's ``done`` tells whether it was the last.

        A slice takes about half a millisecond. When a snapshot has replaced all items of the cache the copy begins again, and
        keys may be returned twice.
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
                found = _forgotten(islice(self._further, wanted))
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
            found = _forgotten([key for key in found if key not in known])
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
    def _latest(slices: list[Keys], count: int) -> set[str]:
        """Return the set of the ``count`` keys that were copied last among those of ``slices``, tuples of keys."""
        known: set[str] = set()
        for part in reversed(slices):
            if count <= 0:
                break
            known.update(part[-count:] if count < len(part) else part)
            count -= len(part)
        return known


def page(
    contents: Callable[[], Contents],
    prefix: str,
    limit: int | None,
    after: str,
    now_ms: int,
    give_way: Callable[[], object],
) -> tuple[list[str], str | None]:
    """Return (keys, cursor): one page of database 0's keys that start with ``prefix`` and are live at ``now_ms``, sorted.

    limit: the most keys of the page; None for all.  after: the cursor of the page before, "" for the first page; the keys sort
    behind it. The returned cursor is None on the last page.
    contents: a function that returns the present items of the cache.  give_way: a function called about every millisecond.
    """
    least = max(after, OTHERS_BEFORE)

    def live(some: Iterable[str]) -> Iterator[str]:
        # What is condemned is not found.
        find = contents().get
        for number, key in enumerate(some):
            if not number % STEP_KEYS:
                give_way()
            if (entry := find(key)) is not None and not 0 < entry[EXPIRES_AT_MS] <= now_ms:
                yield key

    if limit is None:
        return list(live(_all_keys(contents, prefix, least, give_way))), None
    limit = max(0, limit)
    found: list[str] = []
    # One key more than asked for tells whether a page follows.
    missing = True
    if limit < _PICKED_MAX:
        count = limit + _PICKED_MAX
        picked = _first_keys(contents, prefix, least, give_way, count)
        found = list(islice(live(picked), limit + 1))
        missing = len(found) <= limit and len(picked) == count
    if missing:
        # The page is long, or most keys at its beginning are past their expiry.
        found = list(islice(live(_all_keys(contents, prefix, least, give_way)), limit + 1))
    if len(found) <= limit:
        return found, None
    del found[limit:]
    return found, found[-1] if found else after


def _pieces(contents: Callable[[], Contents], give_way: Callable[[], object]) -> Iterator[Keys | None]:
    """Yield the keys of all databases in tuples of _SORTED_KEYS at most. None among them says to forget those before: they
    come again.

    contents, give_way: see ``page``.
    """
    copy = KeysCopy(contents)
    while not copy.done:
        begun = copy.slices
        some = copy.go_on()
        if copy.slices is not begun:
            yield None
        give_way()
        for start in range(0, len(some), _SORTED_KEYS):
            yield some[start : start + _SORTED_KEYS]
            give_way()
    while copy.slices:
        copy.slices.pop()
        give_way()


def _first_keys(
    contents: Callable[[], Contents], prefix: str, least: str, give_way: Callable[[], object], count: int
) -> list[str]:
    """Return in sorted order the first ``count`` of the keys behind ``least`` that start with ``prefix``; fewer if there are."""
    first: list[str] = []
    # No key from here on is one of them; None as long as there are too few. Soon most keys are behind it.
    bound: str | None = None
    for some in _pieces(contents, give_way):
        if some is None:
            first, bound = [], None
            continue
        if bound is None:
            wanted = [key for key in some if key > least and key.startswith(prefix)]
        else:
            wanted = [key for key in some if key < bound and key > least and key.startswith(prefix)]
        if wanted:
            wanted.sort()
            give_way()
            # Both parts are in order by themselves, so the second sort does little more than merge them.
            first += wanted
            first.sort()
            if len(first) >= count:
                del first[count:]
                bound = first[-1]
    return first


def _all_keys(
    contents: Callable[[], Contents], prefix: str, least: str, give_way: Callable[[], object]
) -> Iterator[str]:
    """Yield in sorted order the keys behind ``least`` that start with ``prefix``."""
    pieces: list[Keys] = []
    for some in _pieces(contents, give_way):
        if some is None:
            pieces.clear()
            continue
        wanted = [key for key in some if key > least and key.startswith(prefix)]
        give_way()
        pieces.append(_forgotten(sorted(wanted)))
    yield from merge(*pieces)
