"""Notifications: what happens to keys, published on this node's channels under the names that Redis has for it.

1. Who publishes follows the feed (node/feed.py), all databases, and only while some events are chosen: else it costs
   nothing.
2. Each node tells its own subscribers of all changes of the cluster, for each node applies them all. Nothing goes to other nodes.
3. An effect says what has become of a key, not which command did it: so INCR and GETSET are ``set``, as is a RENAME's new key.
4. Nobody is waited for, and nothing is queued beyond what the channels take: what the feed has forgotten by then is not told.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from typing import Final

from cacheflow.config import KEYSPACE_EVENTS
from cacheflow.contract import CHANNEL, PATTERN, Published, Told
from cacheflow.contract import WireStore as Store
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
)
from cacheflow.machine.language.databases import PREFIX_BYTES, database_of
from cacheflow.net.slices import Slices
from cacheflow.values import HASH, SET

logger = logging.getLogger("cacheflow.wire")

# The letters of classes of events, in Redis' order; and those of them that A stands for.
CLASSES: Final = "g$lshzxetdn"
ALL: Final = frozenset("g$lshzxetd")
WRONG_CLASS: Final = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."

# What is told of each effect, but for what depends on more than its kind: the letter of its class, and Redis' name.
_EVENTS: Final = {
    APPENDED: ("$", b"append"),
    DELETED: ("g", b"del"),
    EXPIRED: ("x", b"expired"),
    EVICTED: ("e", b"evicted"),
}
_WRITTEN: Final = {HASH: ("h", b"hset"), SET: ("s", b"sadd")}
_SHRUNK: Final = {HASH: ("h", b"hdel"), SET: ("s", b"srem")}


def parsed(text: str) -> frozenset[str]:
    """Return the letters that ``text``, Redis' flags of keyspace events, stands for. Raises ValueError for another letter."""
    letters = frozenset(text)
    if not letters.issubset(KEYSPACE_EVENTS):
        raise ValueError(WRONG_CLASS)
    return letters - {"A"} | ALL if "A" in letters else letters


def spelled(letters: frozenset[str]) -> str:
    """Return the text in which Redis would show the flags ``letters`` of keyspace events."""
    told = "A" + "n" * ("n" in letters) if letters >= ALL else "".join([each for each in CLASSES if each in letters])
    return told + "".join([each for each in "KEm" if each in letters])


class Notifications:
    """Follows the feed of ``store``, a node's cache, and publishes Redis' keyspace notifications for clients of this node."""

    # All keys of all databases.
    prefix: Final = None

    def __init__(self, store: Store, slices: Slices) -> None:
        self.flags: frozenset[str] = frozenset()
        self._store = store
        self._slices = slices
        self._follows = False

    def choose(self, text: str) -> None:
        """Publish the changes of keys that ``text``, Redis' flags of keyspace events, chooses. Raises ValueError."""
        self.flags = parsed(text)

    def go_on(self) -> None:
        """Follow the changes of keys from now on if some are to be published, and none otherwise."""
        wanted = not self.flags.isdisjoint("KE") and not self.flags.isdisjoint(ALL)
        if wanted != self._follows:
            self._follows = wanted
            if wanted:
                self._store.feed.follow(self, None)
            else:
                self._store.feed.unfollow(self)

    # Follower

    def take(self, changes: list[Told]) -> bool:
        """Publish ``changes`` of keys; return False if the node's channels should have no more until their messages are out."""
        channels, flags = self._store.channels, self.flags
        subscribed = channels.subscribed
        if not (subscribed[CHANNEL] or subscribed[PATTERN]):
            return True
        for told in changes:
            effect = told.effect
            if effect[0] == CONDEMNED:
                continue
            letter, event = event_of(effect)
            if letter not in flags:
                continue
            key: str = effect[1]
            number = database_of(key)
            name = (key[PREFIX_BYTES:] if number else key).encode()
            if "K" in flags:
                channels.deliver(Published(b"__keyspace@%d__:%b" % (number, name), event, False))
            if "E" in flags:
                channels.deliver(Published(b"__keyevent@%d__:%b" % (number, event), name, False))
        if channels.is_behind:
            self._slices.put(self._look_again)
            return False
        return True

    def _look_again(self) -> None:
        if self._store.channels.is_behind:
            self._slices.put(self._look_again)
        else:
            self._store.feed.go_on(self)

    def missed(self) -> None:
        """Go on with what happens from now on; what was missed is not told."""
        logger.warning(
            "keyspace notifications were left out: too many changes came at once, or all contents were replaced"
        )
        self._follows = False
        self.go_on()


def event_of(effect: Effect) -> tuple[str, bytes]:
    """Return (letter of its class, name), as Redis has them, of the event that ``effect``, a change of a key, is told as."""
    kind = effect[0]
    if kind == WRITTEN:
        return _WRITTEN.get(effect[4], ("$", b"set"))
    if kind == FIELDS_CHANGED:
        *_, is_removal, value_kind = effect
        return (_SHRUNK if is_removal else _WRITTEN)[value_kind]
    if kind == TOUCHED:
        return "g", b"expire" if effect[3] else b"persist"
    return _EVENTS[kind]
