"""What the wire ports see of a store, over a real CacheMachine and without a cluster.

Every proposal is applied as one entry: at once, or with ``held`` when a test calls ``release``. What a test wants to go
wrong is set on the instance.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from cacheflow.contract import Done, Entry
from cacheflow.errors import NotReady, ReplicationError
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.listing import KeysCopy
from cacheflow.machine.machine import CacheMachine
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.net.slices import Slices
from cacheflow.net.unsent import Unsent
from cacheflow.node.channels import Channels
from cacheflow.node.feed import Feed
from cacheflow.node.tracking import Tracking
from cacheflow.raft.transport.network import Network
from cacheflow.results import ClusterSettings
from cacheflow.verbs import settings_told

START_MS = 1_700_000_000_000


class NextTurn:
    """What a loop has to do in its next turns, and a network on which nobody listens."""

    def __init__(self) -> None:
        self.broadcasted: list[Mapping[str, Any]] = []
        # A clock that stands still: no slice is over.
        self.time: Callable[[], float] = lambda: 1.0
        self.slices = Slices(lambda: self.time(), self.call_soon, lambda: math.inf)
        self.unsent = Unsent()
        self._calls: deque[Callable[[], object]] = deque()

    def call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        assert not arguments
        self._calls.append(call)

    def call_later(self, delay: float, call: Callable[..., object], *arguments: object) -> None:
        raise NotImplementedError

    def broadcast(self, message: Mapping[str, Any]) -> int:
        self.broadcasted.append(message)
        return 0

    def run(self, turns: int | None = None) -> int:
        """Let turns come, all that are needed by default; how many these were."""
        done = 0
        while self._calls and done != turns:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
            done += 1
        return done


class FakeStore:
    """clock_ms: the cluster's time, moved by tests.  held: proposals wait for ``release``.

    failure: what proposals end with instead of being applied.  readable: false: reads raise NotReady.
    proposed: every proposal so far, a barrier as [].  works: how much work each of them is told to be.
    noted: the keys whose reads counted as uses.
    """

    def __init__(self, max_items: int | None = None, max_bytes: int | None = None) -> None:
        self.machine = CacheMachine()
        self.clock_ms = START_MS
        self.held = False
        self.failure: ReplicationError | None = None
        self.readable = True
        self.proposed: list[list[Command]] = []
        self.works: list[int] = []
        self.noted: list[str] = []
        self.hits = 0
        self.misses = 0
        self.next_turn = NextTurn()
        self.slow_log = SlowLog(50, wall=lambda: START_MS / 1000)
        self.channels = Channels(
            self.next_turn.slices, self.next_turn.unsent, cast(Network, self.next_turn), lambda peer: True
        )
        self.feed = Feed(self.next_turn.slices, self.now_ms, self.machine.applied_index, self.machine.digest)
        # What is called at the end of a turn before proposals are answered.
        self._first: list[Callable[[], None]] = []
        self.tracking = Tracking(self.next_turn.slices, self._first.append, self.entry)
        self._waiting: deque[tuple[list[Command], Done]] = deque()
        self.apply([commands.configure({"max_items": max_items, "max_bytes": max_bytes})])

    # What tests do

    def apply(self, batch: list[Command]) -> list[Result]:
        """Apply one entry as somebody else's."""
        results = self._apply(batch)
        self._end_turn()
        return results

    def _apply(self, batch: list[Command]) -> list[Result]:
        block = commands.encode_block(0, 0, 0, batch)
        payload = commands.encode_entry(self.clock_ms, [block])
        machine = self.machine
        ((_, _, results),) = machine.apply(machine.applied_index + 1, payload)
        effects = len(machine.contents.effects)
        if effects:
            self.feed.add(machine.applied_index, machine.packed_effects, machine.digest, effects)
            self.tracking.applied(machine.contents.effects)
        return results

    def release(self, count: int | None = None) -> int:
        """Apply the ``count`` oldest proposals that wait (None: all), answered in one turn; how many these were."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting) if count is None else count)]
        wakes: dict[Callable[[], None], None] = {}
        for proposal, done in batch:
            wakes[done(self._outcome(proposal))] = None
        self._end_turn()
        for wake in wakes:
            wake()
        return len(batch)

    @property
    def waiting(self) -> int:
        """Proposals that wait for ``release``."""
        return len(self._waiting)

    def entry(self, key: str) -> Entry | None:
        """The live entry, without counting anything."""
        return self.machine.lookup(key, self.clock_ms)

    def _outcome(self, proposal: list[Command]) -> list[Result] | ReplicationError:
        return self.failure if self.failure is not None else self._apply(proposal)

    # What fronts call

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        if not self.readable:
            raise NotReady("this node has not caught up with the cluster since it started")
        entry = self.entry(key)
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
            if count:
                self.noted.append(key)
        return entry

    def settings(self) -> ClusterSettings:
        return settings_told(self.machine.settings)

    def peek(self, key: str) -> Entry | None:
        return self.machine.contents.get(key)

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        if not self.readable:
            raise NotReady("this node has not caught up with the cluster since it started")
        entries = self.machine.lookup_all(keys, self.clock_ms)
        assert entries is not None
        if sum([len(entry[0]) for entry in entries if entry is not None]) > bytes_max:
            return None
        self.misses += entries.count(None)
        self.hits += len(keys) - entries.count(None)
        self.noted += [key for key, entry in zip(keys, entries, strict=True) if entry is not None]
        return entries

    def submit(self, commands_: list[Command], done: Done, work: int = 0) -> None:
        self.proposed.append(commands_)
        self.works.append(work)
        if self.held:
            self._waiting.append((commands_, done))
        else:
            wake = done(self._outcome(commands_))
            self._end_turn()
            wake()

    def _end_turn(self) -> None:
        while self._first:
            self._first.pop(0)()

    def submit_barrier(self, done: Done) -> None:
        self.submit([], done)

    def now_ms(self) -> int:
        return self.clock_ms

    def copy_keys(self, give_up: Callable[[list[tuple[str, ...]]], object]) -> KeysCopy:
        self._check()
        return KeysCopy(lambda: self.machine.contents, give_up)

    def live(self, keys: list[str]) -> list[str]:
        self._check()
        return [key for key in keys if self.entry(key) is not None]

    def _check(self) -> None:
        if not self.readable:
            raise NotReady("this node has not caught up with the cluster since it started")

    def count_of(self, database: int) -> int:
        self._check()
        return self.machine.contents.count_of(database)

    def expiring_of(self, database: int) -> tuple[int, int]:
        count, expiries_ms = self.machine.contents.expiring_of(database)
        return count, expiries_ms // count - self.clock_ms if count else 0

    def uses_of(self, key: str) -> int | None:
        return self.machine.contents.items.uses_of(key)

    def metrics(self) -> dict[str, float]:
        return {
            "items": len(self.machine.contents.raw),
            "bytes": self.machine.contents.bytes_used,
            "max_items": self.machine.settings.max_items or 0,
            "max_bytes": self.machine.settings.max_bytes or 0,
            "hits_total": self.hits,
            "misses_total": self.misses,
            "sets_total": self.machine.contents.written,
            "deletes_total": self.machine.contents.deleted,
            "expired_total": self.machine.contents.expired,
            "evicted_total": self.machine.contents.evicted,
        }

    def status(self) -> dict[str, Any]:
        return {
            "node_id": "n1",
            "role": "leader",
            "leader": "n1",
            "configuration": {"eviction": self.machine.settings.policy},
        }
