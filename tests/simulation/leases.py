"""Keys with a TTL, written once and given another one now and then: gone neither early nor late."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.entries import EXPIRES_AT_MS
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

# Seconds by which a lease may end early or late: a new leader goes on from the last heartbeat that it has heard, which took
# its time to come.
LEASE_SLACK_S = 0.35
# The last ends after every run: what is left of it shows whether time has jumped, or stood still.
TTLS_S = (0.5, 2.0, 5.0, 10.0, 3600.0)


@dataclass(slots=True)
class Lease:
    """The last SET or TOUCH of one key with a TTL, in seconds of the simulation.

    ttl_s: inf once it persists.  unsure: a TOUCH is under way, or nobody knows what became of it.
    """

    key: str
    began: float
    ended: float
    ttl_s: float
    unsure: bool = False
    # What a node may believe that does not know the last TOUCH.
    older_end: float = 0.0


class Leases:
    """All keys with a TTL, and the calls of clients on them."""

    def __init__(self, workload: Workload) -> None:
        self.checked = 0
        self._workload = workload
        self._cluster = workload.cluster
        self._leases: list[Lease] = []

    def write(self, client: Client, process: Process) -> None:
        """Write a new lease."""
        scheduler = self._cluster.scheduler
        ttl_s = self._workload.random.choice(TTLS_S)
        lease = Lease(f"l{len(self._leases)}", scheduler.now, inf, ttl_s)
        self._leases.append(lease)

        def told(results: list[Result]) -> None:
            lease.ended = scheduler.now

        command = commands.set_(lease.key, b"x", BYTES, None, round(ttl_s * 1000))
        client.call(process, [command], f"lease {lease.key} {ttl_s}", told)

    def touch(self, client: Client, process: Process) -> None:
        """Give a lease that may be there another TTL, or none."""
        lease = self._some()
        if lease is None or lease.unsure:
            return
        scheduler = self._cluster.scheduler
        began = scheduler.now
        ttl_s = self._workload.random.choice((*TTLS_S, inf))
        lease.unsure = True

        def told(results: list[Result]) -> None:
            there = results[0][0] == commands.OK
            self._check(lease, there, began, scheduler.now, f"a touch on {process.name}")
            lease.older_end = max(lease.older_end, lease.ended + lease.ttl_s)
            if there:
                lease.began, lease.ended, lease.ttl_s, lease.unsure = began, scheduler.now, ttl_s, False

        def refused() -> None:
            lease.unsure = False

        ttl_ms = commands.TTL_NONE if ttl_s == inf else round(ttl_s * 1000)
        client.call(process, [commands.touch(lease.key, ttl_ms)], f"touch {lease.key} {ttl_s}", told, refused)

    def read(self, client: Client, process: Process) -> None:
        """Read a lease linearizably, and check it."""
        lease = self._some()
        if lease is None:
            return
        scheduler = self._cluster.scheduler
        began = scheduler.now

        def told(results: list[Result]) -> None:
            machine = process.machine
            entry = machine.lookup(lease.key, machine.now_ms)
            if not lease.unsure:
                what = f"a linearizable read on {process.name}"
                self._check(lease, entry is not None, began, scheduler.now, what)
                # One that got another TTL meanwhile may show either.
                if entry is not None and lease.ended <= began and lease.ttl_s < inf:
                    self._check_left(lease, (entry[EXPIRES_AT_MS] - machine.now_ms) / 1000, began, scheduler.now, what)

        client.call(process, [commands.noop()], f"get {lease.key}", told)

    def look(self, process: Process) -> None:
        """Check local reads of the young leases, which are about to end. A node may not know the latest TTL of one."""
        now, machine = self._cluster.scheduler.now, process.machine
        for lease in self._leases[-6:]:
            if lease.unsure:
                continue
            process.uses.note(lease.key)
            there = machine.lookup(lease.key, process.clock.now_ms()) is not None
            if there and now - lease.older_end > self._cluster.lease_slack_s:
                self._check(lease, True, now, now, f"a local read on {process.name}")
            # The contents have it, and the node's clock hides it.
            if not there and not lease.older_end and machine.lookup(lease.key, 0) is not None:
                self._check(lease, False, now, now, f"a local read on {process.name}")

    def _some(self) -> Lease | None:
        known = [lease for lease in self._leases[-12:] if lease.ended < inf]
        return self._workload.random.choice(known) if known else None

    def _check_left(self, lease: Lease, left_s: float, began: float, ended: float, what: str) -> None:
        """Check the seconds that a lease has left at a moment between a read's call and its answer."""
        slack = self._cluster.lease_slack_s
        if left_s > lease.ended + lease.ttl_s - began + slack or left_s < lease.began + lease.ttl_s - ended - slack:
            self._cluster.checks.complain(
                f"ttl: {what} finds {left_s:.3f} s left of {lease.key}, which has {lease.ttl_s} s since {lease.ended - 1000:.3f}"
            )

    def _check(self, lease: Lease, there: bool, began: float, ended: float, what: str) -> None:
        """Check that a lease ends ``ttl_s`` after a moment between its call and its answer."""
        slack = self._cluster.lease_slack_s
        late = began - lease.ended - lease.ttl_s
        early = lease.began + lease.ttl_s - ended
        self.checked += 1
        if there and late > slack:
            self._cluster.checks.complain(f"ttl: {what} sees {lease.key} {late:.3f} s after its end")
        if not there and early > slack and not self._workload.evicts:
            self._cluster.checks.complain(f"ttl: {what} misses {lease.key} {early:.3f} s before its end")
