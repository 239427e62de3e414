"""A store over a plain dict: the replicated one's answers without a cluster.

Commands are applied as the machine would; what a test wants to go wrong is set on the instance.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Callable
from dataclasses import astuple
from typing import Any, BinaryIO

from wire.fake_store import NextTurn

from cacheflow import values, verbs
from cacheflow.contract import Done, Entry, Follower
from cacheflow.errors import InvalidRequest, MemberConflict, MemberUnknown, NotReady, PositionGone
from cacheflow.files.backup import BackupMeta
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state.settings import Settings, changed
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.results import ClusterSettings, Digest, Event, Item, RaftPosition
from cacheflow.verbs import seconds_left, settings_told


class FakeBackups:
    """Backups of nothing: what is restored is kept, and what is asked for is the bytes that a test has set."""

    def __init__(self) -> None:
        self.data = b"a backup"
        self.meta = BackupMeta(7, 2, "c1", 1000, 5, 3)
        self.restored: list[tuple[bytes, bool]] = []
        self.failure: Exception | None = None
        self.free = 1 << 30
        self.given_up = False

    def new_file(self) -> BinaryIO:
        return tempfile.TemporaryFile()

    def room(self) -> int:
        return self.free

    def take(self) -> tuple[BinaryIO, BackupMeta]:
        if self.failure is not None:
            raise self.failure
        file = self.new_file()
        file.write(self.data)
        return file, self.meta

    def restore(self, file: BinaryIO, *, online: bool = False) -> tuple[BackupMeta, int]:
        file.seek(0)
        data = file.read()
        if self.failure is not None:
            raise self.failure
        self.restored.append((data, online))
        return self.meta, 2**40

    def give_up(self) -> bool:
        return self.given_up


class FakeFeed:
    """A feed of nothing: a test tells its followers what it likes."""

    def __init__(self) -> None:
        self.followers: dict[Follower, str | None] = {}
        self.gone: list[str] = []
        self.gone_on: list[Follower] = []
        self.looks = 0

    def follow(self, follower: Follower, since: str | None) -> str:
        if since in self.gone:
            raise PositionGone("it is not kept any more", self.oldest())
        self.followers[follower] = since
        return since or "p0"

    def unfollow(self, follower: Follower) -> None:
        self.followers.pop(follower, None)

    def go_on(self, follower: Follower) -> None:
        self.gone_on.append(follower)

    def look(self) -> None:
        self.looks += 1

    def told_position(self, follower: Follower) -> str | None:
        return "p9"

    def oldest(self) -> str:
        return "p1"


class FakeWatching:
    """The changes of a fake store. refusal: what ``check`` raises.  behind: whether a position is ahead of this node."""

    def __init__(self) -> None:
        self.feed = FakeFeed()
        self.turns = NextTurn()
        self.slices = self.turns.slices
        self.refusal: Exception | None = None
        self.behind = False
        self.adopted: list[tuple[Any, asyncio.Protocol]] = []

    def position(self) -> str:
        return "p0"

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def is_behind(self, since: str) -> bool:
        return self.behind

    def check_since(self, since: str) -> None:
        if since in self.feed.gone:
            raise PositionGone("it is not kept any more", self.feed.oldest())

    def on_loop(self, call: Callable[[], None]) -> None:
        call()

    def adopt(self, sock: Any, make: Callable[[], asyncio.Protocol]) -> None:
        self.adopted.append((sock, make()))


class FakeStore:
    """clock_ms is moved by tests. failure: raised by the next calls that replicate. blocked: they wait for it."""

    def __init__(self) -> None:
        self.clock_ms = 1_000_000
        self.failure: Exception | None = None
        self.read_failure: Exception | None = None
        self.blocked: threading.Event | None = None
        self.waiting = 0
        self.reads: list[dict[str, Any]] = []
        self.records_reads = False
        self.leader_id: str | None = "n1"
        self.level = 1
        self.backups = FakeBackups()
        self.slow_log = SlowLog(50, wall=lambda: self.clock_ms / 1000)
        self.watching = FakeWatching()
        self.alive: list[tuple[str, bool, str]] = [("loop", True, "")]
        self.ready: list[tuple[str, bool, str]] = [("leader", True, ""), ("applied", True, "")]
        self.happened: list[Event] = []
        self.entries: dict[str, Entry] = {}
        self.entries_logged = 0
        self.index = 0
        self.revision = 0
        self.kept: dict[str, tuple[Command, Result]] = {}
        # The first entries in which commands may be that came with idempotency keys.
        self.first_tries: list[int] = []
        # Whether this node has been ready for a second.
        self.has_a_past = True
        self.digests: dict[int, str] = {0: "00" * 16}
        self.members = {"n1": ("127.0.0.1:8080", "127.0.0.1:9080")}
        self.value_bytes_max = 1024 * 1024
        self.limited: list[Callable[[int], None]] = []
        self.replicated = Settings(max_items=1000, replicas=2, version=1)
        self._lock = threading.RLock()  # guards all of the above against the server's threads

    # Reads

    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> Item | None:
        if self.records_reads:
            self.reads.append({"consistency": consistency, "max_staleness": max_staleness, "peek": peek})
        if self.read_failure is not None:
            raise self.read_failure
        return self._item(key)

    def read_applied(self, key: str, *, peek: bool = False) -> Item | None:
        if self.records_reads:
            self.reads.append({"consistency": "linearizable", "max_staleness": None, "peek": peek})
        return self._item(key)

    def read_again(self, key: str, *, applied: bool, max_staleness: float | None) -> Item | None:
        if self.read_failure is not None:
            raise self.read_failure
        return self._item(key)

    def read_many(
        self, keys: list[str], *, applied: bool, max_staleness: float | None, peek: bool = False, again: bool = False
    ) -> list[Entry | None]:
        if self.records_reads:
            self.reads.append({"applied": applied, "max_staleness": max_staleness, "peek": peek})
        if self.read_failure is not None:
            raise self.read_failure
        return [self._entry(key) for key in keys]

    def now_ms(self) -> int:
        return self.clock_ms

    def first_index(self, age_ms: int) -> int:
        if not self.has_a_past:
            raise NotReady("this node has just started")
        return max(1, 100_000 - age_ms)

    def _item(self, key: str) -> Item | None:
        entry = self._entry(key)
        if entry is None:
            return None
        data, kind, meta, version, expires_at_ms = entry
        return Item(key, data, kind, meta, version, seconds_left(expires_at_ms, self.clock_ms))

    def keys_page(self, prefix: str = "", limit: int = 1000, cursor: str | None = None) -> tuple[list[str], str | None]:
        found = sorted(key for key in self.entries if key.startswith(prefix) and self._entry(key) is not None)
        found = [key for key in found if cursor is None or key > cursor]
        return found[:limit], found[limit - 1] if len(found) > limit else None

    # Writes

    def run(self, batch: list[Command]) -> list[Result]:
        self._replicate()
        with self._lock:
            self.index += 1
            self.entries_logged += 1
            results = [self._apply(command) for command in batch]
            self.digests[self.index] = hashlib.blake2b(repr(self.entries).encode(), digest_size=16).hexdigest()
            return results

    def barrier(self) -> list[Result]:
        self._replicate()
        return [[commands.OK]]

    def submit(self, batch: list[Command], done: Done) -> None:
        self._later(lambda: self.run(batch), done)

    def submit_barrier(self, done: Done) -> None:
        self._later(self.barrier, done)

    # The cluster

    def position(self) -> RaftPosition:
        return RaftPosition(self.index, 3, "n1", self.leader_id)

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "id": node_id,
                "address": address,
                "status": "up",
                "role": "leader" if node_id == self.leader_id else "follower",
                "raft_address": raft_address,
                "last_seen": None,
            }
            for node_id, (address, raft_address) in self.members.items()
        ]

    def status(self) -> dict[str, Any]:
        return {"leader": self.leader_id, "term": 3, "commit_index": self.index, "applied_index": self.index}

    def digest(self, *, index: int | None = None, full: bool = False) -> Digest | None:
        at = self.index if index is None else index
        return Digest(at, "ff" * 16 if full else self.digests[at]) if at in self.digests else None

    def register(
        self, node_id: str, address: str, raft_address: str, was_member: bool = False, role: str = "voter"
    ) -> bool:
        self._replicate()
        if was_member and node_id not in self.members:
            raise MemberConflict(f"{node_id} was removed")
        if " " in node_id:
            raise InvalidRequest("a node id has no blanks")
        known = self.members.get(node_id)
        if known is None:
            self.members[node_id] = (address, raft_address)
            return True
        if known != (address, raft_address):
            raise MemberConflict(f"{node_id} lives at {known[0]}")
        return False

    def remove_node(self, node_id: str) -> None:
        self._replicate()
        if node_id not in self.members:
            raise MemberUnknown(f"no node {node_id!r} is a member")
        if len(self.members) == 1:
            raise MemberConflict(f"{node_id} is the only one")
        del self.members[node_id]

    def promote_node(self, node_id: str) -> dict[str, Any]:
        return self._change_vote(node_id, True)

    def demote_node(self, node_id: str) -> dict[str, Any]:
        return self._change_vote(node_id, False)

    def _change_vote(self, node_id: str, votes: bool) -> dict[str, Any]:
        self._replicate()
        if node_id not in self.members:
            raise MemberUnknown(f"no node {node_id!r} is a member")
        if len(self.members) == 1:
            raise MemberConflict(f"{node_id} is the only one")
        address, raft_address = self.members[node_id]
        return {
            "id": node_id,
            "address": address,
            "raft_address": raft_address,
            "status": "up",
            "role": "follower",
            "voter": votes,
            "observer": not votes,
        }

    def transfer_leadership(self, node_id: str | None) -> str:
        self._replicate()
        if node_id is not None and node_id not in self.members:
            raise InvalidRequest(f"{node_id} is no member")
        self.leader_id = node_id or "n1"
        return self.leader_id

    def raise_level(self, level: Any) -> int:
        self._replicate()
        if level == 9:
            return verbs.level_of(level, [commands.PRECONDITION, self.level, "n2"])
        verbs.raise_level_command(level)
        self.level = int(level)
        return self.level

    def on_value_limit(self, limit: Callable[[int], None]) -> None:
        self.limited.append(limit)

    def settings(self) -> ClusterSettings:
        if self.read_failure is not None:
            raise self.read_failure
        return settings_told(self.replicated)

    def readiness(self) -> list[tuple[str, bool, str]]:
        return self.ready

    def liveness(self) -> list[tuple[str, bool, str]]:
        return self.alive

    def events(self) -> list[Event]:
        return self.happened

    def metrics(self) -> dict[str, float]:
        return {"items": len(self.entries), "hits_total": 2, 'peer_lag{peer="b"}': 0, 'peer_lag{peer="c"}': 7.5}

    # Inside

    def _replicate(self) -> None:
        if self.blocked is not None:
            with self._lock:
                self.waiting += 1
            self.blocked.wait(30)
        if self.failure is not None:
            raise self.failure

    @staticmethod
    def _later(work: Callable[[], list[Result]], done: Done) -> None:
        """In a thread of its own, as the node's loop would."""

        def settle() -> None:
            outcome: list[Result] | Exception
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            done(outcome)()  # type: ignore[arg-type]  # also what a store must not raise

        threading.Thread(target=settle, daemon=True).start()

    def _entry(self, key: str) -> Entry | None:
        entry = self.entries.get(key)
        return None if entry is None or 0 < entry[4] <= self.clock_ms else entry

    def _apply(self, command: Command) -> Result:
        apply: dict[int, Callable[..., Result]] = {
            commands.SET: self._apply_set,
            commands.DELETE: self._apply_delete,
            commands.INCR: self._apply_incr,
            commands.TOUCH: self._apply_touch,
            commands.GET: self._apply_get,
            commands.DELETE_PREFIX: self._apply_delete_prefix,
            commands.BATCH: self._apply_batch,
            commands.IDEMPOTENT: self._apply_idempotent,
            commands.SCOPED: self._apply_scoped,
            commands.CONFIGURE: self._apply_configure,
            commands.OPEN_SCOPE: lambda nonce: [commands.OK, 7],
        }
        return apply[command[0]](*command[1:])

    def _put(self, key: str, data: bytes, kind: int, meta: str | int | None, expires_at_ms: int) -> int:
        self.revision += 1
        self.entries[key] = (data, kind, meta, self.revision, expires_at_ms)
        return self.revision

    def _apply_set(
        self, key: str, data: bytes, kind: int, meta: str | int | None, ttl_ms: int, when: int, version: int
    ) -> Result:
        old = self._entry(key)
        present = old[3] if old else 0
        met = {
            commands.ALWAYS: True,
            commands.IF_ABSENT: not present,
            commands.IF_PRESENT: bool(present),
            commands.IF_VERSION: present == version,
        }[when]
        if not met:
            return [commands.PRECONDITION, present]
        if len(data) > self.value_bytes_max:
            return [commands.TOO_LARGE, "the value is larger than the cache"]
        if ttl_ms == commands.TTL_KEEP:
            expires_at_ms = old[4] if old else 0
        else:
            expires_at_ms = self.clock_ms + ttl_ms if ttl_ms else 0
        return [commands.OK, self._put(key, data, kind, meta, expires_at_ms), old is None, expires_at_ms]

    def _apply_configure(self, version: int | None, by: str, changes: dict[str, Any]) -> Result:
        if version not in (None, self.replicated.version):
            return [commands.PRECONDITION, self.replicated.version]
        self.replicated = changed(self.replicated, changes, by, self.clock_ms)
        self.value_bytes_max = self.replicated.max_value_bytes
        for limit in self.limited:
            limit(self.value_bytes_max)
        return [commands.OK, *astuple(self.replicated)]

    def _apply_delete(self, key: str, version: int) -> Result:
        old = self._entry(key)
        if version and (old[3] if old else 0) != version:
            return [commands.PRECONDITION, old[3] if old else 0]
        if old is None:
            return [commands.MISSING]
        del self.entries[key]
        self.revision += 1
        return [commands.OK, self.revision]

    def _apply_incr(self, key: str, delta: int, initial: int | None, ttl_ms: int) -> Result:
        old = self._entry(key)
        if old is None:
            if initial is None:
                return [commands.MISSING]
            expires_at_ms = self.clock_ms + ttl_ms if ttl_ms else 0
            number, kind, meta = initial + delta, values.JSON, None
        else:
            data, kind, meta, _, expires_at_ms = old
            if not data.lstrip(b"-").isdigit():
                return [commands.NOT_AN_INTEGER, "the value is not an integer"]
            number = int(data) + delta
        if not commands.INT64_MIN <= number <= commands.INT64_MAX:
            return [commands.NOT_AN_INTEGER, "the sum leaves 64 bits"]
        return [commands.OK, self._put(key, str(number).encode(), kind, meta, expires_at_ms), number, expires_at_ms]

    def _apply_touch(self, key: str, ttl_ms: int) -> Result:
        old = self._entry(key)
        if old is None:
            return [commands.MISSING]
        expires_at_ms = self.clock_ms + ttl_ms if ttl_ms else 0
        self.entries[key] = (*old[:4], expires_at_ms)
        return [commands.OK, old[3], expires_at_ms]

    def _apply_get(self, key: str) -> Result:
        entry = self._entry(key)
        return [commands.MISSING] if entry is None else [commands.OK, *entry]

    def _apply_delete_prefix(self, prefix: str, only_database_0: bool, counted: bool) -> Result:
        found = [key for key in self.entries if key.startswith(prefix)]
        for key in found:
            del self.entries[key]
            self.revision += 1
        return [commands.OK, len(found)]

    def _apply_batch(self, atomic: bool, batch: list[Command]) -> Result:
        before, revision = dict(self.entries), self.revision
        results = []
        for at, command in enumerate(batch):
            result = self._apply(command)
            if atomic and result[0] != commands.OK:
                self.entries, self.revision = before, revision
                return [commands.ABORTED, at, result]
            results.append(result)
        return [commands.OK, results]

    def _apply_scoped(self, scope: int, nonce: str, number: int, lowest: int, command: Command) -> Result:
        if scope == 1:
            return [commands.FORGOTTEN]
        return self._apply_idempotent(f"{scope} {nonce} {number}", 0, command)

    def _apply_idempotent(self, client_key: str, first_index: int, command: Command) -> Result:
        self.first_tries.append(first_index)
        kept = self.kept.get(client_key)
        if kept is None:
            kept = self.kept[client_key] = (command, self._apply(command))
        return kept[1] if kept[0] == command else [commands.KEY_REUSED]
