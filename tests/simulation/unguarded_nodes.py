"""Nodes of PySyncObj as it comes, on the simulation's scheduler and network: none of our guards, journal or sessions.

They have better conditions than outside: a journal that survives every kill whole, no compaction, one connection a
direction, and no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from simulation.checks import Checks
from simulation.cluster import Cluster
from simulation.network import SimNetwork, Wire
from simulation.scheduler import ProcessLoop, Scheduler

from cacheflow.raft.transport.network import Identity, Peer

TICK_S = 0.05


class PlainStore(SyncObj):  # type: ignore[misc]
    """A replicated dict."""

    def __init__(self, name: str, others: list[str], transport: Transport) -> None:
        conf = SyncObjConf(autoTick=False, journalFile=name, logCompactionMinEntries=10**9, logCompactionMinTime=10**9)
        super().__init__(Node(name), [Node(other) for other in others], conf, transport=transport)
        self.contents: dict[str, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: bytes, padding: str) -> None:
        """Set a key; replicated."""
        self.contents[key] = value

    @replicated  # type: ignore[untyped-decorator]
    def count(self, key: str) -> int:
        """Increment a counter; return the new number."""
        self.contents[key] = b"%d" % (int(self.contents.get(key, b"0")) + 1)
        return int(self.contents[key])

    @replicated  # type: ignore[untyped-decorator]
    def read(self, key: str) -> bytes | None:
        """Return a key's value; linearizable, because it goes through the log."""
        return self.contents.get(key)


class PlainNetwork(SimNetwork):
    """The simulation's network with PySyncObj's own messages as they are: nobody changes one."""

    def send(self, node_id: str, message: Any) -> bool:
        way = self.ways.get(node_id)
        return way is not None and way.connected and way.carry(message)

    def deliver(self, sender: SimNetwork, body: Any) -> None:
        peer = Peer(sender.node_id, sender.incarnation, sender.raft_address, "", sender.epoch)
        self.on_message(peer, body)


class PlainTransport(Transport):  # type: ignore[misc]
    """The transport of one PySyncObj node, over PlainNetwork."""

    def __init__(self, network: PlainNetwork, wake: Callable[[], None]) -> None:
        super().__init__(None, None, [])
        self._network = network
        self._wake = wake
        network.on_message = self._received
        network.on_connected = lambda node_id: self._onNodeConnected(Node(node_id))
        network.on_disconnected = lambda node_id: self._onNodeDisconnected(Node(node_id))
        network.on_peer_lost = lambda node_id: None

    def send(self, node: Node, message: Any) -> bool:
        return self._network.send(node.id, message)

    def _received(self, peer: Peer, message: Any) -> None:
        self._onMessageReceived(Node(peer.node_id), message)
        self._wake()


class PlainHost:
    """One machine."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.starts = 0
        self.process: PlainProcess | None = None


class PlainProcess:
    """One start of the program."""

    def __init__(self, cluster: PlainCluster, host: PlainHost) -> None:
        host.starts += 1
        self.host = host
        self.node_id = host.node_id
        self.name = f"{host.node_id}.{host.starts}"
        self.loop = ProcessLoop(cluster.scheduler, 0.0, 1.0, lambda: None)
        self._woken = False
        addresses = {other.node_id: other.node_id for other in cluster.hosts}
        network = PlainNetwork(cluster.wire, self.loop, Identity(host.node_id, self.name), host.node_id, self.name)
        self.network = network
        self.store = PlainStore(
            host.node_id, [other for other in addresses if other != host.node_id], PlainTransport(network, self.wake)
        )
        cluster.wire.open(network)
        network.set_peers(addresses)
        self._on_timer()

    def _on_timer(self) -> None:
        self.loop.call_later(TICK_S, self._on_timer)
        self.store.doTick()

    def wake(self) -> None:
        """Make PySyncObj tick at a message, as its poller does."""
        if not self._woken:
            self._woken = True
            self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._woken = False
        self.store.doTick()


class PlainCluster:
    """The machines of a run, with the part of ``Cluster`` that faults and checks use."""

    def __init__(self, seed: int, node_count: int) -> None:
        self.random = Random(seed)
        self.scheduler = Scheduler()
        self.wire = Wire(self.scheduler, Random(self.random.getrandbits(64)))
        self.checks = Checks(cast(Cluster, self))
        self.journals: dict[str, MemoryJournal] = {}
        self.hosts = [PlainHost(f"n{number}") for number in range(1, node_count + 1)]

    def note(self, line: str) -> None:
        """Drop a line, because no transcript is kept."""

    @property
    def processes(self) -> list[PlainProcess]:
        """The processes that live."""
        return [host.process for host in self.hosts if host.process is not None]

    @property
    def leader(self) -> PlainProcess | None:
        """The process that leads in the latest term."""
        leaders = [process for process in self.processes if process.store._isLeader()]
        return max(leaders, key=lambda process: int(process.store.raftCurrentTerm), default=None)

    def start(self, host: PlainHost) -> None:
        """Start the program on a machine where it does not run."""
        host.process = PlainProcess(self, host)

    def crash(self, host: PlainHost) -> None:
        """Kill the process; its journal is kept."""
        process, host.process = host.process, None
        assert process is not None
        process.loop.kill()
        self.wire.vanish(process.network, silently=False)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.scheduler.run_until(self.scheduler.now + seconds)

    def well(self) -> bool:
        """Return whether all run, know the leader and have applied its log."""
        leader = self.leader
        return (
            leader is not None
            and len(self.processes) == len(self.hosts)
            and all(process.store._getLeader() == leader.store.selfNode for process in self.processes)
            and len({process.store.raftLastApplied for process in self.processes}) == 1
        )
