"""Engine: runs one node in a thread of its own, on the real event loop, disk, network and clocks.

Threads talk to the node in three ways: they read the machine's memory directly, they put proposals into its inbox, which
wakes the loop once per burst, and they ask for small answers with ``call``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from cacheflow.config import NodeConfig, join_address, read_secret
from cacheflow.errors import CacheFlowError, ConfigError, NoLeader, NotReady, OutcomeUnknown
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.entries import Entry
from cacheflow.machine.state.settings import Settings
from cacheflow.net.loop import Budget, NodeLoop
from cacheflow.net.ports import ListeningPorts, Service
from cacheflow.net.tls.certificates import Certificates
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.tls.trust import trusting
from cacheflow.node.assembly import LocalNode, Surroundings
from cacheflow.node.clock import ClusterClock, passed_s
from cacheflow.node.disk_space import DiskSpace
from cacheflow.node.leaving import LEAVE_WITHIN_S
from cacheflow.node.registration import over_http
from cacheflow.node.supervisor import Supervisor
from cacheflow.raft.log.datadir import DataDirectory
from cacheflow.raft.log.disk import Disk, ThreadWriter
from cacheflow.raft.snapshots.helper_process import HelperProcess
from cacheflow.raft.transport.encryption import Encryption
from cacheflow.raft.transport.network import Identity
from cacheflow.raft.transport.peer_transport import PeerTransport
from cacheflow.raft.turn import Turn
from cacheflow.results import Digest

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between two passes of the garbage collector over the newest objects while writes come: each pass is short then.
COLLECT_EVERY_S = 0.1
# Seconds for the last flush: a tenth of it is enough, and supervisors kill after 10 to 30. A disk that hangs takes longer.
CLOSED_WITHIN_S = 5.0

CLOSED_EARLY: Final = "this node was closed while it started"
FORKED: Final = (
    "this process was forked from the one that runs this node, and has no part in it: make a store of its own here, behind "
    "the fork, with another node_id and data_dir, or use CacheClient"
)
ON_THE_LOOP: Final = (
    "this was called on the node's own thread, in a callback, and would wait for itself: call it from another thread"
)


class Engine:
    """Runs one node in a thread of its own. ``start`` returns when the node runs, ``stop`` when all of the node has ended.

    If the disk hangs, ``stop`` gives up after a while. The node's thread then waits on and keeps the data directory locked
    until the disk answers, because the thread still writes there.

    local: the running node, from ``start`` on.  helper: starts the processes that build the node's snapshots.
    Any thread may call ``start`` and ``stop``, one at a time.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        # Shakes hands with clients and peers; None where this node has no certificate.
        self.handshakes = _handshakes(config)
        # Commands that clients send in one turn of the poller are proposed together at the end of that turn.
        self.ports = ListeningPorts(lambda work: self._turn.run(work), self.handshakes)
        # The largest value that is taken, as the replicated settings say once the node is started; and who else is told of it.
        self.value_bytes_max = config.max_value_bytes
        self._limited: list[Callable[[int], None]] = [self.ports.limit_values]
        self.local: LocalNode
        self.helper: HelperProcess
        self.space: DiskSpace
        # The digest of the whole contents that is being made, or was made last.
        self.full_digest: asyncio.Task[Digest] | None = None
        # Where the node keeps its files, from ``start`` on.
        self.data_path: Path
        self._turn: Turn
        self._http_address = ""
        self._loop: NodeLoop
        self._life = threading.RLock()
        self._thread: threading.Thread | None = None
        # Whether the last ``stop``, or a start in vain, gave up waiting for the thread.
        self._gave_up = False
        # Whether ``stop`` was called since the last start began; and whether the node was shut down since, or never opened.
        self._is_ending = False
        self._is_shut = True
        self._loop_thread = 0
        # Why nothing is answered while the node does not run.
        self.stopped = "this node is stopped"
        # True from ``retire`` to the next start: readiness says that this node is about to stop.
        self.is_retiring = False
        # True from the end of ``start`` to the end of ``stop``.
        self._started = False
        self._stack = contextlib.ExitStack()
        # Descriptors that a process forked from this one must not keep, beside those of the loop and the ports.
        self._descriptors: list[int] = []
        self._revision_collected = 0
        # The dictionary of items that was frozen last; None in a process whose objects are not frozen.
        self._frozen: dict[str, Entry] | None = None

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self, http_address: str = "") -> LocalNode:
        """Start the node and return it: open the data directory, listen, take part in the cluster.

        A node that runs already is returned as it is. http_address: host:port under which members show this node.
        Raises ConfigError after closing all that was opened.
        """
        if self.stopped is FORKED:
            raise ConfigError(FORKED)
        with self._life:
            if self.running:
                return self.local
            if self._gave_up and self._thread is not None and self._thread.is_alive():
                raise ConfigError(
                    f"data directory {self.config.data_dir}: the last flush of this node still waits for the disk; "
                    "start it again when the disk answers"
                )
            # What is left of a loop that has died.
            self.stop()
            self._http_address = http_address
            self.is_retiring = self._is_ending = False
            started: Future[None] = Future()
            thread = threading.Thread(target=self._run, args=(started,), name="cacheflow-loop", daemon=True)
            self._thread = thread
            try:
                thread.start()
                error = started.exception()
            except BaseException:  # KeyboardInterrupt: nobody would own the node
                self.stop(0.0)
                raise
            if self._thread is not thread:
                # A signal handler of this thread has called ``stop`` meanwhile.
                raise NotReady(CLOSED_EARLY)
            if error is not None:
                thread.join(CLOSED_WITHIN_S)
                self._gave_up = thread.is_alive()
                if not self._gave_up:
                    self._thread = None
                raise error
            return self.local

    def retire(self) -> None:
        """Make this node report that it is not ready, and begin to hand leadership over; all requests are served as before."""
        self.is_retiring = True
        self.on_loop(lambda: self.local.node.ticks.run(self._hand_over))

    def _hand_over(self) -> None:
        self.local.node.hand_over.begin(None)

    def leave(self) -> str:
        """Take this node out of its cluster; return "" once it is out, else why it stays a member, as text for people.

        Takes LEAVE_WITHIN_S seconds at most. The caller then stops the node, whatever is returned.
        """
        self.is_retiring = True
        try:
            why = self.run(self.local.leaving.leave(LEAVE_WITHIN_S), timeout_s=LEAVE_WITHIN_S + 1.0)
        except CacheFlowError as error:
            why = str(error)
        if why:
            logger.warning("this node could not leave its cluster, and stops: %s", why)
        else:
            logger.info("this node has left its cluster; started again, it joins anew")
        return why

    def stop(self, hand_over_s: float = 2.0) -> bool:
        """Stop the node: close its ports, hand leadership over if the node leads, end its waiting calls, and close everything.

        hand_over_s: the most seconds for the hand-over. Returns False when the disk has not answered within CLOSED_WITHIN_S
        seconds; everything else is closed then.
        """
        if self.stopped is FORKED:
            return True
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError(ON_THE_LOOP)
        with self._life:
            thread = self._thread
            if thread is None:
                return True
            if not self._gave_up:
                with contextlib.suppress(CacheFlowError, TimeoutError):
                    self.run(self._shut_down(hand_over_s), timeout_s=hand_over_s + 5)
                self._started = False
                self._is_ending = True
                if hasattr(self, "local"):
                    self.local.is_serving = False
                with contextlib.suppress(
                    RuntimeError, AttributeError
                ):  # the loop has died and is closed, or is not there yet
                    self._loop.call_soon_threadsafe(self._loop.stop)
            with contextlib.suppress(RuntimeError):  # a start that was interrupted at once has no thread yet
                thread.join(CLOSED_WITHIN_S)
            self._gave_up = thread.is_alive()
            if self._gave_up:
                logger.error(
                    "the disk has not answered for %g s: closed without the last flush, which the disk gets when it answers",
                    CLOSED_WITHIN_S,
                )
                return False
            self._thread = None
            return True

    def leave_to_parent(self) -> None:
        """Close a node's file descriptors in a forked child process; the parent process goes on running the node undisturbed.

        The child has none of the node's threads, but a copy of each descriptor: with these the child would hold the node's
        ports and data directory as long as the child lives, even after the parent's end.
        """
        self.stopped = FORKED
        self._thread = None
        self._started = False
        if hasattr(self, "local"):
            self.local.is_serving = False
        descriptors = [*self.ports.descriptors(), *self._descriptors]
        if self.handshakes is not None:
            descriptors += self.handshakes.descriptors()
        if hasattr(self, "_loop"):
            descriptors += self._loop.descriptors()
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in descriptors:
            # Each number goes on standing for something: the objects that have it may close it at any time.
            with contextlib.suppress(OSError):
                os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    @property
    def running(self) -> bool:
        """True if the node is started and the thread of its event loop lives; False during ``start``."""
        if not self._started:
            return False
        # The loop's own thread, which asks for every request, is proof enough that it lives.
        return threading.get_ident() == self._loop_thread or (self._thread is not None and self._thread.is_alive())

    @property
    def budget(self) -> Budget:
        """The time limit of the node's event loop, with how long its turns took; known from ``start`` on."""
        return self._loop.budget

    def _run(self, started: Future[None]) -> None:
        loop: NodeLoop | None = None
        self._is_shut = True
        try:
            try:
                loop = self._loop = NodeLoop()
                self._loop_thread = threading.get_ident()
                asyncio.set_event_loop(loop)
                loop.run_until_complete(self._open())
                self._is_shut = False
                if self._is_ending:
                    # In the turn in which the last step was done: the loop has been stopped by that, and is not again.
                    loop.run_until_complete(self._shut_down(0.0))
                    raise NotReady(CLOSED_EARLY)
                self._started = True
            except BaseException as error:
                # To the caller of start(), who waits for it without end: before anything else, which might fail, too.
                started.set_exception(error)
                try:
                    if loop is not None:
                        loop.close()
                finally:
                    self._close_rest()
                return
            started.set_result(None)
            try:
                self._loop.run_forever()
            finally:
                self.local.is_serving = self._started = False
                if not self._is_shut:
                    # Something has ended the loop that was not ``stop``, or ``stop`` was called before the start was over.
                    with contextlib.suppress(Exception):
                        self._loop.run_until_complete(self._shut_down(0.0))
                self._loop.close()
                self.local.proposals.close()
                self.local.inbox.refuse()
                self._close_rest()
        finally:
            # Another thread may be given the same number.
            self._loop_thread = 0

    def _close_rest(self) -> None:
        """Close the node's files and ports, not its event loop, and forget their descriptors, whose numbers are used again."""
        self._descriptors = []
        self._stack.close()

    async def _open(self) -> None:
        config, loop, stack = self.config, self._loop, self._stack
        data = stack.enter_context(
            DataDirectory(config.data_dir, node_id=config.node_id, ephemeral=not config.persistence)
        )
        self._descriptors = [data.lock]
        turn = self._turn = Turn(loop.call_soon)
        supervisor = Supervisor(loop)
        journal_writer = stack.enter_context(contextlib.closing(ThreadWriter(loop)))
        snapshot_writer = stack.enter_context(contextlib.closing(ThreadWriter(loop, "cacheflow-snapshots")))
        identity = Identity(data.node_id, data.incarnation, start=data.starts + 1, level=CacheMachine.build_level)
        secret = read_secret(config.cluster_secret_file, "cluster-secret-file")
        self.data_path = data.path
        self.helper = HelperProcess(data.path, supervisor)
        self.space = DiskSpace(
            Disk(),
            data.path,
            data.lock,
            submit=snapshot_writer.submit,
            later=loop.call_later,
            # In memory alone nothing would be there after a restart anyway.
            gone=functools.partial(self._data_gone, data.path) if config.persistence else lambda: None,
        )
        self.full_digest = None
        encryption = None
        if self.handshakes is not None:
            self.handshakes.start()
            stack.callback(self.handshakes.stop)
            if config.tls_ca is not None:
                encryption = Encryption(self.handshakes, config.peer_tls == "require")
        network = PeerTransport(
            identity,
            (config.host, config.raft_listen_port),
            join_address(config.advertise or config.host, config.raft_listen_port),
            secret,
            encryption=encryption,
            defer=turn.defer_send,
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
                disk=Disk(),
                directory=data.path,
                write_journal=journal_writer.submit,
                write_snapshots=snapshot_writer.submit,
                build_snapshot=self.helper,
                network=network,
                passed=passed_s,
                clock=ClusterClock(passed_s, time.time),
                ask_seed=over_http(secret, config.api_token_file, self._calling),
                random=random.random,
                random_bytes=os.urandom,
                slices=self.ports.slices,
                unsent=self.ports.unsent,
            ),
            data.note_removed,
        )
        self.local = local
        local.on_settings = self._take_settings
        self._take_settings(local.machine.settings)
        stack.callback(local.journal.close)
        data.note_start()
        self.space.look()
        await local.start()
        if config.collect_garbage:
            self._collect_new_objects()

    def _data_gone(self, path: Path) -> None:
        self.local.node.replica.fail(
            f"its data directory {path} was removed while it ran, and nothing that it writes would be there after a restart. "
            "Stop this node and start it with --seed to rejoin"
        )

    def _take_settings(self, settings: Settings) -> None:
        if settings.version and settings.max_value_bytes != self.value_bytes_max:
            self.value_bytes_max = settings.max_value_bytes
            for limit in self._limited:
                limit(settings.max_value_bytes)

    def on_value_limit(self, limit: Callable[[int], None]) -> None:
        """Have the function ``limit`` called with the most bytes of a value: now, and whenever the cluster changes them.

        Later calls come on the event loop.
        """
        self._limited.append(limit)
        limit(self.value_bytes_max)

    def _calling(self) -> ssl.SSLContext:
        """Return the TLS context for HTTPS calls to other nodes that begin now."""
        return trusting(None) if self.handshakes is None else self.handshakes.certificates.in_force.calling

    async def _shut_down(self, hand_over_s: float) -> None:
        self._is_shut = True
        if self.full_digest is not None:
            self.full_digest.cancel()
        await self.ports.close()
        node = self.local.node
        if node.hand_over.begin(None) is not None:
            deadline = self._loop.time() + hand_over_s
            while node.is_leader and self._loop.time() < deadline:
                await asyncio.sleep(0.005)
        await self.local.stop()

    def _collect_new_objects(self) -> None:
        """Run the garbage collector over the newest objects, often while writes come, so that it stops tracking cache entries.

        By itself the collector runs when there are many more objects than before. In a full cache each write frees as many
        objects as it makes, so the collector would run only once a million cache entries, which are tuples, wait for it.
        """
        self._loop.call_later(COLLECT_EVERY_S, self._collect_new_objects)
        if self._frozen is not None and self._frozen is not self.local.machine.contents.raw:
            # A snapshot or a restore has replaced the items.
            self._freeze_items()
        revision = self.local.machine.contents.revision
        if revision != self._revision_collected and gc.isenabled():
            self._revision_collected = revision
            gc.collect(0)

    def freeze_what_is_there(self) -> None:
        """Have the garbage collector never look at the objects of this process that exist now, nor at the cache's items.

        For a process that is a server and nothing else: the collector belongs to the process. Any thread may call it.
        """
        # Garbage must not be frozen with the rest.
        gc.collect()
        self.on_loop(self._freeze_items)

    def _freeze_items(self) -> None:
        """Have the garbage collector ignore all objects of this process, the dictionary of the cache's items among them.

        A full pass of the collector forgets a dictionary of untracked objects, and the next item makes it a young one again:
        without this, each pass would go through a million items, which takes 20 to 60 ms on the loop.
        """
        contents = self.local.machine.contents
        contents.track_items()
        gc.freeze()
        self._frozen = contents.raw

    # Questions ------------------------------------------------------------------------------------------------------

    def call(self, question: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Call the function ``question`` in the event loop's thread, and return its result. For other threads only."""

        async def ask() -> T:
            return question()

        return self.run(ask(), timeout_s=timeout_s)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float, *, changes: bool = False) -> T:
        """Run ``coroutine`` on the node's event loop, wait for its end in the calling thread, and return its result.

        Raises NotReady when the node is stopped. Raises, after ``timeout_s`` seconds, OutcomeUnknown if ``changes`` is true,
        which means that the coroutine changes something, else NoLeader.
        """
        if not self.running:
            coroutine.close()
            raise NotReady(self.stopped)
        if threading.get_ident() == self._loop_thread:
            coroutine.close()
            raise RuntimeError(ON_THE_LOOP)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            late = OutcomeUnknown if changes else NoLeader
            raise late("no answer from the cluster in time") from None

    def on_loop(self, call: Callable[[], None]) -> None:
        """Have the function ``call`` called soon in the event loop's thread; do nothing if the loop is stopped."""
        if self.running:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(call)

    def adopt(self, sock: Any, make: Callable[[], asyncio.Protocol]) -> None:
        """Have the node's event loop serve the client on the socket ``sock`` by the asyncio protocol that ``make`` returns."""
        if not self.running:
            sock.close()
        self.on_loop(lambda: self.ports.adopt(sock, make))

    def serve(self, service: Service, host: str, port: int) -> int:
        """Listen on ``host`` and ``port`` (0: a free port) for clients of the wire protocol ``service``; return the port.

        The node's event loop serves these clients. Raises ConfigError.
        """

        async def opened() -> int:
            port_taken = await self.ports.open(service, host, port)
            # The cluster may have changed that since the service was made.
            service.limit_values(self.value_bytes_max)
            return port_taken

        return self.run(opened(), timeout_s=5.0)


def _handshakes(config: NodeConfig) -> Handshakes | None:
    """Return the object that makes TLS handshakes with this node's certificate, None for a node without one.

    Raises ConfigError.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Handshakes(Certificates(config.tls_cert, config.tls_key, config.tls_ca))
