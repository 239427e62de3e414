"""Groups of keys that are removed by their prefix: absent at once, counted rightly, and what comes later stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

KEYS = 25
# What one entry does of what goes in bulk, in a simulation: so little that it takes several entries.
BOUNDS = {
    "EXPIRED_PER_ENTRY_MAX": 6,
    "SWEPT_PER_ENTRY_MAX": 12,
    "BURIED_PER_ENTRY_MAX": 5,
    "EVICTED_PER_ENTRY_MAX": 4,
    "SWEPT_AT_ONCE": 3,
    "SWEPT_FOR_ROOM_MAX": 9,
}


class Group:
    """The keys of one client under a prefix that nobody else uses, and which of them are there.

    After a call whose outcome it was not told, the client goes on under another prefix.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.generation = 0
        self.present: set[str] = set()
        self.asks = False

    @property
    def prefix(self) -> str:
        """The prefix of the group's keys."""
        return f"g{self._name}.{self.generation}:"

    def begin(self) -> int:
        """Begin a call; return the generation of the prefix that it is for."""
        if self.asks:
            self.lost()
        self.asks = True
        return self.generation

    def lost(self) -> None:
        """Give the keys up: what has become of them is not known."""
        self.generation += 1
        self.present = set()
        self.asks = False


class Clears:
    """Writes of groups, and removals by their prefixes."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._groups: dict[str, Group] = {}

    def call(self, client: Client, process: Process) -> None:
        """Write some keys of the client's group, or remove the group."""
        random = self._workload.random
        group = self._groups.setdefault(client.name, Group(client.name))
        generation = group.begin()
        removes = bool(group.present) and random.random() < 0.5
        keys = {f"{group.prefix}{random.randrange(KEYS)}" for _ in range(random.randrange(2, 20))}

        def told(results: list[Result]) -> None:
            if group.generation != generation:
                return
            group.asks = False
            if removes:
                self._counted(process, group, results[0][1])
                group.present = set()
            else:
                group.present |= keys
            self._look(process, group)

        def refused() -> None:
            if group.generation == generation:
                group.asks = False

        def unknown() -> None:
            if group.generation == generation:
                group.lost()

        if removes:
            client.call(
                process, [commands.delete_prefix(group.prefix)], f"remove {group.prefix}", told, refused, unknown
            )
        else:
            batch = commands.batch([commands.set_(key, b"x", BYTES) for key in sorted(keys)])
            client.call(process, [batch], f"write {len(keys)} of {group.prefix}", told, refused, unknown)

    def _counted(self, process: Process, group: Group, count: int) -> None:
        # Where the cache is too small some may have been evicted.
        wrong = count > len(group.present) if self._workload.evicts else count != len(group.present)
        if wrong:
            self._cluster.checks.complain(
                f"removals: {process.name} removed {count} keys of {group.prefix}, and there were {len(group.present)}"
            )

    def _look(self, process: Process, group: Group) -> None:
        """Check which keys of the group are in the memory of the process that has just answered."""
        found = set(process.machine.keys(group.prefix, now_ms=process.machine.now_ms)[0])
        if not found <= group.present or (found != group.present and not self._workload.evicts):
            self._cluster.checks.complain(
                f"removals: {process.name} has {sorted(found)} of {group.prefix}, not {sorted(group.present)}"
            )
