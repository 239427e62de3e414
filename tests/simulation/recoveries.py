"""Recovery: a cluster loses its majority at some moment, and a new one begins with what is left on a disk.

Two ways, as the seed has it. *Alone*: all but one machine are destroyed, the new cluster is made of that one's disk, empty
machines join it, and the destroyed ones come back with their old disks. *Moved*: all machines, or three of five, get other
addresses, and the new cluster is made on the disk of each, by one file of members; one of them may come later.

What must hold: the contents are those of the survivor's log, whatever the others had beyond it; no version that any client
has seen means another value later; nobody of the old cluster is heard in the new one, and who comes back says so and stops;
and the new cluster is as good as any.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from simulation.checks import Checks, Violation
from simulation.clients import nobody_waits
from simulation.cluster import BOOTSTRAP, COMMAND, PEERS, TEMPLATE, Cluster, Host, Process, patched
from simulation.faults import Faults, draw
from simulation.runner import FOUNDED_WITHIN_S, HEALED_WITHIN_S, Outcome, describe
from simulation.storage import DIRECTORY, MachineDisk

from cacheflow.contract import Outcome as Answer
from cacheflow.errors import ConfigError
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.entries import DATA, VERSION
from cacheflow.raft.log.reading import flush_log
from cacheflow.raft.membership.recovery import Recovery, write_recovery
from cacheflow.raft.recovering import Found, decide_alone, decide_with, look
from cacheflow.raft.snapshots.helper import contents_at
from cacheflow.values import BYTES

# Faults before the loss: those that leave the logs of the nodes different.
FAULTS = dict.fromkeys(
    (
        "isolate",
        "isolate_leader",
        "split",
        "one_way",
        "kill",
        "kill_leader",
        "power",
        "pause_leader",
        "slow_disk",
        "snapshot",
    ),
    1.0,
)
WRITES_WITHIN_S = 10.0
TOLD_WITHIN_S = 8.0
KEYS = [f"k{number}" for number in range(8)]
WRITE_EVERY_S = 0.02
LOOK_EVERY_S = 0.05


class Clients:
    """Writers of unique values, and what they and the readers have seen: which value each version of each key is."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._count = 0
        # Whom the writers turn to; nobody where the cluster has none.
        self.hosts: list[Host] = []
        self.meanings: dict[tuple[str, int], bytes] = {}
        self.acknowledged = self.unanswered = self.refused = 0
        cluster.scheduler.at(WRITE_EVERY_S, self._write)
        cluster.scheduler.at(LOOK_EVERY_S, self._look)

    @property
    def _processes(self) -> list[Process]:
        return [host.process for host in self.hosts if host.process is not None and not host.process.loop.paused]

    def _write(self) -> None:
        self._cluster.scheduler.at(self._random.expovariate(1 / WRITE_EVERY_S), self._write)
        processes = self._processes
        if not processes:
            return
        process, key = self._random.choice(processes), self._random.choice(KEYS)
        self._count += 1
        value = b"%d" % self._count
        is_set = self._random.random() < 0.8

        def done(answer: Answer) -> Callable[[], None]:
            if isinstance(answer, list) and answer[0][0] == commands.OK:
                self.acknowledged += 1
                self._cluster.checks.acknowledged(process)
                if is_set:
                    self.saw(key, answer[0][1], value)
            elif not isinstance(answer, list):
                self.refused += 1
            return nobody_waits

        command = commands.set_(key, value, BYTES) if is_set else commands.delete(key)
        process.loop.call_soon(process.send_unchecked, [command], done)

    def saw(self, key: str, version: int, value: bytes) -> None:
        """Note what somebody was told; complain if it was told otherwise before."""
        known = self.meanings.setdefault((key, version), value)
        if known != value:
            self._cluster.checks.complain(f"versions: {version} of {key} was {known!r} and is {value!r} now")

    def _look(self) -> None:
        """Read everything that clients may read anywhere."""
        self._cluster.scheduler.at(LOOK_EVERY_S, self._look)
        for process in self._processes:
            if process.may_read:
                self.read(process)

    def read(self, process: Process) -> None:
        """Read all keys on a process."""
        machine = process.machine
        for key in KEYS:
            entry = machine.lookup(key, machine.now_ms)
            if entry is not None:
                self.saw(key, entry[VERSION], entry[DATA])


