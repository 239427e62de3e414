"""What clients asked of a real cluster and what they were told, in epochs that are judged while the run goes on.

Each epoch has keys of its own: *registers* for linearizability, *counters* for exactly-once. Once nobody works on an
epoch any more its histories are complete. *Leases* are judged when they are read.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from simulation.linearizability import Operation

REGISTERS = 16
COUNTERS = 4
# Leases that are looked at again; the longest lasts a few seconds.
LEASES_KEPT = 60


@dataclass(slots=True)
class Count:
    """One increment (by 1), or one linearizable read of a counter. ended: inf when its outcome is unknown."""

    by: int
    began: float
    ended: float = inf
    number: int = 0


@dataclass(slots=True, frozen=True)
class Lease:
    """A key that was written once with a TTL, and acknowledged between ``began`` and ``ended``."""

    key: str
    began: float
    ended: float
    ttl_s: float


@dataclass
class Epoch:
    """The histories of one set of keys. Lists are only appended to, each operation once it is over."""

    number: int
    registers: dict[str, list[Operation]] = field(default_factory=dict)
    counters: dict[str, list[Count]] = field(default_factory=dict)
    users: int = 0

    def __post_init__(self) -> None:
        self.registers = {f"r/{self.number}/{each}": [] for each in range(REGISTERS)}
        self.counters = {f"c/{self.number}/{each}": [] for each in range(COUNTERS)}

    @property
    def size(self) -> int:
        """The number of operations in this epoch."""
        return sum(map(len, self.registers.values())) + sum(map(len, self.counters.values()))

    def save(self, folder: Path) -> None:
        """Write the epoch to a file, one operation a line."""
        with gzip.open(folder / f"epoch-{self.number}.jsonl.gz", "wt") as file:
            everything: dict[str, list[Any]] = {**self.registers, **self.counters}
            for key, operations in everything.items():
                for operation in sorted(operations, key=lambda each: each.began):
                    file.write(json.dumps({"key": key, **asdict(operation)}) + "\n")


class Histories:
    """The epochs, leases and violations of one run. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = Epoch(0)
        self._idle = threading.Condition(self._lock)
        self.leases: deque[Lease] = deque(maxlen=LEASES_KEPT)
        # Broken promises; the first one ends the run.
        self.violations: list[str] = []
        self.violated = threading.Event()

    @contextmanager
    def epoch(self) -> Iterator[Epoch]:
        """Yield the present epoch, which is not judged while the context is open."""
        with self._lock:
            held = self._epoch
            held.users += 1
        try:
            yield held
        finally:
            with self._lock:
                held.users -= 1
                if not held.users:
                    self._idle.notify_all()

    def turn(self, timeout_s: float) -> Epoch:
        """Begin another epoch; return the one before, once nobody works on it any more."""
        with self._lock:
            before, self._epoch = self._epoch, Epoch(self._epoch.number + 1)
            if not self._idle.wait_for(lambda: not before.users, timeout_s):
                self.complain(f"{before.users} calls hang for {timeout_s:g} s")
        return before

    def complain(self, what: str) -> None:
        """Note a broken promise, which ends the run."""
        self.violations.append(what)
        self.violated.set()
