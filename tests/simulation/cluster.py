"""Machines, and the processes that run and crash on them, put together as engine.py does it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pysyncobj.syncobj
from pysyncobj.node import Node
from simulation.checks import Checks
from simulation.network import SimNetwork, Wire
from simulation.scheduler import ProcessLoop, Scheduler
from simulation.storage import MachineDisk, SimWriter

from cacheflow.clock import ClusterClock
from cacheflow.machine import commands
from cacheflow.machine.commands import Command
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.settings import Member
from cacheflow.proposals import Done, Proposal, Proposals
from cacheflow.raft import snapshots, snapshotting
from cacheflow.raft.journal import Journal
from cacheflow.raft.network import Identity
from cacheflow.raft.node import RaftNode, Timing
from cacheflow.raft.reconfiguration import JOINED, KNOWN
from cacheflow.raft.snapshots import SnapshotMeta
from cacheflow.raft.snapshotting import Snapshotting
from cacheflow.raft.turn import Turn

DIRECTORY = Path("/data")
WALL_S = 1_700_000_000.0
EXPIRE_EVERY_S = 0.1
JOIN_AGAIN_S = 0.25
REGISTER_TIMEOUT_S = 8.0


class Host:
    """One machine: its disk and its clocks outlive the processes on it."""

    def __init__(self, cluster: Cluster, node_id: str, founds: bool) -> None:
        random = cluster.random
        self.node_id = node_id
        self.address = f"{node_id}:7000"
        self.founds = founds
        self.incarnation = f"{node_id}-{random.getrandbits(32):08x}"
        self.disk = MachineDisk()
        self.wall_skew_s = random.uniform(-cluster.wall_skew_s, cluster.wall_skew_s)
        self.monotonic_offset_s = random.uniform(0, 1e6)
        self.disk_latency_s = (0.0002, 0.002)
        self.process: Process | None = None
        self.starts = 0

    def set_disk_latency(self, latency_s: tuple[float, float]) -> None:
        """How long one piece of disk work takes from now on: least and most."""
        self.disk_latency_s = latency_s
        if self.process is not None:
            self.process.writer.latency_s = self.process.background.latency_s = latency_s

    def empty(self, random: Random) -> None:
        """Somebody emptied the data directory: whoever starts here is somebody else."""
        self.disk = MachineDisk()
        self.incarnation = f"{self.node_id}-{random.getrandbits(32):08x}"
        self.founds = False


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
        self.loop = ProcessLoop(scheduler, host.monotonic_offset_s, self._after)
        self.clock = ClusterClock(self.loop.time, lambda: WALL_S + scheduler.now + host.wall_skew_s)
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
            segment_bytes=64 * 1024,
            on_durable=lambda: self.node.flushed(),
            on_failure=lambda error: self.node.fail(f"writing failed: {error}"),
            defer=turn.defer,
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
        self.proposals = Proposals(
            self.node,
            member_id=host.node_id,
            nonce=random.randbytes(8).hex(),
            clock=self.loop.time,
            later=self.loop.call_later,
            uses=list,
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

    def submit(self, commands_: list[Command], done: Done, timeout_s: float) -> None:
        """Replicate ``commands_``."""
        self.proposals.add(Proposal(commands_, 64, self.loop.time() + timeout_s, done))
        if not self._inbox_woken:
            self._inbox_woken = True
            self.loop.call_soon(self._take_inbox)

    def barrier(self, done: Done, timeout_s: float) -> None:
        """``done`` once everything acknowledged before is applied here."""
        self.submit([commands.noop()], done, timeout_s)

    def _take_inbox(self) -> None:
        self._inbox_woken = False
        self.proposals.flush()

    def _on_timer(self) -> None:
        self.loop.call_later(EXPIRE_EVERY_S, self._on_timer)
        self.proposals.expire()

    def machine_replaced(self, machine: CacheMachine) -> None:
        self.machine = machine
        self.proposals.answers_missed()
        self.cluster.note(f"{self.name} takes a snapshot at {machine.applied_index}")

    def applied(self, settled: list[Settled]) -> None:
        self.proposals.applied(settled)

    def route_changed(self) -> None:
        route = self.node.route
        self.cluster.note(f"{self.name} route {route.leader_id if route else None} in term {self.node.term}")
        self.proposals.route_changed(route is not None)

    # What Joining does, with the HTTP request replaced by a call.

    def _join(self) -> None:
        known = self.node.configurations.latest.members.get(self.node_id)
        if known is not None and known.incarnation == self.me.incarnation:
            return
        self.loop.call_later(JOIN_AGAIN_S, self._join)
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
                    wire.delay(), asked.node.reconfiguration.register, self.me, self._registered, owner=asked.loop
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
    ) -> None:
        self.random = Random(seed)
        self.wall_skew_s = wall_skew_s
        self.fsync = fsync
        self.scheduler = Scheduler()
        self.wire = Wire(self.scheduler, Random(self.random.getrandbits(64)))
        self.settings = settings or {"policy": "lru", "max_items": None, "max_bytes": None, "replicas": node_count - 1}
        self.transcript: list[str] = []
        self.fingerprint = 0
        self.checks = Checks(self)
        self.trace = trace
        # How far a lease may end from its time; inf while clocks are tampered with.
        self.lease_slack_s = inf
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

    def start(self, host: Host) -> None:
        """Start the program on a machine where it does not run."""
        assert host.process is None
        self.note(f"{host.node_id} starts")
        host.process = Process(self, host)

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
        if leader is None or len(processes) != len(self.hosts):
            return False
        return all(
            process.node.last_applied >= index
            and process.node.route is not None
            and process.node.route.leader_id == leader.node_id
            and process.node.may_read
            for process in processes
        ) and len(leader.node.configurations.latest.voters) == min(len(processes), self.settings["replicas"] + 1)


@contextmanager
def patched(cluster: Cluster, *, journal_bytes: int | None = None, piece_bytes: int = 4096) -> Iterator[None]:
    """Give PySyncObj the simulation's time and randomness, and an order of its sets that no hash seed changes."""
    module = pysyncobj.syncobj
    before = (
        module.monotonicTime,
        module.random,
        Node.__hash__,
        snapshotting.JOURNAL_BYTES_MIN,
        snapshotting.PIECE_BYTES,
    )
    scheduler = cluster.scheduler
    module.monotonicTime = lambda: scheduler.now
    module.random = Random(cluster.random.getrandbits(64))
    Node.__hash__ = lambda node: zlib.crc32(node.id.encode())
    if journal_bytes is not None:
        snapshotting.JOURNAL_BYTES_MIN = journal_bytes
        snapshotting.PIECE_BYTES = piece_bytes
    try:
        yield
    finally:
        (module.monotonicTime, module.random, hash_, snapshotting.JOURNAL_BYTES_MIN, snapshotting.PIECE_BYTES) = before
        Node.__hash__ = hash_
