"""Machines, and the processes that run and crash on them."""

from __future__ import annotations

import asyncio
import functools
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from random import Random
from typing import Any, cast

import pysyncobj.syncobj
import pytest
from pysyncobj.node import Node
from simulation import bulk, clears, followed, once, published, scoped, tracked
from simulation.checks import Checks
from simulation.followed import Following, HastySlices
from simulation.leases import LEASE_SLACK_S
from simulation.network import SimNetwork, Wire
from simulation.roles import Roles
from simulation.scheduler import ProcessLoop, Scheduler
from simulation.storage import DIRECTORY, SEGMENT_BYTES, MachineDisk, SimWriter
from simulation.tracked import Tracked
from simulation.upgrades import RAISE_AFTER_MS, Upgrades

from cacheflow.config import OBSERVER, VOTER, NodeConfig
from cacheflow.contract import Done
from cacheflow.errors import CacheFlowError, ConfigError, NewerCacheFlow, NoCluster
from cacheflow.machine import image
from cacheflow.machine.deciding import batches
from cacheflow.machine.eviction import lfu, use_order
from cacheflow.machine.language.commands import Command
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.state import contents, idempotency, scopes
from cacheflow.machine.state.settings import Settings
from cacheflow.net.slices import Slices
from cacheflow.net.unsent import Unsent
from cacheflow.node import assembly, channels, feed, large_calls, proposals, supervisor, tracking
from cacheflow.node.assembly import LocalNode, Surroundings
from cacheflow.node.clock import ClusterClock
from cacheflow.node.proposal import Proposal
from cacheflow.node.registration import CONNECT_S, SeedAnswer
from cacheflow.node.registration import TIMEOUT_S as HTTP_TIMEOUT_S
from cacheflow.node.supervisor import Supervisor
from cacheflow.raft import turn
from cacheflow.raft.core import Core
from cacheflow.raft.log import departure
from cacheflow.raft.log.journal import CorruptJournal
from cacheflow.raft.membership import level_raising
from cacheflow.raft.membership.changes import JOINED, KNOWN
from cacheflow.raft.roles import leader, replication
from cacheflow.raft.snapshots import building, files, helper, sending
from cacheflow.raft.snapshots.files import CorruptSnapshot, SnapshotMeta
from cacheflow.raft.transport import frames
from cacheflow.raft.transport.network import Identity
from cacheflow.raft.turn import Turn

WALL_S = 1_700_000_000.0
# Seconds after which every call through a node has an answer: less than in the product, so that faults do show as unknown
# outcomes.
TIMEOUT_S = 3.0


# How a cluster is founded. The first machine's command has no seed, and ``--bootstrap`` at its first start or not; all have
# one command, whose seeds are all of them; or they know each other's Raft addresses and have no HTTP, as in applications.
BOOTSTRAP, COMMAND, TEMPLATE, PEERS = "bootstrap", "command", "template", "peers"


