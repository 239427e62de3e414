"""What goes wrong: drawn from the seed, begun at random moments, and undone some time later.

Every fault leaves the promise of Raft intact: processes crash and machines forget what was not flushed, messages are
late, lost or cut off, clocks jump, disks tear what was being written. No disk loses what it has flushed, but for a
machine that is emptied while everybody else has everything.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Host

# name -> how often, compared with the others.
ALL: dict[str, float] = {
    "kill": 3,
    "kill_leader": 2,
    "power": 2,
    "blackout": 1,
    "isolate": 2,
    "isolate_leader": 2,
    "split": 1,
    "one_way": 2,
    "reset": 2,
    "pause": 2,
    "pause_leader": 1,
    "slow_disk": 1,
    "broken_disk": 0.5,
    "loss": 1,
    "slow_network": 1,
    "wall_jump": 1,
    "hand_over": 1,
    "snapshot": 1,
    "empty": 0.5,
}


class Faults:
    """Begins faults until ``stop``. every_s: mean time between two."""

    def __init__(self, cluster: Cluster, random: Random, kinds: dict[str, float], every_s: float) -> None:
        self.cluster = cluster
        self.random = random
        self.counts: dict[str, int] = {}
        self._kinds = kinds
        self._every_s = every_s
        self._running = True
        self._undo: dict[int, Callable[[], None]] = {}
        self._next = 0
        # Nothing else happens while a new member catches up.
        self._quiet_until = 0.0
        self._wait()

    def stop(self) -> None:
        """Undo everything and begin nothing more."""
        self._running = False
        for number in list(self._undo):
            self._end(number)
        cluster = self.cluster
        cluster.note("everything is healed")
        for host in cluster.hosts:
            if host.process is not None and host.process.node.failure is not None:
                cluster.crash(host, power=False)
            if host.process is None:
                cluster.start(host)

    def _wait(self) -> None:
        self.cluster.scheduler.at(self.random.expovariate(1 / self._every_s), self._strike)

    def _strike(self) -> None:
        if not self._running:
            return
        self._wait()
        if self.cluster.scheduler.now < self._quiet_until:
            return
        names = list(self._kinds)
        name = self.random.choices(names, list(self._kinds.values()))[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        getattr(self, f"_{name}")()

    def _later(self, least_s: float, most_s: float, undo: Callable[[], None]) -> None:
        """Undo after a while, or when all is healed."""
        self._next += 1
        self._undo[self._next] = undo
        self.cluster.scheduler.at(self.random.uniform(least_s, most_s), self._end, self._next)

    def _end(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def _somebody(self) -> Host:
        return self.random.choice(self.cluster.hosts)

    def _leading(self) -> Host:
        leader = self.cluster.leader
        return leader.host if leader is not None else self._somebody()

    # Processes and machines.

    def _crash(self, host: Host, *, power: bool) -> None:
        if host.process is None:
            return
        self.cluster.crash(host, power=power)

        def restart() -> None:
            if host.process is None:
                self.cluster.start(host)

        self._later(0.05, 5.0, restart)

    def _kill(self) -> None:
        self._crash(self._somebody(), power=False)

    def _kill_leader(self) -> None:
        self._crash(self._leading(), power=False)

    def _power(self) -> None:
        self._crash(self._somebody(), power=True)

    def _blackout(self) -> None:
        """The whole room."""
        for host in self.cluster.hosts:
            self._crash(host, power=True)

    def _stall(self, host: Host) -> None:
        process = host.process
        if process is None or process.loop.paused:
            return
        self.cluster.note(f"{process.name} stalls")
        process.loop.pause()

        def resume() -> None:
            if process.loop.alive and process.loop.paused:
                self.cluster.note(f"{process.name} goes on")
                process.loop.resume()

        self._later(0.05, 4.0, resume)

    def _pause(self) -> None:
        self._stall(self._somebody())

    def _pause_leader(self) -> None:
        self._stall(self._leading())

    # The network.

    def _cut(self, ways: list[tuple[str, str]], what: str) -> None:
        wire = self.cluster.wire
        self.cluster.note(f"cut: {what}")
        for source, target in ways:
            wire.cut(source, target)

        def heal() -> None:
            self.cluster.note(f"healed: {what}")
            for source, target in ways:
                wire.heal(source, target)

        self._later(0.1, 6.0, heal)

    def _apart(self, ones: list[Host], what: str) -> None:
        inside = {host.node_id for host in ones}
        outside = [host.node_id for host in self.cluster.hosts if host.node_id not in inside]
        pairs = [(one.node_id, other) for one in ones for other in outside]
        self._cut([*pairs, *((other, one) for one, other in pairs)], what)

    def _isolate(self) -> None:
        host = self._somebody()
        self._apart([host], f"{host.node_id} alone")

    def _isolate_leader(self) -> None:
        host = self._leading()
        self._apart([host], f"{host.node_id} alone")

    def _split(self) -> None:
        hosts = self.cluster.hosts
        ones = self.random.sample(hosts, self.random.randint(1, len(hosts) - 1))
        self._apart(ones, " ".join(host.node_id for host in ones))

    def _one_way(self) -> None:
        one, other = self.random.sample(self.cluster.hosts, 2)
        self._cut([(one.node_id, other.node_id)], f"{one.node_id} to {other.node_id}")

    def _reset(self) -> None:
        one, other = self.random.sample(self.cluster.hosts, 2)
        self.cluster.note(f"reset: {one.node_id} to {other.node_id}")
        self.cluster.wire.break_connection(one.node_id, other.node_id)

    def _loss(self) -> None:
        wire = self.cluster.wire
        wire.loss = self.random.choice((0.001, 0.01, 0.1))
        self.cluster.note(f"loss {wire.loss}")

        def undo() -> None:
            wire.loss = 0.0

        self._later(0.5, 5.0, undo)

    def _slow_network(self) -> None:
        wire = self.cluster.wire
        wire.delay_s = self.random.choice(((0.0, 0.01), (0.005, 0.05), (0.001, 0.3)))
        self.cluster.note(f"delay {wire.delay_s}")

        def undo() -> None:
            wire.delay_s = wire.usual_delay_s

        self._later(0.5, 4.0, undo)

    # Disks and clocks.

    def _slow_disk(self) -> None:
        host = self._somebody()
        self.cluster.note(f"{host.node_id}'s disk is slow")
        host.set_disk_latency((0.01, self.random.choice((0.05, 0.5, 2.0))))
        self._later(0.5, 5.0, lambda: host.set_disk_latency((0.0002, 0.002)))

    def _broken_disk(self) -> None:
        host = self._somebody()
        if host.process is None:
            return
        self.cluster.note(f"{host.node_id}'s disk fails")
        host.disk.fail(self.random.choice(("write", "sync")), OSError("input/output error"))
        self._later(0.5, 3.0, lambda: self._replace(host))

    def _replace(self, host: Host) -> None:
        """The operator looks after it: the process is started again."""
        if host.process is not None:
            self.cluster.crash(host, power=self.random.random() < 0.5)
        host.disk.forget_failures()
        if host.process is None:
            self.cluster.start(host)

    def _wall_jump(self) -> None:
        host = self._somebody()
        host.wall_skew_s += self.random.uniform(-7200, 7200)
        self.cluster.note(f"{host.node_id}'s wall clock jumps")

    # What operators do.

    def _hand_over(self) -> None:
        leader = self.cluster.leader
        if leader is not None and not leader.loop.paused:
            heir = leader.node.reconfiguration.hand_over(None)
            self.cluster.note(f"{leader.name} hands over to {heir}")

    def _snapshot(self) -> None:
        process = self._somebody().process
        if process is not None and not process.loop.paused:
            process.snapshotting.build()

    def _empty(self) -> None:
        """Only while nobody else is in trouble: with everything on all disks, a majority keeps it."""
        host = self._somebody()
        if self._undo or not self.cluster.healthy():
            return
        self.cluster.note(f"{host.node_id}'s disk is emptied")
        self.cluster.crash(host, power=False)
        host.empty(self.random)
        self._later(3.0, 4.0, lambda: self.cluster.start(host) if host.process is None else None)
        self._quiet_until = self.cluster.scheduler.now + 10.0
