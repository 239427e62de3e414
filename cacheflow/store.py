"""ReplicatedStore: what applications and servers call.

1. A read is served from this node's memory: one dictionary access, no lock, any thread.
2. A write returns once it is committed and visible on this node, so every thread here reads what it wrote.
3. Results of the machine become Python here and nowhere else; errors are the tree of errors.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cacheflow import leaving, status, values
from cacheflow.config import NodeConfig, split_address
from cacheflow.contract import Done, Outcome
from cacheflow.engine import Engine
from cacheflow.errors import (
    ConfigError,
    InvalidRequest,
    KeyNotFound,
    MemberConflict,
    NoLeader,
    NotReady,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicationError,
    ValueTooLarge,
)
from cacheflow.machine import commands
from cacheflow.machine.commands import Command, Result
from cacheflow.machine.entries import Entry
from cacheflow.outcomes import error_of, ttl_to_ms
from cacheflow.raft.reconfiguration import CONFLICT, JOINED, KNOWN
from cacheflow.results import IncrResult, Item, RaftPosition, SetResult
from cacheflow.services import Service

CONSISTENCY_LEVELS = ("local", "bounded", "linearizable")
KEYS_PAGE = 1000


class ReplicatedStore(MutableMapping[str, Any]):
    """A replicated cache in this process. Safe for use by many threads; ``aio`` is its asyncio twin.

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
        """config: or the fields of NodeConfig as keywords. raft_address: host:port of the peer protocol.

        Raises ConfigError.
        """
        if config is None:
            config = _embedded_config(raft_address, settings)
        elif raft_address is not None or settings:
            raise ConfigError("give either a NodeConfig or its fields, not both")
        self.config = config
        self._engine = Engine(config)

    # Life -----------------------------------------------------------------------------------------------------------

    def start(self, http_address: str = "") -> ReplicatedStore:
        """Open the data and take part in the cluster. http_address: where members show it. Raises ConfigError."""
        self._engine.start(http_address)
        return self

    def serve(self, service: Service, host: str, port: int) -> int:
        """Serve a protocol on the node's own loop, until ``close``; the port, chosen by the system for 0.

        After ``start``. Raises ConfigError.
        """
        return self._engine.serve(service, host, port)

    def close(self) -> None:
        """Hand leadership over when this node leads, and stop."""
        self._engine.stop()

    def __enter__(self) -> ReplicatedStore:
        self.start()
        try:
            self.wait_ready(self.config.request_timeout_s)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Return once this node answers reads and knows a leader. Raises NotReady after ``timeout_s``."""
        if not status.wait_ready(self._engine, timeout_s):
            raise NotReady("; ".join(f"{name}: {detail}" for name, good, detail in self.readiness() if not good))

    # Reads ----------------------------------------------------------------------------------------------------------

    def read(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness_s: float | None = None,
        count: bool = True,
        strict: bool = False,
    ) -> Item | None:
        """The item under ``key``, or None.

        consistency: ``local`` (this node's memory), ``bounded`` (not older than max_staleness_s), ``linearizable``
        (everything acknowledged before this call).  count: counts as a use.  strict: counts exactly, through the log.
        Raises InvalidRequest, NotReady, and for linearizable and strict reads what a write raises.
        """
        values.check_key(key)
        engine = self._engine
        if strict:
            (result,) = self.run([commands.get(key)])
            if result[0] == commands.MISSING:
                return None
            _raise_for(key, result)
            return Item(key, result[1], result[2], result[3], result[4], self.seconds_left(result[5]))
        if consistency == "linearizable":
            self.barrier()
            return self.read_applied(key, count=count)
        if consistency not in CONSISTENCY_LEVELS:
            raise InvalidRequest(f"consistency is one of {', '.join(CONSISTENCY_LEVELS)}, not {consistency!r}")
        if consistency == "bounded" and (max_staleness_s is None or not max_staleness_s >= 0):
            raise InvalidRequest("a bounded read needs max_staleness, in seconds")
        self._check_readable()
        if max_staleness_s is not None and consistency == "bounded":
            self._check_staleness(max_staleness_s)
        return self._item(key, engine.clock.now_ms(), count)

    def read_applied(self, key: str, *, count: bool = True) -> Item | None:
        """The item under ``key`` at the newest applied entry: what a linearizable read looks at behind its barrier."""
        return self._item(key, self._engine.machine.now_ms, count)

    def _item(self, key: str, now_ms: int, count: bool) -> Item | None:
        engine = self._engine
        entry = engine.machine.lookup(key, now_ms)
        if entry is None:
            engine.misses += 1
            return None
        engine.hits += 1
        if count:
            engine.uses.note(key)
        data, kind, meta, version, expires_at_ms = entry
        return Item(key, data, kind, meta, version, (expires_at_ms - now_ms) / 1000 if expires_at_ms else None)

    def get(self, key: str, default: Any = None, *, consistency: str = "local") -> Any:
        """The value under ``key``, or ``default``. Raises InvalidRequest, NotReady, ReplicationError."""
        if consistency == "local" and type(key) is str:
            engine = self._engine
            if engine.may_read:
                entry = engine.machine.lookup(key, engine.clock.now_ms())
                if entry is None:
                    values.check_key(key)
                    engine.misses += 1
                    return default
                engine.hits += 1
                engine.uses.note(key)
                kind = entry[1]
                return entry[0].decode() if kind == values.TEXT else values.decode(kind, entry[0])
        item = self.read(key, consistency=consistency)
        return default if item is None else item.value

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        """The machine's own entry under ``key``, for fronts that answer bytes; what ``read`` makes an Item of.

        Raises NotReady.
        """
        engine = self._engine
        if not engine.may_read:
            self._check_readable()
        entry = engine.machine.contents.raw.get(key)
        # The clock costs as much as all the rest, and most entries have no end.
        if entry is not None and entry[4] and entry[4] <= engine.clock.now_ms():
            entry = None
        if entry is None:
            engine.misses += 1
        else:
            engine.hits += 1
            if count:
                engine.uses.note(key)
        return entry

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        """``lookup`` of several keys at one moment; None, and nothing is counted, when their values are over ``bytes_max``.

        Raises NotReady.
        """
        engine = self._engine
        if not engine.may_read:
            self._check_readable()
        entries = list(map(engine.machine.contents.raw.get, keys))
        size = missing = 0
        ends = False
        for entry in entries:
            if entry is None:
                missing += 1
            else:
                size += len(entry[0])
                if entry[4]:
                    ends = True
        if ends:
            now_ms = engine.clock.now_ms()
            entries = [None if entry is not None and 0 < entry[4] <= now_ms else entry for entry in entries]
            missing = entries.count(None)
        if size > bytes_max:
            return None
        if missing:
            engine.uses.note_all([key for key, entry in zip(keys, entries, strict=True) if entry is not None])
        else:
            engine.uses.note_all(keys)
        engine.hits, engine.misses = engine.hits + len(keys) - missing, engine.misses + missing
        return entries

    def now_ms(self) -> int:
        """The cluster's time now, in milliseconds: what entries end by."""
        return self._engine.clock.now_ms()

    def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        """Up to ``limit`` live keys that start with ``prefix``, in order, behind ``cursor``; and the next cursor or None."""
        self._check_readable()
        engine = self._engine
        return engine.machine.keys(prefix, limit, cursor or "", engine.clock.now_ms())

    def all_keys(self) -> list[str]:
        """The keys in memory at this moment, in no order, some of them perhaps past their end. Raises NotReady."""
        self._check_readable()
        return list(self._engine.machine.contents.raw)

    # Writes ---------------------------------------------------------------------------------------------------------

    def run(self, commands_: list[Command], *, timeout_s: float | None = None) -> list[Result]:
        """Replicate commands as they are and return their results, one each.

        Raises NotCommitted (safe to retry), OutcomeUnknown.
        """
        return self._wait(lambda done: self.submit(commands_, done, timeout_s=timeout_s), timeout_s)

    def barrier(self) -> list[Result]:
        """Return once everything acknowledged anywhere before this call is applied here. Raises as ``run``."""
        return self._wait(self.submit_barrier, None)

    def submit(self, commands_: list[Command], done: Done, *, timeout_s: float | None = None) -> None:
        """``run`` without waiting: ``done`` gets the results, or the error, once.

        The node's loop calls it, so it must not block; the call that it returns is made when the loop's turn has sent
        what it had to send, and wakes whoever waits.
        """
        refusal = self._refusal()
        if refusal is None:
            self._engine.submit(commands_, done, timeout_s)
        else:
            done(refusal)()

    def submit_barrier(self, done: Done) -> None:
        """``barrier`` without waiting."""
        refusal = self._refusal()
        if refusal is None:
            self._engine.barrier(done)
        else:
            done(refusal)()

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        only_if_absent: bool = False,
        only_if_version: int | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> SetResult:
        """Replicate ``key = value`` and return once it is committed and visible on this node.

        ttl: seconds > 0; None keeps it until evicted.  only_if_version: compare and set.
        Raises InvalidRequest, ValueTooLarge, PreconditionFailed, NotCommitted (safe to retry), OutcomeUnknown.
        """
        command = self.set_command(
            key,
            value,
            ttl=ttl,
            keep_ttl=keep_ttl,
            only_if_absent=only_if_absent,
            only_if_version=only_if_version,
            content_type=content_type,
        )
        _, version, created, expires_at_ms = self._one(key, command, idempotency_key)
        return SetResult(version, created, self.seconds_left(expires_at_ms))

    def set_command(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        only_if_absent: bool = False,
        only_if_version: int | None = None,
        content_type: str | None = None,
    ) -> Command:
        """The checked command of ``set``, for a batch. Raises InvalidRequest, ValueTooLarge."""
        values.check_key(key)
        kind, data = values.encode(value)
        if len(data) > self.config.max_value_bytes:
            raise ValueTooLarge(f"the value has {len(data)} bytes; at most {self.config.max_value_bytes} are taken")
        when, version = commands.ALWAYS, 0
        if only_if_absent:
            when = commands.IF_ABSENT
        elif only_if_version is not None:
            when, version = commands.IF_VERSION, only_if_version
        ttl_ms = commands.TTL_KEEP if keep_ttl else ttl_to_ms(ttl)
        return commands.set_(key, data, kind, content_type, ttl_ms, when, version)

    def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Write only when the key is absent; whether it was."""
        try:
            self.set(key, value, ttl=ttl, only_if_absent=True)
        except PreconditionFailed:
            return False
        return True

    def compare_and_set(self, key: str, value: Any, *, version: int, ttl: float | None = None) -> SetResult:
        """Write only when the key has this version. Raises PreconditionFailed with the present one."""
        return self.set(key, value, ttl=ttl, only_if_version=version)

    def delete(self, key: str, *, only_if_version: int | None = None, idempotency_key: str | None = None) -> bool:
        """Remove the key; whether it was there. Raises PreconditionFailed and what ``set`` raises."""
        values.check_key(key)
        try:
            self._one(key, commands.delete(key, only_if_version or 0), idempotency_key)
        except KeyNotFound:
            return False
        return True

    def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | None = None,
        idempotency_key: str | None = None,
    ) -> IncrResult:
        """Add to a decimal 64-bit integer; its TTL stays. An absent key becomes ``initial + delta`` with ``ttl``.

        Raises KeyNotFound (no initial), NotAnInteger and what ``set`` raises.
        """
        values.check_key(key)
        for number in (delta, initial):
            if number is not None and not commands.INT64_MIN <= number <= commands.INT64_MAX:
                raise InvalidRequest(f"{number} is not a 64-bit integer")
        command = commands.incr(key, delta, initial, ttl_to_ms(ttl))
        _, version, number, expires_at_ms = self._one(key, command, idempotency_key)
        return IncrResult(number, version, self.seconds_left(expires_at_ms))

    def decr(self, key: str, delta: int = 1, *, initial: int | None = None, ttl: float | None = None) -> IncrResult:
        """``incr`` downwards."""
        return self.incr(key, -delta, initial=initial, ttl=ttl)

    def touch(self, key: str, ttl: float | None, *, idempotency_key: str | None = None) -> bool:
        """Give the key a new TTL in seconds, None to keep it until evicted; whether it was there."""
        values.check_key(key)
        try:
            self._one(key, commands.touch(key, ttl_to_ms(ttl)), idempotency_key)
        except KeyNotFound:
            return False
        return True

    def persist(self, key: str) -> bool:
        """Take the TTL away; whether the key was there."""
        return self.touch(key, None)

    def batch(
        self, commands_: Sequence[Command], *, atomic: bool = False, idempotency_key: str | None = None
    ) -> list[Result]:
        """Several commands in one log entry, with ``atomic`` all or none; their raw results.

        An atomic batch that failed answers one result: ``[ABORTED, index, result]``.
        """
        command = commands.batch(list(commands_), atomic)
        if idempotency_key is not None:
            command = commands.idempotent(idempotency_key, command)
        (result,) = self.run([command])
        if result[0] == commands.ABORTED:
            return [result]
        _raise_for("", result)
        answers: list[Result] = result[1]
        return answers

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that are there; each is a read of its own."""
        return {key: item.value for key in keys if (item := self.read(key)) is not None}

    def set_many(self, values_: Mapping[str, Any], ttl: float | None = None) -> None:
        """Write several keys in one log entry."""
        for result in self.batch([self.set_command(key, value, ttl=ttl) for key, value in values_.items()]):
            _raise_for("", result)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove several keys in one log entry; how many were there."""
        results = self.batch([commands.delete(values.check_key(key)) for key in keys])
        return sum(result[0] == commands.OK for result in results)

    def delete_prefix(self, prefix: str, *, idempotency_key: str | None = None) -> int:
        """Remove every key that starts with ``prefix``; how many there were. "" removes all."""
        removed: int = self._one("", commands.delete_prefix(prefix), idempotency_key)[1]
        return removed

    # MutableMapping ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        item = self.read(key)
        if item is None:
            raise KeyNotFound(key)
        return item.value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyNotFound(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.read(key, count=False) is not None

    def __iter__(self) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page, cursor = self.keys_page(cursor=cursor)
            yield from page
            if cursor is None:
                return

    def __len__(self) -> int:
        self._check_readable()
        return self._engine.machine.item_count

    def clear(self) -> None:
        """Remove everything."""
        self.delete_prefix("")

    def __repr__(self) -> str:
        return f"<ReplicatedStore {self.config.node_id or ''} at {self.config.host}:{self.config.raft_listen_port}>"

    # Cluster ----------------------------------------------------------------------------------------------------------

    def position(self) -> RaftPosition:
        """Applied index, term, this node's id and the leader's."""
        node = self._engine.node
        return RaftPosition(node.last_applied, node.term, node.node_id, node.leader_id)

    def nodes(self) -> list[dict[str, Any]]:
        """The members, as ``GET /nodes/list`` shows them."""
        return self._engine.call(lambda: status.nodes(self._engine))

    def status(self) -> dict[str, Any]:
        """Leader, term, indexes, lag and configuration, as ``GET /cluster/status`` shows them."""
        return self._engine.call(lambda: status.cluster(self._engine))

    def digest(self, index: int | None = None, full: bool = False) -> tuple[int, str] | None:
        """(index, hex): the rolling digest at ``index`` (None: now), or with ``full`` that of the whole contents."""
        return self._engine.call(lambda: status.digest(self._engine, index, full), timeout_s=60.0)

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by name."""
        return status.metrics(self._engine)

    def liveness(self) -> list[tuple[str, bool, str]]:
        """(check, good, detail) of what a restart could mend."""
        return status.liveness(self._engine)

    def readiness(self) -> list[tuple[str, bool, str]]:
        """(check, good, detail) of what traffic needs."""
        return status.readiness(self._engine)

    def register(self, node_id: str, address: str, raft_address: str, was_member: bool = False) -> bool:
        """Make the node at ``raft_address`` a member; False when it was one. Raises MemberConflict, InvalidRequest.

        was_member: it says that it has been one; if it is none any more it was removed, and stays out.
        """
        outcome, detail = self._engine.run(
            self._engine.register(node_id, address, raft_address, was_member), timeout_s=12.0
        )
        if outcome == CONFLICT:
            raise MemberConflict(detail)
        if outcome not in (JOINED, KNOWN):
            raise NoLeader(f"the registration was not committed: {detail}")
        return outcome == JOINED

    def remove_node(self, node_id: str) -> None:
        """Take a member out of the cluster; returns once that is committed. A leader hands leadership over first.

        Raises MemberUnknown, MemberConflict (a majority could not be reached without it), NotCommitted, OutcomeUnknown.
        """
        timeout_s = self.config.request_timeout_s
        self._engine.run(leaving.remove(self._engine.node, node_id, timeout_s), timeout_s=timeout_s + 5.0)

    def transfer_leadership(self, node_id: str | None = None) -> str:
        """Hand leadership to ``node_id``, or to the most complete voter; the id of the new leader.

        Raises InvalidRequest (no such voter), NotCommitted.
        """
        return self._engine.run(status.hand_over(self._engine, node_id), timeout_s=5.0)

    # ----------------------------------------------------------------------------------------------------------------

    def _one(self, key: str, command: Command, idempotency_key: str | None) -> Result:
        if idempotency_key is not None:
            command = commands.idempotent(idempotency_key, command)
        (result,) = self.run([command])
        _raise_for(key, result)
        return result

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

    def _refusal(self) -> NotReady | None:
        """Why nothing can be replicated through this node at all."""
        if not self._engine.running:
            return NotReady("this node is stopped")
        if self._engine.node.failure is not None:
            return NotReady(f"this node takes no writes: {self._engine.node.failure}")
        return None

    def _check_readable(self) -> None:
        if not self._engine.may_read:
            if not self._engine.running:
                raise NotReady("this node is stopped")
            node = self._engine.node
            if node.stumbled or node.standing.removed_at is not None:
                raise NotReady(f"this node answers no reads: {node.stumbled or node.failure}")
            raise NotReady("this node has not caught up with the cluster since it started")

    def _check_staleness(self, max_staleness_s: float) -> None:
        staleness_ms = self._engine.node.staleness_ms()
        if staleness_ms is None or staleness_ms > max_staleness_s * 1000:
            known = "of unknown age" if staleness_ms is None else f"{staleness_ms / 1000:.3f} s old"
            raise NotReady(f"this node's contents are {known}, over the {max_staleness_s} s asked for", 0.1)

    def seconds_left(self, expires_at_ms: int) -> float | None:
        """Until a time of the log's clock, as results carry it; None for 0, which is never."""
        return max(0.0, (expires_at_ms - self._engine.clock.now_ms()) / 1000) if expires_at_ms else None


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
    for name in ("data_dir", "cluster_secret_file", "api_token_file"):
        if isinstance(settings.get(name), str):
            settings[name] = Path(settings[name])
    return NodeConfig.of(**settings)


def _raise_for(key: str, result: Result) -> None:
    if result[0] != commands.OK:
        raise error_of(key, result)
