"""Clients: each does one thing after the other through random nodes, and writes down what it was told.

The keys have roles, so that each promise can be checked by itself: *registers* for linearizability, *counters* for
exactly-once, *leases* for TTL, *fillers* for eviction.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

from simulation import linearizability
from simulation.linearizability import Operation

from cacheflow.errors import NoLeader, OutcomeUnknown, Overloaded, ReplicationError
from cacheflow.machine import commands
from cacheflow.machine.commands import Command, Result

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# Shorter than the product's, so that faults do show as unknown outcomes.
TIMEOUT_S = 3.0
KIND_BYTES = 0
# A new leader goes on from the last heartbeat that it has heard, which took its time to come.
LEASE_SLACK_S = 0.35


@dataclass(slots=True)
class Lease:
    """A key written once with a TTL. Seconds of the simulation."""

    key: str
    began: float
    ended: float
    ttl_s: float


@dataclass(slots=True)
class Increment:
    """One increment, or (amount 0) one linearizable read of a counter."""

    key: str
    amount: int
    began: float
    ended: float = inf
    number: int | None = None


class Workload:
    """All clients and their histories. pause_s: mean time between one client's calls."""

    def __init__(
        self,
        cluster: Cluster,
        random: Random,
        *,
        clients: int = 4,
        pause_s: float = 0.2,
        registers: int = 5,
        evicts: bool = False,
    ) -> None:
        self.cluster = cluster
        self.random = random
        self.registers: dict[str, list[Operation]] = {f"r{number}": [] for number in range(registers)}
        self.counters: dict[str, list[Increment]] = {f"c{number}": [] for number in range(2)}
        self.leases: list[Lease] = []
        self.leases_checked = 0
        self.acknowledged = self.unknown = self.refused = self.local_reads = 0
        self.running = True
        # When a write was last answered, and the longest time without one.
        self.answered_at = cluster.scheduler.now
        self._values = 0
        self._pause_s = pause_s
        self.evicts = evicts
        self._clients = [_Client(self, number) for number in range(clients)]
        for client in self._clients:
            cluster.scheduler.at(random.expovariate(1 / pause_s), client.go_on)

    def stop(self) -> None:
        """Begin nothing more."""
        self.running = False

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return any(client.waiting is not None for client in self._clients)

    def read_all(self) -> None:
        """Read every register and counter once more through every node."""
        self.reading = 0
        for process in self.cluster.processes:
            for key in [*self.registers, *self.counters]:
                self._read(process, key)

    def _read(self, process: Process, key: str) -> None:
        scheduler = self.cluster.scheduler
        self.reading += 1
        began = scheduler.now

        def done(outcome: list[Result] | ReplicationError) -> None:
            if isinstance(outcome, ReplicationError):
                return
            self.reading -= 1
            entry = process.machine.lookup(key, process.machine.now_ms)
            value = entry[0] if entry is not None else None
            if key in self.registers:
                self.registers[key].append(Operation("get", began, scheduler.now, None, value))
            else:
                self.counters[key].append(Increment(key, 0, began, scheduler.now, int(value or 0)))

        process.barrier(done, TIMEOUT_S)

    reading = 0

    def new_value(self) -> bytes:
        """A value that nobody has written."""
        self._values += 1
        return b"v%d" % self._values

    def pause(self) -> float:
        """Seconds until a client's next call."""
        return self.random.expovariate(1 / self._pause_s)

    # What must hold of what was told.

    def check(self) -> None:
        """Look at all histories."""
        complain = self.cluster.checks.complain
        if self.evicts:
            return  # whatever is missing may have been evicted
        for key, history in self.registers.items():
            verdict = linearizability.check(history)
            if verdict != "ok":
                complain(f"linearizability of {key} is {verdict}: {_tell(history)}")
        for key, calls in self.counters.items():
            self._check_counter(key, calls)

    def check_lease(self, lease: Lease, there: bool, began: float, ended: float, what: str) -> None:
        """Neither early nor late: it ends ``ttl_s`` after a moment between its call and its answer."""
        slack = self.cluster.lease_slack_s
        late = began - lease.ended - lease.ttl_s
        early = lease.began + lease.ttl_s - ended
        self.leases_checked += 1
        if there and late > slack:
            self.cluster.checks.complain(f"{what} sees {lease.key} {late:.3f} s after its end")
        if not there and early > slack and not self.evicts:
            self.cluster.checks.complain(f"{what} misses {lease.key} {early:.3f} s before its end")

    def _check_counter(self, key: str, calls: list[Increment]) -> None:
        complain = self.cluster.checks.complain
        answered = sorted((call for call in calls if call.number is not None), key=lambda call: call.began)
        numbers = [call.number for call in answered if call.amount]
        if len(set(numbers)) != len(numbers):
            complain(f"{key} gave a number twice: {sorted(numbers)}")  # type: ignore[type-var]
        attempts = sum(1 for call in calls if call.amount)
        for call in answered:
            number = call.number or 0
            if number > attempts:
                complain(f"{key} is {number} after {attempts} increments")
            before = max((other.number or 0 for other in answered if other.ended < call.began), default=0)
            if number < before + call.amount:
                complain(f"{key} gave {number} at {call.began:.6f} after it had been {before}")
            at_least = sum(1 for other in answered if other.amount and other.ended < call.began) + call.amount
            if number < at_least:
                complain(f"{key} gave {number} after {at_least} acknowledged increments")


