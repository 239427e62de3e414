"""Engine: one node, its event loop in a thread of its own, and what that loop owns.

Threads talk to it in three ways: they read the machine's memory directly, they put proposals into an inbox that wakes
the loop once per burst, and they ask for small answers with ``call``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cacheflow.clock import ClusterClock
from cacheflow.config import NodeConfig, join_address, read_secret
from cacheflow.contract import Done, Outcome
from cacheflow.errors import CacheFlowError, NoLeader, NotReady
from cacheflow.joining import Joining
from cacheflow.loop import NodeLoop
from cacheflow.machine import commands
from cacheflow.machine.commands import Command
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.settings import Member
from cacheflow.proposals import Proposal, Proposals
from cacheflow.raft.datadir import DataDirectory
from cacheflow.raft.disk import RealDisk, ThreadWriter
from cacheflow.raft.journal import Journal
from cacheflow.raft.network import Identity
from cacheflow.raft.node import RaftNode, Timing
from cacheflow.raft.snapshotting import HelperProcess, Snapshotting
from cacheflow.raft.transport import PeerTransport
from cacheflow.raft.turn import Turn
from cacheflow.recency import RecencyBuffer
from cacheflow.services import Service, Services

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How often deadlines are looked at.
EXPIRE_EVERY_S = 0.1
# Recency of a node that only reads travels alone this often, once the cache is nearly full.
USES_EVERY_S = 1.0
NEARLY_FULL = 0.9
# Below that a use costs every node more than it is worth: nothing is evicted soon, and the latest uses are kept here.
HALF_FULL = 0.5


class Engine:
    """See the module. ``start`` returns when the node runs; ``stop`` when nothing of it is left."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.uses = RecencyBuffer()
        # What clients ask for in one turn is proposed at the end of that turn.
        self.services = Services(lambda work: self._turn.run(work))
        self.clock = ClusterClock(time.monotonic, time.time)
        # Reads of this process; when two threads count at once some may be lost.
        self.hits = 0
        self.misses = 0
        self.node: RaftNode
        self.machine: CacheMachine
        self._http_address = ""
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._loop_thread = 0
        self._inbox: deque[Proposal] = deque()
        self._inbox_woken = False
        self._barriers: deque[Done] = deque()
        self._serves_reads = False
        self._proposals: Proposals
        self._stack = contextlib.ExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._uses_sent_at = 0.0
        self._revision_passed = 0

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self, http_address: str = "") -> None:
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

    def stop(self, hand_over_s: float = 2.0) -> None:
        """Hand leadership over when this node leads, finish what is under way, and close everything."""
        if self._thread is None:
            return
        with contextlib.suppress(CacheFlowError, TimeoutError):
            self.run(self._shut_down(hand_over_s), timeout_s=hand_over_s + 5)
        self._serves_reads = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None

    @property
    def running(self) -> bool:
        """Whether the node is there and its loop's thread lives; not yet while ``start`` is under way."""
        if not self._serves_reads:
            return False
        # Whoever asks on the loop's own thread has the answer, and asks for every request.
        return threading.get_ident() == self._loop_thread or (self._thread is not None and self._thread.is_alive())

    def _run(self, started: list[BaseException | None], ready: threading.Event) -> None:
        self._loop = NodeLoop()
        self._loop_thread = threading.get_ident()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
            self._serves_reads = True
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
            self._loop.close()
            self._proposals.close()
            self._refuse_inbox()
            self._stack.close()

    async def _open(self) -> None:
        config = self.config
        loop = self._loop
        data = self._stack.enter_context(
            DataDirectory(config.data_dir, node_id=config.node_id, ephemeral=not config.persistence)
        )
        disk = RealDisk()
        turn = self._turn = Turn(loop.call_soon)
        writer = self._stack.enter_context(contextlib.closing(ThreadWriter(loop)))
        background = self._stack.enter_context(contextlib.closing(ThreadWriter(loop, "cacheflow-snapshots")))
        snapshotting = Snapshotting(disk, data.path, run=background.submit, build=HelperProcess(data.path, self._spawn))
        self.machine = snapshotting.load()
        journal = Journal.open(
            disk,
            data.path,
            submit=writer.submit,
            fsync=config.fsync if config.persistence else "never",
            on_durable=lambda: self.node.flushed(),
            on_failure=lambda error: self.node.fail(f"writing to {data.path} failed: {error}"),
            # Followers begin with an entry as early as they can; their flush is further away than this node's own.
            defer=turn.defer_behind,
            later=loop.call_later,
        )
        snapshotting.adopt_journal(journal)
        if journal.clock_pair is not None:
            self.clock.restore(*journal.clock_pair)
        self.network = PeerTransport(
            Identity(data.node_id, data.incarnation),
            (config.host, config.raft_listen_port),
            self._raft_address(),
            read_secret(config.cluster_secret_file, "cluster-secret-file"),
            defer=turn.defer,
        )
        self.node = RaftNode(
            loop=loop,
            node_id=data.node_id,
            incarnation=data.incarnation,
            journal=journal,
            machine=self.machine,
            network=self.network,
            clock=self.clock,
            snapshotting=snapshotting,
            events=self,
            timing=Timing(config.election_timeout_s, config.heartbeat_s),
            initial_settings={
                "policy": config.eviction,
                "max_items": config.max_items,
                "max_bytes": config.max_bytes,
                "replicas": config.replicas,
            },
            random=random.random,
            turn=turn,
        )
        self.node.on_removed = lambda index: self._removed(data, index)
        self.network.on_message = self.node.receive
        self.network.on_connected = self.node.connected
        self.network.on_disconnected = self.node.disconnected
        self.network.on_peer_lost = self.node.disconnected
        self._proposals = Proposals(
            self.node,
            member_id=data.node_id,
            nonce=os.urandom(8).hex(),
            clock=time.monotonic,
            uses=self._uses_that_matter,
            later=loop.call_later,
            collect=self._take_inbox,
        )
        await self.network.start()
        self._stack.callback(journal.close)
        me = Member(data.node_id, data.incarnation, self.network.raft_address, self._http_address, False)
        self._joining = Joining(self.node, self.network, me, config)
        self._joining.found_or_wait()
        self.node.start()
        self._spawn(self._joining.keep())
        self._on_timer()

    async def _shut_down(self, hand_over_s: float) -> None:
        await self.services.close()
        node = self.node
        if node.reconfiguration.hand_over(None) is not None:
            deadline = self._loop.time() + hand_over_s
            while node.is_leader and self._loop.time() < deadline:
                await asyncio.sleep(0.005)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._proposals.close()
        node.stop()
        await self.network.stop()

    def _raft_address(self) -> str:
        return join_address(self.config.advertise or self.config.host, self.config.raft_listen_port)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Proposals --------------------------------------------------------------------------------------------------------

    def submit(self, commands_: list[Command], done: Done, timeout_s: float | None = None) -> None:
        """Replicate ``commands_``. Any thread."""
        size = sum(map(commands.size_of, commands_))
        deadline = time.monotonic() + (self.config.request_timeout_s if timeout_s is None else timeout_s)
        self._inbox.append(Proposal(commands_, size, deadline, functools.partial(self._settle, done)))
        # While the next block gathers, or much is on its way, the loop looks into the inbox by itself: no system call here.
        if not self._proposals.holds_back(len(self._inbox) + len(self._barriers)):
            self._wake()

    def _settle(self, done: Done, outcome: Outcome) -> None:
        self._turn.defer_last(done(outcome))

    def barrier(self, done: Done) -> None:
        """``done`` once everything acknowledged before is applied here: one entry for all who wait in this turn. Any thread."""
        self._barriers.append(done)
        if not self._proposals.holds_back(len(self._inbox) + len(self._barriers)):
            self._wake()

    def _wake(self) -> None:
        if not self._inbox_woken:
            self._inbox_woken = True
            if threading.get_ident() == self._loop_thread:
                # No system call to wake a loop that runs.
                self._turn.defer(self._take_inbox)
                return
            try:
                self._loop.call_soon_threadsafe(self._take_inbox)
            except RuntimeError:  # the loop was closed meanwhile
                self._refuse_inbox()

    def _refuse_inbox(self) -> None:
        """The loop has ended: nobody may wait for it. Any thread."""
        self._inbox_woken = False
        with contextlib.suppress(IndexError):  # somebody else takes them too
            while True:
                self._settle(self._barriers.popleft(), NotReady("this node is stopped"))
        with contextlib.suppress(IndexError):
            while True:
                proposal = self._inbox.popleft()
                if proposal.done is not None:
                    proposal.done(NotReady("this node is stopped"))

    def _take_inbox(self) -> None:
        self._inbox_woken = False
        self._empty_inbox()
        self.node.run(self._proposals.flush)

    def _empty_inbox(self) -> None:
        if self._barriers:
            # One by one: a thread may be adding another.
            waiting = [self._barriers.popleft() for _ in range(len(self._barriers))]

            def passed(outcome: Outcome) -> None:
                for done in waiting:
                    self._settle(done, outcome)

            deadline = time.monotonic() + self.config.request_timeout_s
            self._proposals.add(Proposal([commands.noop()], 0, deadline, passed, len(waiting)))
        inbox = self._inbox
        while inbox:
            self._proposals.add(inbox.popleft())

    def _on_timer(self) -> None:
        self._loop.call_later(EXPIRE_EVERY_S, self._on_timer)
        self._empty_inbox()
        self._proposals.expire()
        self._let_go_of_entries()
        now = self._loop.time()
        if len(self.uses) and now - self._uses_sent_at >= USES_EVERY_S and self._fill() >= NEARLY_FULL:
            self._uses_sent_at = now
            self._proposals.send_uses(self.uses.drain())

    def _let_go_of_entries(self) -> None:
        """Have the garbage collector look at new entries soon, for then it drops them: they are tuples of atoms.

        It comes by itself when there are many more objects than before. In a full cache each write frees what it takes, so
        it would come when a million are waiting for it.
        """
        revision = self.machine.revision
        if revision != self._revision_passed and gc.isenabled():
            self._revision_passed = revision
            gc.collect(0)

    def _uses_that_matter(self) -> list[tuple[str, int]]:
        return self.uses.drain() if self._fill() >= HALF_FULL else []

    def _fill(self) -> float:
        machine, settings = self.machine, self.machine.settings
        items = machine.item_count / settings.max_items if settings.max_items else 0.0
        return max(items, machine.bytes_used / settings.max_bytes if settings.max_bytes else 0.0)

    def machine_replaced(self, machine: CacheMachine) -> None:
        """A snapshot was installed. (Called by the node.)"""
        self.machine = machine
        self._proposals.answers_missed()

    def applied(self, settled: list[Settled]) -> None:
        """The machine has answered. (Called by the node.)"""
        self._empty_inbox()
        self._proposals.applied(settled)
        if self._inbox or self._barriers:
            # Writes of threads that waited for the inbox while the answers above were given: they go on their way now.
            self._empty_inbox()
            self._proposals.flush()

    def route_changed(self) -> None:
        """The way to the leader is another. (Called by the node.)"""
        self._proposals.route_changed(self.node.route is not None)

    def _removed(self, data: DataDirectory, index: int) -> None:
        """The cluster goes on without this node: nobody may wait here, and the next start must not go on either."""
        reason = data.note_removed(index)
        self.network.refuse(reason)
        self._proposals.close()

    @property
    def may_read(self) -> bool:
        """Whether this node's contents may be read. Any thread."""
        return self._serves_reads and self.node.may_read

    @property
    def listening(self) -> bool:
        """Whether peers can connect."""
        return self.network.healthy

    @property
    def pending(self) -> int:
        """Commands that wait for their answer."""
        return self._proposals.pending

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
        return self.run(self.services.open(service, host, port), timeout_s=5.0)

    async def register(self, node_id: str, address: str, raft_address: str, was_member: bool) -> tuple[str, str]:
        """Make the node at ``raft_address`` a member: (outcome, detail)."""
        return await self._joining.register(node_id, address, raft_address, was_member)
