"""The machine as one would write it without any thought of speed: the model that the real one is compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIZE = 64


@dataclass
class Thing:
    data: bytes
    version: int
    expires_at_ms: int
    uses: int
    # When it came to its present number of uses (LFU), or was used last (LRU).
    since: int


class Model:
    """A cache with one policy and limits. Methods return what the machine tells, as plain values."""

    def __init__(self) -> None:
        self.lfu = False
        self.items_max = 10**9
        self.bytes_max = 10**9
        self.now_ms = 0
        self.revision = 0
        self.steps = 0
        self.evicted = 0
        self.things: dict[str, Thing] = {}

    def order(self) -> list[str]:
        things = self.things
        return sorted(things, key=lambda key: (things[key].uses if self.lfu else 0, things[key].since))

    def bytes_used(self) -> int:
        return sum(SIZE + len(key.encode()) + len(thing.data) for key, thing in self.things.items())

    def begin_entry(self, stamp_ms: int) -> None:
        self.now_ms = max(self.now_ms, stamp_ms)
        for key in [key for key, thing in self.things.items() if 0 < thing.expires_at_ms <= self.now_ms]:
            self._drop(key)

    def set(self, key: str, data: bytes, ttl_ms: int, when: str = "always", version: int = 0) -> object:
        thing = self.things.get(key)
        present = thing.version if thing else 0
        passed = {
            "always": True,
            "absent": thing is None,
            "present": thing is not None,
            "version": thing is not None and present == version,
        }
        if not passed[when]:
            return "precondition", present
        if SIZE + len(key.encode()) + len(data) > self.bytes_max:
            return "too large"
        expires_at_ms = self.now_ms + ttl_ms if ttl_ms > 0 else 0
        if ttl_ms < 0 and thing:
            expires_at_ms = thing.expires_at_ms
        return self._write(key, data, expires_at_ms), thing is None, expires_at_ms

    def delete(self, key: str, version: int) -> object:
        thing = self.things.get(key)
        if version and (thing is None or thing.version != version):
            return "precondition", thing.version if thing else 0
        if thing is None:
            return "missing"
        self._drop(key)
        return self.revision

    def incr(self, key: str, delta: int, initial: int | None) -> object:
        thing = self.things.get(key)
        if thing is None and initial is None:
            return "missing"
        # One spelling of each number: a value read back is the value written.
        if thing and not (re.fullmatch(rb"-?[0-9]+", thing.data) and str(int(thing.data)).encode() == thing.data):
            return "not an integer"
        present = int(thing.data) if thing else initial or 0
        number = present + delta
        # A counter of memcached's may be larger than a signed one.
        if not -(2**63) <= min(present, number) <= max(present, number) < 2**63:
            return "not an integer"
        expires_at_ms = thing.expires_at_ms if thing else 0
        return self._write(key, str(number).encode(), expires_at_ms), number, expires_at_ms

    def append(self, key: str, data: bytes, front: bool, create: bool) -> object:
        thing = self.things.get(key)
        if thing is None and not create:
            return "missing"
        old = thing.data if thing else b""
        whole = data + old if front else old + data
        if SIZE + len(key.encode()) + len(whole) > self.bytes_max:
            return "too large"
        expires_at_ms = thing.expires_at_ms if thing else 0
        return self._write(key, whole, expires_at_ms), len(whole), expires_at_ms

    def count(self, key: str, delta: int, initial: int | None, ttl_ms: int) -> object:
        thing = self.things.get(key)
        if thing is None and initial is None:
            return "missing"
        if thing and not (thing.data.isdigit() and len(thing.data) <= 20 and int(thing.data) < 2**64):
            return "not an integer"
        number = max(0, int(thing.data) + delta) % 2**64 if thing else initial or 0
        expires_at_ms = thing.expires_at_ms if thing else self.now_ms + ttl_ms if ttl_ms > 0 else 0
        return self._write(key, str(number).encode(), expires_at_ms), number, expires_at_ms

    def expire(self, key: str, ttl_ms: int, when: str) -> object:
        thing = self.things.get(key)
        if thing is None:
            return "missing"
        # Sorted by their end, an expiry that never comes is the last.
        present = thing.expires_at_ms or 10**18
        wanted = self.now_ms + ttl_ms if ttl_ms else 10**18
        passed = {
            "always": True,
            "unset": thing.expires_at_ms == 0,
            "set": thing.expires_at_ms != 0,
            "later": wanted > present,
            "earlier": wanted < present,
        }
        if not all(passed[one] for one in when.split()):
            return "precondition", thing.version
        return self.touch(key, ttl_ms)

    def holds(self, key: str, version: int, expires_at_ms: int) -> bool:
        thing = self.things.get(key)
        return (version, expires_at_ms) == ((thing.version, thing.expires_at_ms) if thing else (0, 0))

    def touch(self, key: str, ttl_ms: int) -> object:
        thing = self.things.get(key)
        if thing is None:
            return "missing"
        thing.expires_at_ms = self.now_ms + ttl_ms if ttl_ms > 0 else thing.expires_at_ms if ttl_ms else 0
        self.use(key, 1)
        return thing.version, thing.expires_at_ms

    def get(self, key: str) -> object:
        thing = self.things.get(key)
        if thing is None:
            return "missing"
        self.use(key, 1)
        return thing.data, thing.version, thing.expires_at_ms

    def use(self, key: str, uses: int) -> None:
        if key in self.things:
            self.steps += 1
            self.things[key].uses += uses
            self.things[key].since = self.steps

    def remove_prefix(self, prefix: str) -> int:
        return self._drop_all([key for key in self.things if key.startswith(prefix)])

    def _drop_all(self, keys: list[str]) -> int:
        for key in keys:
            del self.things[key]
        self.revision += 1
        return len(keys)

    def clear(self, database: int | None) -> int:
        """None is all; database 0 has the keys that are in none of the others."""
        found = {key: int(key[1], 16) if key.startswith("\x01") else 0 for key in self.things}
        return self._drop_all([key for key in found if database in (None, found[key])])

    def configure(self, lfu: bool, items_max: int, bytes_max: int) -> None:
        if lfu != self.lfu:
            for step, key in enumerate(self.order()):
                self.things[key].uses = 1
                self.things[key].since = step
            self.lfu = lfu
        self.items_max, self.bytes_max = items_max, bytes_max
        while len(self.things) > items_max or self.bytes_used() > bytes_max:
            self._drop(self.order()[0])

    def _write(self, key: str, data: bytes, expires_at_ms: int) -> int:
        old = self.things.get(key)
        growth = len(data) - len(old.data) if old else SIZE + len(key.encode()) + len(data)
        while len(self.things) + (old is None) > self.items_max or self.bytes_used() + growth > self.bytes_max:
            self._drop(next(victim for victim in self.order() if victim != key))
            self.evicted += 1
        self.revision += 1
        self.steps += 1
        self.things[key] = Thing(data, self.revision, expires_at_ms, old.uses + 1 if old else 1, self.steps)
        return self.revision

    def _drop(self, key: str) -> None:
        del self.things[key]
        self.revision += 1
