"""Hashes: each field is a register of its own, whose history must be linearizable, or a counter, which counts exactly once."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from simulation import linearizability
from simulation.counters import Increment, check_counter
from simulation.linearizability import Operation
from simulation.registers import lossy_step

from cacheflow.machine.language import commands, fields
from cacheflow.machine.language.commands import Command, Result
from cacheflow.values import HASH

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

KEYS = ("h0", "h1")
FIELDS = (b"a", b"\xfe\x01b")
COUNTED = b"n"
ROOM = 10_000


class Hashes:
    """All hashes, and the calls of clients on their fields."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._histories: dict[tuple[str, bytes], list[Operation]] = {
            (key, field): [] for key in KEYS for field in FIELDS
        }
        # One hash has a counter as well; the other one comes and goes with its fields.
        self._counts: list[Increment] = []
        self._values = 0

    @property
    def places(self) -> list[tuple[str, bytes]]:
        """(key, field) of all fields, counters too."""
        return [*self._histories, (KEYS[0], COUNTED)]

    def call(self, client: Client, process: Process) -> None:
        """Write, remove or read a field, or count in one."""
        if self._workload.random.random() < 0.3:
            self._count(client, process)
            return
        place = self._workload.random.choice(list(self._histories))
        operation, command = self._plan(*place)
        history = self._histories[place]
        history.append(operation)

        def told(results: list[Result]) -> None:
            operation.ended = self._cluster.scheduler.now
            if operation.kind == "get":
                operation.result = _value(process, *place)
            elif operation.kind != "set":
                operation.result = results[0][0] == commands.OK and results[0][2] == 1

        what = f"{operation.kind} {place} {operation.argument}"
        client.call(process, [command], what, told, lambda: history.remove(operation))

    def _plan(self, key: str, field: bytes) -> tuple[Operation, Command]:
        choice = self._workload.random.random()
        operation = Operation("get", self._cluster.scheduler.now, inf)
        self._values += 1
        value = b"v%d" % self._values
        if choice < 0.4:
            operation.kind, operation.argument = "set", value
            return operation, commands.set_fields(key, HASH, [field, value], ROOM)
        if choice < 0.6:
            operation.kind = "delete"
            return operation, commands.remove_fields(key, HASH, [field])
        if choice < 0.75:
            operation.kind, operation.argument = "cas", (None, value)
            return operation, commands.set_fields(key, HASH, [field, value], ROOM, only_absent=True)
        return operation, commands.noop()

    def _count(self, client: Client, process: Process) -> None:
        call = Increment(1, self._cluster.scheduler.now)
        self._counts.append(call)

        def told(results: list[Result]) -> None:
            call.ended = self._cluster.scheduler.now
            call.number = results[0][2]

        command = commands.count_field(KEYS[0], COUNTED, 1, ROOM)
        client.call(process, [command], "count in a field", told, lambda: self._counts.remove(call))

    def note_read(self, process: Process, place: tuple[str, bytes], began: float) -> None:
        """Note the value that ``process`` reads: it has just passed a barrier for a read that began at ``began``."""
        value, now = _value(process, *place), self._cluster.scheduler.now
        if place[1] == COUNTED:
            self._counts.append(Increment(0, began, now, int(value or 0)))
        else:
            self._histories[place].append(Operation("get", began, now, None, value))

    def check(self) -> None:
        """Check all histories. Raises Violation."""
        complain = self._cluster.checks.complain
        advance = lossy_step if self._workload.evicts else linearizability.step
        for place, history in self._histories.items():
            verdict = linearizability.check(history, advance=advance)
            if verdict != "ok":
                complain(f"fields: {place} is {verdict}: {history}")
        if not self._workload.evicts:
            check_counter(complain, "a field", self._counts)
        for process in self._cluster.processes:
            for key in KEYS:
                entry = process.machine.lookup(key, 0)
                if entry is not None and not fields.count(entry[0]):
                    complain(f"fields: {process.name} has {key}, a hash without any")


def _value(process: Process, key: str, field: bytes) -> bytes | None:
    entry = process.machine.lookup(key, process.machine.now_ms)
    return None if entry is None else fields.value_in(entry[0], field)
