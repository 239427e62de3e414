"""Numbered writes: a client that loses answers sends again, late and to any node; each number takes place once or never."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from cacheflow.client.scopes import Scope
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state import scopes

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

COUNTER = "s0"
NONCE = "a client's"
# So few that a client that waits for one answer, and goes on, makes its scope forget something.
SCOPE_KEPT_BYTES_MAX = 8 * scopes.RECORD_BYTES


@dataclass(slots=True)
class _Write:
    """One increment of a client. tries: how often it was sent.  waits: the client waits for its answer."""

    scope: Scope
    number: int
    lowest: int
    tries: int = 0
    waits: bool = True
    done: int | None = None

    @property
    def name(self) -> str:
        return f"write {self.number} of scope {self.scope.name}"


@dataclass(slots=True)
class _Numbers:
    """A client's scope, and what it has sent in it and in those before."""

    scope: Scope | None = None
    writes: list[_Write] = field(default_factory=list)


class Scoped:
    """Increments of one counter, numbered by each client for itself."""

    def __init__(self, workload: Workload) -> None:
        self._cluster = workload.cluster
        self._random = workload.random
        self._clients: dict[str, _Numbers] = {}
        self._writes: list[_Write] = []

    def call(self, client: Client, process: Process) -> None:
        """Open a scope, send a new write, or send an old one again: one that waits, or one that is answered long since."""
        numbers = self._clients.setdefault(client.name, _Numbers())
        if numbers.scope is None or self._random.random() < 0.02:
            self._open(client, process, numbers)
        elif numbers.writes and self._random.random() < 0.5:
            self._send(client, process, self._random.choice(numbers.writes[-8:]))
        else:
            number, lowest = numbers.scope.take()
            write = _Write(numbers.scope, number, lowest)
            numbers.writes.append(write)
            self._writes.append(write)
            self._send(client, process, write)

    def _open(self, client: Client, process: Process, numbers: _Numbers) -> None:
        def told(results: list[Result]) -> None:
            numbers.scope = Scope(str(results[0][1]))

        client.call(process, [commands.open_scope(NONCE)], "opens a scope", told)

    def _send(self, client: Client, process: Process, write: _Write) -> None:
        write.tries += 1
        # What has waited long gives up now and then, whatever comes back later.
        if write.waits and write.tries > 1 and self._random.random() < 0.2:
            self._end(write)

        def told(results: list[Result]) -> None:
            status, *_ = results[0]
            if status == commands.OK:
                value = results[0][2]
                if write.done not in (None, value):
                    self._cluster.checks.complain(
                        f"exactly once: {write.name} has counted to {write.done} and to {value}"
                    )
                write.done = value
            elif write.tries == 1 and write.lowest == write.number and self._cluster.lease_slack_s != inf:
                # The lowest, and time has made no jump in which its scope was closed.
                self._cluster.checks.complain(f"exactly once: {write.name} was forgotten at its first try")
            # Some answers are lost on their way to the client, which will send again.
            if write.waits and self._random.random() < 0.7:
                self._end(write)

        command = commands.scoped(
            int(write.scope.name), NONCE, write.number, write.lowest, commands.incr(COUNTER, 1, 0)
        )
        statuses = (commands.OK, commands.FORGOTTEN)
        client.call(process, [command], write.name, told, statuses=statuses)

    @staticmethod
    def _end(write: _Write) -> None:
        write.waits = False
        write.scope.told(write.number)

    def check(self, process: Process) -> None:
        """Check at the end, on any node, that there are as many increments as writes that took place."""
        done = [write.done for write in self._writes if write.done is not None]
        if len(set(done)) != len(done):
            self._cluster.checks.complain(f"exactly once: two numbered writes counted to one number: {sorted(done)}")
        entry = process.machine.lookup(COUNTER, process.machine.now_ms)
        count = int(entry[0]) if entry is not None else 0
        if not len(done) <= count <= len(self._writes):
            self._cluster.checks.complain(
                f"exactly once: {count} increments by {len(self._writes)} numbered writes, {len(done)} of them answered"
            )
