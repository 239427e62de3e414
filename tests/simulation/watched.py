"""Writes that follow from what was read before: they take place only if that has still the version and the expiry it had.

What scripts, EXEC after WATCH and commands of several steps do: a client looks at a node's memory, and some time later writes
what follows from it, guarded by all that it has looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.machine.state.entries import DATA, EXPIRES_AT_MS, VERSION, Entry
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

# A key whose expiry comes and goes, and one that says whether it has one. It outlives each run, though time jumps by hours.
LIMITED, SAID, COUNT = "w limited", "w said", "w count"
TTL_MS = 30 * 86_400_000
# What a client has seen: the entries of the three keys.
Seen = dict[str, "Entry | None"]


class Watched:
    """A counter that clients read, and write one higher; and a key that tells whether another one has an expiry."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._seen: dict[str, Seen] = {}
        # Increments that were sent, and those that were acknowledged.
        self._attempts = self._acknowledged = 0

    def call(self, client: Client, process: Process) -> None:
        """Look at memory; or do what follows from what this client has seen, or change an expiry in any case."""
        random = self._workload.random
        seen = self._seen.pop(client.name, None)
        if seen is None:
            if process.node.may_read:
                self._seen[client.name] = self._look_at(process)
        elif seen[LIMITED] is None:
            first = [commands.set_(LIMITED, b"x", BYTES), commands.set_(SAID, b"kept", BYTES)]
            self._send(client, process, {LIMITED: None}, first, "begin")
        elif random.random() < 0.4:
            ends = random.random() < 0.5
            changes = [
                commands.expire(LIMITED, TTL_MS if ends else commands.TTL_NONE),
                commands.set_(SAID, b"ends" if ends else b"kept", BYTES),
            ]
            self._send(client, process, {}, changes, f"expiry {ends}")
        elif random.random() < 0.5:
            self._send(client, process, {LIMITED: seen[LIMITED]}, [commands.set_(SAID, _said(seen), BYTES)], "say")
        else:
            self._count(client, process, seen[COUNT])

    def _count(self, client: Client, process: Process, present: Entry | None) -> None:
        number = 1 if present is None else int(present[DATA]) + 1
        self._attempts += 1
        command = commands.set_(COUNT, b"%d" % number, BYTES)
        self._send(client, process, {COUNT: present}, [command], f"count {number}", counts=True)

    def _send(
        self, client: Client, process: Process, seen: Seen, changes: list[Command], what: str, *, counts: bool = False
    ) -> None:
        conditions = [
            (key, 0, 0) if entry is None else (key, entry[VERSION], entry[EXPIRES_AT_MS]) for key, entry in seen.items()
        ]

        def told(results: list[commands.Result]) -> None:
            self._acknowledged += counts and results[0][0] == commands.OK

        # An expiry of a key that was evicted cannot be changed, and nothing of its entry takes place then.
        statuses = (commands.OK, commands.PRECONDITION, *((commands.ABORTED,) if self._workload.evicts else ()))
        command = commands.guarded(conditions, changes, atomic=True)
        client.call(process, [command], f"watched {what}", told, statuses=statuses)

    def _look_at(self, process: Process) -> Seen:
        now_ms = process.clock.now_ms()
        return {key: process.machine.lookup(key, now_ms) for key in (LIMITED, SAID, COUNT)}

    def look(self, process: Process) -> None:
        """Check what a node's memory says, however old it is."""
        seen = self._look_at(process)
        if self._workload.evicts or seen[LIMITED] is None:
            return
        said = seen[SAID]
        if said is None or said[DATA] != _said(seen):
            self._complain(f"{process.name} shows {seen[LIMITED]}, and said is {said}")

    def check(self, process: Process) -> None:
        """Check the counter at the end. Raises Violation."""
        entry = self._look_at(process)[COUNT]
        number = 0 if entry is None else int(entry[DATA])
        if not self._acknowledged <= number <= self._attempts:
            self._complain(f"the count is {number}, of {self._acknowledged} acknowledged and {self._attempts} sent")

    def _complain(self, words: str) -> None:
        self._cluster.checks.complain(f"guarded: {words}")


def _said(seen: Seen) -> bytes:
    entry = seen[LIMITED]
    return b"ends" if entry is not None and entry[EXPIRES_AT_MS] else b"kept"
