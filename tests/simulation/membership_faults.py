"""Faults by operators: they take a node out, and let it come back with an empty disk.

The operator is as careful as one has to be: a machine is emptied only once it is certain that the member on it was removed.
Until then, and for a while after, its old process goes on, is killed and started as any other, and must harm nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.machine_faults import none_moved

from cacheflow.raft.membership.changes import CONFLICT, NO_LEADER, REMOVED, UNKNOWN

if TYPE_CHECKING:
    from simulation.cluster import Host
    from simulation.faults import Faults

ATTEMPT_S = 4.0
AGAIN_S = 0.3
# Seconds for which an attempt without an answer may still be carried out: it may be late, and wait at the leader.
LATE_S = 12.0


class _Removal:
    """The removal of one member, until it is certain whether it took place."""

    def __init__(self, faults: Faults, host: Host) -> None:
        self._faults = faults
        self._cluster = faults.cluster
        self._host = host
        self._incarnation = host.incarnation
        self._attempt = 0
        # An attempt without an answer may still be carried out, until then.
        self._unsure_until = 0.0
        self._over = False
        self._cluster.leaving.add(host.node_id)
        self._cluster.note(f"operator: remove {host.node_id}")
        self._ask()

    def _ask(self) -> None:
        scheduler = self._cluster.scheduler
        self._attempt += 1
        attempt = self._attempt
        scheduler.at(ATTEMPT_S, self._silent, attempt)
        processes = [process for process in self._cluster.processes if not process.loop.paused]
        if not processes:
            scheduler.at(AGAIN_S, self._answered, attempt, NO_LEADER, "nobody runs")
            return
        asked = self._faults.random.choice(processes)
        scheduler.at(
            self._cluster.wire.delay(),
            asked.node.reconfiguration.remove,
            self._host.node_id,
            self._incarnation,
            lambda outcome, detail: self._answered(attempt, outcome, detail),
            owner=asked.loop,
        )

    def _silent(self, attempt: int) -> None:
        if attempt == self._attempt and not self._over:
            self._unsure_until = self._cluster.scheduler.now + LATE_S
            self._ask()

    def _answered(self, attempt: int, outcome: str, detail: str) -> None:
        if self._over:
            return
        host_id = self._host.node_id
        self._cluster.note(f"operator: removing {host_id}: {outcome} {detail}")
        if outcome in (REMOVED, UNKNOWN):
            self._over = True
            self._faults.later(0.0, 6.0, self._empty)
            return
        if outcome == CONFLICT and self._cluster.scheduler.now >= self._unsure_until:
            self._over = True
            self._cluster.leaving.remove(host_id)
            return
        if attempt == self._attempt:
            if outcome not in (NO_LEADER, CONFLICT):
                self._unsure_until = self._cluster.scheduler.now + LATE_S
            # The one that is silent is taken for answered: this one takes its place.
            self._attempt += 1
            self._cluster.scheduler.at(AGAIN_S, self._ask)

    def _empty(self) -> None:
        host, cluster = self._host, self._cluster
        cluster.leaving.remove(host.node_id)
        if host.incarnation != self._incarnation:
            return
        cluster.note(f"operator: {host.node_id} comes back with an empty disk")
        cluster.crash(host, power=False)
        host.empty(self._faults.random)
        host.rejoins = True
        cluster.start(host)


def _remove(faults: Faults) -> None:
    _take_out(faults, faults.somebody())


def _remove_leader(faults: Faults) -> None:
    _take_out(faults, faults.leading())


def _take_out(faults: Faults, host: Host) -> None:
    # A newcomer that nobody knows yet may still come in after it was called unknown.
    is_member = any(
        process.node.configurations.settled.lists(host.node_id, host.incarnation)
        for process in faults.cluster.processes
    )
    # It comes back with another disk: at an address that a member still claims, that member would be taken for gone.
    if is_member and host.node_id not in faults.cluster.leaving and none_moved(faults):
        _Removal(faults, host)


# Seconds until a cluster that was founded by mistake has stopped serving: members dial it at least once a second.
MET_WITHIN_S = 3.0


def _second_cluster(faults: Faults) -> None:
    """Let a machine whose disk was emptied found a cluster of its own, as its operator's mistake, while all others run."""
    faults.alone(lambda: _found_by_mistake(faults) if faults.may_lose_one else None)


def _found_by_mistake(faults: Faults) -> None:
    host, cluster = faults.somebody(), faults.cluster
    cluster.note(f"operator: {host.node_id} is emptied and founds a cluster of its own")
    cluster.crash(host, power=False)
    host.empty(faults.random)
    host.founds_by_mistake = True
    cluster.start(host)
    host.founds_by_mistake = False
    stray = host.process
    assert stray is not None

    def check() -> None:
        stopped = stray.node.replica.stumbled is not None and not (stray.may_read or stray.takes_writes)
        if stray.loop.alive and not stopped:
            cluster.checks.complain(f"founding: {stray.name} goes on in a cluster of its own")

    def mend() -> None:
        cluster.note(f"operator: {host.node_id} is emptied again")
        cluster.crash(host, power=False)
        host.empty(faults.random)
        faults.start(host)

    cluster.scheduler.at(MET_WITHIN_S, check)
    faults.later(MET_WITHIN_S + 0.1, MET_WITHIN_S + 1.0, mend)
    faults.quiet_for(MET_WITHIN_S + 10.0)


# name -> (how often, compared with the others; what it does)
MEMBERSHIP_FAULTS: dict[str, tuple[float, Callable[[Faults], None]]] = {
    "remove": (1, _remove),
    "remove_leader": (0.5, _remove_leader),
    "second_cluster": (0.3, _second_cluster),
}