class Host:
    """One machine: its disk and its clocks outlive the processes on it."""

    def __init__(self, cluster: Cluster, node_id: str, founds: bool) -> None:
        random = cluster.random
        self.node_id = node_id
        self.address = f"{node_id}:7000"
        self.http_address = f"{node_id}:8000"
        self.founds = founds
        # Its command names the others: it was taken out, or all have moved, so that they do not dial it when it comes back.
        self.rejoins = False
        # This node writes the names of some peers in capitals.
        spells = Random(f"{cluster.seed} {node_id}")
        self.capitals = {f"n{number}" for number in range(1, 10) if spells.random() < 0.3}
        self.incarnation = f"{node_id}-{random.getrandbits(32):08x}"
        self.disk = MachineDisk(Random(random.getrandbits(64)))
        self.wall_skew_s = random.uniform(-cluster.wall_skew_s, cluster.wall_skew_s)
        self.monotonic_offset_s = random.uniform(0, 1e6)
        self.clock_rate = 1 + random.uniform(-cluster.drift, cluster.drift)
        self.disk_latency_s = (0.0002, 0.002)
        # Seconds that applying one entry takes.
        self.apply_s = 0.0
        # What is wrong with the snapshot helper: "", "fails" or "garbles", which is writing what nobody can load.
        self.helper = ""
        self.process: Process | None = None
        self.starts = 0
        # The build that is installed: the machine of this one, or of a newer one.
        self.build: type[CacheMachine] = CacheMachine

    def set_disk_latency(self, latency_s: tuple[float, float]) -> None:
        """Set how long one piece of disk work takes from now on: least and most."""
        self.disk_latency_s = latency_s
        if self.process is not None:
            self.process.writer.latency_s = self.process.background.latency_s = latency_s

    def reboot(self, random: Random, now: float) -> None:
        """Restart the machine: its monotonic clock begins at 0 again, its wall clock goes on."""
        self.monotonic_offset_s = random.uniform(0, 20) - now * self.clock_rate

    def move(self) -> None:
        """Give the machine another address from now on."""
        self.moves += 1
        self.address = f"{self.node_id}-{self.moves}:7000"

    def set_wall_clock(self, by_s: float) -> None:
        """Set the wall clock forward, or back."""
        self.wall_was_set = True
        self.wall_skew_s += by_s

    moves = 0
    was_emptied = False
    # Told to found a cluster of its own at the next start, by mistake.
    founds_by_mistake = False
    # Of a cluster that was replaced: nothing is promised about what it does until it is told.
    is_out = False
    # The disk says that the member on it was removed.
    removal_is_noted = False
    wall_was_set = False

    def begin_anew(self, random: Random) -> None:
        """Let the node be another member from now on, on the same disk, which it had left by itself: see datadir.py."""
        departure.empty(self.disk, DIRECTORY)
        self.incarnation = f"{self.node_id}-{random.getrandbits(32):08x}"
        self.removal_is_noted = False

    def empty(self, random: Random) -> None:
        """Empty the data directory: the node that starts here next has another identity."""
        self.disk = MachineDisk(Random(random.getrandbits(64)))
        self.incarnation = f"{self.node_id}-{random.getrandbits(32):08x}"
        self.was_emptied = True
        self.removal_is_noted = False


