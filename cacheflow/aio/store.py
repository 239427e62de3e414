"""AsyncReplicatedStore: the asyncio twin of ReplicatedStore, with the same verbs as coroutines.

An embedded node's loop has a thread of its own, so that a busy application never delays a heartbeat. A write goes into the
node's inbox without a thread; its answer comes back through a future, and all that one turn of the node has answered
wakes the application's loop once. Local reads are plain memory and wait for nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cacheflow import arguments, values, verbs
from cacheflow.aio.threads import Threads
from cacheflow.config import NodeConfig
from cacheflow.contract import Done, Entry, Outcome
from cacheflow.errors import OutcomeUnknown, ReplicationError
from cacheflow.faces import AsyncFace, in_thread
from cacheflow.forms.form import Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.results import Item
from cacheflow.store import MOMENT_PAUSE_S, MOMENT_TRIES, ReplicatedStore, no_moment

# Seconds between two checks of whether a starting node is ready.
WAIT_STEP_S = 0.01


class AsyncReplicatedStore(AsyncFace):
    """A replicated cache for asyncio programs, one of whose nodes runs in this process.

    Takes the same arguments as ReplicatedStore, which is the same cache for threads.

    >>> async with AsyncReplicatedStore(node_id="a", raft_address="127.0.0.1:9080", data_dir="./data") as cache:
    ...     await cache.set("k", "v")

    For use on one event loop only. ``store`` is the ReplicatedStore behind this object.
    """

    def __init__(self, config: NodeConfig | None = None, *, raft_address: str | None = None, **settings: Any) -> None:
        self.store = self._blocking = ReplicatedStore(config, raft_address=raft_address, **settings)
        self._threads = Threads(self.store.config.request_timeout_s)
        self._answers: _Answers | None = None
        # Guards the node's start and end against each other: they run in threads, which a cancellation does not stop.
        self._life = threading.Lock()
        self._unwanted = False
        # Whether the last ``close`` has closed everything.
        self._closed = True

    # Life

    async def __aenter__(self) -> AsyncReplicatedStore:
        self._unwanted = False
        try:
            await asyncio.to_thread(self._start)
            await self._ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, leave: bool | None = None) -> bool:
        """Stop the node of this cache, and hand leadership over before if the node leads; a start under way ends first.

        leave: whether the node also leaves its cluster, if it can; None: as the setting ``leave`` says.
        Returns False when the disk hangs, so that not everything was closed.
        """
        self._unwanted = True
        # Not in the executor, which forgets what is cancelled before a thread takes it: the node ends in any case.
        ending = threading.Thread(target=self._stop, args=(leave,), name="cacheflow-close")
        ending.start()
        await asyncio.to_thread(ending.join)
        self._threads.close()
        return self._closed

    def _start(self) -> None:
        with self._life:
            if not self._unwanted:
                self.store.start()

    def _stop(self, leave: bool | None) -> None:
        with self._life:
            self._closed = self.store.close(leave=leave)

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.store.config.request_timeout_s
        while not all(good for _, good, _ in self.store.readiness()):
            if loop.time() > deadline:
                return self.store.wait_ready(0)  # raises NotReady that says why
            await asyncio.sleep(WAIT_STEP_S)

    # Reads

    async def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        if strict is False and consistency != "linearizable":
            return self.store.get_item(key, consistency=consistency, max_staleness=max_staleness, peek=peek)
        arguments.check_read(consistency, max_staleness, peek, strict)
        values.check_key(key)
        if strict:
            return verbs.item_of(key, *await self._replicate(commands.get(key)))
        await self._answered(self.store.submit_barrier)
        return self.store.read_applied(key, peek=peek)

    async def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Any:
        if strict is False and consistency != "linearizable":
            return self.store.get(key, default, consistency=consistency, max_staleness=max_staleness, peek=peek)
        return await super().get(
            key, default, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict
        )

    async def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        blocks = verbs.keys_to_read(form, keys, consistency, max_staleness, peek)
        applied = consistency == "linearizable"
        if applied and blocks:
            await self._answered(self.store.submit_barrier)
        found: dict[str, Any] = {}
        for block in blocks:
            verbs.put_found(found, form, block, await self._read_many(block, applied, max_staleness, peek))
        return found

    async def _read_many(
        self, keys: list[str], applied: bool, max_staleness: float | None, peek: bool
    ) -> list[Entry | None]:
        """Return the cache entries of ``keys`` at one moment, None for each absent key, without blocking the event loop."""
        for _ in range(MOMENT_TRIES):
            entries = self.store._try_to_read(keys, applied, max_staleness, peek)
            if entries is not None:
                return entries
            await asyncio.sleep(MOMENT_PAUSE_S)
        raise no_moment()

    # In a thread: of a million keys a page takes longer than a loop may stand still.
    keys_page = in_thread(ReplicatedStore.keys_page)

    # The cluster

    retire = in_thread(ReplicatedStore.retire)
    leave = in_thread(ReplicatedStore.leave)
    nodes = in_thread(ReplicatedStore.nodes)
    status = in_thread(ReplicatedStore.status)
    digest = in_thread(ReplicatedStore.digest)
    transfer_leadership = in_thread(ReplicatedStore.transfer_leadership)
    remove_node = in_thread(ReplicatedStore.remove_node)
    promote_node = in_thread(ReplicatedStore.promote_node)
    demote_node = in_thread(ReplicatedStore.demote_node)
    raise_level = in_thread(ReplicatedStore.raise_level)
    settings = in_thread(ReplicatedStore.settings)
    change_settings = in_thread(ReplicatedStore.change_settings)

    # Writes

    async def _replicate(self, command: Command) -> tuple[Result, int]:
        arguments.check_size(command, self.store.value_bytes_max)
        (result,) = await self._answered(lambda done: self.store.submit([command], done))
        return result, self.store.now_ms()

    def _answered(self, submit: Callable[[Done], None]) -> asyncio.Future[list[Result]]:
        loop = asyncio.get_running_loop()
        answers = self._answers
        if answers is None or answers.loop is not loop:
            # The node's own loop ends every proposal at its deadline; the margin is for a loop that has died.
            answers = self._answers = _Answers(loop, self.store.config.request_timeout_s + 5.0)
        future = answers.expect()
        submit(lambda outcome: answers.tell(future, outcome))
        return future


class _Answers:
    """Hands the answers to calls over from a node's event loop to ``loop``, the application's event loop.

    One wake-up of the application's loop delivers many answers.
    limit_s: seconds after which a call without an answer ends with OutcomeUnknown.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        self.loop = loop
        self._limit_s = limit_s
        # The futures without an answer, each with the time at which it began to wait; the oldest is first.
        self._waiting: dict[asyncio.Future[list[Result]], float] = {}
        self._watches = False
        self._told: deque[tuple[asyncio.Future[list[Result]], Outcome]] = deque()
        self._woken = False

    def expect(self) -> asyncio.Future[list[Result]]:
        """Return a new future of the application's event loop, which gets the answer to one call."""
        future: asyncio.Future[list[Result]] = self.loop.create_future()
        self._waiting[future] = self.loop.time()
        if not self._watches:
            self._watches = True
            self.loop.call_later(self._limit_s, self._watch)
        return future

    def tell(self, future: asyncio.Future[list[Result]], outcome: Outcome) -> Callable[[], None]:
        """Keep ``outcome``, the answer to a call, until the application's event loop gives it to the call's ``future``.

        Returns a function, to be called next, which wakes the application's loop. Called on the node's event loop.
        """
        self._told.append((future, outcome))
        return self._wake

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits
                self._told.clear()

    def _deliver(self) -> None:
        self._woken = False
        while self._told:
            future, outcome = self._told.popleft()
            self._waiting.pop(future, None)
            if future.done():  # cancelled
                continue
            if isinstance(outcome, ReplicationError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _watch(self) -> None:
        self._watches = False
        over = self.loop.time() - self._limit_s
        while self._waiting:
            future, since = next(iter(self._waiting.items()))
            if since > over:
                self._watches = True
                self.loop.call_at(since + self._limit_s, self._watch)
                return
            del self._waiting[future]
            if not future.done():
                future.set_exception(OutcomeUnknown("this node's loop does not answer"))
