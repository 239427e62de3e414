"""Engine: one node in a thread of its own, on the real loop, disk, network and clocks.

Threads talk to the node in three ways: they read the machine's memory directly, they put proposals into its inbox, which
wakes the loop once per burst, and they ask for small answers with ``call``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cacheflow.config import NodeConfig, join_address, read_secret
from cacheflow.errors import CacheFlowError, NoLeader, NotReady
from cacheflow.net.loop import NodeLoop
from cacheflow.net.ports import ListeningPorts, Service
from cacheflow.node.assembly import LocalNode, Surroundings
from cacheflow.node.clock import ClusterClock
from cacheflow.node.registration import over_http
from cacheflow.node.supervisor import Supervisor
from cacheflow.raft.log.datadir import DataDirectory
from cacheflow.raft.log.disk import RealDisk, ThreadWriter
from cacheflow.raft.snapshots.schedule import HelperProcess
from cacheflow.raft.transport.network import Identity
from cacheflow.raft.transport.peer_transport import PeerTransport
from cacheflow.raft.turn import Turn

T = TypeVar("T")

# Seconds between two passes over the newest objects while writes come (see ``_let_go_of_entries``).
COLLECT_EVERY_S = 0.1


class Engine:
    """The thread of one node. ``start`` returns when the node runs; ``stop`` when nothing of it is left.

    local: the node, from ``start`` on.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        # What clients ask for in one turn is proposed at the end of that turn.
        self.ports = ListeningPorts(lambda work: self._turn.run(work))
        self.local: LocalNode
        self._turn: Turn
        self._http_address = ""
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._loop_thread = 0
        # From the end of ``start`` to the end of ``stop``.
        self._started = False
        self._stack = contextlib.ExitStack()
        self._revision_passed = 0

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self, http_address: str = "") -> LocalNode:
        """Open the data directory, listen, and begin. http_address: host:port that members show. Raises ConfigError."""
        self._http_address = http_address
        started: list[BaseException | None] = []
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started, ready), name="cacheflow-loop", daemon=True)
        self._thread.start()
        ready.wait()
        if started[0] is not None:
            self._thread.join()
            self._thread = None
            raise started[0]
        return self.local

    def stop(self, hand_over_s: float = 2.0) -> None:
        """Hand leadership over when this node leads, finish what is under way, and close everything."""
        if self._thread is None:
            return
        with contextlib.suppress(CacheFlowError, TimeoutError):
            self.run(self._shut_down(hand_over_s), timeout_s=hand_over_s + 5)
        self._started = self.local.is_serving = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None

    @property
    def running(self) -> bool:
        """Whether the node is there and its loop's thread lives; not yet while ``start`` is under way."""
        if not self._started:
            return False
        # Whoever asks on the loop's own thread has the answer, and asks for every request.
        return threading.get_ident() == self._loop_thread or (self._thread is not None and self._thread.is_alive())

    def _run(self, started: list[BaseException | None], ready: threading.Event) -> None:
        self._loop = NodeLoop()
        self._loop_thread = threading.get_ident()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
            self._started = True
            started.append(None)
        except BaseException as error:  # handed to the caller of start()
            started.append(error)
            self._stack.close()
            self._loop.close()
            return
        finally:
            ready.set()
        try:
            self._loop.run_forever()
        finally:
            self.local.is_serving = False
            self._loop.close()
            self.local.proposals.close()
            self.local.inbox.refuse()
            self._stack.close()

    async def _open(self) -> None:
        config, loop, stack = self.config, self._loop, self._stack
        data = stack.enter_context(
            DataDirectory(config.data_dir, node_id=config.node_id, ephemeral=not config.persistence)
        )
        turn = self._turn = Turn(loop.call_soon)
        supervisor = Supervisor(loop)
        journal_writer = stack.enter_context(contextlib.closing(ThreadWriter(loop)))
        snapshot_writer = stack.enter_context(contextlib.closing(ThreadWriter(loop, "cacheflow-snapshots")))
        identity = Identity(data.node_id, data.incarnation)
        network = PeerTransport(
            identity,
            (config.host, config.raft_listen_port),
            join_address(config.advertise or config.host, config.raft_listen_port),
            read_secret(config.cluster_secret_file, "cluster-secret-file"),
            defer=turn.defer,
            supervisor=supervisor,
        )
        local = LocalNode(
            config,
            identity,
            self._http_address,
            Surroundings(
                loop=loop,
                loop_thread=self._loop_thread,
                turn=turn,
                supervisor=supervisor,
                disk=RealDisk(),
                directory=data.path,
                write_journal=journal_writer.submit,
                write_snapshots=snapshot_writer.submit,
                build_snapshot=HelperProcess(data.path, supervisor),
                network=network,
                clock=ClusterClock(time.monotonic, time.time),
                ask_seed=over_http(config.api_token_file),
                random=random.random,
                random_bytes=os.urandom,
            ),
            data.note_removed,
        )
        self.local = local
        stack.callback(local.journal.close)
        await local.start()
        self._let_go_of_entries()

    async def _shut_down(self, hand_over_s: float) -> None:
        await self.ports.close()
        node = self.local.node
        if node.reconfiguration.hand_over(None) is not None:
            deadline = self._loop.time() + hand_over_s
            while node.is_leader and self._loop.time() < deadline:
                await asyncio.sleep(0.005)
        await self.local.stop()

    def _let_go_of_entries(self) -> None:
        """Have the garbage collector look at new entries soon, for then it drops them: they are tuples of atoms.

        It comes by itself when there are many more objects than before. In a full cache each write frees what it takes, so
        it would come when a million are waiting for it.
        """
        self._loop.call_later(COLLECT_EVERY_S, self._let_go_of_entries)
        revision = self.local.machine.revision
        if revision != self._revision_passed and gc.isenabled():
            self._revision_passed = revision
            gc.collect(0)

    # Questions ------------------------------------------------------------------------------------------------------

    def call(self, question: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Ask on the loop and wait for the answer. Not from the loop itself."""

        async def ask() -> T:
            return question()

        return self.run(ask(), timeout_s=timeout_s)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine on the loop and wait for its end. Raises NoLeader after ``timeout_s``."""
        if not self.running:
            coroutine.close()
            raise NotReady("this node is stopped")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise NoLeader("no answer from the cluster in time") from None

    def serve(self, service: Service, host: str, port: int) -> int:
        """Let clients of ``service`` in; the port. Raises ConfigError."""
        return self.run(self.ports.open(service, host, port), timeout_s=5.0)