class _Client:
    """One client."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.name = f"client{number}"
        self.waiting: Process | None = None
        self._workload = workload
        self._call = 0

    def go_on(self) -> None:
        """Do the next thing, and come back later."""
        workload = self._workload
        if not workload.running:
            return
        scheduler = workload.cluster.scheduler
        processes = workload.cluster.processes
        scheduler.at(workload.pause(), self.go_on)
        if (self.waiting is not None and self.waiting.loop.alive) or not processes:
            return
        process = workload.random.choice(processes)
        if not process.loop.paused:
            self._act(process)

    def _act(self, process: Process) -> None:
        workload = self._workload
        random = workload.random
        choice = random.random()
        if choice < 0.12:
            self._local_read(process)
        elif choice < 0.30:
            self._increment(process, random.choice(list(workload.counters)), 1 if random.random() < 0.8 else 0)
        elif choice < 0.40:
            self._lease(process)
        elif choice < 0.45 and workload.leases:
            self._read_lease(process, random.choice(workload.leases[-12:]))
        elif choice < 0.55 and workload.evicts:
            key = f"f{random.randrange(200)}"
            self._write(process, [commands.set_(key, random.randbytes(20), KIND_BYTES)], None, "")
        else:
            self._register(process, random.choice(list(workload.registers)))

    # Calls.

    def _local_read(self, process: Process) -> None:
        workload = self._workload
        workload.local_reads += 1
        leases = workload.leases
        if leases and process.node.may_read:
            # The young ones and those about to end are worth a look.
            for lease in leases[-6:]:
                entry = process.machine.lookup(lease.key, process.clock.now_ms())
                now = workload.cluster.scheduler.now
                # It may not know the lease yet, so only "too late" is checked.
                if entry is not None:
                    workload.check_lease(lease, True, now, now, f"a local read on {process.name}")

    def _read_lease(self, process: Process, lease: Lease) -> None:
        workload = self._workload
        scheduler = workload.cluster.scheduler
        began = scheduler.now

        def done(outcome: Result) -> None:
            there = process.machine.lookup(lease.key, process.machine.now_ms) is not None
            workload.check_lease(lease, there, began, scheduler.now, f"a linearizable read on {process.name}")

        if lease.ended < began:
            self._write(process, [commands.noop()], done, f"get {lease.key}")

    def _lease(self, process: Process) -> None:
        workload = self._workload
        ttl_s = workload.random.choice((0.5, 2.0, 5.0, 10.0))
        lease = Lease(f"l{len(workload.leases)}", workload.cluster.scheduler.now, inf, ttl_s)
        workload.leases.append(lease)

        def done(outcome: Result) -> None:
            lease.ended = workload.cluster.scheduler.now

        command = commands.set_(lease.key, b"x", KIND_BYTES, None, round(ttl_s * 1000))
        self._write(process, [command], done, f"lease {lease.key} {ttl_s}")

    def _increment(self, process: Process, key: str, amount: int) -> None:
        workload = self._workload
        call = Increment(key, amount, workload.cluster.scheduler.now)
        history = workload.counters[key]
        history.append(call)

        def done(outcome: Result) -> None:
            call.ended = workload.cluster.scheduler.now
            if amount:
                call.number = outcome[2]
            else:
                entry = process.machine.lookup(key, process.machine.now_ms)
                call.number = int(entry[0]) if entry is not None else 0

        command = commands.incr(key, amount, 0) if amount else commands.noop()
        self._write(process, [command], done, f"incr {key} {amount}", refused=lambda: history.remove(call))

    def _register(self, process: Process, key: str) -> None:
        workload = self._workload
        random = workload.random
        history = workload.registers[key]
        choice = random.random()
        operation = Operation("get", workload.cluster.scheduler.now, inf)
        command: Command = commands.noop()
        if choice < 0.45:
            operation.kind, operation.argument = "set", workload.new_value()
            command = commands.set_(key, operation.argument, KIND_BYTES)
        elif choice < 0.55:
            operation.kind = "delete"
            command = commands.delete(key)
        elif choice < 0.70:
            entry = process.machine.lookup(key, process.clock.now_ms()) if process.node.may_read else None
            operation.kind = "cas"
            operation.argument = (entry[0] if entry is not None else None, workload.new_value())
            when = commands.IF_VERSION if entry is not None else commands.IF_ABSENT
            version = entry[3] if entry is not None else 0
            command = commands.set_(key, operation.argument[1], KIND_BYTES, None, 0, when, version)
        history.append(operation)

        def done(outcome: Result) -> None:
            operation.ended = workload.cluster.scheduler.now
            if operation.kind == "get":
                entry = process.machine.lookup(key, process.machine.now_ms)
                operation.result = entry[0] if entry is not None else None
            elif operation.kind in ("delete", "cas"):
                operation.result = outcome[0] == commands.OK

        def refused() -> None:
            history.remove(operation)

        self._write(process, [command], done, f"{operation.kind} {key} {operation.argument}", refused=refused)

    def _write(self, process: Process, command: list[Command], told: Any, what: str, refused: Any = None) -> None:
        workload = self._workload
        cluster = workload.cluster
        self.waiting = process
        self._call += 1
        call = self._call

        def done(outcome: list[Result] | ReplicationError) -> None:
            if self._call == call:
                self.waiting = None
            if isinstance(outcome, OutcomeUnknown):
                workload.unknown += 1
            elif isinstance(outcome, (NoLeader, Overloaded)):
                workload.refused += 1
                if refused is not None:
                    refused()
            elif isinstance(outcome, ReplicationError):
                cluster.checks.complain(f"an unexpected outcome: {outcome!r}")
            else:
                if outcome[0][0] not in (commands.OK, commands.MISSING, commands.PRECONDITION):
                    cluster.checks.complain(f"{what}: {outcome}")
                workload.acknowledged += 1
                workload.answered_at = cluster.scheduler.now
                cluster.checks.acknowledged(process)
                if told is not None:
                    told(outcome[0])
            if cluster.trace:
                cluster.note(f"{self.name} {what} through {process.name}: {outcome}")

        if cluster.trace:
            cluster.note(f"{self.name} {what} through {process.name} ...")
        process.submit(command, done, TIMEOUT_S)


def _tell(history: list[Operation]) -> str:
    return "\n".join(
        f"  {operation.began - 1000:.6f} {operation.ended - 1000:.6f} "
        f"{operation.kind} {operation.argument} -> {operation.result}"
        for operation in history
    )
