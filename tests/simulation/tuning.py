"""A cache that is too small, cleared at times, and whose limits and policy change while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheflow.machine.effects import CONDEMNED, CONFIGURED, DELETED, WRITTEN
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

FILLERS = 200


class Tuning:
    """The calls that only matter in a cache that is too small for its keys."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster

    def fill(self, client: Client, process: Process) -> None:
        """Write a key, which must be there when the write is answered: room is made before."""
        random = self._workload.random
        key = f"f{random.randrange(FILLERS)}"

        def told(results: list[Result]) -> None:
            machine = process.machine
            # Later commands of the entry may take it away, this one may not.
            effects = [
                effect for effect in machine.contents.effects if effect[0] in (WRITTEN, CONFIGURED, CONDEMNED, DELETED)
            ]
            last_write = effects[-1] if effects else None
            if machine.lookup(key, machine.now_ms) is None and last_write and last_write[:2] == (WRITTEN, key):
                self._cluster.checks.complain(f"eviction: {key} was answered and evicted by its own write")

        client.call(process, [commands.set_(key, random.randbytes(20), BYTES)], f"fill {key}", told)

    def configure(self, client: Client, process: Process) -> None:
        """Set another policy, and where there are limits, others."""
        random = self._workload.random
        changes: dict[str, Any] = {"policy": random.choice(("lru", "lfu"))}
        if self._workload.evicts:
            changes["max_items"] = random.choice((6, 20, 60))
            changes["max_bytes"] = random.choice((None, 2000, 6000))
        client.call(process, [commands.configure(changes)], f"configure {changes}")

    def look(self, process: Process) -> None:
        """Make local reads, which count as uses."""
        random = self._workload.random
        for _ in range(5):
            process.uses.note(f"f{int(random.random() ** 3 * FILLERS)}")

    def check(self, process: Process) -> None:
        """Check that the limits hold after every entry, unless something waits for its turn to go."""
        machine = process.machine
        items_max, bytes_max = machine.settings.max_items, machine.settings.max_bytes
        if machine.contents.behind:
            return
        if items_max is not None and len(machine.contents.raw) > items_max:
            self._cluster.checks.complain(
                f"eviction: {process.name} has {len(machine.contents.raw)} of {items_max} items"
            )
        if bytes_max is not None and machine.contents.bytes_used > bytes_max:
            self._cluster.checks.complain(
                f"eviction: {process.name} has {machine.contents.bytes_used} of {bytes_max} bytes"
            )
