"""Machines, and the processes that run and crash on them, put together as engine.py does it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from random import Random
from typing import Any

import pysyncobj.syncobj
import pytest
from pysyncobj.node import Node
from simulation.checks import Checks
from simulation.network import SimNetwork, Wire
from simulation.scheduler import ProcessLoop, Scheduler
from simulation.storage import DIRECTORY, SEGMENT_BYTES, MachineDisk, SimWriter

from cacheflow.clock import ClusterClock
from cacheflow.errors import ConfigError
from cacheflow.machine import commands, order
from cacheflow.machine.commands import Command
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.settings import Member
from cacheflow.proposals import Proposal, Proposals, Settle
from cacheflow.raft import snapshots, snapshotting
from cacheflow.raft.journal import CorruptJournal, Journal
from cacheflow.raft.network import Identity
from cacheflow.raft.node import RaftNode, Timing
from cacheflow.raft.reconfiguration import JOINED, KNOWN
from cacheflow.raft.snapshots import CorruptSnapshot, SnapshotMeta
from cacheflow.raft.snapshotting import Snapshotting
from cacheflow.raft.turn import Turn
from cacheflow.recency import RecencyBuffer

WALL_S = 1_700_000_000.0
# As the engine's.
EXPIRE_EVERY_S = 0.1
USES_EVERY_S = 1.0
NEARLY_FULL = 0.9
JOIN_AGAIN_S = 0.25
LOOK_S = 1.0
REGISTER_TIMEOUT_S = 8.0


class Host:
    """One machine: its disk and its clocks outlive the processes on it."""

    def __init__(self, cluster: Cluster, node_id: str, founds: bool) -> None:
        random = cluster.random
        self.node_id = node_id
        self.address = f"{node_id}:7000"
        self.founds = founds
        self.incarnation = f"{node_id}-{random.getrandbits(32):08x}"
        self.disk = MachineDisk(Random(random.getrandbits(64)))
        self.wall_skew_s = random.uniform(-cluster.wall_skew_s, cluster.wall_skew_s)
        self.monotonic_offset_s = random.uniform(0, 1e6)
        self.clock_rate = 1 + random.uniform(-cluster.drift, cluster.drift)
        self.disk_latency_s = (0.0002, 0.002)
        # What one entry costs to apply.
        self.apply_s = 0.0
        self.process: Process | None = None
        self.starts = 0

    def set_disk_latency(self, latency_s: tuple[float, float]) -> None:
        """How long one piece of disk work takes from now on: least and most."""
        self.disk_latency_s = latency_s
        if self.process is not None:
            self.process.writer.latency_s = self.process.background.latency_s = latency_s

    def reboot(self, random: Random, now: float) -> None:
        """Its monotonic clock begins at 0 again; its wall clock goes on."""
        self.monotonic_offset_s = random.uniform(0, 20) - now * self.clock_rate

    def move(self) -> None:
        """It has another address from now on."""
        self.moves += 1
        self.address = f"{self.node_id}-{self.moves}:7000"

    moves = 0

    def empty(self, random: Random) -> None:
        """Somebody emptied the data directory: whoever starts here is somebody else."""
        self.disk = MachineDisk(Random(random.getrandbits(64)))
        self.incarnation = f"{self.node_id}-{random.getrandbits(32):08x}"
        self.founds = False


class _Clock(ClusterClock):
    """Says when a leader has nothing but wall clocks to go by."""

    def __init__(self, cluster: Cluster, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        super().__init__(monotonic, wall)
        self._cluster = cluster

    def lead(self, latest_ms: int, voters_heard: bool) -> None:
        if self._cluster.wall_clocks_were_set and not (self.heard or voters_heard):
            self._cluster.lease_slack_s = inf
        super().lead(latest_ms, voters_heard)


class Process:
    """One start of the program: what Engine builds, on the simulation's loop."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        host.starts += 1
        self.cluster = cluster
        self.host = host
        self.node_id = host.node_id
        self.name = f"{host.node_id}.{host.starts}"
        random = Random(cluster.random.getrandbits(64))
        scheduler = cluster.scheduler
        self.loop = ProcessLoop(scheduler, host.monotonic_offset_s, host.clock_rate, self._after)
        self.clock = _Clock(cluster, self.loop.time, lambda: WALL_S + scheduler.now + host.wall_skew_s)
        self.writer = SimWriter(self.loop, host.disk, random, host.disk_latency_s)
        self.background = SimWriter(self.loop, host.disk, random, host.disk_latency_s)
        turn = Turn(self.loop.call_soon)
        snapshotting_ = Snapshotting(host.disk, DIRECTORY, run=self.background.submit, build=self._build)
        self.machine = snapshotting_.load()
        journal = self.journal = Journal.open(
            host.disk,
            DIRECTORY,
            submit=self.writer.submit,
            fsync=cluster.fsync,
            segment_bytes=SEGMENT_BYTES,
            on_durable=lambda: self.node.flushed(),
            on_failure=lambda error: self.node.fail(f"writing failed: {error}"),
            defer=turn.defer,
            later=self.loop.call_later,
            random_bytes=random.randbytes,
        )
        snapshotting_.adopt_journal(journal)
        if journal.clock_pair is not None:
            self.clock.restore(*journal.clock_pair)
        self.network = SimNetwork(
            cluster.wire, self.loop, Identity(host.node_id, host.incarnation), host.address, random.randbytes(8).hex()
        )
        self.node = RaftNode(
            loop=self.loop,
            node_id=host.node_id,
            incarnation=host.incarnation,
            journal=journal,
            machine=self.machine,
            network=self.network,
            clock=self.clock,
            snapshotting=snapshotting_,
            events=self,
            timing=Timing(),
            initial_settings=cluster.settings,
            random=random.random,
            turn=turn,
        )
        self.snapshotting = snapshotting_
        self.network.on_message = self.node.receive
        self.network.on_connected = self.node.connected
        self.network.on_disconnected = self.node.disconnected
        self.network.on_peer_lost = self.node.disconnected
        self.uses = RecencyBuffer()
        self._uses_sent_at = 0.0
        self.proposals = Proposals(
            self.node,
            member_id=host.node_id,
            nonce=random.randbytes(8).hex(),
            clock=self.loop.time,
            later=self.loop.call_later,
            uses=self.uses.drain,
        )
        self.me = Member(host.node_id, host.incarnation, host.address, f"{host.node_id}:8000", False)
        self.checked_index = 0
        self._events = 0
        self._inbox_woken = False
        self._random = random
        cluster.checks.watch(self)
        self.network.listen()
        if host.founds and not self.node.configurations.latest.members:
            self.node.found_cluster(
                "cluster", Member(self.me.id, self.me.incarnation, self.me.raft_address, self.me.address, True)
            )
        self.node.start()
        self._join()
        self._on_timer()

    # What Engine does.

    def submit(self, commands_: list[Command], done: Settle, timeout_s: float) -> None:
        """Replicate ``commands_``."""
        self.proposals.add(Proposal(commands_, 64, self.loop.time() + timeout_s, done))
        if not self._inbox_woken:
            self._inbox_woken = True
            self.loop.call_soon(self._take_inbox)

    def barrier(self, done: Settle, timeout_s: float) -> None:
        """``done`` once everything acknowledged before is applied here."""
        self.submit([commands.noop()], done, timeout_s)

    def _take_inbox(self) -> None:
        self._inbox_woken = False
        self.proposals.flush()

    def _on_timer(self) -> None:
        self.loop.call_later(EXPIRE_EVERY_S, self._on_timer)
        self.proposals.expire()
        now = self.loop.time()
        if len(self.uses) and now - self._uses_sent_at >= USES_EVERY_S and self._nearly_full():
            self._uses_sent_at = now
            self.proposals.send_uses(self.uses.drain())

    def _nearly_full(self) -> bool:
        machine = self.machine
        items_max, bytes_max = machine.settings.max_items, machine.settings.max_bytes
        return (items_max is not None and machine.item_count >= NEARLY_FULL * items_max) or (
            bytes_max is not None and machine.bytes_used >= NEARLY_FULL * bytes_max
        )

    def machine_replaced(self, machine: CacheMachine) -> None:
        self.machine = machine
        self.proposals.answers_missed()
        self.cluster.note(f"{self.name} takes a snapshot at {machine.applied_index}")

    def applied(self, settled: list[Settled]) -> None:
        if self.host.apply_s:
            self.loop.work(self.host.apply_s)
        self.proposals.applied(settled)

    def route_changed(self) -> None:
        route = self.node.route
        self.cluster.note(f"{self.name} route {route.leader_id if route else None} in term {self.node.term}")
        self.proposals.route_changed(route is not None)

    # What Joining does, with the HTTP request replaced by a call.

    def _join(self) -> None:
        known = self.node.configurations.latest.members.get(self.node_id)
        standing = self.node.standing
        if standing.removed_at is not None:
            return
        itself = known is not None and known.incarnation == self.me.incarnation and not standing.disowned
        if itself and known is not None and known.raft_address == self.me.raft_address:
            self.loop.call_later(LOOK_S, self._join)
            return
        self.loop.call_later(JOIN_AGAIN_S, self._join)
        if itself and self.node.route is not None and self._random.random() < 0.5:
            # As one without seeds does.
            if self.cluster.scheduler.now >= self._asked_until:
                self._asked_until = self.cluster.scheduler.now + REGISTER_TIMEOUT_S
                self.node.reconfiguration.register(self.me, self._registered, itself)
            return
        others = [
            host.process for host in self.cluster.hosts if host.process is not None and host.node_id != self.node_id
        ]
        others = [process for process in others if process.node.configurations.latest.members]
        if others and self.cluster.scheduler.now >= self._asked_until:
            self._asked_until = self.cluster.scheduler.now + REGISTER_TIMEOUT_S
            asked = self._random.choice(others)
            wire = self.cluster.wire
            if not asked.loop.paused and not wire.is_cut(self.node_id, asked.node_id):
                self.cluster.scheduler.at(
                    wire.delay(),
                    asked.node.reconfiguration.register,
                    self.me,
                    self._registered,
                    itself,
                    owner=asked.loop,
                )

    _asked_until = 0.0

    def _registered(self, outcome: str, detail: str) -> None:
        self.cluster.note(f"{self.name} registers: {outcome} {detail}")
        self._asked_until = 0.0
        if outcome in (JOINED, KNOWN):
            self._asked_until = self.cluster.scheduler.now + 2.0

    # Inside.

    def _build(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        def build() -> None:
            try:
                meta = snapshots.build(self.host.disk, DIRECTORY, index, machine_class=CacheMachine)
            except OSError as error:
                done(error)
                return
            except Exception as error:
                if snapshots.list_snapshots(self.host.disk, DIRECTORY)[-1:] > [index]:
                    done(error)  # the leader's snapshot was faster
                    return
                self.cluster.checks.complain(f"{self.name} cannot build a snapshot at {index}: {error!r}")
                return
            self.cluster.note(f"{self.name} has built a snapshot at {index}")
            done(meta)

        self.loop.call_later(self._random.uniform(0.01, 0.5), build)

    def _after(self) -> None:
        self._events += 1
        if self.writer.refused and (self.node.failure is None or self.node.is_leader):
            self.cluster.checks.complain(f"{self.name} goes on although its journal could not be written")
        if self._events % 4 == 0:
            self.cluster.checks.bounded_read(self)
        if self.node.last_applied != self.checked_index:
            self.cluster.checks.applied(self)

    def die(self) -> None:
        """The process is gone, in the middle of whatever it did."""
        self.loop.kill()
        self.writer.interrupt()
        self.background.interrupt()


class Cluster:
    """All machines and what lies between them."""

    def __init__(
        self,
        seed: int,
        node_count: int,
        *,
        settings: dict[str, Any] | None = None,
        trace: bool = False,
        wall_skew_s: float = 3600.0,
        fsync: str = "always",
        drift: float = 0.0,
    ) -> None:
        self.random = Random(seed)
        self.wall_skew_s = wall_skew_s
        # How far the rate of a machine's clock may be off.
        self.drift = drift
        self.fsync = fsync
        self.scheduler = Scheduler()
        self.wire = Wire(self.scheduler, Random(self.random.getrandbits(64)))
        self.settings = settings or {"policy": "lru", "max_items": None, "max_bytes": None, "replicas": node_count - 1}
        self.transcript: list[str] = []
        self.fingerprint = 0
        self.checks = Checks(self)
        # Machines whose member an operator is taking out.
        self.leaving: set[str] = set()
        self.trace = trace
        # How far a lease may end from its time; inf once time had to be taken from wall clocks that somebody has set.
        self.lease_slack_s = inf
        self.wall_clocks_were_set = False
        if trace:
            self.wire.note = lambda source, target, kind: self.note(f"    {source} -> {target} {kind}")
        else:
            self.wire.note = self._fold
        self.hosts = [Host(self, f"n{number}", number == 1) for number in range(1, node_count + 1)]

    def note(self, line: str) -> None:
        """Into the transcript."""
        line = f"{self.scheduler.now - 1000:10.6f} {line}"
        self.transcript.append(line)
        self.fingerprint = zlib.crc32(line.encode(), self.fingerprint)

    def _fold(self, source: str, target: str, kind: str) -> None:
        self.fingerprint = zlib.crc32(f"{self.scheduler.now:.6f}{source}{target}{kind}".encode(), self.fingerprint)

    # Processes.

    @property
    def processes(self) -> list[Process]:
        """Those that live, paused or not."""
        return [host.process for host in self.hosts if host.process is not None]

    def start(self, host: Host, *, damaged: bool = False) -> str | None:
        """Start the program on a machine where it does not run; what it says when it refuses. damaged: its disk is."""
        assert host.process is None
        self.note(f"{host.node_id} starts")
        try:
            host.process = Process(self, host)
        except (ConfigError, OSError) as error:
            self.note(f"{host.node_id} refuses to start: {error}")
            host.disk.stop()
            if isinstance(error, (CorruptJournal, CorruptSnapshot)) and not damaged:
                self.checks.complain(f"durability: {host.node_id} cannot read what it has written: {error}")
            return str(error)
        return None

    def crash(self, host: Host, *, power: bool) -> None:
        """Kill the process; with ``power`` the machine forgets what was not flushed, and nobody is told."""
        process, host.process = host.process, None
        if process is None:
            return
        self.note(f"{process.name} {'loses power' if power else 'is killed'}")
        process.die()
        self.wire.vanish(process.network, silently=power)
        host.disk.forget_failures()
        if power:
            host.disk.crash(self.random)
            host.reboot(self.random, self.scheduler.now)
        else:
            host.disk.stop()

    @property
    def leader(self) -> Process | None:
        """The one that leads in the latest term."""
        leaders = [process for process in self.processes if process.node.is_leader]
        return max(leaders, key=lambda process: process.node.term, default=None)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass."""
        return self.scheduler.run_until(self.scheduler.now + seconds, until)

    def healthy(self) -> bool:
        """All is well, everybody has applied everything, and nothing waits for an answer."""
        leader = self.leader
        return (
            leader is not None
            and self.well(leader.journal.last_index)
            and all(process.proposals.pending == 0 for process in self.processes)
        )

    def well(self, index: int) -> bool:
        """Everybody runs, knows the same leader, may be read and has applied ``index``; enough of them vote."""
        processes = self.processes
        leader = self.leader
        if leader is None or len(processes) != len(self.hosts) or self.leaving:
            return False
        return all(
            process.node.last_applied >= index
            and process.node.route is not None
            and process.node.route.leader_id == leader.node_id
            and process.node.may_read
            for process in processes
        ) and len(leader.node.configurations.latest.voters) == min(len(processes), self.settings["replicas"] + 1)


def leader_of(cluster: Cluster) -> Process:
    """The one there must be."""
    leader = cluster.leader
    assert leader is not None
    return leader


# So short that the few keys of a simulation are some segments of the order of use.
SEGMENT_KEYS = 12


@contextmanager
def patched(cluster: Cluster, *, journal_bytes: int | None = None, piece_bytes: int = 700) -> Iterator[None]:
    """Give PySyncObj the simulation's time and randomness, and an order of its sets that no hash seed changes."""
    scheduler = cluster.scheduler
    random = Random(cluster.random.getrandbits(64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: scheduler.now)
        patch.setattr(pysyncobj.syncobj, "random", random)
        patch.setattr(Node, "__hash__", lambda node: zlib.crc32(node.id.encode()))
        patch.setattr(order, "SEGMENT_KEYS_MAX", SEGMENT_KEYS)
        if journal_bytes is not None:
            patch.setattr(snapshotting, "JOURNAL_BYTES_MIN", journal_bytes)
            patch.setattr(snapshotting, "PIECE_BYTES", piece_bytes)
        yield
