"""Clients of a real cluster: each does one thing after the other through one node and writes down what it was told."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from random import Random

from cluster.access import Access, Broken, Refused, Unknown
from cluster.histories import Count, Epoch, Histories, Lease
from cluster.promises import Judge
from simulation.linearizability import Operation

TTLS_S = (1.0, 2.0, 5.0)
# Now and then a large value, so that logs are cut, and nodes that stayed away come back through snapshots.
BALLAST = "x" * 400_000
BALLAST_KEYS = 8
# Seconds that a client waits after a call that was certainly refused.
REFUSED_S = 0.05


class Worker:
    """One client. pause_s: mean time between its calls. Everything it chooses comes from ``random``."""

    def __init__(
        self, name: str, access: Access, histories: Histories, judge: Judge, random: Random, pause_s: float
    ) -> None:
        self.name = name
        # The number of calls by how they ended: done, unknown, refused.
        self.ended: Counter[str] = Counter()
        self._access = access
        self._histories = histories
        self._judge = judge
        self._random = random
        self._pause_s = pause_s
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._actions: list[tuple[float, Callable[[Epoch], None]]] = [
            (0.28, self._set),
            (0.24, self._get),
            (0.14, self._cas),
            (0.04, self._delete),
            (0.16, self._count),
            (0.04, self._read_count),
            (0.04, self._lease),
            (0.058, self._read_lease),
            (0.002, self._ballast),
        ]

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; ``join`` waits for the call under way."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join(60)
        if self._thread.is_alive():
            self._histories.complain(f"{self.name} still waits for an answer")

    def _run(self) -> None:
        weights = [weight for weight, _ in self._actions]
        while not self._stopping.wait(self._random.expovariate(1 / self._pause_s)):
            ((_, action),) = self._random.choices(self._actions, weights)
            try:
                with self._histories.epoch() as epoch:
                    action(epoch)
                self.ended["done"] += 1
            except Refused:
                self.ended["refused"] += 1
                self._stopping.wait(REFUSED_S)
            except Unknown:
                self.ended["unknown"] += 1
            except Broken as error:
                self._histories.complain(str(error))
        self._access.close()

    def _value(self) -> str:
        return f"{self.name}.{next(self._numbers)}"

    def _register(self, epoch: Epoch) -> tuple[str, list[Operation]]:
        key = self._random.choice(list(epoch.registers))
        return key, epoch.registers[key]

    def _set(self, epoch: Epoch) -> None:
        key, history = self._register(epoch)
        operation = Operation("set", time.monotonic(), inf, self._value())
        with _Written(history, operation):
            self._access.set(key, operation.argument)

    def _get(self, epoch: Epoch) -> None:
        key, history = self._register(epoch)
        began = time.monotonic()
        value, _ = self._access.get(key, linearizable=True)
        history.append(Operation("get", began, time.monotonic(), None, value))

    def _cas(self, epoch: Epoch) -> None:
        key, history = self._register(epoch)
        # Every value is written once, so a version stands for a value. A local read may be old; then it does not write.
        expected, version = self._access.get(key, linearizable=False)
        operation = Operation("cas", time.monotonic(), inf, (expected, self._value()))
        with _Written(history, operation):
            operation.result = self._access.cas(key, operation.argument[1], version)

    def _delete(self, epoch: Epoch) -> None:
        key, history = self._register(epoch)
        operation = Operation("delete", time.monotonic(), inf)
        with _Written(history, operation):
            operation.result = self._access.delete(key)

    def _count(self, epoch: Epoch) -> None:
        key = self._random.choice(list(epoch.counters))
        call = Count(1, time.monotonic())
        with _Written(epoch.counters[key], call):
            call.number = self._access.incr(key)

    def _read_count(self, epoch: Epoch) -> None:
        key = self._random.choice(list(epoch.counters))
        began = time.monotonic()
        value, _ = self._access.get(key, linearizable=True)
        epoch.counters[key].append(Count(0, began, time.monotonic(), int(value or 0)))

    def _lease(self, epoch: Epoch) -> None:
        key, ttl_s = f"l/{self._value()}", self._random.choice(TTLS_S)
        began = time.monotonic()
        self._access.set(key, "leased", ttl_s)
        self._histories.leases.append(Lease(key, began, time.monotonic(), ttl_s))

    def _read_lease(self, epoch: Epoch) -> None:
        leases = list(self._histories.leases)
        if not leases:
            return
        lease, exact = self._random.choice(leases), self._random.random() < 0.7
        began = time.monotonic()
        value, _ = self._access.get(lease.key, linearizable=exact)
        where = f"a {'linearizable' if exact else 'local'} read on {self._access.name}"
        self._judge.lease(lease, value is not None, began, time.monotonic(), where, exact)

    def _ballast(self, epoch: Epoch) -> None:
        self._access.set(f"ballast/{self._random.randrange(BALLAST_KEYS)}", BALLAST)


class _Written:
    """A context for one write, which goes into its history at the end: not if it was refused, and without an end if unknown."""

    def __init__(self, history: list[Operation] | list[Count], call: Operation | Count) -> None:
        self._history = history
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._call.ended = time.monotonic()
        if kind is None or issubclass(kind, Unknown):
            self._history.append(self._call)  # type: ignore[arg-type]
