"""Faults: drawn from the seed, begun at random moments, and undone some time later.

Every fault leaves the promise of Raft intact: processes crash and machines forget what was not flushed, messages are
late, lost, doubled or cut off, clocks jump, disks are full or tear what was being written. No disk loses what it has
flushed, but for a machine that is emptied, or damaged and then emptied, while everybody else has everything.

What happens to single machines is in machine_faults.py; here is what happens to processes and between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from simulation.departures import DEPARTURE_FAULTS
from simulation.machine_faults import MACHINE_FAULTS, all_found
from simulation.membership_faults import MEMBERSHIP_FAULTS
from simulation.narrow import narrow
from simulation.roles import ROLE_FAULTS
from simulation.upgrades import UPGRADE_FAULTS

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Host

# The kinds that have files of their own: by name, how often each strikes, and what it does.
OTHERS = MACHINE_FAULTS | MEMBERSHIP_FAULTS | DEPARTURE_FAULTS | UPGRADE_FAULTS | ROLE_FAULTS
# All kinds of faults by name, and how often each strikes compared with the others.
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
    "suspend": 1,
    "loss": 1,
    "slow_network": 1,
    "doubling": 1,
    "stragglers": 1,
    "narrow": 1,
    "hand_over": 1,
    "snapshot": 1,
    **{name: weight for name, (weight, _) in OTHERS.items()},
}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault to come, ``at_s`` seconds after the work began.

    seed: for the choices of this fault alone, so that others may be left out.
    """

    at_s: float
    name: str
    seed: int


def draw(random: Random, kinds: dict[str, float], every_s: float, seconds: float) -> tuple[Strike, ...]:
    """Return the faults of a run of so many seconds. every_s: mean time between two."""
    strikes = []
    at_s = random.expovariate(1 / every_s)
    while kinds and at_s < seconds:
        name = random.choices(list(kinds), list(kinds.values()))[0]
        strikes.append(Strike(at_s, name, random.getrandbits(32)))
        at_s += random.expovariate(1 / every_s)
    return tuple(strikes)


