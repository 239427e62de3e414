"""CacheMachine: the replicated state.

1. All replicated state lives here: items, order of eviction, clock, sessions, settings, members.
2. No clock, no I/O, no randomness, no threads, no logging, no iteration over sets, no ``hash()``: the same log gives
   the same state, byte for byte, on every node and every run.
3. ``apply`` is total. Whatever the bytes are, it returns: a bad command gives an error *value*. (One exception inside
   an apply would stop every replica for good, at the same entry, also after a restart.) An exception behind a command's
   checks is a defect: the command is half done, so the node stops there; a release without the defect goes on. An entry
   of a later feature level than this build knows is refused before anything is done: NewerCacheFlow.
4. A command either takes place or has no effect: it is decided first and done afterwards.

Inside an entry: the clock advances, what is due is removed (a bounded number of keys), then the commands run in order, and at
last some of what is condemned is swept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple
from hashlib import blake2b
from itertools import islice
from typing import Any, ClassVar, Final, TypeAlias

import msgpack

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine import image
from cacheflow.machine.deciding.batches import Batches
from cacheflow.machine.deciding.carry_out import carry_out, decide
from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.deciding.fast_delete import delete_plainly
from cacheflow.machine.deciding.fast_set import set_plainly
from cacheflow.machine.deciding.plans import Malformed
from cacheflow.machine.deciding.repeats import REPEATABLE_OPS, idempotent, open_scope, scoped
from cacheflow.machine.deciding.restores import begin_restore, end_restore, restore_items
from cacheflow.machine.effects import CONFIGURED, LEVEL_RAISED, MEMBERS_CHANGED, RECOVERED, Effect
from cacheflow.machine.image import DIGEST_BYTES, State
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import CodecError, Result, decode_block, decode_entry, level_of
from cacheflow.machine.language.levels import known_at
from cacheflow.machine.listing import page
from cacheflow.machine.outlook import outlook
from cacheflow.machine.state.entries import EXPIRES_AT_MS, KEY_BYTES_MAX, Entry
from cacheflow.machine.state.settings import Member, changed, is_name, is_whole, member_table

Settled: TypeAlias = tuple[int, int, list[Result]]  # session, first number, results
OtherCommand: TypeAlias = Callable[[Any, list[Any]], Result]

# The highest time stamp that is believed, in the year 33658: a higher one is damage and would expire every key that has
# a TTL.
STAMP_MS_MAX: Final = 10**15
RECENCY_KEYS_MAX: Final = 10_000
# Uses of a key that one RECENCY counts at most: a burst of reads on one node must not keep a key for ever under LFU.
USES_MAX: Final = 1000
# Digests that are kept, of the latest entries: the digest that a leader sends may be of an earlier entry than the last.
DIGESTS_KEPT: Final = 10_000
# Removed members that are remembered: a disk that was away while more than these were removed is not known as removed.
REMOVED_KEPT: Final = 1000
# A revision above this is raised no more: it must stay a number of 64 bits.
REVISION_MAX: Final = c.INT64_MAX - 2 * c.RECOVERY_RAISE
# A Packer keeps the memory of the largest object that it has packed: one that has packed more than this is replaced.
PACKER_BYTES_MAX: Final = 1024 * 1024


class CacheMachine(State):
    """The cache's replicated state and the commands that change it: the state machine of one Raft group.

    Not safe for concurrent use: the event loop owns it. Any thread may call ``lookup``, ``lookup_all`` and ``keys``, and
    nothing else.
    """

    # What this build knows: the level that brought each command, and what those do that are not about one key.
    command_levels: ClassVar[Mapping[int, int]] = c.LEVELS
    other_commands: ClassVar[Mapping[int, OtherCommand]] = {}

    def __init__(self) -> None:
        super().__init__()
        # One packer for all entries: a new one begins with a quarter of a megabyte of new memory.
        self._pack = msgpack.Packer().pack
        # The index of the entry that was begun last: ahead of ``applied_index`` while an entry is being applied.
        self._begun_index = self.applied_index
        # The effects of the latest entry that had any, packed as the digest covers them.
        self.packed_effects = b""
        self._first_digest = 1
        self._digests = bytearray(DIGESTS_KEPT * DIGEST_BYTES)
        self._note_digest(1)
        self._batches = Batches(self.contents)
        self._speak(self.build_level)

    def _speak(self, level: int) -> None:
        """Make this state machine take only the commands of the feature level ``level``, as a build of that level does."""
        self._spoken_level = level
        self._others = known_at(level, self.command_levels, self.other_commands)
        self._about_keys = self._batches.known = known_at(level, self.command_levels, DECIDE)
        self._repeatable = known_at(level, self.command_levels, REPEATABLE_OPS)

    # What readers ask

    @property
    def now_ms(self) -> int:
        """The state machine's clock in milliseconds: the highest time stamp of the log entries applied so far."""
        return self.contents.now_ms

    def lookup(self, key: str, now_ms: int) -> Entry | None:
        """Return the cache entry of ``key`` if it is live at ``now_ms``, else None; counts no use. Any thread may call it."""
        entry = self.contents.get(key)
        if entry is not None and 0 < entry[EXPIRES_AT_MS] <= now_ms:
            return None
        return entry

    def lookup_all(self, keys: list[str], now_ms: int) -> list[Entry | None] | None:
        """Return the cache entries of ``keys`` as they were all at one moment, between two log entries; counts no use.

        An entry that is not live at ``now_ms`` is None. Returns None instead of the list where a log entry was being applied
        meanwhile: ask again. Any thread may call it.
        """
        index = self.applied_index
        entries = list(map(self.contents.get, keys))
        if self._begun_index != index:
            return None
        return [None if entry is None or 0 < entry[EXPIRES_AT_MS] <= now_ms else entry for entry in entries]

    def keys(
        self,
        prefix: str = "",
        limit: int | None = None,
        after: str = "",
        now_ms: int = 0,
        give_way: Callable[[], object] = lambda: None,
    ) -> tuple[list[str], str | None]:
        """Return one page of database 0's keys that start with ``prefix`` and are live at ``now_ms``. Any thread may call it.

        Pages come in the order of the keys: ``after`` is the cursor of the page before, "" for the first one.
        Returns (keys, cursor), the cursor None when no key follows. limit: the most keys, None for all.
        give_way: a function that is called every millisecond or so, to let other threads go on.
        """
        return page(lambda: self.contents, prefix, limit, after, now_ms, give_way)

    def next_due_ms(self) -> int | None:
        """Return the earliest time, in ms, at which a new log entry would remove a key: 0 for now, None for never."""
        return self.contents.next_due_ms()

    def digest_at(self, index: int) -> bytes | None:
        """Return the digest over effects as it was once the log entry ``index`` was applied; None if that is not known.

        It is known for the latest entries, but not for those before the snapshot that this machine was loaded from.
        """
        if not max(self._first_digest, self.applied_index - DIGESTS_KEPT + 1) <= index <= self.applied_index:
            return None
        start = index % DIGESTS_KEPT * DIGEST_BYTES
        return bytes(self._digests[start : start + DIGEST_BYTES])

    def outlook(self) -> bytes:
        """Return a digest of what decides the state machine's next steps and is not yet part of the digest over effects.

        Takes some milliseconds at most.
        """
        return outlook(self)

    def contents_digest(self) -> bytes:
        """Return a digest of the state machine's whole state, as a snapshot holds it. Takes about as long as a snapshot."""
        whole = blake2b(digest_size=DIGEST_BYTES)
        for chunk in self.snapshot():
            whole.update(chunk)
        return whole.digest()

    def level_told(self, member_id: str) -> int:
        """Return the highest feature level that the build of the member ``member_id`` knows, as its latest start told.

        Returns 0 when the member has told none.
        """
        session = self.sessions.of(member_id)
        return 0 if session is None else session.level

    def lacks_level(self, level: int) -> str | None:
        """Return the id of the first member, by id, that has not told that its build knows the feature level ``level``.

        Returns None when all have told so, "" when there are no members.
        """
        if not self.members:
            return ""
        return next((member_id for member_id in sorted(self.members) if self.level_told(member_id) < level), None)

    # Snapshots

    def snapshot(self) -> Iterator[bytes]:
        """Yield the state machine's whole state, a snapshot, in chunks of bytes of about 256 KiB.

        No log entry may be applied before the last chunk is taken.
        """
        return image.pack(image.records(self))

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> CacheMachine:
        """Return a new state machine in the state of the snapshot whose bytes are ``chunks``, however they were cut.

        Raises CodecError; NewerCacheFlow when the snapshot's feature level is above this build's.
        """
        machine = cls()
        image.load(machine, image.unpack(chunks))
        machine._begun_index = machine._first_digest = machine.applied_index
        machine._note_digest(machine.applied_index)
        return machine

    # The log

    def apply(self, index: int, payload: bytes) -> list[Settled]:
        """Apply the log entry ``index``, the one after the last applied, and return the results of its blocks in order.

        payload: the entry's bytes; empty for an entry of Raft's own. No damaged payload raises; only one of a later feature
        level than this build knows raises NewerCacheFlow, with nothing done. Callers must not change the results: the sessions
        keep them.
        """
        self._begun_index = index
        contents = self.contents
        effects: list[Effect] = []
        contents.effects, contents.uses = effects, 0
        settled: list[Settled] = []
        if payload:
            try:
                level, stamp_ms, blocks = decode_entry(payload)
            except CodecError:
                # Whatever a later level may make of an entry: what comes first in it stays.
                level = level_of(payload)
                if level > self.build_level:
                    raise NewerCacheFlow.wrote(f"entry {index}", level, self.build_level) from None
            else:
                if level != self._spoken_level:
                    if level > self.build_level:
                        raise NewerCacheFlow.wrote(f"entry {index}", level, self.build_level)
                    self._speak(level)
                if contents.now_ms < stamp_ms <= STAMP_MS_MAX:
                    contents.now_ms = stamp_ms
                    if self.idempotency.kept:
                        self.idempotency.drop_due(stamp_ms)
                    if self.scopes.by_id:
                        self.scopes.drop_due(stamp_ms)
                if contents.with_ttl or contents.behind:
                    contents.begin_entry()
                for block in blocks:
                    try:
                        session_id, first, lowest, until_ms, commands = decode_block(block)
                    except CodecError:
                        continue
                    settled.append((session_id, first, self._run_block(session_id, first, lowest, until_ms, commands)))
                if contents.behind:
                    contents.end_entry()
        if effects:
            digest = blake2b(self.digest, digest_size=DIGEST_BYTES)
            packed = self.packed_effects = self._pack(effects)
            digest.update(packed)
            self.digest = digest.digest()
            if len(packed) > PACKER_BYTES_MAX:
                self._pack = msgpack.Packer().pack
        self._note_digest(index)
        self.applied_index = index
        return settled

    def _note_digest(self, index: int) -> None:
        start = index % DIGESTS_KEPT * DIGEST_BYTES
        self._digests[start : start + DIGEST_BYTES] = self.digest

    def _run_block(self, session_id: int, first: int, lowest: int, until_ms: int, commands: list[Any]) -> list[Result]:
        if session_id == 0:
            return self._run_all(commands)
        session = self.sessions.find(session_id)
        if session is None:
            return [[c.UNKNOWN_SESSION] for _ in commands]
        session.answered_below(lowest)
        contents = self.contents
        is_late = 0 < until_ms < contents.now_ms
        read_bytes = contents.read_bytes
        results: list[Result] = []
        if first == session.last + 1:
            results = [[c.TOO_LATE] for _ in commands] if is_late else self._run_all(commands)
            session.last += len(results)
            session.kept.extend(results)
            if contents.read_bytes != read_bytes:
                session.has_read(contents.read_bytes - read_bytes)
            return results
        keep = session.kept.append
        run = self._run
        for number, command in enumerate(commands, first):
            if number == session.last + 1:
                result = [c.TOO_LATE] if is_late else run(command)
                session.last = number
                keep(result)
            elif number <= session.last:
                result = session.kept_result(number) or [c.NOT_KEPT]
            else:
                result = [c.OUT_OF_ORDER, session.last + 1]
            results.append(result)
        if contents.read_bytes != read_bytes:
            session.has_read(contents.read_bytes - read_bytes)
        return results

    def _run_all(self, commands: list[Any]) -> list[Result]:
        results: list[Result] = []
        set_plainly(self.contents, commands, results)
        if not results and len(commands) > 1:
            delete_plainly(self.contents, commands, results)
        if len(results) < len(commands):
            # A block is seldom a mixture: from the first other command on, all go the general way.
            results += [self._run(command) for command in islice(commands, len(results), None)]
        return results

    def _run(self, command: Any) -> Result:
        """Run one command of the log, wholly or not at all, and return its result."""
        revision = self.contents.revision
        try:
            if type(command) is not list or type(command[0]) is not int:
                return [c.MALFORMED, "a command is a list that begins with its number"]
            if command[0] not in self._about_keys:
                return self._others[command[0]](self, command)
            decision = decide(self.contents, command)
        except Malformed as error:
            return [c.MALFORMED, str(error)]
        except (MemoryError, RecursionError):
            # This node's fault and not the command's: the others carry it out.
            raise
        except Exception:
            # Every check comes before the first change. An exception after the first new version is a defect of this
            # machine, not of the command, and half of the command has happened.
            if self.contents.revision != revision:
                raise
            # The message is part of the replicated state and must not depend on the Python that runs here.
            return [c.MALFORMED, "not a well-formed command"]
        return decision if isinstance(decision, list) else carry_out(self.contents, decision)

    # Commands that are not about one key

    def _recency(self, command: list[Any]) -> Result:
        _, uses = command
        if type(uses) is not list or len(uses) > RECENCY_KEYS_MAX:
            raise Malformed(f"recency is a list of at most {RECENCY_KEYS_MAX} keys")
        use = self.contents.use
        for item in uses:
            if type(item) is list and len(item) == 2:
                key, count = item
                if type(key) is str and type(count) is int and count > 0:
                    use(key, min(count, USES_MAX))
        return [c.OK]

    def _delete_prefix(self, command: list[Any]) -> Result:
        _, prefix, only_database_0, counted = command
        if type(prefix) is not str or type(only_database_0) is not bool or type(counted) is not bool:
            raise Malformed("a prefix is a text, with two flags behind it")
        if only_database_0 and prefix:
            raise Malformed("database 0 is cleared as a whole: a prefix needs no other mark")
        if len(prefix) > KEY_BYTES_MAX:
            raise Malformed(f"a prefix is a text of at most {KEY_BYTES_MAX} characters")
        revision = self.contents.condemn(prefix, only_database_0, counted)
        if revision is None:
            return [c.TOO_MANY]
        return [c.SWEEPING, revision] if counted else [c.OK]

    def _configure(self, command: list[Any]) -> Result:
        _, version, by, changes = command
        if version is not None and not is_whole(version, 0):
            raise Malformed("the settings' version is a number from 0 on, or none")
        try:
            settings = changed(self.settings, changes, by, self.now_ms)
        except ValueError as error:
            raise Malformed(str(error)) from None
        if version is not None and version != self.settings.version:
            return [c.PRECONDITION, self.settings.version]
        if settings is not self.settings:
            if settings.policy != self.settings.policy:
                self.contents.set_policy(settings.policy)
            self.settings = settings
            self.contents.effects.append((CONFIGURED, *astuple(settings)))
            self.contents.set_limits(settings.max_items, settings.max_bytes)
        return [c.OK, *astuple(settings)]

    def _members(self, command: list[Any]) -> Result:
        _, cluster_id, rows = command
        self._put_in_force(cluster_id, _table_of(cluster_id, rows))
        self.contents.effects.append((MEMBERS_CHANGED, cluster_id, rows))
        return [c.OK]

    def _recover(self, command: list[Any]) -> Result:
        _, cluster_id, rows, replaced = command
        table = _table_of(cluster_id, rows)
        if type(replaced) is not list or not 0 < len(replaced) <= c.REPLACED_MAX or not all(map(is_name, replaced)):
            raise Malformed("the replaced clusters are not a short list of ids")
        if self.contents.revision > REVISION_MAX:
            raise Malformed("there are no more revisions")
        if cluster_id != self.cluster_id:
            self._put_in_force(cluster_id, table)
            for each in replaced:
                self.replaced.pop(each, None)
                self.replaced[each] = None
            while len(self.replaced) > c.REPLACED_MAX:
                del self.replaced[next(iter(self.replaced))]
            self.contents.raise_versions(c.RECOVERY_RAISE)
            self.contents.effects.append((RECOVERED, cluster_id, rows, replaced, self.contents.revision))
        return [c.OK, self.contents.revision]

    def _put_in_force(self, cluster_id: str, table: dict[str, Member]) -> None:
        for member in self.members.values():
            now = table.get(member.id)
            if now is None or now.incarnation != member.incarnation:
                self.removed[member.id, member.incarnation] = None
                self.sessions.close_of(member.id)
        for member in table.values():
            self.removed.pop((member.id, member.incarnation), None)
        while len(self.removed) > REMOVED_KEPT:
            del self.removed[next(iter(self.removed))]
        self.cluster_id = cluster_id
        self.members = table

    def _raise_level(self, command: list[Any]) -> Result:
        _, level = command
        if type(level) is not int or level < 1:
            raise Malformed("a level is a number from 1 on")
        if level == self.level:
            return [c.OK, level]
        lacking = self.lacks_level(level)
        if level < self.level or lacking is not None:
            return [c.PRECONDITION, self.level, lacking or ""]
        self.level = level
        self.contents.effects.append((LEVEL_RAISED, level))
        return [c.OK, level]

    def _open_session(self, command: list[Any]) -> Result:
        _, member_id, incarnation, start, nonce, level = command
        if not is_name(member_id) or not is_name(incarnation) or not is_name(nonce):
            raise Malformed("a session's member id, incarnation and nonce are short texts")
        if not is_whole(start, 1) or not is_whole(level, 1):
            raise Malformed("a session's start and level are numbers from 1 on")
        member = self.members.get(member_id)
        if member is None or member.incarnation != incarnation:
            return [c.NOT_THIS_START]
        session_id = self.sessions.open(member_id, start, nonce, level)
        return [c.NOT_THIS_START] if session_id is None else [c.OK, session_id, nonce]


