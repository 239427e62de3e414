"""A cache that is too small, cleared at times, and whose settings change while it works.

Each change of the settings is another one, so that each that takes place gives them a version of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheflow.machine.effects import CONDEMNED, CONFIGURED, DELETED, WRITTEN
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.settings import Settings
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
        self._changes = 0
        # {version that the settings were told to have after a change: the name of the client that made it}.
        self._versions: dict[int, str] = {}
        # The version that somebody saw when the settings were looked at last; others may have changed them since.
        self._seen = 1

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
        """Set another policy and largest value, and where there are limits, others; at times only at a certain version."""
        random = self._workload.random
        self._changes += 1
        changes: dict[str, Any] = {
            "policy": random.choice(("lru", "lfu")),
            "max_value_bytes": 1_000_000 + self._changes,
        }
        if self._workload.evicts:
            changes["max_items"] = random.choice((6, 20, 60))
            changes["max_bytes"] = random.choice((None, 2000, 6000))
        version = self._seen if random.random() < 0.7 else None

        def told(results: list[Result]) -> None:
            if results[0][0] == commands.OK:
                self._changed(process, client.name, version, Settings(*results[0][1:]))
            elif version is None:
                self._cluster.checks.complain(f"settings: a change without a condition was refused: {results[0]}")

        command = commands.configure(changes, version, client.name)
        client.call(process, [command], f"configure {changes} at {version}", told)

    def _changed(self, process: Process, by: str, version: int | None, found: Settings) -> None:
        """Check the settings ``found`` that the process has answered to a change of its client ``by`` at ``version``."""
        complain = self._cluster.checks.complain
        if version is not None and found.version != version + 1:
            complain(f"settings: a change at version {version} gave them version {found.version}")
        if found.version in self._versions:
            complain(f"settings: {by} and {self._versions[found.version]} have both made version {found.version}")
        if found.changed_by != by:
            complain(f"settings: {by} has changed them, and {found.changed_by} is named")
        if process.machine.settings.version < found.version:
            complain(f"settings: {process.name} answers version {found.version} and has an earlier one")
        self._versions[found.version] = by

    def look(self, process: Process) -> None:
        """Make local reads, which count as uses, and look at the settings."""
        random = self._workload.random
        self._seen = process.machine.settings.version
        for _ in range(5):
            process.uses.note(f"f{int(random.random() ** 3 * FILLERS)}")

    def check(self, process: Process) -> None:
        """Check that the limits hold after every entry, unless something waits for its turn, and that fronts know them."""
        machine = process.machine
        if process.settings_told is not machine.settings:
            self._cluster.checks.complain(f"settings: the fronts of {process.name} were not told of {machine.settings}")
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
