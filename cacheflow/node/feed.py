"""Feed: the latest effects of the log on this node, for all who follow the cache.

1. The feed keeps what ``apply`` has made anyway, the packed effects of each entry, for the digest: one call an entry, none a
   command, and nothing is looked at while nobody follows. It is bounded, and the oldest goes first. (The effects themselves, kept
   as they are, made a SET a fifth dearer in the machine: new memory for each in the place of what the last one has left.)
2. Who follows is told each change of keys under a prefix once, in the order of the log, or is told that some were missed. Effects
   and indexes are the same on all nodes, so a follower may go on at another node from the position that it has.
3. Nobody waits for a follower, and nothing is queued for one. One that takes no more (``Follower.take``) has a place in the
   feed, goes on from there, and has missed something once the feed has forgotten what is there.
4. A snapshot, a restore or a recovery replaces the contents, or all versions: the feed begins anew, and all have missed
   something.
5. Telling goes in slices of the loop's time (net/slices.py), however many follow, and in each of them goes on for those who keep
   up and for one who does not: nobody waits until all others are told.

Not safe for concurrent use: the event loop owns it. Any thread may read ``latest``, and call ``position``, ``oldest`` and
``check``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Final, TypeAlias

from cacheflow.contract import Follower, Told
from cacheflow.errors import PositionGone
from cacheflow.machine.effects import (
    APPENDED,
    CONDEMNED,
    DELETED,
    EVICTED,
    EXPIRED,
    FIELDS_CHANGED,
    TOUCHED,
    WRITTEN,
    Effect,
    may_concern,
    unpacked,
)
from cacheflow.machine.language.databases import MARK, OTHERS_BEFORE
from cacheflow.net.slices import Slices
from cacheflow.node.positions import ALL, TAG_BYTES, Position, parse, text_of
from cacheflow.results import Change

# Bytes of effects, packed, and the number of effects that are kept: with values of 100 bytes both are reached together, and a
# follower of 2,000 writes a second may be away for 50 s.
BYTES_MAX = 16 * 1024 * 1024
EFFECTS_MAX = 100_000
# Effects that are kept unpacked, for those who follow at about the same place: some megabytes.
UNPACKED_MAX = 20_000
# What is done before the time is looked at, some tenths of a millisecond each: effects that are looked at, for one follower or
# for all together; changes that are found for followers; followers who are handed theirs, each of which is a system call; bytes
# of entries that are searched.
AT_ONCE = 250
FOUND_AT_ONCE = 4_000
HANDED_AT_ONCE = 32
SEARCHED_AT_ONCE = 64 * 1024
# Effects that are looked at, and changes that are found for followers, after which these are handed over although there is more
# to look at: what one follower is handed at once takes a millisecond or two, and all of it some megabytes.
LOOKED_MAX = 500
FOUND_MAX = 200_000
# Bytes of an effect, packed, up to which it takes less time to search it than to unpack it and look.
SEARCHED_BYTES_MAX = 64

# What each effect on a key is told as.
WHAT: Final = {
    WRITTEN: "set",
    APPENDED: "set",
    FIELDS_CHANGED: "set",
    TOUCHED: "touch",
    DELETED: "delete",
    EXPIRED: "expire",
    EVICTED: "evict",
}
# (index, packed effects, digest behind it, number of effects) of an entry of the log.
Kept: TypeAlias = tuple[int, bytes, bytes, int]
# (number of an entry, counted from the feed's beginning; how many of its effects come before)
Place: TypeAlias = tuple[int, int]

_index: Final = itemgetter(0)


class Feed:
    """Keeps the latest effects (changes) of a node's log and tells them to followers, objects that each stand for a client.

    now_ms: returns the cluster's time.  index: the last log entry applied so far.  digest: the one over all effects up to
    there.
    A position, as clients know it, is a place between two effects of the log.
    """

    def __init__(self, slices: Slices, now_ms: Callable[[], int], index: int, digest: bytes) -> None:
        # The entries that are kept, those without effects left out; and the number of the first of them.
        self._entries: deque[Kept] = deque()
        self._first = 0
        # Behind which entry the kept ones begin, and the latest one.
        self._before: Kept = (index, b"", digest, 0)
        self.latest = self._before
        self._bytes = 0
        self._effects = 0
        # The effects of some entries, by the entries' numbers, those that were looked at first in front.
        self._unpacked: dict[int, list[Effect]] = {}
        self._unpacked_effects = 0
        self._slices = slices
        self._now_ms = now_ms
        self._scheduled = False
        # Up to where those who keep up were told. They are known by their prefixes, whose lengths are counted.
        self._told: Place = (0, 0)
        # What is still to be handed to some of them, of what comes before that place; at how much was looked, and how much
        # found, since all was handed over; and whether that is done now, before more is looked for.
        self._handing: dict[Follower, list[Told]] = {}
        self._looked = self._found = 0
        self._hands_over = False
        self._live: dict[str | None, dict[Follower, None]] = {}
        self._lengths: dict[int, int] = {}
        # The places of all others, and those of them who can take something now.
        self._places: dict[Follower, Place] = {}
        self._queue: deque[Follower] = deque()
        self._count = self._missed = self._changes = 0

    # The log ----------------------------------------------------------------------------------------------------------

    def add(self, index: int, packed: bytes, digest: bytes, effects: int) -> None:
        """Keep ``packed``, the packed effects (changes) of the log entry ``index``, just applied, to tell them to followers.

        digest: the one over all effects up to the end of the entry.  effects: how many the entry has, at least 1.
        """
        self.latest = entry = (index, packed, digest, effects)
        self._entries.append(entry)
        self._bytes += len(packed)
        self._effects += effects
        while (self._bytes > BYTES_MAX or self._effects > EFFECTS_MAX) and len(self._entries) > 1:
            self._forget()
        if self._count and not self._scheduled:
            self._schedule()

    def _forget(self) -> None:
        self._before = oldest = self._entries.popleft()
        self._first += 1
        self._bytes -= len(oldest[1])
        self._effects -= oldest[3]

    def begin_at(self, index: int, digest: bytes) -> None:
        """Forget all effects (changes) up to the log entry ``index``, which is applied; all followers have missed some.

        digest: the one over all effects up to the end of the entry.
        """
        # One number is left out, so that no place of before is known any more.
        self._first += len(self._entries) + 1
        self._entries.clear()
        self._before = self.latest = (index, b"", digest, 0)
        self._bytes = self._effects = 0
        for followers in self._live.values():
            self._places |= dict.fromkeys(followers, self._told)
        self._live.clear()
        self._lengths.clear()
        self._handing.clear()
        self._hands_over = False
        self._told = (self._first, 0)
        self._queue = deque(self._places)
        if self._places:
            self._schedule()

    # Positions --------------------------------------------------------------------------------------------------------

    def position(self) -> str:
        """Return the position (place in the log) behind everything that this node has applied. Any thread may call it."""
        index, _, digest, _ = self.latest
        return text_of(index, ALL, digest)

    def oldest(self) -> str:
        """Return the oldest position (place in the log) behind which this node still has all changes to tell.

        Any thread may call it.
        """
        index, _, digest, _ = self._before
        return text_of(index, ALL, digest)

    def told_position(self, follower: Follower) -> str | None:
        """Return the position (place in the log) up to which ``follower`` was told all changes; None if it lags behind."""
        if follower not in self._live.get(follower.prefix, ()) or follower in self._handing:
            return None
        number, seen = self._told
        if number < self._first:
            return None
        if seen:
            index, _, digest, _ = self._entries[number - self._first]
            return text_of(index, seen, digest)
        index, _, digest, _ = self._before if number == self._first else self._entries[number - 1 - self._first]
        return text_of(index, ALL, digest)

    def check(self, since: Position) -> None:
        """Raise PositionGone if what follows the position ``since`` (a place in the log) is surely not kept any more.

        Any thread may call it, and it waits for nothing: what it lets pass ``find`` may still refuse.
        """
        if since.entry < self._before[0]:
            self._check_nothing_between(since)

    def _check_nothing_between(self, since: Position) -> None:
        # Where no effect lies between the two, the digest is the same.
        if since.seen != ALL or since.tag != self._before[2][:TAG_BYTES]:
            raise PositionGone("what happened since then is not kept any more; list the keys anew", self.oldest())

    def find(self, since: Position) -> Place:
        """Return the place (number of a kept log entry, how many of its effects come before) of the position ``since``.

        A position is a place in the log as clients know it; ``since`` must not be above what is applied. Raises PositionGone
        if what follows it is not kept any more.
        """
        entries = self._entries
        behind = bisect_right(entries, since.entry, key=_index)
        if not behind:
            self._check_nothing_between(since)
            return self._first, 0
        index, _, digest, effects = entries[behind - 1]
        if digest[:TAG_BYTES] != since.tag:
            raise PositionGone(
                "this position is of another cluster, or of before a recovery; list the keys anew", self.oldest()
            )
        if index == since.entry and since.seen < effects:
            return self._first + behind - 1, since.seen
        return self._first + behind, 0

    # Followers --------------------------------------------------------------------------------------------------------

    def follow(self, follower: Follower, since: str | None) -> str:
        """Begin to tell ``follower`` all changes behind ``since``, a position (place in the log); None: those to come.

        Returns the position behind which the follower is told everything. Raises PositionGone, InvalidRequest.
        """
        began = self.position() if since is None else since
        try:
            self._places[follower] = self._end if since is None else self.find(parse(since))
        except PositionGone:
            self._missed += 1
            raise
        self._count += 1
        self._queue.append(follower)
        self._schedule()
        return began

    def unfollow(self, follower: Follower) -> None:
        """Stop telling ``follower`` the changes of the cache."""
        if follower in self._places:
            del self._places[follower]
        elif follower in self._live.get(follower.prefix, ()):
            self._rest(follower)
        else:
            return
        self._count -= 1

    def go_on(self, follower: Follower) -> None:
        """Tell ``follower`` the changes that it lacks, from now on again: it had taken no more, and can do so now."""
        if follower in self._places:
            self._queue.append(follower)
            self._schedule()

    def look(self) -> None:
        """Tell the followers that take no changes at present that they have missed some, if so. To be called now and then."""
        late = [follower for follower, (number, _) in self._places.items() if number < self._first]
        for follower in late:
            self.go_on(follower)

    def _join(self, follower: Follower) -> None:
        """Count ``follower`` among the followers that are up to date: it was told all changes that these were told."""
        del self._places[follower]
        prefix = follower.prefix
        if prefix not in self._live:
            self._live[prefix] = {}
            if prefix is not None:
                self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        self._live[prefix][follower] = None

    def _rest(self, follower: Follower) -> None:
        """Take ``follower`` out of the followers that are told each change as it comes."""
        prefix = follower.prefix
        followers = self._live[prefix]
        del followers[follower]
        self._handing.pop(follower, None)
        if not followers:
            del self._live[prefix]
            if prefix is None:
                return
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    @property
    def _end(self) -> Place:
        return self._first + len(self._entries), 0

    # Slices -----------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._slices.put(self._work)

    def _work(self) -> None:
        """Tell all followers what has changed, for a slice of the event loop's time; go on in a later one if more is left."""
        try:
            self._step()
            while self._has_work and not self._slices.over():
                self._step()
        finally:
            self._scheduled = False
        if self._has_work:
            self._schedule()

    @property
    def _has_work(self) -> bool:
        return self._told < self._end or bool(self._handing or self._queue)

    def _step(self) -> None:
        """Do a part of the work for the followers that are up to date, and one for another: none waits until others are told."""
        if self._hands_over:
            self._hand_over()
        else:
            self._look_on()
        if self._queue:
            self._tell_next()

    def _look_on(self) -> None:
        """Find out what the up-to-date followers are to be told of some more changes; then have it handed over."""
        if self._told[0] < self._first:
            # More has come than was told.
            for followers in self._live.values():
                self._places |= dict.fromkeys(followers, self._told)
                self._queue += followers
            self._live.clear()
            self._lengths.clear()
            self._handing.clear()
        if not self._live:
            self._told = self._end
        handing = self._handing
        looked = found = 0
        while self._told < self._end and looked < AT_ONCE and found < FOUND_AT_ONCE:
            entry = self._told[0]
            effects, index, digest, behind, first, all_ = self._next(self._told)
            for number, effect in enumerate(effects, first + 1):
                change: Told | None = None
                for follower in self._concerned(effect):
                    if change is None:
                        change = self._told_as(effect, index, ALL if number == all_ else number, digest)
                    handing.setdefault(follower, []).append(change)
                    found += 1
                if found >= FOUND_AT_ONCE and number < first + len(effects):
                    behind = entry, number
                    break
            self._told = behind
            looked += len(effects)
        self._looked += looked
        self._found += found
        enough = self._told == self._end or self._looked >= LOOKED_MAX or self._found >= FOUND_MAX
        self._hands_over = bool(handing) and enough

    def _hand_over(self) -> None:
        """Hand some of the up-to-date followers the changes that wait for them."""
        handing = self._handing
        for _ in range(min(HANDED_AT_ONCE, len(handing))):
            follower = next(iter(handing))
            changes = handing.pop(follower)
            self._changes += len(changes)
            # A follower may stop following because of a change that it is given.
            if not follower.take(changes) and follower in self._live.get(follower.prefix, ()):
                self._rest(follower)
                self._places[follower] = self._told
        if not handing:
            self._hands_over = False
            self._looked = self._found = 0

    def _tell_next(self) -> None:
        """Tell the next follower that is not up to date some of the changes that it lacks."""
        follower = self._queue.popleft()
        place = self._places.get(follower)
        if place is None:
            return
        if place[0] < self._first:
            del self._places[follower]
            self._count -= 1
            self._missed += 1
            follower.missed()
        elif place == self._told:
            self._join(follower)
        elif place > self._told:
            # The up-to-date followers, whom this one is to join, have not been told as much yet.
            self._queue.append(follower)
        else:
            self._places[follower], changes = self._concerning(place, follower.prefix)
            self._changes += len(changes)
            if not changes or follower.take(changes):
                self._queue.appendleft(follower)

    def _concerning(self, place: Place, prefix: str | None) -> tuple[Place, list[Told]]:
        """Return the next changes behind ``place`` that a follower of ``prefix`` is to be told, maybe none yet.

        Returns (the place behind these changes and those that do not concern the follower, the changes).
        """
        number, seen = place
        if prefix and not seen:
            part = prefix.encode()
            behind = min(number + AT_ONCE, self._first + len(self._entries))
            left = SEARCHED_AT_ONCE
            while number < behind and left > 0:
                _, packed, _, size = self._entries[number - self._first]
                if len(packed) > size * SEARCHED_BYTES_MAX or may_concern(packed, part):
                    break
                left -= len(packed)
                number += 1
            if number > place[0]:
                return (number, 0), []
        effects, index, digest, place, first, all_ = self._next(place)
        changes = [
            self._told_as(effect, index, ALL if number == all_ else number, digest)
            for number, effect in enumerate(effects, first + 1)
            if concerns(prefix, effect)
        ]
        return place, changes

    def _next(self, place: Place) -> tuple[list[Effect], int, bytes, Place, int, int]:
        """Return the next effects (changes) behind ``place``, all of one log entry, and where in the log they are.

        place: (number of a kept log entry, how many of its effects come before). Returns (the effects, the entry's index, the
        digest behind the entry, the place behind these effects, how many effects of the entry come before them, how many it
        has).
        """
        number, seen = place
        index, packed, digest, size = self._entries[number - self._first]
        effects = self._unpacked.get(number)
        if effects is None:
            effects = self._unpacked[number] = unpacked(packed)
            self._unpacked_effects += size
            while self._unpacked_effects > UNPACKED_MAX and len(self._unpacked) > 1:
                self._unpacked_effects -= len(self._unpacked.pop(next(iter(self._unpacked))))
        behind = seen + AT_ONCE
        if behind >= size:
            return effects[seen:] if seen else effects, index, digest, (number + 1, 0), seen, size
        return effects[seen:behind], index, digest, (number, behind), seen, size

    def _concerned(self, effect: Effect) -> list[Follower]:
        """Return those followers, of the ones that are up to date, that are to be told of the change ``effect``."""
        kind = effect[0]
        live = self._live
        if kind in WHAT:
            key = effect[1]
            of_all = live.get(None, ())
            if key < OTHERS_BEFORE:
                return list(of_all)
            if len(self._lengths) == 1 and not of_all:
                (length,) = self._lengths
                return list(live.get(key[:length], ()))
            return [*of_all, *[each for length in self._lengths for each in live.get(key[:length], ())]]
        if kind != CONDEMNED:
            return []
        return [each for prefix, followers in live.items() if concerns(prefix, effect) for each in followers]

    def _told_as(self, effect: Effect, index: int, seen: int, digest: bytes) -> Told:
        position = text_of(index, seen, digest)
        kind = effect[0]
        if kind == CONDEMNED:
            return Told(Change("delete", None, effect[1], effect[2], None, position), effect)
        _, key, version, expires_at_ms, *_ = effect
        ttl_s = max(0.0, (expires_at_ms - self._now_ms()) / 1000) if expires_at_ms else None
        return Told(Change(WHAT[kind], key, None, version, ttl_s, position), effect)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the kept changes and of those who follow them, by name. Any thread may call it."""
        return {
            "feed_bytes": self._bytes,
            "feed_effects": self._effects,
            "followers": self._count,
            "followers_missed_total": self._missed,
            "followers_told_total": self._changes,
        }


def concerns(prefix: str | None, effect: Effect) -> bool:
    """True if ``effect``, a change in the log, is on keys of database 0 that begin with ``prefix``; None: on any keys."""
    kind = effect[0]
    if prefix is None:
        return kind in WHAT or kind == CONDEMNED
    if kind in WHAT:
        key: str = effect[1]
        return key.startswith(prefix) and not key < OTHERS_BEFORE
    if kind != CONDEMNED:
        return False
    gone: str = effect[1]
    return not gone.startswith(MARK) and (gone.startswith(prefix) or prefix.startswith(gone))
