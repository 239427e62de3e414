"""A run of plain PySyncObj in our simulation: crashes, cuts and pauses, and then the checks that our own nodes go through."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import pysyncobj.syncobj
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from simulation.checks import Violation
from simulation.unguarded_clients import TIMEOUT_S, PlainWorkload
from simulation.unguarded_nodes import PlainCluster, PlainHost

# Seconds that a message takes (long, so that several are on their way), and mean seconds between two faults.
DELAY_S, EVERY_S = (0.001, 0.5), 5.0
HEALED_WITHIN_S = 20.0


class PlainFaults:
    """Crashes, cuts, resets and pauses: what happens to processes and to TCP, and nothing that a disk does."""

    def __init__(self, cluster: PlainCluster, random: Random, every_s: float) -> None:
        self._cluster = cluster
        self._random = random
        self._every_s = every_s
        self._running = True
        self._wait()

    def stop(self) -> None:
        """Begin nothing more. What has begun ends by itself."""
        self._running = False

    def _wait(self) -> None:
        self._cluster.scheduler.at(self._random.expovariate(1 / self._every_s), self._strike)

    def _strike(self) -> None:
        if self._running:
            self._wait()
            self._random.choice((self._cut_off_then_kill, self._cut_off_then_kill, self._isolate, self._pause))()

    def _later(self, least_s: float, most_s: float, call: Callable[[], None]) -> None:
        self._cluster.scheduler.at(self._random.uniform(least_s, most_s), call)

    def _isolate(self) -> None:
        self._later(0.5, 3.0, self._cut(self._random.choice(self._cluster.hosts)))

    def _cut(self, away: PlainHost) -> Callable[[], None]:
        """Cut one machine off; return a function that heals the cut."""
        wire = self._cluster.wire
        ways = [
            way
            for host in self._cluster.hosts
            if host is not away
            for way in ((away.node_id, host.node_id), (host.node_id, away.node_id))
        ]
        for source, target in ways:
            wire.cut(source, target)

        def heal() -> None:
            for source, target in ways:
                wire.heal(source, target)

        return heal

    def _cut_off_then_kill(self) -> None:
        """Cut a follower off for a while, and kill the leader when it comes back."""
        cluster, leader = self._cluster, self._cluster.leader
        if leader is None:
            return
        heal = self._cut(self._random.choice([host for host in cluster.hosts if host is not leader.host]))

        def come_back() -> None:
            leading = cluster.leader
            if leading is not None:
                cluster.crash(leading.host)
                self._later(2.0, 4.0, lambda: cluster.start(leading.host))
            heal()

        self._later(0.5, 2.0, come_back)

    def _pause(self) -> None:
        process = self._random.choice(self._cluster.hosts).process
        if process is not None and not process.loop.paused:
            process.loop.pause()
            self._later(0.05, 3.0, process.loop.resume)


@dataclass
class Outcome:
    """The result of a run of plain PySyncObj.

    violation: what the checks say, None when everything held.  lost: acknowledged values that the last leader does not have.
    converged: whether all were well in time.
    """

    seed: int
    violation: str | None = None
    lost: Sequence[bytes] = ()
    converged: bool = True
    acknowledged: int = 0


def run(seed: int, nodes: int = 3, seconds: float = 20.0, *, faulty: bool = True) -> Outcome:
    """Simulate a cluster of plain PySyncObj; the seed decides everything."""
    outcome = Outcome(seed)
    cluster = PlainCluster(seed, nodes)
    random = Random(seed)
    cluster.wire.usual_delay_s = cluster.wire.delay_s = DELAY_S
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        cluster.run(5.0)
        workload = PlainWorkload(cluster, random)
        faults = PlainFaults(cluster, random, EVERY_S) if faulty else None
        cluster.run(seconds)
        if faults is not None:
            faults.stop()
        healed_by = cluster.scheduler.now + HEALED_WITHIN_S
        while not cluster.well() and cluster.scheduler.now < healed_by:
            cluster.run(0.5)
        outcome.converged = cluster.well()
        workload.running = False
        cluster.run(TIMEOUT_S)
        workload.look_at_everything()
        cluster.run(TIMEOUT_S)
        outcome.acknowledged = workload.acknowledged
        outcome.lost = workload.not_in_the_leaders_log()
        try:
            workload.check()
        except Violation as violation:
            outcome.violation = str(violation)
    return outcome


@contextmanager
def patched(cluster: PlainCluster) -> Iterator[None]:
    """Give PySyncObj the simulation's time and randomness, and journals that outlive its processes."""
    module = pysyncobj.syncobj
    before = module.monotonicTime, module.random, module.createJournal, Node.__hash__
    read_at = 0.0

    def now() -> float:
        # PySyncObj spins on its clock while a leader sends, so each reading must move it.
        nonlocal read_at
        read_at = max(read_at + 2e-5, cluster.scheduler.now)
        return read_at

    module.monotonicTime = now
    module.random = Random(cluster.random.getrandbits(64))
    module.createJournal = lambda name: cluster.journals.setdefault(name, MemoryJournal())
    Node.__hash__ = lambda node: zlib.crc32(node.id.encode())
    try:
        yield
    finally:
        module.monotonicTime, module.random, module.createJournal, hash_ = before
        Node.__hash__ = hash_