class Recovering:
    """One run of a recovery."""

    def __init__(self, seed: int, nodes: int, *, trace: bool = False) -> None:
        self.random = random = Random(seed * 104729 + nodes)
        self.is_alone = random.random() < 0.6
        founding = random.choice((PEERS, TEMPLATE, COMMAND, BOOTSTRAP))
        self.cluster = Cluster(random.getrandbits(64), nodes, trace=trace, founding=founding)
        self.cluster.lease_slack_s = 1.0
        self.old = list(self.cluster.hosts)
        self.clients = Clients(self.cluster, Random(random.getrandbits(64)))
        self.strikes = draw(random, FAULTS, random.choice((0.4, 1.0, 3.0)), 30.0)
        self.recovered_s = 0.0

    def play(self) -> None:
        """Let everything happen. Raises Violation."""
        cluster, random = self.cluster, self.random
        for host in random.sample(self.old, len(self.old)):
            cluster.scheduler.at(random.uniform(0.0, 1.0), cluster.start, host)
        if not cluster.run(FOUNDED_WITHIN_S, cluster.healthy):
            cluster.checks.complain("progress: the cluster is not founded")
        self.clients.hosts = self.old
        faults = Faults(cluster, self.strikes)
        cluster.run(random.uniform(1.0, 8.0))
        cluster.checks.logs_match()
        # Nothing of a fault is undone by itself any more.
        faults._running = False
        faults._undo.clear()
        self.clients.hosts = []
        for host in self.old:
            cluster.crash(host, power=random.random() < 0.5)
            host.helper, host.disk.filled, host.apply_s = "", False, 0.0
            host.set_disk_latency((0.0002, 0.002))
        cluster.wire.cuts.clear()
        cluster.wire.delay_s, cluster.wire.loss = cluster.wire.usual_delay_s, 0.0
        if self.is_alone:
            self._alone()
        else:
            self._moved()

    # Alone -----------------------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        cluster, random = self.cluster, self.random
        survivor = random.choice(self.old)
        dead = [host for host in self.old if host is not survivor]
        found = self._look(survivor)
        old_id = found.cluster_id
        expected = self._contents(survivor, found)
        decision = self._decide(survivor, lambda found: decide_alone(found, random.randbytes))
        self._same(survivor, found)
        # What only the dead had is as if it had never been: the new cluster has checks of its own.
        cluster.checks = Checks(cluster)
        cluster.following.recovered()
        cluster.hosts = [survivor]
        began = cluster.scheduler.now
        for host in dead:
            host.is_out = True
            # Some were cut off and not dead, and still are a majority.
            if random.random() < 0.3:
                cluster.start(host)
        cluster.scheduler.at(random.choice((0.0, random.uniform(0.0, 3.0))), cluster.start, survivor)
        self._begins([survivor], decision, {survivor: (found, expected)}, began)
        joining = [Host(cluster, f"n{len(self.old) + number}", False) for number in range(1, 3)]
        for host in joining:
            host.rejoins = True
        cluster.hosts = [survivor, *joining]
        self.clients.hosts = cluster.hosts
        for host in joining:
            cluster.scheduler.at(random.uniform(0.0, 3.0), self._join, host)
        for host in dead:
            cluster.scheduler.at(random.choice((0.0, random.uniform(0.0, 6.0))), self._come_back, host)
        cluster.run(6.0)
        deadline = cluster.scheduler.now + TOLD_WITHIN_S
        while not all(self._is_out(host, old_id, decision) for host in dead):
            if cluster.scheduler.now > deadline:
                cluster.checks.complain(f"replaced: a member of {old_id} goes on: {self._describe(dead)}")
            cluster.run(0.1)
        self._ends_well()
        self._apart(dead, decision)
        for host in dead:
            cluster.crash(host, power=False)

    def _join(self, host: Host) -> None:
        if host.process is None:
            self.cluster.start(host)

    def _come_back(self, host: Host) -> None:
        """Start a destroyed machine with its old disk, at times again."""
        if host.removal_is_noted:
            return
        self.cluster.crash(host, power=False)
        self.cluster.start(host)
        if self.random.random() < 0.3:
            self.cluster.scheduler.at(self.random.uniform(0.0, 1.0), self._come_back, host)

    def _is_out(self, host: Host, old_id: str, decision: Recovery) -> bool:
        process = host.process
        if process is None or process.node.removal.removed_at is None:
            return False
        failure = process.node.replica.failure or ""
        if old_id not in failure or decision.cluster_id not in failure:
            self.cluster.checks.complain(f"replaced: {process.name} does not say why it has stopped: {failure}")
        if process.may_read or process.takes_writes or not host.removal_is_noted:
            self.cluster.checks.complain(f"replaced: {process.name} goes on")
        return True

    def _apart(self, dead: list[Host], decision: Recovery) -> None:
        """Check that nobody of the old cluster is, or was heard, in the new one."""
        for host in self.cluster.hosts:
            process = host.process
            assert process is not None
            if process.journal.cluster_id != decision.cluster_id or process.machine.cluster_id != decision.cluster_id:
                self.cluster.checks.complain(f"mixing: {process.name} is of cluster {process.machine.cluster_id}")
            heard = process.node.peers.heard_ms.keys() & {each.node_id for each in dead}
            if heard:
                self.cluster.checks.complain(f"mixing: {process.name} has heard {sorted(heard)}")

    # Moved -----------------------------------------------------------------------------------------------------------

    def _moved(self) -> None:
        cluster, random = self.cluster, self.random
        # Of five at times only three are left, and these may lack what the others had.
        moving = random.sample(self.old, 3) if len(self.old) > 3 and random.random() < 0.6 else self.old
        # One comes later: it is not needed for a majority.
        late = random.choice(moving) if random.random() < 0.5 else None
        for host in moving:
            host.move()
        rows = [{"id": host.node_id, "raft_address": host.address} for host in moving]
        found = {host: self._look(host) for host in moving}
        expected = {host: (each, self._contents(host, each)) for host, each in found.items()}
        committed = cluster.checks.last_committed
        ids = set()
        for host in moving:
            ids.add(self._decide(host, lambda found: decide_with(found, rows)).cluster_id)
            self._same(host, found[host])
        if len(ids) != 1:
            cluster.checks.complain(f"moved: the disks say different clusters: {ids}")
        decision = self._decide(moving[0], lambda found: decide_with(found, rows))
        cluster.following.recovered()
        if len(moving) < len(self.old):
            cluster.checks = Checks(cluster)
            cluster.hosts = moving
            committed = 0
        cluster.checks._one_cluster = None
        began = cluster.scheduler.now
        for host in moving:
            if host is not late:
                cluster.scheduler.at(random.uniform(0.0, 0.5), cluster.start, host)
        there = [host for host in moving if host is not late]
        leader = self._begins(there, decision, expected, began)
        if found[leader].index < committed:
            cluster.checks.complain(
                f"moved: the new cluster begins at {found[leader].index}, {committed} was committed"
            )
        if found[leader].position < sorted(each.position for each in found.values())[(len(moving) - 1) // 2]:
            cluster.checks.complain(f"moved: {leader.node_id} leads, and a majority has later logs")
        self.clients.hosts = moving
        cluster.run(2.0)
        if late is not None:
            cluster.start(late)
        self._ends_well()
        self._apart([], decision)

    # Both ------------------------------------------------------------------------------------------------------------

    def _look(self, host: Host) -> Found:
        flush_log(host.disk, DIRECTORY)
        return look(host.disk, DIRECTORY, host.node_id, host.incarnation)

    def _contents(self, host: Host, found: Found) -> dict[str, tuple[bytes, int]]:
        machine = contents_at(host.disk, DIRECTORY, found.index)[2]
        if machine.digest != found.digest:
            self.cluster.checks.complain(f"show: {host.node_id} has another digest than it shows")
        return _items(machine)

    def _same(self, host: Host, found: Found) -> None:
        """Check that a decision has changed neither log nor contents."""
        now = self._look(host)
        if (now.position, now.digest, now.term, now.cluster_id) != (
            found.position,
            found.digest,
            found.term,
            found.cluster_id,
        ):
            self.cluster.checks.complain(f"recover: the disk of {host.node_id} shows {now}, and showed {found}")

    def _decide(self, host: Host, decide: Callable[[Found], Recovery]) -> Recovery:
        """Make the decision on a disk, which may be interrupted at any operation, or by a loss of power, and is repeated."""
        disk, random = host.disk, self.random
        # What the disk may say after an interruption, and a loss of power.
        tried: list[Recovery | None] = [self._look(host).decision]
        while True:
            decision = decide(self._look(host))
            if random.random() < 0.5:
                operation = random.choice(("open", "write", "sync", "close", "rename", "sync_directory"))
                disk.fail(operation, OSError("interrupted"))
            try:
                write_recovery(disk, DIRECTORY, decision)
            except OSError:
                self._interrupted(disk)
                tried.append(decision)
                if self._look(host).decision not in tried:
                    self.cluster.checks.complain(
                        f"recover: interrupted, {host.node_id} says {self._look(host).decision}"
                    )
                continue
            self._interrupted(disk)
            if self._look(host).decision != decision:
                self.cluster.checks.complain("recover: the decision is gone after a loss of power")
            return decision

    def _interrupted(self, disk: MachineDisk) -> None:
        disk.forget_failures()
        if self.random.random() < 0.5:
            disk.crash(self.random)
        else:
            disk.stop()

    def _begins(
        self,
        hosts: list[Host],
        decision: Recovery,
        expected: dict[Host, tuple[Found, dict[str, tuple[bytes, int]]]],
        began: float,
    ) -> Host:
        """Wait until the new cluster has begun, and check with which contents; then that it takes writes. Return its leader."""
        cluster = self.cluster

        def has_begun() -> bool:
            for process in cluster.processes:
                if process.may_read and process.machine.cluster_id != decision.cluster_id:
                    cluster.checks.complain(f"versions: {process.name} may be read before they are raised")
            return any(process.machine.cluster_id == decision.cluster_id for process in cluster.processes)

        if not cluster.run(WRITES_WITHIN_S, has_begun):
            cluster.checks.complain(f"progress: the new cluster does not begin: {describe(cluster)}")
        process = next(
            host.process for host in hosts if host.process and host.process.machine.cluster_id == decision.cluster_id
        )
        leader = next(host for host in hosts if host.node_id == process.node.leader_id)
        found, contents = expected[leader]
        first = next(
            index
            for command, index, _ in process.journal.entries(0)
            if command[:1] == b"\x02" and decision.cluster_id.encode() in command
        )
        between = [command[:1] for command, index, _ in process.journal.entries(0) if found.index < index < first]
        if any(kind != b"\x01" for kind in between):
            cluster.checks.complain(f"recover: {len(between)} entries stand between the old log and the new cluster")
        now = _items(process.machine)
        if process.machine.applied_index == first and _values(now) != _values(contents):
            cluster.checks.complain(
                f"contents: {now} after the recovery, and {contents} in the log of {leader.node_id}"
            )
        self.clients.hosts = hosts
        for host in hosts:
            if host.process is not None and host.process.may_read:
                self.clients.read(host.process)
        acknowledged = self.clients.acknowledged
        if not cluster.run(
            began + WRITES_WITHIN_S - cluster.scheduler.now, lambda: self.clients.acknowledged > acknowledged
        ):
            cluster.checks.complain(f"progress: no write within {WRITES_WITHIN_S} s: {describe(cluster)}")
        self.recovered_s = cluster.scheduler.now - began
        self._old_versions_fail(process)
        return leader

    def _old_versions_fail(self, process: Process) -> None:
        """Check that no condition on a version of before holds."""
        for (key, version), _ in sorted(self.clients.meanings.items()):
            if version < commands.RECOVERY_RAISE:
                entry = process.machine.lookup(key, process.machine.now_ms)
                if entry is not None and entry[VERSION] == version:
                    self.cluster.checks.complain(f"versions: {version} of {key} still holds after the recovery")

    def _ends_well(self) -> None:
        cluster = self.cluster
        cluster.run(2.0)
        self.clients.hosts = []
        if not cluster.run(HEALED_WITHIN_S, cluster.healthy):
            cluster.checks.complain(f"progress: the new cluster is not well: {describe(cluster)}")
        cluster.run(1.0, cluster.checks.nothing_left)
        cluster.checks.at_the_end(None)
        for process in cluster.processes:
            self.clients.read(process)

    def _describe(self, hosts: list[Host]) -> str:
        return "; ".join(
            f"{host.node_id}: {host.process.node.replica.failure if host.process else 'does not run'}" for host in hosts
        )


def _items(machine: CacheMachine) -> dict[str, tuple[bytes, int]]:
    found = {key: machine.lookup(key, machine.now_ms) for key in KEYS}
    return {key: (entry[DATA], entry[VERSION]) for key, entry in found.items() if entry is not None}


def _values(items: dict[str, tuple[bytes, int]]) -> dict[str, bytes]:
    return {key: data for key, (data, _) in items.items()}


def play(seed: int, nodes: int = 3, *, trace: bool = False) -> Outcome:
    """Simulate one loss of a majority and the recovery from it; the seed decides everything."""
    outcome = Outcome(seed)
    began = time.perf_counter()
    run = Recovering(seed, nodes, trace=trace)
    with patched(run.cluster, journal_bytes=run.random.choice((None, 8_000))):
        try:
            run.play()
        except Violation as violation:
            outcome.violation = str(violation)
        except (ConfigError, OSError, AssertionError, StopIteration, KeyError) as error:
            outcome.violation = f"at {run.cluster.scheduler.now - 1000:.6f}: exception: {type(error).__name__}: {error}"
    outcome.transcript = run.cluster.transcript
    outcome.fingerprint = run.cluster.fingerprint
    outcome.simulated_s = run.cluster.scheduler.now - 1000
    outcome.sent = run.cluster.wire.sent
    outcome.elections = len(run.cluster.checks.leaders)
    outcome.acknowledged, outcome.refused = run.clients.acknowledged, run.clients.refused
    outcome.healed_after_s = run.recovered_s
    outcome.faults = {"alone" if run.is_alone else "moved": 1}
    outcome.real_s = time.perf_counter() - began
    return outcome
