"""Counters, on which each increment must take place once, whatever was sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process


@dataclass(slots=True)
class Increment:
    """One increment, or (amount 0) one linearizable read of a counter."""

    amount: int
    began: float
    ended: float = inf
    number: int | None = None


class Counters:
    """All counters and their histories."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._calls: dict[str, list[Increment]] = {f"c{number}": [] for number in range(2)}

    @property
    def keys(self) -> list[str]:
        """The keys of all counters."""
        return list(self._calls)

    def call(self, client: Client, process: Process) -> None:
        """Make an increment or a read through a process."""
        scheduler, random = self._cluster.scheduler, self._workload.random
        key = random.choice(self.keys)
        call = Increment(1 if random.random() < 0.8 else 0, scheduler.now)
        history = self._calls[key]
        history.append(call)

        def told(results: list[Result]) -> None:
            call.ended = scheduler.now
            call.number = results[0][2] if call.amount else _number(process, key)

        command = commands.incr(key, call.amount, 0) if call.amount else commands.noop()
        client.call(process, [command], f"incr {key} {call.amount}", told, lambda: history.remove(call))

    def note_read(self, process: Process, key: str, began: float) -> None:
        """Note the value that ``process`` reads: it has just passed a barrier for a read that began at ``began``."""
        self._calls[key].append(Increment(0, began, self._cluster.scheduler.now, _number(process, key)))

    def check(self) -> None:
        """Check all histories. Raises Violation."""
        for key, calls in self._calls.items():
            check_counter(self._cluster.checks.complain, key, calls)


def check_counter(complain: Callable[[str], object], key: str, calls: list[Increment]) -> None:
    """Complain when the counter ``key`` has not counted each of ``calls`` once. complain: raises Violation."""
    answered = sorted((call for call in calls if call.number is not None), key=lambda call: call.began)
    numbers = [call.number or 0 for call in answered if call.amount]
    if len(set(numbers)) != len(numbers):
        complain(f"exactly once: {key} gave a number twice: {sorted(numbers)}")
    attempts = sum(1 for call in calls if call.amount)
    for call in answered:
        number = call.number or 0
        if number > attempts:
            complain(f"exactly once: {key} is {number} after {attempts} increments")
        before = max((other.number or 0 for other in answered if other.ended < call.began), default=0)
        if number < before + call.amount:
            complain(f"exactly once: {key} gave {number} at {call.began:.6f} after it had been {before}")
        at_least = sum(1 for other in answered if other.amount and other.ended < call.began) + call.amount
        if number < at_least:
            complain(f"exactly once: {key} gave {number} after {at_least} acknowledged increments")


def _number(process: Process, key: str) -> int:
    entry = process.machine.lookup(key, process.machine.now_ms)
    return int(entry[0]) if entry is not None else 0