class _Clock(ClusterClock):
    """The product's clock, which also notes when nobody could know the time: all went by wall clocks, and half were set."""

    def __init__(self, process: Process, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        super().__init__(monotonic, wall)
        self._process = process

    def lead(self, stamp_ms: int, told_ms: int) -> None:
        cluster = self._process.cluster
        told = {voter: told for voter, told in self._process.node.voters_time._told.items() if told[0] is not None}
        asked = [host for host in cluster.hosts if host.node_id in told or host is self._process.host]
        guessed = not self.heard and not any(heard for _, heard, _ in told.values())
        guessed = guessed and 2 * sum(host.wall_was_set for host in asked) >= len(asked)
        super().lead(stamp_ms, told_ms)
        ahead_s = self.now_ms() / 1000 - cluster.scheduler.now
        if guessed and abs(ahead_s - cluster.ahead_s) > LEASE_SLACK_S / 4:
            cluster.lease_slack_s = inf
        cluster.ahead_s = ahead_s


class Process(LocalNode):
    """One start of the program: the product's own assembly on the simulation's loop, disk, network and clocks."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        host.starts += 1
        self.cluster = cluster
        self.host = host
        self.node_id = host.node_id
        self.name = f"{host.node_id}.{host.starts}"
        random = self._random = Random(cluster.random.getrandbits(64))
        scheduler = cluster.scheduler
        loop = self.loop = ProcessLoop(scheduler, host.monotonic_offset_s, host.clock_rate, self._after)
        self.writer = SimWriter(loop, host.disk, random, host.disk_latency_s)
        self.background = SimWriter(loop, host.disk, random, host.disk_latency_s)
        self.build = host.build
        identity = Identity(host.node_id, host.incarnation, start=host.starts, level=host.build.build_level)
        self.site = SimNetwork(cluster.wire, loop, identity, host.address, random.randbytes(8).hex())
        super().__init__(
            cluster.config_of(host),
            identity,
            host.http_address,
            Surroundings(
                loop=loop,
                loop_thread=threading.get_ident(),
                turn=Turn(loop.call_soon),
                supervisor=Supervisor(cast(asyncio.AbstractEventLoop, loop)),
                disk=host.disk,
                directory=DIRECTORY,
                write_journal=self.writer.submit,
                write_snapshots=self.background.submit,
                build_snapshot=self._build,
                network=self.site,
                passed=loop.passed,
                clock=_Clock(self, loop.passed, lambda: WALL_S + scheduler.now + host.wall_skew_s),
                ask_seed=functools.partial(cluster.ask_seed, self),
                random=random.random,
                random_bytes=random.randbytes,
                slices=Slices(loop.time, loop.call_soon, lambda: loop.budget.ends),
                unsent=Unsent(),
                segment_bytes=SEGMENT_BYTES,
                machine_type=host.build,
            ),
            self._note_removal,
        )
        self.feed._slices = cast(Slices, HastySlices(self.feed._slices, cluster.following.random))
        self.tracking._slices = cast(Slices, HastySlices(self.tracking._slices, cluster.tracked.random))
        self.checked_index = 0
        # What the fronts were told last of the settings.
        self.settings_told = self.machine.settings
        self.on_settings = self._note_settings
        # This process founds a cluster by mistake, or its cluster was replaced: nothing is promised but that it stops.
        self.is_stray = host.founds_by_mistake or host.is_out
        self._events = 0
        if self.build is not CacheMachine:
            cluster.upgrades.equip(self)
        if not self.is_stray:
            cluster.checks.watch(self)
        loop.create_task(self.start())

    def _note_settings(self, settings: Settings) -> None:
        self.settings_told = settings

    def send_unchecked(self, commands_: list[Command], done: Done) -> None:
        """Replicate what need not be a command: ``submit`` without its checks."""
        deadline = self.loop.time() + TIMEOUT_S
        self.proposals.add(Proposal(commands_, 64, len(commands_), deadline, done))
        self.node.ticks.run(self.proposals.flush)

    # What happens is noted.

    def machine_replaced(self, machine: CacheMachine) -> None:
        self.cluster.note(f"{self.name} takes a snapshot at {machine.applied_index}")
        super().machine_replaced(machine)

    def applied(self, settled: list[Settled]) -> None:
        if self.host.apply_s:
            self.loop.work(self.host.apply_s)
        super().applied(settled)
        self.cluster.following.applied(self)

    def route_changed(self) -> None:
        route = self.node.links.route
        self.cluster.note(f"{self.name} route {route.leader_id if route else None} in term {self.node.term}")
        super().route_changed()

    def _note_removal(self, reason: str) -> None:
        self.host.removal_is_noted = True
        self.cluster.note(f"{self.name} is out: {reason}")

    # Inside.

    def _build(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        def build() -> None:
            try:
                with pytest.MonkeyPatch.context() as patch:
                    if self.host.helper == "fails":
                        raise OSError("no more processes")
                    if self.host.helper == "garbles":
                        patch.setattr(CacheMachine, "snapshot", _garbled)
                    meta = helper.build(self.host.disk, DIRECTORY, index, machine_type=self.build)
            except OSError as error:
                done(error)
                return
            except Exception as error:
                if self.host.helper or files.list_snapshots(self.host.disk, DIRECTORY)[-1:] > [index]:
                    done(error)  # or the leader's snapshot was faster
                    return
                self.cluster.checks.complain(f"{self.name} cannot build a snapshot at {index}: {error!r}")
                return
            self.cluster.note(f"{self.name} has built a snapshot at {index}")
            done(meta)

        # Mostly soon; where there is much to load it takes longer than an election.
        self.loop.call_later(self._random.uniform(0.01, self._random.choice((0.1, 0.5, 3.0))), build)

    def _after(self) -> None:
        swallowed = self.cluster.checks.swallowed or self.loop.failed
        if swallowed is not None:
            raise swallowed
        self._events += 1
        if self.node.removal.removed_at is not None and not self.host.removal_is_noted:
            self.cluster.checks.complain(
                f"membership: {self.name} says that it was removed, and would not after a crash"
            )
        if self.writer.refused and (self.node.replica.failure is None or self.node.is_leader):
            self.cluster.checks.complain(f"{self.name} goes on although its journal could not be written")
        if self.is_stray:
            return
        if self._events % 4 == 0:
            self.cluster.checks.bounded_read(self)
        if self.node.last_applied != self.checked_index:
            self.cluster.checks.applied(self)
        if self.build is CacheMachine:
            self.cluster.upgrades.look(self, self._events)

    def die(self) -> None:
        """End this process in the middle of whatever it does."""
        self.loop.kill()
        self.writer.interrupt()
        self.background.interrupt()


def url_of(host: Host) -> str:
    """Return the URL of a machine's REST API."""
    return f"http://{host.http_address}"


def _garbled(machine: CacheMachine) -> Iterator[bytes]:
    """Yield a machine's state without its end, as a helper on a bad processor may write it."""
    yield from list(image.pack(image.records(machine)))[:-1]
    yield b"?"


class Cluster:
    """All machines of a run, and the network between them."""

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
        founding: str = BOOTSTRAP,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.wall_skew_s = wall_skew_s
        # The most by which the rate of a machine's clock is off.
        self.drift = drift
        self.founding = founding
        self.fsync = fsync
        self.scheduler = Scheduler()
        self.wire = Wire(self.scheduler, Random(self.random.getrandbits(64)))
        self.wire.random_of_last = Random(f"{seed} last")
        self.settings = settings or {"policy": "lru", "max_items": None, "max_bytes": None, "replicas": node_count - 1}
        self.transcript: list[str] = []
        self.fingerprint = 0
        self.checks = Checks(self)
        self.roles = Roles(self)
        # Machines whose member an operator is taking out, or promotes or demotes.
        self.leaving: set[str] = set()
        self.trace = trace
        # How far a lease may end from its time; inf once time was taken from wall clocks half of which were set, and is wrong.
        self.lease_slack_s = inf
        # Called behind each single write of a machine, with its contents and the key: what another thread may do there.
        self.look_meanwhile: Callable[[contents.Contents, str], None] = lambda changed, key: None
        # The cluster's time less the simulation's, when a leader last began.
        self.ahead_s = 0.0
        if trace:
            self.wire.note = lambda source, target, kind: self.note(f"    {source} -> {target} {kind}")
        else:
            self.wire.note = self._fold
        self.upgrades = Upgrades(self)
        self.following = Following(self)
        self.tracked = Tracked(self)
        self.hosts = [Host(self, f"n{number}", number == 1) for number in range(1, node_count + 1)]

    def config_of(self, host: Host) -> NodeConfig:
        """Return the settings of a machine's node, which are the same at every start but for ``--bootstrap``."""
        observers = self.roles.observers
        founders = [other for other in self.hosts if other.node_id not in observers]
        urls = [url_of(other) for other in self.hosts]
        if host.founds_by_mistake:
            return NodeConfig(node_id=host.node_id, bootstrap=True, fsync=self.fsync)
        seeds: tuple[str, ...] = ()
        peers: tuple[str, ...] = ()
        if self.founding == PEERS:
            peers = tuple(
                other.address.upper() if other.node_id in host.capitals else other.address
                # Who has moved is found by anybody who knows of it.
                for other in (self.hosts if host.rejoins else founders)
            )
        elif self.founding == TEMPLATE:
            seeds = tuple(url_of(other) for other in founders)
        elif not host.founds or host.rejoins:
            seeds = tuple(url for url in urls if url != url_of(host))
        return NodeConfig(
            node_id=host.node_id,
            seed=seeds,
            bootstrap=self.founding == BOOTSTRAP and host.founds and not host.was_emptied,
            bootstrap_expect=len(founders) if self.founding == TEMPLATE and host in founders else None,
            role=OBSERVER if host.node_id in observers else VOTER,
            replace_after_s=self.roles.replace_after_s,
            peers=peers,
            fsync=self.fsync,
            request_timeout_s=TIMEOUT_S,
            eviction=self.settings["policy"],
            max_items=self.settings["max_items"],
            max_bytes=self.settings["max_bytes"],
            replicas=self.settings["replicas"],
        )

    async def ask_seed(self, asking: Process, url: str, document: dict[str, Any]) -> SeedAnswer:
        """Stand for HTTP between two machines: the other one's own registration answers, or nobody does in time."""
        wire = self.wire
        await asyncio.sleep(2 * wire.delay())
        host = next(host for host in self.hosts if url_of(host) == url)
        asked = host.process
        if asked is None:
            return SeedAnswer(f"{url} cannot be asked: connection refused")
        answer: asyncio.Future[SeedAnswer] = asking.loop.create_future()

        def answered(told: SeedAnswer) -> None:
            if not answer.done():
                answer.set_result(told)

        async def register() -> None:
            try:
                outcome, detail = await asked.joining.register(
                    document["id"],
                    document["address"],
                    document["raft_address"],
                    document["was_member"],
                    document["role"] == OBSERVER,
                )
                told = SeedAnswer("" if outcome in (JOINED, KNOWN) else detail)
            except NoCluster as error:
                told = SeedAnswer(str(error), error.raft_address)
            except CacheFlowError as error:
                told = SeedAnswer(str(error))
            if not wire.is_cut(asked.node_id, asking.node_id):
                self.note(f"{asking.name} asks {asked.name} to be registered: {told.problem or 'done'}")
                self.scheduler.at(wire.delay(), answered, told, owner=asking.loop)

        if wire.is_cut(asking.node_id, asked.node_id):
            await asyncio.sleep(CONNECT_S)
            return SeedAnswer(f"{url} cannot be asked: no answer in time")
        self.scheduler.at(wire.delay(), lambda: asked.loop.create_task(register()), owner=asked.loop)
        try:
            return await asyncio.wait_for(answer, HTTP_TIMEOUT_S)
        except TimeoutError:
            return SeedAnswer(f"{url} cannot be asked: no answer in time")

    def note(self, line: str) -> None:
        """Add a line to the transcript."""
        line = f"{self.scheduler.now - 1000:10.6f} {line}"
        self.transcript.append(line)
        self.fingerprint = zlib.crc32(line.encode(), self.fingerprint)

    def _fold(self, source: str, target: str, kind: str) -> None:
        self.fingerprint = zlib.crc32(f"{self.scheduler.now:.6f}{source}{target}{kind}".encode(), self.fingerprint)

    # Processes.

    def looked_at_meanwhile(self, write: Callable[..., int]) -> Callable[..., int]:
        """Return ``write``, a machine's, with a look of another thread behind it: in the middle of an entry."""

        def write_and_look(changed: contents.Contents, key: str, *args: Any) -> int:
            version = write(changed, key, *args)
            self.look_meanwhile(changed, key)
            return version

        return write_and_look

    @property
    def processes(self) -> list[Process]:
        """The processes that live, paused or not."""
        return [host.process for host in self.hosts if host.process is not None]

    def start(self, host: Host, *, damaged: bool = False) -> str | None:
        """Start the program where it does not run; return what it says if it refuses. damaged: its disk is damaged."""
        assert host.process is None
        self.note(f"{host.node_id} starts")
        anew = host.removal_is_noted and departure.has_left(host.disk, DIRECTORY, host.incarnation)
        if anew:
            host.begin_anew(self.random)
        try:
            host.process = Process(self, host)
        except (ConfigError, OSError) as error:
            self.note(f"{host.node_id} refuses to start: {error}")
            host.disk.stop()
            if isinstance(error, NewerCacheFlow):
                self.upgrades.told(host, str(error))
            if isinstance(error, (CorruptJournal, CorruptSnapshot)) and not damaged:
                self.checks.complain(f"durability: {host.node_id} cannot read what it has written: {error}")
            return str(error)
        if anew and host.process.node.configurations.latest.members:
            self.checks.complain(f"leaving: {host.process.name} comes back with the log of the member that had left")
        return None

    def crash(self, host: Host, *, power: bool) -> None:
        """Kill the process; with ``power`` the machine forgets what was not flushed, and nobody is told."""
        process, host.process = host.process, None
        if process is None:
            return
        self.note(f"{process.name} {'loses power' if power else 'is killed'}")
        self.roles.died_at[host.node_id] = self.scheduler.now
        process.die()
        host.disk.out_of_handles = False
        self.wire.vanish(process.site, silently=power)
        host.disk.forget_failures()
        if power:
            host.disk.crash(self.random)
            host.reboot(self.random, self.scheduler.now)
        else:
            host.disk.stop()

    @property
    def leader(self) -> Process | None:
        """The process that leads in the latest term, None when none does."""
        leaders = [process for process in self.processes if process.node.is_leader and not process.is_stray]
        return max(leaders, key=lambda process: process.node.term, default=None)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass."""
        return self.scheduler.run_until(self.scheduler.now + seconds, until)

    def healthy(self) -> bool:
        """Return whether all is well, everything is applied and swept everywhere, and nobody waits for an answer."""
        leader = self.leader
        return (
            leader is not None
            and self.well(leader.journal.last_index)
            and all(process.proposals.pending == 0 for process in self.processes)
            and not any(process.machine.contents.behind for process in self.processes)
        )

    def well(self, index: int) -> bool:
        """Return whether all run, know one leader, may be read and have applied ``index``, and enough of them vote."""
        processes = self.processes
        leader = self.leader
        if leader is None or len(processes) != len(self.hosts) or self.leaving:
            return False
        table, replicas = leader.node.configurations.latest, leader.machine.settings.replicas
        eligible = sum(not member.observer for member in table.members.values())
        return all(
            process.node.last_applied >= index
            and process.node.links.route is not None
            and process.node.links.route.leader_id == leader.node_id
            and process.node.may_read
            for process in processes
        ) and len(table.voters) == min(eligible, len(processes), (replicas or 0) + 1)


def leader_of(cluster: Cluster) -> Process:
    """Return the leader of a cluster, which must have one."""
    leader = cluster.leader
    assert leader is not None
    return leader


# How often a process loses its processor in the middle of a tick, and for how long at most.
LATE_TICKS = 0.02
LATE_S_MAX = 0.1


class TickClock:
    """Lets time pass now and then within a tick, before PySyncObj looks at the clock, as for a thread without a processor.

    The draws are its own, so that all else goes as without it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.late_s = 0.0
        self._random = Random(f"{cluster.seed} late ticks")

    def late(self, tick: Callable[..., None]) -> Callable[..., None]:
        """Return the method ``tick`` of PySyncObj, for which it is later sometimes than for its caller."""

        def ticked(core: Core, wait_s: float) -> None:
            if self._random.random() < LATE_TICKS:
                self.late_s = self._random.uniform(0.0, LATE_S_MAX)
            try:
                tick(core, wait_s)
            finally:
                self.late_s = 0.0

        return ticked


# Keys in a segment of the order of use: so few that a simulation's keys take several segments.
SEGMENT_KEYS = 12


@contextmanager
def patched(cluster: Cluster, *, journal_bytes: int | None = None, piece_bytes: int = 700) -> Iterator[None]:
    """Give PySyncObj the simulation's time and randomness, and an order of its sets that no hash seed changes."""
    scheduler = cluster.scheduler
    random = Random(cluster.random.getrandbits(64))
    with pytest.MonkeyPatch.context() as patch:
        clock = TickClock(cluster)
        patch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: scheduler.now + clock.late_s)
        patch.setattr(Core, "_onTick", clock.late(Core._onTick), raising=False)
        patch.setattr(pysyncobj.syncobj, "random", random)
        patch.setattr(Node, "__hash__", lambda node: zlib.crc32(node.id.encode()))
        patch.setattr(use_order, "SEGMENT_KEYS_MAX", SEGMENT_KEYS)
        patch.setattr(lfu, "LINK_KEYS_MAX", SEGMENT_KEYS)
        for name, bound in clears.BOUNDS.items():
            patch.setattr(contents, name, bound)
        patch.setattr(contents.Contents, "write", cluster.looked_at_meanwhile(contents.Contents.write))
        patch.setattr(batches, "READ_PER_BATCH_BYTES_MAX", bulk.READ_BYTES_MAX)
        patch.setattr(image, "RECORD_BYTES_MAX", bulk.RECORD_BYTES_MAX)
        patch.setattr(idempotency, "KEPT_BYTES_MAX", once.KEPT_BYTES_MAX)
        patch.setattr(scopes, "SCOPE_KEPT_BYTES_MAX", scoped.SCOPE_KEPT_BYTES_MAX)
        patch.setattr(large_calls, "CALL_BYTES_MAX", bulk.CALL_BYTES_MAX)
        patch.setattr(large_calls, "PIECE_BYTES_MAX", bulk.BLOCK_BYTES_MAX)
        patch.setattr(proposals, "BLOCK_BYTES_MAX", bulk.BLOCK_BYTES_MAX)
        patch.setattr(proposals, "SENT_BYTES_MAX", bulk.SENT_BYTES_MAX)
        patch.setattr(proposals, "SEND_AGAIN_BYTES_PER_S", bulk.SEND_AGAIN_BYTES_PER_S)
        patch.setattr(leader, "ENTRY_BYTES_MAX", bulk.BLOCK_BYTES_MAX)
        patch.setattr(replication, "BATCH_BYTES", bulk.BATCH_BYTES)
        patch.setattr(frames, "PIECE_BYTES", bulk.PEER_PIECE_BYTES)
        patch.setattr(sending, "PIECE_BYTES", bulk.PIECE_BYTES if journal_bytes is None else piece_bytes)
        patch.setattr(channels, "PART_BYTES", published.PART_BYTES)
        patch.setattr(channels, "HANDED_OUT_MAX", published.HANDED_OUT_MAX)
        patch.setattr(feed, "EFFECTS_MAX", followed.EFFECTS_MAX)
        patch.setattr(feed, "BYTES_MAX", followed.BYTES_MAX)
        patch.setattr(feed, "AT_ONCE", followed.AT_ONCE)
        patch.setattr(feed, "FOUND_AT_ONCE", followed.FOUND_AT_ONCE)
        patch.setattr(feed, "LOOKED_MAX", followed.LOOKED_MAX)
        patch.setattr(feed, "FOUND_MAX", followed.FOUND_MAX)
        patch.setattr(feed, "HANDED_AT_ONCE", followed.HANDED_AT_ONCE)
        patch.setattr(feed, "UNPACKED_MAX", followed.UNPACKED_MAX)
        patch.setattr(assembly, "STALE_MS_MAX", followed.STALE_MS_MAX)
        patch.setattr(tracking, "NOTED_BYTES_MAX", tracked.NOTED_BYTES_MAX)
        patch.setattr(tracking, "DUE_MAX", tracked.DUE_MAX)
        patch.setattr(tracking, "NAMES_AT_ONCE", tracked.NAMES_AT_ONCE)
        patch.setattr(tracking, "WRITTEN_AT_ONCE", tracked.WRITTEN_AT_ONCE)
        patch.setattr(level_raising, "RAISE_AFTER_MS", RAISE_AFTER_MS)
        for module in (turn, supervisor):
            patch.setattr(module.logger, "exception", cluster.checks.note_swallowed)
        if journal_bytes is not None:
            patch.setattr(building, "JOURNAL_BYTES_MIN", journal_bytes)
        yield