# Functions and no bound methods: these would be a cycle, in which a machine that was replaced, with all of its items, waits for a
# pass of the garbage collector over everything.
CacheMachine.other_commands = {
    c.BATCH: lambda machine, command: machine._batches.batch(command),
    c.GUARDED: lambda machine, command: machine._batches.guarded(command),
    c.RECENCY: CacheMachine._recency,
    c.NOOP: lambda machine, command: [c.OK],
    c.IDEMPOTENT: lambda machine, command: idempotent(machine, machine._run, machine._repeatable, command),
    c.SCOPED: lambda machine, command: scoped(machine, machine._run, machine._repeatable, command),
    c.OPEN_SCOPE: open_scope,
    c.DELETE_PREFIX: CacheMachine._delete_prefix,
    c.OPEN_SESSION: CacheMachine._open_session,
    c.CONFIGURE: CacheMachine._configure,
    c.MEMBERS: CacheMachine._members,
    c.RAISE_LEVEL: CacheMachine._raise_level,
    c.RESTORE_BEGIN: begin_restore,
    c.RESTORE_ITEMS: restore_items,
    c.RESTORE_END: end_restore,
    c.RECOVER: CacheMachine._recover,
}


def _table_of(cluster_id: Any, rows: Any) -> dict[str, Member]:
    """Return the member table that a command holds in ``rows``, a list for each member, as {id: Member}.

    Raises Malformed if ``rows`` is no member table or ``cluster_id``, which the command holds as well, is no id.
    """
    if not is_name(cluster_id):
        raise Malformed("the cluster's id is not a short text")
    try:
        return member_table(rows)
    except ValueError as error:
        raise Malformed(str(error)) from None
