"""UseOrder: keys from the least to the most recently used, in pieces, so that no operation takes long.

A million keys in one OrderedDict stop the node for a quarter of a second whenever its table is built anew, and take 120
bytes each. Here the keys are in *segments*, small plain dictionaries, the oldest first. A key that is used moves to the
end of the newest segment.

To move a key its segment must be found. An item's version tells it, for versions rise: each segment begins at a
version, and a key that was only written is in the segment of its version. Keys that were used since are in ``_used``
beside. Keys that an LFU container had in its own order come with that container's own table, which tells the segments of these
(``take_over``): so a change of policy touches no key, however many there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

# {key: key}: a plain dictionary does not tell which of two equal texts it holds, and a key should be in memory once.
Segment: TypeAlias = dict[str, str]


class Holder(Protocol):
    """Interface: an object whose ``keys`` is the dictionary that holds certain keys, which another container has given up."""

    keys: Any


# {key: the object that knows the key's segment}.
Holders: TypeAlias = MutableMapping[str, Holder]

# Keys of one segment: as many as fill the table of a dictionary that is built anew within half a millisecond.
SEGMENT_KEYS_MAX = 21_000
# Sparse segments that are joined with their neighbours whenever a new one begins: more than the one that is added.
_JOINED_AT_ONCE: Final = 4
# Tables of keys taken over that are looked through: one for each change of policy whose keys are not all used or gone since.
TABLES_MAX: Final = 4


class UseOrder:
    """The keys of cache items in the order of their latest use. Not safe for concurrent use.

    A key's version is that of its item.
    """

    __slots__ = ("_coming", "_newest", "_pending", "_scanned", "_segments", "_starts", "_taken", "_used", "_version")

    def __init__(self) -> None:
        self._newest: Segment = {}
        self._segments = [self._newest]
        # The version at which each segment begins.
        self._starts = [0]
        # {key: its segment} for the keys that are not in the segment of their version.
        self._used: dict[str, Segment] = {}
        # Tables of the keys that were taken over and not used since; each such key is in one of them.
        self._taken: list[Holders] = []
        # The highest version of any key so far.
        self._version = 0
        # The next keys of the oldest segment in reverse order, so that ``pop`` gives the first; some may have left it meanwhile.
        self._coming: list[str] = []
        # The segment that a scan is in, None before it has begun, and the keys of that segment that it has still to give, in
        # reverse order; some may have left the segment meanwhile.
        self._scanned: Segment | None = None
        self._pending: list[str] = []

    @classmethod
    def of(cls, keys: Sequence[str], versions: Sequence[int]) -> UseOrder:
        """Return a new object that keeps ``keys`` in the order of their latest use; the least recently used key comes first.

        versions: the versions of the keys' entries, in the same order.
        """
        order = cls()
        for first in range(0, len(keys), SEGMENT_KEYS_MAX):
            if first:
                order._begin()
            start, segment = order._starts[-1], order._newest
            some = keys[first : first + SEGMENT_KEYS_MAX]
            theirs = versions[first : first + SEGMENT_KEYS_MAX]
            segment.update(zip(some, some, strict=True))
            if min(theirs) < start:
                strangers = [key for key, version in zip(some, theirs, strict=True) if version < start]
                order._used.update(dict.fromkeys(strangers, segment))
            order._version = max(order._version, max(theirs))
        return order

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    def __iter__(self) -> Iterator[str]:
        for segment in self._segments:
            yield from segment

    def add(self, key: str, version: int) -> None:
        """Add a new ``key`` at the end of the order of use, as most recently used.

        version: the version of its entry, which must be higher than all versions so far.
        """
        if len(self._newest) >= SEGMENT_KEYS_MAX:
            self._begin()
        self._newest[key] = key
        self._version = version

    def take_over(self, segments: list[Segment], holders: Holders, version: int) -> None:
        """Add the keys of ``segments``, dictionaries of {key: key}, at the end of the order of use, as most recently used.

        The dictionaries are kept and not copied.  holders: {key: an object whose ``keys`` is the dictionary with this key}.
        version: the highest version of any key's entry.
        """
        self._version = max(self._version, version)
        # No version leads there: the segment that begins behind them begins at the same version.
        self._segments += segments
        self._starts += [self._version + 1] * len(segments)
        self._taken = [table for table in (*self._taken, holders) if table]
        while len(self._taken) > TABLES_MAX:
            self._taken.sort(key=len, reverse=True)
            least = self._taken.pop()
            self._taken[-1].update(least)
        self._begin()

    def _leave_taken(self, key: str) -> Segment | None:
        """Return the dictionary that ``key`` is in if the key came from another container and was not used since; else None.

        Forget where the key came from: it is used or removed now.
        """
        for table in self._taken:
            holder = table.pop(key, None)
            if holder is not None:
                segment: Segment = holder.keys
                return segment
        return None

    def rewrite(self, key: str, before: int, version: int) -> None:
        """Move ``key`` to the end of the order of use: its entry was replaced.

        before, version: the version of the replaced entry, and that of the new one.
        """
        # ``remove`` written out instead of called, because most writes come here.
        segment = self._used.pop(key, None) if self._used else None
        if segment is None and self._taken:
            segment = self._leave_taken(key)
        if segment is None:
            segment = self._segments[bisect_right(self._starts, before) - 1]
        held = segment.pop(key)
        if len(self._newest) >= SEGMENT_KEYS_MAX:
            self._begin()
        self._newest[held] = held
        self._version = version

    def use(self, key: str, version: int) -> None:
        """Move ``key`` to the end of the order of use, as most recently used; the ``version`` of its entry stays the same."""
        used = self._used
        segment = used.get(key)
        if segment is None and self._taken:
            segment = self._leave_taken(key)
        if segment is None:
            segment = self._segments[bisect_right(self._starts, version) - 1]
        held = segment.pop(key)
        if len(self._newest) >= SEGMENT_KEYS_MAX:
            self._begin()
        self._newest[held] = held
        if version < self._starts[-1]:
            used[held] = self._newest
        elif used:
            used.pop(key, None)

    def remove(self, key: str, version: int) -> str:
        """Remove ``key`` from the order of use; return the str object that was kept for it. version: that of its entry."""
        segment = self._used.pop(key, None) if self._used else None
        if segment is None and self._taken:
            segment = self._leave_taken(key)
        if segment is None:
            segment = self._segments[bisect_right(self._starts, version) - 1]
        return segment.pop(key)

    def raise_versions(self, by: int) -> None:
        """Take note that the version of every key in this order of use is higher by ``by`` now."""
        self._starts[1:] = [start + by for start in self._starts[1:]]
        self._version += by

    def pop_first(self, protected: str = "") -> str | None:
        """Remove and return the least recently used key other than the key ``protected``; None when no other key is there."""
        coming = self._coming
        while True:
            oldest = self._segments[0]
            passed = False
            while coming:
                key = coming.pop()
                if key == protected:
                    passed = key in oldest
                elif oldest.pop(key, None) is not None:
                    if self._used:
                        self._used.pop(key, None)
                    if self._taken:
                        self._leave_taken(key)
                    if passed:
                        coming.append(protected)
                    return key
            if not self._look_ahead(protected):
                return None

    def start_scan(self, passed: int = 0) -> None:
        """Begin a new scan of all keys in the order of their latest use, as if the first ``passed`` keys were given before."""
        self._scanned, self._pending = None, []
        while passed > 0 and self._enter_next():
            given = min(passed, len(self._pending))
            del self._pending[len(self._pending) - given :]
            passed -= given

    def scan(self, count: int) -> list[str]:
        """Return the next ``count`` keys of the scan that is under way, or fewer at its end.

        The scan gives all keys in the order of their latest use. Between two calls keys may come, go and move to the end,
        where a scan that has not ended meets them.
        """
        keys: list[str] = []
        while len(keys) < count and (self._pending or self._enter_next()):
            segment, pending = self._scanned or {}, self._pending
            start = max(0, len(pending) - (count - len(keys)))
            keys += [key for key in reversed(pending[start:]) if key in segment]
            del pending[start:]
        return keys

    def passed(self) -> int:
        """Return how many keys, in the order of their latest use, the scan that is under way has passed."""
        if self._scanned is None:
            return 0
        total = 0
        for segment in self._segments:
            total += len(segment)
            if segment is self._scanned:
                break
        return total - sum([key in self._scanned for key in self._pending])

    def next_scanned(self) -> str | None:
        """Return the key that the scan of all keys, in the order of their latest use, gives next; None at the scan's end."""
        segment, pending = self._scanned, self._pending
        position = 0
        if segment is not None:
            # What has left the segment is not given: it is forgotten here, so that nobody passes over it twice.
            while pending and pending[-1] not in segment:
                pending.pop()
            if pending:
                return pending[-1]
            position = 1 + next(place for place, each in enumerate(self._segments) if each is segment)
        return next((next(iter(each)) for each in self._segments[position:] if each), None)

    def _enter_next(self) -> bool:
        """Move a scan of all keys to the next segment that has keys; return False if there is none.

        A segment is a dictionary of some keys that follow each other in the order of their latest use.
        """
        segments = self._segments
        position = 0
        if self._scanned is not None:
            position = 1 + next(place for place, segment in enumerate(segments) if segment is self._scanned)
        for segment in segments[position:]:
            if segment:
                self._scanned, self._pending = segment, [*segment][::-1]
                if segment is self._newest:
                    # What is used from now on comes behind the keys that the scan knows.
                    self._begin()
                return True
        return False

    def _look_ahead(self, protected: str) -> bool:
        """Note which keys are to be evicted next, the least recently used first; return False if there is no such key.

        protected: a key that must not be evicted now, and is left out.
        """
        while True:
            oldest = self._segments[0]
            others = len(oldest) - (protected in oldest)
            if oldest is self._newest:
                if not others:
                    return False
                # The segment that ``_coming`` was read from must get no new keys.
                self._begin()
            elif not others:
                if self._segments[1] is not self._newest:
                    self._join(0)
                elif self._newest:
                    self._begin()
                else:
                    return False
                continue
            self._coming += [*islice(oldest, SEGMENT_KEYS_MAX)][::-1]
            return True

    def _begin(self) -> None:
        """Start a new segment (a dictionary of some keys) of the order of use, and join older segments that have few keys.

        The keys that are used from now on go into the new segment.
        """
        self._newest = {}
        self._segments.append(self._newest)
        self._starts.append(self._version + 1)
        sizes = [len(segment) for segment in self._segments]
        left = _JOINED_AT_ONCE
        # The last segment is the newest one, which is not joined.
        for position in range(len(sizes) - 3, -1, -1):
            if sizes[position] + sizes[position + 1] <= SEGMENT_KEYS_MAX // 2:
                self._join(position)
                sizes[position] += sizes[position + 1]
                left -= 1
                if not left:
                    break

    def _join(self, position: int) -> None:
        """Merge the segment at ``position``, a dictionary of some keys of the order of use, with the next segment."""
        into, other = self._segments[position], self._segments.pop(position + 1)
        del self._starts[position + 1]
        if other is self._scanned:
            self._scanned = into
        elif into is self._scanned:
            # A key may have left this segment and come back with the other one.
            self._pending = [*reversed(other), *[key for key in self._pending if key in into]]
        if self._used:
            for key in other:
                if key in self._used:
                    self._used[key] = into
        for table in self._taken:
            for key in other:
                if key in table:
                    table[key].keys = into
        into.update(other)
        if not position:
            # A key may have left this segment and come back to its end with the other one.
            self._coming.clear()
