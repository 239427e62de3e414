"""Upgrades: machines get a newer build, go back to the older one, and the feature level is raised.

The newer build is this one with a level more (``fakes/newer_build.py``). Before the raise going back is promised: nothing
may stop a node. Afterwards a node with the older build stops and says why, has damaged nothing, and comes back once the
operator has installed the newer build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fakes.newer_build import GREETING, NewerMachine

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.machine.language.levels import FIRST_LEVEL
from cacheflow.machine.machine import CacheMachine

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Host, Process
    from simulation.faults import Faults

# How long all members must know a level until the leader raises it: less than in the product, for a run is short.
RAISE_AFTER_MS = 5_000
# The time that an operator takes to install what a node asks for.
INSTALLED_WITHIN_S = (0.5, 3.0)
WORDS = "written by a newer CacheFlow (level 2; this build knows 1)"
REFUSED = "install a newer one there"
GREET_EVERY_S = 0.5
# Every so many events of a process it is seen whether it is refused as a member.
LOOK_EVERY = 64


class Upgrades:
    """The operator, who installs the newer build where a node says that it is needed, and what may be said when."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # The highest level that was in force anywhere.
        self.level = FIRST_LEVEL
        self._due: set[str] = set()
        # Messages that only the newer build knows and that have come.
        self.greetings = 0

    def raised(self, process: Process, before: int) -> None:
        """Check a raise that ``process`` is the first to apply, behind the entry ``before``."""
        self.level = process.machine.level
        self._cluster.note(f"{process.name} is at level {self.level}")
        for other in self._cluster.processes:
            # Its session is in the log before the raise: it has told that it knows less.
            told = other.proposals._session and other.machine.applied_index <= before
            member = process.machine.members.get(other.node_id)
            if (
                told
                and other.build.build_level < self.level
                and member
                and member.incarnation == other.node.incarnation
            ):
                self._cluster.checks.complain(f"levels: {self.level} is in force, and {other.name} knows less")

    def equip(self, process: Process) -> None:
        """Give a process the message of the newer build, which it sends now and then, once level 2 is in force."""
        node = process.node
        node._handlers[GREETING] = lambda peer, message: self._greeted(process, message)
        process.loop.call_later(GREET_EVERY_S, self._greet, process)

    def _greet(self, process: Process) -> None:
        process.loop.call_later(GREET_EVERY_S, self._greet, process)
        if process.level > FIRST_LEVEL:
            for node_id in list(process.site.ways):
                process.site.send(node_id, {"type": GREETING, "level": process.level})

    def _greeted(self, process: Process, message: dict[str, Any]) -> None:
        self.greetings += 1
        if message["level"] <= FIRST_LEVEL:
            self._cluster.checks.complain(f"levels: {process.name} was greeted at level {message['level']}")

    def look(self, process: Process, events: int) -> None:
        """See whether a process with the older build has stopped for that reason, or is refused as a member."""
        failure = process.node.replica.failure
        if failure is not None and "newer CacheFlow" in failure:
            self.told(process.host, failure)
        elif process.machine.level > process.build.build_level:
            self._cluster.checks.complain(f"levels: {process.name} goes on at level {process.machine.level}")
        elif events % LOOK_EVERY == 0 and REFUSED in process.joining.waits_for:
            self._install(process.host)

    def told(self, host: Host, reason: str) -> None:
        """Take note of why a node does not run: it must be true, and then the operator installs the newer build."""
        if self.level == FIRST_LEVEL:
            self._cluster.checks.complain(f"levels: nothing was raised, and {host.node_id} says: {reason}")
        if WORDS not in reason:
            self._cluster.checks.complain(f"levels: {host.node_id} says: {reason}")
        self._install(host)

    def _install(self, host: Host) -> None:
        if host.node_id not in self._due:
            self._due.add(host.node_id)
            self._cluster.note(f"operator: {host.node_id} needs the newer build")
            self._cluster.scheduler.at(self._cluster.random.uniform(*INSTALLED_WITHIN_S), self._installed, host)

    def _installed(self, host: Host) -> None:
        self._due.discard(host.node_id)
        host.build = NewerMachine
        self._cluster.crash(host, power=False)
        self._cluster.start(host)


def _with(faults: Faults, build: type[CacheMachine], what: str) -> None:
    hosts = [host for host in faults.cluster.hosts if host.build is not build]
    if not hosts:
        return
    host = faults.random.choice(hosts)
    faults.cluster.note(f"operator: {host.node_id} {what}")
    host.build = build
    faults.cluster.crash(host, power=faults.random.random() < 0.3)
    faults.later(0.05, 3.0, lambda: faults.start(host))


def _upgrade(faults: Faults) -> None:
    _with(faults, NewerMachine, "gets the newer build")


def _downgrade(faults: Faults) -> None:
    _with(faults, CacheMachine, "goes back to the older build")


def _raise_level(faults: Faults) -> None:
    processes = [process for process in faults.cluster.processes if not process.loop.paused]
    if processes:
        faults.cluster.note("operator: raise the level")
        process = faults.random.choice(processes)
        process.loop.call_soon(process.send_unchecked, [commands.raise_level(2)], _nobody_waits)


def _nobody_waits(outcome: Outcome) -> Callable[[], None]:
    return lambda: None


# name -> (how often, compared with the others; what it does)
UPGRADE_FAULTS: dict[str, tuple[float, Callable[[Faults], None]]] = {
    "upgrade": (1, _upgrade),
    "downgrade": (0.5, _downgrade),
    "raise_level": (0.5, _raise_level),
}
