"""Late writes: what a caller was told is unknown takes place within a bound, or never.

Each write has a key of its own and a TTL that no run outlives, so its expiry tells when it took place, by the log's time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.state.entries import EXPIRES_AT_MS
from cacheflow.node.proposals import LATE_MS
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

TTL_MS = 30 * 86_400_000


class Late:
    """Writes, and when their callers were told that the outcome is unknown."""

    def __init__(self, workload: Workload) -> None:
        self._cluster = workload.cluster
        self._count = 0
        # {key: the cluster's time, as the node that told it knew it}
        self._told_ms: dict[str, int] = {}
        self._refused: list[str] = []

    def write(self, client: Client, process: Process) -> None:
        """Write once through a process."""
        self._count += 1
        key = f"late{self._count}"

        def unknown() -> None:
            self._told_ms[key] = process.clock.now_ms()

        command = commands.set_(key, b"x", BYTES, None, TTL_MS)
        client.call(process, [command], key, refused=lambda: self._refused.append(key), unknown=unknown)

    def check(self, process: Process, timeout_s: float) -> None:
        """Check at the end, on any node, when the writes took place."""
        machine, checks = process.machine, self._cluster.checks
        for key in self._refused:
            if machine.lookup(key, machine.now_ms) is not None:
                checks.complain(f"outcome: {key} took place, and its caller was told that it does not")
        if self._cluster.lease_slack_s == inf:
            return  # the cluster's time has jumped
        # Another caller's write in the same block may have had all of its time before it.
        bound_ms = timeout_s * 1000 + LATE_MS + self._cluster.lease_slack_s * 1000
        for key, told_ms in self._told_ms.items():
            entry = machine.lookup(key, machine.now_ms)
            if entry is not None and entry[EXPIRES_AT_MS] - TTL_MS > told_ms + bound_ms:
                late_ms = entry[EXPIRES_AT_MS] - TTL_MS - told_ms
                checks.complain(f"too late: {key} took place {late_ms} ms after its caller was told that nobody knows")
