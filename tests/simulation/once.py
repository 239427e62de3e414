"""Idempotency keys: whoever sends a command again, through whichever node, it takes place once and has one answer.

Few keys are kept. Whoever asks for one that was dropped tells how long ago it was tried first, and so is never let count
twice, whatever has become of the cluster's time meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cacheflow.errors import NotReady
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state import idempotency

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

COUNTER = "i0"
# So few that a client's last keys are not all among them.
KEPT_BYTES_MAX = 8 * (idempotency.RECORD_BYTES + 20)


@dataclass(slots=True)
class _Key:
    """One idempotency key of a client. began: the time of its first try."""

    name: str
    command: Command
    began: float
    answers: list[Result] = field(default_factory=list)


class Once:
    """Increments under idempotency keys, each sent one or several times."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._keys: list[_Key] = []

    def call(self, client: Client, process: Process) -> None:
        """Use a new key, send again under an old one, or misuse an old one."""
        try:
            process.past.first_index(0)
        except NotReady:
            return  # a node that cannot tell the age of a command takes no age of a key
        random = self._workload.random
        if not self._keys or random.random() < 0.5:
            self._send(client, process, self._new())
            return
        key = random.choice(self._keys[-12:])
        if key.answers and random.random() < 0.15:
            self._misuse(client, process, key)
        else:
            self._send(client, process, key)

    def _new(self) -> _Key:
        increment = commands.incr(COUNTER, 1, 0)
        command = increment if self._workload.random.random() < 0.7 else commands.batch([increment], atomic=True)
        key = _Key(f"key-{len(self._keys)}", command, self._cluster.scheduler.now)
        self._keys.append(key)
        return key

    def _send(self, client: Client, process: Process, key: _Key) -> None:
        def told(results: list[Result]) -> None:
            if results[0] == [commands.FORGOTTEN]:
                return
            key.answers.append(results[0])
            if results[0] != key.answers[0] or results[0][0] != commands.OK:
                self._cluster.checks.complain(f"exactly once: {key.name} has the answers {key.answers}")

        command = commands.idempotent(key.name, key.command, self._first_index(process, key))
        statuses = (commands.OK, commands.KEY_REUSED, commands.FORGOTTEN)
        client.call(process, [command], f"{key.name} {key.command}", told, statuses=statuses)

    def _misuse(self, client: Client, process: Process, key: _Key) -> None:
        def told(results: list[Result]) -> None:
            if results[0] not in ([commands.KEY_REUSED], [commands.FORGOTTEN]):
                self._cluster.checks.complain(f"exactly once: {key.name} was taken for another command: {results}")

        other = commands.idempotent(key.name, commands.touch("nothing", 1000), self._first_index(process, key))
        statuses = (commands.KEY_REUSED, commands.FORGOTTEN, commands.MISSING)
        client.call(process, [other], f"{key.name} misused", told, statuses=statuses)

    def _first_index(self, process: Process, key: _Key) -> int:
        return process.past.first_index(int((self._cluster.scheduler.now - key.began) * 1000))

    def check(self, process: Process) -> None:
        """Check at the end, on any node, that there are as many increments as keys that took place."""
        numbers = [_number(key.answers[0]) for key in self._keys if key.answers]
        if len(set(numbers)) != len(numbers):
            self._cluster.checks.complain(f"exactly once: two idempotency keys had one number: {sorted(numbers)}")
        entry = process.machine.lookup(COUNTER, process.machine.now_ms)
        count = int(entry[0]) if entry is not None else 0
        if not len(numbers) <= count <= len(self._keys):
            self._cluster.checks.complain(
                f"exactly once: {count} increments under {len(self._keys)} keys, {len(numbers)} of them answered"
            )


def _number(result: Result) -> int:
    number: int = result[2] if len(result) > 2 else result[1][0][2]
    return number
