"""Faults by supervisors: they end a node that leaves its cluster by itself, and start it again from the same disk.

The end may come in the middle of the leaving. A node whose leaving was settled only at its next start says that it has to be
started once more, and the supervisor does that, as one with a liveness probe does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.machine_faults import none_moved
from simulation.storage import DIRECTORY

from cacheflow.node.leaving import LEAVE_WITHIN_S
from cacheflow.raft.log.departure import read_departure

if TYPE_CHECKING:
    from simulation.cluster import Host
    from simulation.faults import Faults

# Seconds between two looks of the supervisor.
LOOK_S = 0.5


class Departure:
    """The leaving of one node, until it is a member again, after all or anew."""

    def __init__(self, faults: Faults, host: Host) -> None:
        self._faults = faults
        self._cluster = faults.cluster
        self._host = host
        self._incarnation = host.incarnation
        self._ended = False
        assert host.process is not None
        self._process = host.process
        self._cluster.leaving.add(host.node_id)
        self._cluster.note(f"supervisor: {self._process.name} is to leave and end")
        self._process.loop.create_task(self._leave())
        faults.later(0.05, LEAVE_WITHIN_S + 1.0, self._kill)
        self._cluster.scheduler.at(LOOK_S, self._look)

    async def _leave(self) -> None:
        process, cluster = self._process, self._cluster
        why = await process.leaving.leave(LEAVE_WITHIN_S)
        cluster.note(f"{process.name} leaves: {why or 'it is out'}")
        leader = cluster.leader
        if not why and leader is not None and leader.node.term == max(cluster.checks.leaders):
            table = leader.node.configurations.settled
            if leader.node._core.has_settled and table.lists(process.node_id, self._incarnation):
                cluster.checks.complain(f"leaving: {process.name} says that it is out, and {leader.name} lists it")
        cluster.scheduler.at(0.0, self._kill)

    def _kill(self) -> None:
        """End the process: it has left, or could not, or takes too long; and start it again some time later."""
        if self._ended:
            return
        self._ended = True
        if self._host.process is self._process:
            self._cluster.crash(self._host, power=False)
        self._faults.later(0.0, 4.0, lambda: self._faults.start(self._host))

    def _look(self) -> None:
        """Start a node once more that says so, and end this once the node is a member and its disk speaks of no departure."""
        host, cluster, process = self._host, self._cluster, self._host.process
        if process is not None and self._ended:
            removal = process.node.removal
            if removal.removed_at is not None and removal.by_itself:
                cluster.crash(host, power=False)
                cluster.start(host)
            elif self._is_back(host):
                cluster.note(
                    f"supervisor: {process.name} is a member{'' if host.incarnation == self._incarnation else ' anew'}"
                )
                cluster.leaving.remove(host.node_id)
                return
        cluster.scheduler.at(LOOK_S, self._look)

    def _is_back(self, host: Host) -> bool:
        process = host.process
        return (
            process is not None
            and process.may_read
            and process.node.configurations.settled.lists(host.node_id, host.incarnation)
            and read_departure(host.disk, DIRECTORY) is None
        )


def _leave(faults: Faults) -> None:
    _go(faults, faults.somebody())


def _leave_leader(faults: Faults) -> None:
    _go(faults, faults.leading())


def _go(faults: Faults, host: Host) -> None:
    process = host.process
    if process is None or process.loop.paused or process.is_stray or host.node_id in faults.cluster.leaving:
        return
    # It comes back as another member: at an address that a member still claims, that member would be taken for gone.
    if process.node.configurations.settled.lists(host.node_id, host.incarnation) and none_moved(faults):
        Departure(faults, host)


# name -> (how often, compared with the others; what it does)
DEPARTURE_FAULTS = {"leave": (1, _leave), "leave_leader": (0.5, _leave_leader)}
