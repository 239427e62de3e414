"""The checks of promises against the histories of a real cluster, with the simulation's own checker."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.access import Access, Broken, Refused, Unknown
from cluster.histories import Count, Epoch, Histories, Lease
from simulation import linearizability
from simulation.linearizability import Operation

# Seconds by which a lease may end early or late: as in the simulation, and what a busy machine adds to it.
LEASE_SLACK_S = 0.5


@dataclass
class Settled:
    """The values that judged keys may have at the end: by register the values, by counter the bounds."""

    registers: dict[str, set[str | None]] = field(default_factory=dict)
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)

    def forbids(self, key: str, value: str | int | None) -> str:
        """Return why a key may not have this value at the end; "" when it may."""
        if key in self.registers:
            allowed = self.registers[key]
            return "" if value in allowed else f"{key} is {value!r} at the end and must be one of {allowed}"
        low, high = self.counters[key]
        return "" if low <= int(value or 0) <= high else f"{key} is {value!r} at the end, not in {low} to {high}"


class Judge:
    """The judge of all histories of a run, who keeps what is settled. One thread judges epochs; leases may be judged by all."""

    def __init__(self, histories: Histories) -> None:
        self.checked = 0
        self.leases_checked = 0
        # The most that a lease ended before or after its time, in seconds, within the slack.
        self.earliest_s = self.latest_s = 0.0
        self._histories = histories
        self._settled = Settled()
        self._lock = threading.Lock()

    def judge(self, epoch: Epoch, accesses: Sequence[Access]) -> None:
        """Read the epoch's keys once more, and look at all its histories."""
        complain = self._histories.complain
        for key, history in epoch.registers.items():
            last, began, ended = read(accesses, key)
            history.append(Operation("get", began, ended, None, last))
            verdict = linearizability.check(history)
            if verdict != "ok":
                complain(f"linearizability of {key} is {verdict}")
            # An unknown write may happen at any later time, too.
            self._settled.registers[key] = {str(last) if last is not None else None} | {
                None if each.kind == "delete" else each.argument[1] if each.kind == "cas" else each.argument
                for each in history
                if not each.known
            }
        for key, counts in epoch.counters.items():
            last, began, ended = read(accesses, key)
            counts.append(Count(0, began, ended, int(last or 0)))
            for problem in counted_wrong(counts):
                complain(f"{key}: {problem}")
            unknown = sum(1 for each in counts if not each.number and each.by)
            acknowledged = sum(each.by for each in counts) - unknown
            self._settled.counters[key] = int(last or 0), acknowledged + unknown
        self.checked += epoch.size

    def final(self, access: Access) -> None:
        """Compare everything that was ever written with what one node holds now, when all is quiet and level."""
        for key in [*self._settled.registers, *self._settled.counters]:
            value, _ = access.get(key, linearizable=False)
            problem = self._settled.forbids(key, value)
            if problem:
                self._histories.complain(f"{access.name}: {problem}")

    def lease(self, lease: Lease, there: bool, began: float, ended: float, where: str, exact: bool) -> None:
        """Check a lease, which must end ``ttl_s`` after a moment between its call and its answer.

        exact: the read was linearizable; a local one may not know the lease yet.
        """
        late = began - lease.ended - lease.ttl_s
        early = lease.began + lease.ttl_s - ended
        with self._lock:
            self.leases_checked += 1
            if there:
                self.latest_s = max(self.latest_s, late)
            elif exact:
                self.earliest_s = max(self.earliest_s, early)
        if there and late > LEASE_SLACK_S:
            self._histories.complain(f"{where} still has {lease} {late:.3f} s after its end (at {began:.3f})")
        if not there and exact and early > LEASE_SLACK_S:
            self._histories.complain(f"{where} misses {lease} {early:.3f} s before its end (at {ended:.3f})")


def counted_wrong(counts: Sequence[Count]) -> list[str]:
    """Return what cannot be true of a counter that starts at 0, if every increment happens once."""
    problems = []
    answered = [each for each in counts if each.number or not each.by]
    numbers = [each.number for each in answered if each.by]
    if len(set(numbers)) != len(numbers):
        problems.append(f"a number was given twice: {sorted(numbers)}")
    attempts = sum(each.by for each in counts)
    by_end = sorted(answered, key=lambda each: each.ended)
    position = before = acknowledged = 0
    for each in sorted(answered, key=lambda each: each.began):
        while position < len(by_end) and by_end[position].ended < each.began:
            before = max(before, by_end[position].number)
            acknowledged += by_end[position].by
            position += 1
        least = max(before, acknowledged) + each.by
        if not least <= each.number <= attempts:
            problems.append(
                f"{each.number} was told at {each.began:.3f}; {acknowledged} had been acknowledged, "
                f"{before} told, and {attempts} were tried in all"
            )
    return problems


def read(accesses: Sequence[Access], key: str, attempts: int = 200) -> tuple[str | int | None, float, float]:
    """Read a key linearizably through the first node that answers; return (value, began, ended)."""
    refused: Exception | None = None
    for attempt in range(attempts):
        access = accesses[attempt % len(accesses)]
        began = time.monotonic()
        try:
            value, _ = access.get(key, linearizable=True)
        except (Refused, Unknown) as error:
            refused = error
            time.sleep(0.05)
        else:
            return value, began, time.monotonic()
    raise Broken(f"nobody answers a read of {key}: {refused}")
