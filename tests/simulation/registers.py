"""Registers: single calls, several in one block, and batches, whose histories must be linearizable key by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from simulation import linearizability
from simulation.linearizability import Operation
from simulation.versions import Versions

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

PREFIX = "r"


class Registers:
    """All registers, and the calls of clients on them."""

    def __init__(self, workload: Workload, count: int) -> None:
        self.versions = Versions()
        self._workload = workload
        self._cluster = workload.cluster
        self._histories: dict[str, list[Operation]] = {f"{PREFIX}{number}": [] for number in range(count)}
        self._values = 0

    @property
    def keys(self) -> list[str]:
        """The keys of all registers."""
        return list(self._histories)

    def new_value(self) -> bytes:
        """Return a value that nobody has written yet."""
        self._values += 1
        return b"v%d" % self._values

    def call(self, client: Client, process: Process) -> None:
        """Make one operation, or several on different keys: in one block, or as one batch that is not atomic."""
        random = self._workload.random
        several = random.random() < 0.2
        keys = random.sample(self.keys, random.randint(2, 3) if several else 1)
        # A single get is read as the store does, behind a barrier; several are read as in a batch.
        get = commands.get if several else lambda _: commands.noop()
        planned = [(key, *self._plan(client, process, key, get)) for key in keys]
        operations = [(key, operation) for key, operation, _ in planned]
        single = [command for _, _, command in planned]
        for key, operation in operations:
            self._histories[key].append(operation)

        def told(results: Sequence[Result]) -> None:
            if any(result[0] not in (commands.OK, commands.MISSING, commands.PRECONDITION) for result in results):
                self._cluster.checks.complain(f"outcome: {what}: {results}")
            for (key, operation), result in zip(operations, results, strict=True):
                self._learn(client, process, key, operation, result)

        def refused() -> None:
            for key, operation in operations:
                self._histories[key].remove(operation)

        what = ", ".join(f"{operation.kind} {key} {operation.argument}" for key, operation in operations)
        if several and random.random() < 0.5:
            client.call(
                process, [commands.batch(single)], f"batch: {what}", lambda results: told(results[0][1]), refused
            )
        else:
            client.call(process, single, what, told, refused)

    def _plan(
        self, client: Client, process: Process, key: str, get: Callable[[str], Command]
    ) -> tuple[Operation, Command]:
        random = self._workload.random
        choice = random.random()
        operation = Operation("get", self._cluster.scheduler.now, inf)
        if choice < 0.45:
            operation.kind, operation.argument = "set", self.new_value()
            return operation, commands.set_(key, operation.argument, BYTES)
        if choice < 0.55:
            entry = process.machine.lookup(key, process.clock.now_ms()) if process.node.may_read else None
            if choice > 0.52 and entry is not None:
                operation.kind, operation.argument = "cas", (entry[0], None)
                return operation, commands.delete(key, entry[3])
            operation.kind = "delete"
            return operation, commands.delete(key)
        if choice < 0.70:
            entry = process.machine.lookup(key, process.clock.now_ms()) if process.node.may_read else None
            expected, version = (entry[0], entry[3]) if entry is not None else (None, 0)
            if key in client.written and random.random() < 0.5:
                expected, version = client.written[key]
            operation.kind = "cas"
            operation.argument = (expected, self.new_value())
            when = commands.IF_VERSION if expected is not None else commands.IF_ABSENT
            return operation, commands.set_(key, operation.argument[1], BYTES, None, 0, when, version)
        return operation, get(key)

    def _learn(self, client: Client, process: Process, key: str, operation: Operation, result: Result) -> None:
        operation.ended = self._cluster.scheduler.now
        if operation.kind == "get":
            operation.result = _value(process, key) if len(result) == 1 and result[0] == commands.OK else _told(result)
            return
        done = result[0] == commands.OK
        if operation.kind != "set":
            operation.result = done
        if not done:
            return
        self.versions.note(operation.began, operation.ended, result[1])
        value = operation.argument[1] if operation.kind == "cas" else operation.argument
        if value is None:
            client.written.pop(key, None)
        else:
            client.written[key] = (value, result[1])

    def clear(self, client: Client, process: Process, prefix: str) -> None:
        """Remove all registers, with everything else that begins with ``prefix``."""
        began = self._cluster.scheduler.now
        # The answer does not tell whether something was there, so the removal counts as the writing of nothing.
        operations = [(history, Operation("set", began, inf, None)) for history in self._histories.values()]
        for history, operation in operations:
            history.append(operation)

        def told(results: list[Result]) -> None:
            for _, operation in operations:
                operation.ended = self._cluster.scheduler.now

        def refused() -> None:
            for history, operation in operations:
                history.remove(operation)

        client.call(process, [commands.delete_prefix(prefix)], f"clear {prefix!r}", told, refused)

    def note_read(self, process: Process, key: str, began: float) -> None:
        """Note the value that ``process`` reads: it has just passed a barrier for a read that began at ``began``."""
        self._histories[key].append(Operation("get", began, self._cluster.scheduler.now, None, _value(process, key)))

    def check(self) -> None:
        """Check all histories. Raises Violation."""
        complain = self._cluster.checks.complain
        wrong = self.versions.check()
        if wrong is not None:
            complain(f"versions: {wrong}")
        advance = lossy_step if self._workload.evicts else linearizability.step
        for key, history in self._histories.items():
            verdict = linearizability.check(history, advance=advance)
            if verdict != "ok":
                complain(f"linearizability: {key} is {verdict}: {_describe(history)}")


def lossy_step(state: linearizability.Value, operation: Operation) -> tuple[bool, linearizability.Value]:
    """Return what ``step`` does, for a key that may be evicted at any moment."""
    if operation.kind == "cas" and not operation.known and operation.argument[0] is None:
        # Had it no effect, nobody would need to take it: the key was evicted before.
        return True, operation.argument[1]
    possible, after = linearizability.step(state, operation)
    return (possible, after) if possible else linearizability.step(None, operation)


def _value(process: Process, key: str) -> Any:
    entry = process.machine.lookup(key, process.machine.now_ms)
    return entry[0] if entry is not None else None


def _told(result: Result) -> Any:
    return result[1] if result[0] == commands.OK else None


def _describe(history: list[Operation]) -> str:
    return "\n".join(
        f"  {operation.began - 1000:.6f} {operation.ended - 1000:.6f} "
        f"{operation.kind} {operation.argument} -> {operation.result}"
        for operation in history
    )
