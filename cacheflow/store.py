"""ReplicatedStore: a node of the cluster inside this process, as applications and servers call it.

1. A read is served from this node's memory: one dictionary access, no lock, any thread.
2. A write returns once it is committed and visible on this node, so every thread here reads what it wrote.
3. The verbs themselves are in verbs.py, the mapping is in faces.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from cacheflow import arguments, values, verbs
from cacheflow.arguments import KEYS_PAGE
from cacheflow.config import NodeConfig, split_address
from cacheflow.contract import DATA, EXPIRES_AT_MS, KIND, Done, Outcome
from cacheflow.errors import (
    ConfigError,
    NotReady,
    OutcomeUnknown,
    ReplicationError,
)
from cacheflow.faces import Face
from cacheflow.forms.form import Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.listing import KeysCopy
from cacheflow.machine.state.entries import Entry
from cacheflow.net.ports import Service
from cacheflow.net.slices import Breaks, Slices
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.unfinished import Unfinished
from cacheflow.net.unsent import Unsent
from cacheflow.node import forks, status
from cacheflow.node.administration import Administration
from cacheflow.node.assembly import LocalNode
from cacheflow.node.backups import Backups
from cacheflow.node.channels import Channels
from cacheflow.node.feed import Feed
from cacheflow.node.tracking import Tracking
from cacheflow.node.watching import Watching
from cacheflow.results import ClusterSettings, Item
from cacheflow.watching.local import StoreWatch
from cacheflow.watching.watch import Watch

# Seconds between two tries to read several keys at one moment, while entries of the log are applied; and how many are made: for a
# quarter of a second, in which even a busy node comes to the end of an entry a hundred times.
MOMENT_PAUSE_S: Final = 0.0005
MOMENT_TRIES: Final = 500


class ReplicatedStore(Administration, Face):
    """A replicated cache whose node runs in this process. Safe for use by many threads; ``aio`` is its asyncio twin.

    >>> with ReplicatedStore(node_id="a", raft_address="127.0.0.1:9080", data_dir="./data") as cache:
    ...     cache["k"] = "v"

    Keys are str, 1 to 1024 bytes of UTF-8. Values are str, bytes or JSON. TTLs are seconds.
    Use it as a context manager, or call ``start`` and ``close``.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        raft_address: str | None = None,
        **settings: Any,
    ) -> None:
        """Check the node's settings, either ``config``, a NodeConfig, or its fields as keywords; start nothing.

        raft_address: host:port of the peer protocol. Raises ConfigError.
        """
        if config is None:
            config = _embedded_config(raft_address, settings)
        elif raft_address is not None or settings:
            raise ConfigError("give either a NodeConfig or its fields, not both")
        super().__init__(config)
        self._listing = threading.Lock()  # held while keys are listed, see keys_page
        self.backups = Backups(self._engine, config)
        self.watching = Watching(self._engine)
        forks.tell(self, ReplicatedStore._leave_to_parent)

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self, http_address: str = "") -> ReplicatedStore:
        """Open the data directory, take part in the cluster, and return this store; do nothing if it runs already.

        http_address: host:port that the list of members shows for this node. Raises ConfigError.
        """
        self._local = self._engine.start(http_address)
        self._tell_of_checks(self._local)
        return self

    def serve(self, service: Service, host: str, port: int) -> int:
        """Serve ``service``, a wire protocol, on the node's own event loop at ``host`` and ``port`` until this store closes.

        Returns the port, which the system chooses if ``port`` is 0. Call it after ``start``. Raises ConfigError.
        """
        return self._engine.serve(service, host, port)

    def on_loop(self, call: Callable[[], None]) -> None:
        """Have the node's own event loop call ``call`` soon; do nothing if the node is stopped. Any thread may use it."""
        self._engine.on_loop(call)

    @property
    def value_bytes_max(self) -> int:
        """The most bytes that a value may have if it is written now; one of the cluster's settings."""
        return self._engine.value_bytes_max

    def on_value_limit(self, limit: Callable[[int], None]) -> None:
        """Call the function ``limit`` with the most bytes of a value, now and on the loop whenever that setting changes."""
        self._engine.on_value_limit(limit)

    @property
    def handshakes(self) -> Handshakes | None:
        """The object that shakes hands with TLS clients and holds the node's certificate; None for a node without one."""
        return self._engine.handshakes

    def retire(self) -> None:
        """Make this node not ready, and have it hand leadership over if it leads; it goes on serving until ``close``."""
        self._engine.retire()

    def leave(self) -> str:
        """Take this node out of its cluster for good; return "" once it is out, else why it stays a member, for people.

        The node takes no more writes from then on: call ``close``. Started again with the same ``data_dir``, it joins the
        cluster anew, as another member without data. Takes 9 s at most.
        """
        return self._engine.leave()

    def close(self, *, leave: bool | None = None) -> bool:
        """Hand leadership over when this node leads, and stop; return whether everything is written and closed.

        leave: go out of the cluster before, if that is possible; None does as the setting ``leave`` says.
        Returns False, and says so in the log, when the disk has not answered for 5 s. The ports are closed then and nobody
        waits any more; nothing acknowledged needs this disk; and the data directory is in use until the disk answers.
        """
        if (self.config.leave if leave is None else leave) and self._engine.running:
            self.leave()
        return self._engine.stop()

    def __enter__(self) -> ReplicatedStore:
        self.start()
        try:
            self.wait_ready(self.config.request_timeout_s)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Return once this node answers reads and knows a leader. Raises NotReady after ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        while problems := [f"{name}: {detail}" for name, good, detail in self.readiness() if not good]:
            if time.monotonic() > deadline:
                raise NotReady("; ".join(problems))
            time.sleep(status.WAIT_STEP_S)

    # Reads ----------------------------------------------------------------------------------------------------------

    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        values.check_key(key)
        if consistency != "local" or max_staleness is not None or peek is not False or strict is not False:
            arguments.check_read(consistency, max_staleness, peek, strict)
            if strict:
                return verbs.item_of(key, *self._replicate(commands.get(key)))
            if consistency == "linearizable":
                self.barrier()
                return self.read_applied(key, peek=peek)
        local = self._readable()
        if max_staleness is not None:
            _check_staleness(local, max_staleness)
        return _item(local, key, local.clock.now_ms(), peek)

    def read_applied(self, key: str, *, peek: bool = False) -> Item | None:
        """Return the item under ``key`` as of the newest log entry that this node has applied.

        This read is linearizable if the caller has called ``barrier`` before, which waits until this node has applied every
        write acknowledged by then.
        """
        local = self._started()
        return _item(local, key, local.machine.now_ms, peek)

    def read_again(self, key: str, *, applied: bool, max_staleness: float | None) -> Item | None:
        """Return the item under ``key`` as it is now; do not count this read, which repeats a counted one. Raises NotReady."""
        local = self._started() if applied else self._readable()
        if max_staleness is not None:
            _check_staleness(local, max_staleness)
        return _item(local, key, local.machine.now_ms if applied else local.clock.now_ms(), True, counts=False)

    def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Any:
        # A dictionary look-up and little else: the usual read makes no item.
        if consistency == "local" and max_staleness is None and peek is strict is False and type(key) is str:
            local = self._local
            if local is not None and local.may_read:
                entry = local.machine.lookup(key, local.clock.now_ms())
                # The key of another database is no key here, though it is there.
                if entry is None or key < OTHERS_BEFORE:
                    values.check_key(key)
                    local.misses += 1
                    return default
                local.hits += 1
                local.uses.note(key)
                kind = entry[KIND]
                return entry[DATA].decode() if kind == values.TEXT else values.decode(kind, entry[DATA])
        return super().get(key, default, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict)

    def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        blocks = verbs.keys_to_read(form, keys, consistency, max_staleness, peek)
        applied = consistency == "linearizable"
        if applied and blocks:
            self.barrier()
        found: dict[str, Any] = {}
        for block in blocks:
            verbs.put_found(
                found, form, block, self.read_many(block, applied=applied, max_staleness=max_staleness, peek=peek)
            )
        return found

    def read_many(
        self, keys: list[str], *, applied: bool, max_staleness: float | None, peek: bool = False, again: bool = False
    ) -> list[Entry | None]:
        """Return the cache entries of ``keys`` at one moment, None for each absent key; may wait until a log entry is applied.

        The keys, at most OPS_MAX, are valid. applied: keys expire by the time of the newest applied log entry; the caller has
        waited until earlier writes were applied.  max_staleness: seconds.  peek: count no uses of keys.  again: count nothing,
        as an earlier read of these keys was counted. Raises NotReady.
        """
        for _ in range(MOMENT_TRIES):
            entries = self._try_to_read(keys, applied, max_staleness, peek, again)
            if entries is not None:
                return entries
            time.sleep(MOMENT_PAUSE_S)
        raise no_moment()

    def _try_to_read(
        self, keys: list[str], applied: bool, max_staleness: float | None, peek: bool, again: bool = False
    ) -> list[Entry | None] | None:
        """Return the cache entries of several keys at one moment; None while a log entry is being applied. Never waits."""
        local = self._started() if applied else self._readable()
        if max_staleness is not None:
            _check_staleness(local, max_staleness)
        machine = local.machine
        entries = machine.lookup_all(keys, machine.now_ms if applied else local.clock.now_ms())
        if entries is None:
            return None
        if again:
            return entries
        missing = entries.count(None)
        if not peek:
            used = [key for key, entry in zip(keys, entries, strict=True) if entry is not None] if missing else keys
            local.uses.note_all(used)
        local.hits, local.misses = local.hits + len(keys) - missing, local.misses + missing
        return entries

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        """Return the live cache entry under ``key``, or None, with the value as the bytes that are stored.

        count: whether this look-up counts as a use of the key. Raises NotReady.
        """
        local = self._local
        if local is None or not local.may_read:
            local = self._readable()
        entry = local.machine.contents.get(key)
        # Reading the clock costs as much as all the rest, and most entries never expire.
        if entry is not None and entry[EXPIRES_AT_MS] and entry[EXPIRES_AT_MS] <= local.clock.now_ms():
            entry = None
        if entry is None:
            local.misses += 1
        else:
            local.hits += 1
            if count:
                local.uses.note(key)
        return entry

    def peek(self, key: str) -> Entry | None:
        """Return the cache entry under ``key``, perhaps past its expiry, or None; the look-up counts as no read and no use."""
        local = self._local
        return None if local is None else local.machine.contents.get(key)

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        """Return a list of the live cache entries of ``keys`` at one moment, None for each absent key.

        Returns None, and counts no uses, when the values together have over ``bytes_max`` bytes. Raises NotReady.
        """
        local = self._local
        if local is None or not local.may_read:
            local = self._readable()
        entries = list(map(local.machine.contents.get, keys))
        size = missing = 0
        ends = False
        for entry in entries:
            if entry is None:
                missing += 1
            else:
                size += len(entry[DATA])
                if entry[EXPIRES_AT_MS]:
                    ends = True
        if ends:
            now_ms = local.clock.now_ms()
            entries = [None if entry is not None and 0 < entry[EXPIRES_AT_MS] <= now_ms else entry for entry in entries]
            missing = entries.count(None)
        if size > bytes_max:
            return None
        if missing:
            local.uses.note_all([key for key, entry in zip(keys, entries, strict=True) if entry is not None])
        else:
            local.uses.note_all(keys)
        local.hits, local.misses = local.hits + len(keys) - missing, local.misses + missing
        return entries

    def now_ms(self) -> int:
        """Return the cluster's time in milliseconds, by which entries expire."""
        return self._started().clock.now_ms()

    def first_index(self, age_ms: int) -> int:
        """Return the index of the first log entry in which a command may be that its client tried first ``age_ms`` ago.

        Raises NotReady while this node has not been ready for a second.
        """
        return self._started().past.first_index(age_ms)

    def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        arguments.check_page(prefix, limit, cursor)
        # One after the other: each takes the interpreter for milliseconds at a time, and the loop would wait for all of them.
        with self._listing:
            local = self._readable()
            return local.machine.keys(prefix, limit, cursor or "", local.clock.now_ms(), Breaks().give_way)

    def _watch(self, form: Form, prefix: str, since: str | None) -> Watch:
        self.watching.check()
        if since is not None and self.watching.is_behind(since):
            # Another node was faster.
            self.barrier()
        return StoreWatch(form, self.watching, prefix, since)

    def copy_keys(self, give_up: Callable[[list[tuple[str, ...]]], object]) -> KeysCopy:
        """Return an object that copies all keys of all databases, slice by slice, and has copied none yet. Raises NotReady.

        give_up: is called with the copied slices when nobody needs them any more.
        """
        local = self._readable()
        # Whatever machine the node has then: a snapshot may take the place of this one.
        return KeysCopy(lambda: local.machine.contents, give_up)

    def live(self, keys: list[str]) -> list[str]:
        """Return those of ``keys`` that are present now; this counts neither as a use nor as a hit. Raises NotReady."""
        local = self._readable()
        find, now_ms = local.machine.contents.get, local.clock.now_ms()
        return [key for key in keys if (entry := find(key)) is not None and not 0 < entry[EXPIRES_AT_MS] <= now_ms]

    def freeze_what_is_there(self) -> None:
        """Have the garbage collector never look at the objects of this process that exist now, nor at the cache's items.

        For a process that is a server and nothing else.
        """
        self._engine.freeze_what_is_there()

    @property
    def unsent(self) -> Unsent:
        """The memory budget, shared by all fronts of this node, for answers that clients have not read yet."""
        return self._engine.ports.unsent

    @property
    def unfinished(self) -> Unfinished:
        """The memory budget, shared by all fronts of this node, for requests that have arrived only in part."""
        return self._engine.ports.unfinished

    @property
    def slices(self) -> Slices:
        """The scheduler that all fronts of this node share: it does long work on the event loop a slice in each turn."""
        return self._engine.ports.slices

    def count_of(self, database: int) -> int:
        """Return how many keys the Redis database number ``database``, 0 to 15, has; other fronts use 0. Raises NotReady."""
        return self._readable().machine.contents.count_of(database)

    def expiring_of(self, database: int) -> tuple[int, int]:
        """Return (how many keys of Redis database ``database`` have an expiry, how many ms they have left on average).

        Raises NotReady.
        """
        local = self._readable()
        count, expiries_ms = local.machine.contents.expiring_of(database)
        return count, max(0, expiries_ms // count - local.clock.now_ms()) if count else 0

    def uses_of(self, key: str) -> int | None:
        """Return how many uses of ``key`` the eviction policy has counted, None if the policy counts none. Raises NotReady."""
        return self._readable().machine.contents.items.uses_of(key)

    # Writes ---------------------------------------------------------------------------------------------------------

    def run(self, commands_: list[Command], *, timeout_s: float | None = None) -> list[Result]:
        """Replicate valid commands, in order; return a list with the result of each. Blocks.

        Raises NotCommitted (safe to retry), OutcomeUnknown.
        """
        return self._wait(lambda done: self.submit(commands_, done, timeout_s=timeout_s), timeout_s)

    def barrier(self) -> list[Result]:
        """Wait until this node has applied every write that any node acknowledged before this call.

        Raises NotCommitted, OutcomeUnknown.
        """
        return self._wait(self.submit_barrier, None)

    def submit(self, commands_: list[Command], done: Done, work: int = 0, *, timeout_s: float | None = None) -> None:
        """Replicate ``commands_`` without waiting; the function ``done`` is called once, with their results or the error.

        work: the extra time that these commands take the state machine, as a number of plain commands.
        The node's event loop calls ``done``, which must not block and returns a function that wakes whoever waits; the loop calls
        that function at the end of its turn, after everything was sent.
        """
        local = self._local
        if local is not None and local.takes_writes:
            local.inbox.submit(commands_, done, timeout_s, work)
        else:
            done(self._refusal())()

    def submit_barrier(self, done: Done) -> None:
        """Have the function ``done`` called once this node has applied all writes acknowledged before now; do not wait."""
        local = self._local
        if local is not None and local.takes_writes:
            local.inbox.barrier(done)
        else:
            done(self._refusal())()

    def _replicate(self, command: Command) -> tuple[Result, int]:
        arguments.check_size(command, self._engine.value_bytes_max)
        (result,) = self.run([command])
        return result, self.now_ms()

    def __len__(self) -> int:
        return self.count_of(0)

    def __repr__(self) -> str:
        return f"<ReplicatedStore {self.config.node_id or ''} at {self.config.host}:{self.config.raft_listen_port}>"

    @property
    def channels(self) -> Channels:
        """The publish/subscribe channels of this node, for fronts on the event loop. Raises NotReady before any start."""
        return self._started().channels

    @property
    def feed(self) -> Feed:
        """The object that keeps this node's latest changes, for fronts on the event loop. Raises NotReady before any start."""
        return self._started().feed

    @property
    def tracking(self) -> Tracking:
        """The keys that clients of this node have read, for fronts on the event loop. Raises NotReady before any start."""
        return self._started().tracking

    # Cluster ----------------------------------------------------------------------------------------------------------

    def raise_level(self, level: int) -> int:
        """Put the feature level ``level`` in force, once and for all, and return it; to raise it again changes nothing.

        Raises LevelConflict (a member's build does not know it, or a higher one is in force), InvalidRequest, NotCommitted,
        OutcomeUnknown.
        """
        command = verbs.raise_level_command(level)
        (result,) = self.run([command])
        return verbs.level_of(level, result)

    def settings(self) -> ClusterSettings:
        """Return the settings that all nodes of the cluster have, as far as this node has applied the log. Raises NotReady."""
        found = self._readable().machine.settings
        if not found.version:
            raise NotReady(f"this node's contents {status.NO_SETTINGS}", 0.1)
        return verbs.settings_told(found)

    def change_settings(self, /, *, only_if_version: int | None = None, **changes: Any) -> ClusterSettings:
        """Change settings of the whole cluster, given as keyword arguments, and return all settings.

        only_if_version: change nothing unless the settings are at this version.
        Raises InvalidRequest (which names the setting), PreconditionFailed, NotCommitted, OutcomeUnknown.
        """
        (result,) = self.run([verbs.settings_command(changes, only_if_version)])
        return verbs.settings_of(result)

    # ----------------------------------------------------------------------------------------------------------------

    def _leave_to_parent(self) -> None:
        # A thread of the parent may have held the old one, and nobody lets go of that here.
        self._listing = threading.Lock()
        self._local = None
        self._engine.leave_to_parent()

    def _wait(self, submit: Callable[[Done], None], timeout_s: float | None) -> list[Result]:
        outcome: list[Outcome] = []
        # A bare lock wakes the waiting thread in one step; an Event or a Future takes several.
        answered = threading.Lock()
        answered.acquire()

        def done(result: Outcome) -> Callable[[], None]:
            outcome.append(result)
            return answered.release

        submit(done)
        # The loop ends every proposal at its deadline; the margin is for a loop that has died.
        limit = (self.config.request_timeout_s if timeout_s is None else timeout_s) + 5.0
        if not answered.acquire(timeout=limit):
            raise OutcomeUnknown("this node's loop does not answer")
        result = outcome[0]
        if isinstance(result, ReplicationError):
            raise result
        return result

    def _refusal(self) -> NotReady:
        """Return the error for a write that this node refuses, and count it; it says why nothing can be replicated now."""
        local = self._local
        if local is not None:
            local.refused += 1
        if local is None or not local.is_serving:
            return NotReady(self._engine.stopped)
        return NotReady(f"this node takes no writes: {status.why_no_writes(local)}")

    def _readable(self) -> LocalNode:
        """Return this cache's node if its contents may be read now. Raises NotReady otherwise."""
        local = self._started()
        if local.may_read:
            return local
        if not self._engine.running:
            raise NotReady(self._engine.stopped)
        raise NotReady(f"this node answers no reads: {status.why_no_reads(local)}")


def _embedded_config(raft_address: str | None, settings: dict[str, Any]) -> NodeConfig:
    if raft_address is not None:
        try:
            host, port = split_address(raft_address)
        except ValueError as error:
            raise ConfigError(f"raft_address: {error}") from None
        settings = {"host": host, "raft_port": port, "port": 0, **settings}
    for name in ("seed", "peers"):
        if name in settings:
            settings[name] = tuple(settings[name])
    for name in (
        "data_dir",
        "cluster_secret_file",
        "api_token_file",
        "users_file",
        "restore",
        "tls_cert",
        "tls_key",
        "tls_ca",
    ):
        if isinstance(settings.get(name), str):
            settings[name] = Path(settings[name])
    return NodeConfig.of(**settings)


def no_moment() -> NotReady:
    """Return the error for a read of several keys at one moment while this node applies log entries without a pause."""
    return NotReady("this node applies log entries without a pause; ask again, or another node", 0.1)


def _item(local: LocalNode, key: str, now_ms: int, peek: bool, counts: bool = True) -> Item | None:
    entry = local.machine.lookup(key, now_ms)
    if entry is None:
        local.misses += counts
        return None
    local.hits += counts
    if not peek:
        local.uses.note(key)
    data, kind, meta, version, expires_at_ms = entry
    return Item(key, data, kind, meta, version, (expires_at_ms - now_ms) / 1000 if expires_at_ms else None)


def _check_staleness(local: LocalNode, max_staleness_s: float) -> None:
    staleness_ms = local.node.freshness.staleness_ms()
    if staleness_ms is None or staleness_ms > max_staleness_s * 1000:
        known = "of unknown age" if staleness_ms is None else f"{staleness_ms / 1000:.3f} s old"
        raise NotReady(f"this node's contents are {known}, over the {max_staleness_s} s asked for", 0.1)