class Faults:
    """The faults of one run, which strike until ``stop``."""

    def __init__(self, cluster: Cluster, strikes: Iterable[Strike]) -> None:
        self.cluster = cluster
        self.random = Random(0)
        self.counts: dict[str, int] = {}
        self._running = True
        self._undo: dict[int, Callable[[], None]] = {}
        self._next = 0
        # Nothing else happens while a new member catches up.
        self._quiet_until = 0.0
        for strike in strikes:
            cluster.scheduler.at(strike.at_s, self._strike, strike)

    def stop(self) -> None:
        """Undo everything and begin nothing more."""
        self._running = False
        for number in list(self._undo):
            self._end(number)
        cluster = self.cluster
        cluster.note("everything is healed")
        for host in cluster.hosts:
            if host.process is not None and host.process.node.replica.failure is not None:
                cluster.crash(host, power=False)
            if host.process is None:
                cluster.start(host)

    def _strike(self, strike: Strike) -> None:
        if not self._running or self.cluster.scheduler.now < self._quiet_until:
            return
        self.random = Random(strike.seed)
        name = strike.name
        self.counts[name] = self.counts.get(name, 0) + 1
        if name in OTHERS:
            OTHERS[name][1](self)
        else:
            getattr(self, f"_{name}")()

    def later(self, least_s: float, most_s: float, undo: Callable[[], None]) -> None:
        """Call ``undo`` after a while, or when all is healed."""
        self._next += 1
        self._undo[self._next] = undo
        self.cluster.scheduler.at(self.random.uniform(least_s, most_s), self._end, self._next)

    def _end(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    @property
    def anything_wrong(self) -> bool:
        """True if a fault is not over, or the cluster has not recovered from it."""
        return bool(self._undo) or not self.cluster.healthy() or not all_found(self)

    @property
    def may_lose_one(self) -> bool:
        """True if enough vote that the others go on, and know better, without any one of them."""
        leader = self.cluster.leader
        return leader is not None and len(leader.node.configurations.latest.voters) >= 3

    def alone(self, strike: Callable[[], None]) -> None:
        """Let a fault strike that needs an otherwise healthy cluster: only when nothing is wrong, or at times later."""
        if not self.anything_wrong:
            strike()
        elif self.random.random() < 0.4:
            self.quiet_for(8.0)
            self._once_well(strike)

    def _once_well(self, strike: Callable[[], None]) -> None:
        if self._running and self.cluster.scheduler.now < self._quiet_until:
            if self.anything_wrong:
                self.cluster.scheduler.at(0.1, self._once_well, strike)
            else:
                strike()

    def quiet_for(self, seconds: float) -> None:
        """Let no further fault begin for so many seconds."""
        self._quiet_until = self.cluster.scheduler.now + seconds

    def start(self, host: Host) -> None:
        """Start the process of a machine on which none runs."""
        if host.process is None:
            self.cluster.start(host)

    def somebody(self) -> Host:
        """Return any machine."""
        return self.random.choice(self.cluster.hosts)

    def leading(self) -> Host:
        """Return the leader's machine."""
        leader = self.cluster.leader
        return leader.host if leader is not None else self.somebody()

    # Processes and machines.

    def _crash(self, host: Host, *, power: bool) -> None:
        if host.process is None:
            return
        self.cluster.crash(host, power=power)
        self.later(0.05, 5.0, lambda: self.start(host))

    def _kill(self) -> None:
        self._crash(self.somebody(), power=False)

    def _kill_leader(self) -> None:
        self._crash(self.leading(), power=False)

    def _power(self) -> None:
        self._crash(self.somebody(), power=True)

    def _blackout(self) -> None:
        """Let all machines lose power, or all processes die."""
        power = self.random.random() < 0.7
        for host in self.cluster.hosts:
            self._crash(host, power=power)

    def _stall(self, host: Host, suspended: bool = False) -> None:
        process = host.process
        if process is None or process.loop.paused:
            return
        self.cluster.note(f"{process.name} {'sleeps' if suspended else 'stalls'}")
        process.loop.pause()

        def resume() -> None:
            if process.loop.alive and process.loop.paused:
                self.cluster.note(f"{process.name} goes on")
                process.loop.resume(suspended)

        self.later(0.05, 4.0, resume)

    def _pause(self) -> None:
        self._stall(self.somebody())

    def _suspend(self) -> None:
        self._stall(self.somebody(), suspended=True)

    def _pause_leader(self) -> None:
        self._stall(self.leading())

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

        self.later(0.1, 6.0, heal)

    def _apart(self, ones: list[Host], what: str) -> None:
        inside = {host.node_id for host in ones}
        outside = [host.node_id for host in self.cluster.hosts if host.node_id not in inside]
        pairs = [(one.node_id, other) for one in ones for other in outside]
        self._cut([*pairs, *((other, one) for one, other in pairs)], what)

    def _isolate(self) -> None:
        host = self.somebody()
        self._apart([host], f"{host.node_id} alone")

    def _isolate_leader(self) -> None:
        host = self.leading()
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

        self.later(0.5, 5.0, undo)

    def _slow_network(self) -> None:
        wire = self.cluster.wire
        wire.delay_s = self.random.choice(((0.0, 0.01), (0.005, 0.05), (0.001, 0.3)))
        self.cluster.note(f"delay {wire.delay_s}")

        def undo() -> None:
            wire.delay_s = wire.usual_delay_s

        self.later(0.5, 4.0, undo)

    def _doubling(self) -> None:
        wire = self.cluster.wire
        wire.doubling = self.random.choice((0.01, 0.1, 0.5))
        self.cluster.note(f"doubling {wire.doubling}")

        def undo() -> None:
            wire.doubling = 0.0

        self.later(0.5, 5.0, undo)

    def _stragglers(self) -> None:
        """Let what ended connections carried arrive late, and end most connections."""
        wire, hosts = self.cluster.wire, self.cluster.hosts
        wire.stragglers = self.random.choice((0.3, 1.0))
        self.cluster.note(f"stragglers {wire.stragglers}")
        for one in hosts:
            for other in hosts:
                if one is not other and self.random.random() < 0.7:
                    self.cluster.scheduler.at(self.random.uniform(0, 1), self._break, one.node_id, other.node_id)

        def undo() -> None:
            wire.stragglers = 0.0

        self.later(0.5, 5.0, undo)

    def _break(self, source: str, target: str) -> None:
        # Not behind the end of the faults: what is sent once all is healed must arrive.
        if self._running:
            self.cluster.wire.break_connection(source, target)

    def _narrow(self) -> None:
        narrow(self)

    # What operators do.

    def _hand_over(self) -> None:
        leader = self.cluster.leader
        if leader is not None and not leader.loop.paused:
            heir = leader.node.hand_over.begin(None)
            self.cluster.note(f"{leader.name} hands over to {heir}")

    def _snapshot(self) -> None:
        process = self.somebody().process
        if process is not None and not process.loop.paused:
            process.node.building.build()
