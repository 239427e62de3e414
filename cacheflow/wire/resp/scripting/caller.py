"""Caller: answers the commands of a script, by the functions that answer clients, from memory and the script's own writes.

It works in the scripts' thread. What it reads of the node may be read by any thread: entries one by one, the list of keys,
the time, metrics. All that it changes is its own.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Final

from cacheflow.contract import Channels, Done, Entry, Feed, KeysCopy, Tracking
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.language.commands import Command
from cacheflow.machine.language.databases import database_of
from cacheflow.measuring.metrics import Metrics
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.net.slices import Breaks
from cacheflow.results import ClusterSettings
from cacheflow.wire.connection import Connection
from cacheflow.wire.resp.arguments import database_named
from cacheflow.wire.resp.overlay import Overlay
from cacheflow.wire.resp.replies import CommandError, failure
from cacheflow.wire.resp.scans import Scans
from cacheflow.wire.resp.scripting.sandbox import MEMORY_BYTES_MAX
from cacheflow.wire.resp.session import Arguments, RespSession, Spec, no_permission
from cacheflow.wire.streams import Reply

# The most keys that one script names and reads, and that it changes, all of them in one entry: that takes each node 6 ms, half
# of it to see whether what was read is still so.
KEYS_MAX: Final = 2000
CHANGED_MAX: Final = 500
# The longest reply to a script's command: of one that is longer a script has no memory for what it says.
REPLY_BYTES_MAX: Final = MEMORY_BYTES_MAX // 2

UNKNOWN: Final = "ERR Unknown Redis command called from script"
WRONG_COUNT: Final = "ERR Wrong number of args calling Redis command from script"
NOT_ALLOWED: Final = "ERR This Redis command is not allowed from script"
READ_ONLY: Final = "ERR Write commands are not allowed from read-only scripts."


class _OwnKeysToo:
    """A copy, made step by step, of all keys of the cache as a script sees them.

    copied: the copy of the keys in the node's memory, in progress.
    own: a function that returns the keys that only the script has written; they are added at the end.
    """

    def __init__(self, copied: KeysCopy, own: Callable[[], list[str]]) -> None:
        self._copied = copied
        self._own = own

    @property
    def slices(self) -> list[tuple[str, ...]]:
        return self._copied.slices

    @property
    def done(self) -> bool:
        return self._copied.done

    @property
    def still_gathers(self) -> bool:
        return self._copied.still_gathers

    @property
    def has_all(self) -> bool:
        return self._copied.has_all

    def go_on(self) -> tuple[str, ...]:
        some = self._copied.go_on()
        if self._copied.done:
            self._copied.slices.append(tuple(self._own()))
        return some


class _Seen:
    """The cache as a script's commands see it: a node's memory with the script's own writes on top."""

    def __init__(self, store: Store, overlay: Overlay) -> None:
        self._store = store
        self._left = overlay.left
        self._now_ms = overlay.now_ms

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        return self._left[key] if key in self._left else self._store.lookup(key, count=False)

    def peek(self, key: str) -> Entry | None:
        return self.lookup(key)

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        return [self.lookup(key) for key in keys]

    def now_ms(self) -> int:
        return self._now_ms

    def copy_keys(self, give_up: Callable[[list[tuple[str, ...]]], object]) -> KeysCopy:
        return _OwnKeysToo(self._store.copy_keys(give_up), self._own)

    def _own(self) -> list[str]:
        """Return the keys that the script has written and that are not in the node's memory."""
        return [key for key, entry in self._left.items() if entry is not None and not self._holds(key)]

    def live(self, keys: list[str]) -> list[str]:
        return [key for key in keys if self.lookup(key, count=False) is not None]

    def count_of(self, database: int) -> int:
        changes = [
            (entry is not None) - self._holds(key) for key, entry in self._left.items() if database_of(key) == database
        ]
        return self._store.count_of(database) + sum(changes)

    def expiring_of(self, database: int) -> tuple[int, int]:
        return self._store.expiring_of(database)

    def uses_of(self, key: str) -> int | None:
        return self._store.uses_of(key)

    def _holds(self, key: str) -> bool:
        return self._store.lookup(key, count=False) is not None

    @property
    def channels(self) -> Channels:
        return self._store.channels

    @property
    def slow_log(self) -> SlowLog:
        return self._store.slow_log

    @property
    def feed(self) -> Feed:
        return self._store.feed

    @property
    def tracking(self) -> Tracking:
        return self._store.tracking

    def metrics(self) -> Metrics:
        return self._store.metrics()

    def settings(self) -> ClusterSettings:
        return self._store.settings()

    def submit(self, commands: list[Command], done: Done, work: int = 0) -> None:
        raise NotImplementedError("a script's commands replicate nothing by themselves")

    def submit_barrier(self, done: Done) -> None:
        raise NotImplementedError("a script's commands replicate nothing by themselves")


def _free(breaks: Breaks, slices: list[tuple[str, ...]]) -> None:
    """Free the lists of keys ``slices`` one by one; between two of them let the thread of the event loop run."""
    while slices:
        slices.pop()
        breaks.give_way()


def _ignore(connection: Connection) -> None:
    """Do nothing: the callback for the closing of a connection object that a script uses in place of a client's connection."""


class Caller:
    """One attempt to run a script: it answers the commands that the script calls, and gathers the script's reads and writes.

    overlay: what the script has read and will write.  failed: the error for which memory could not be read, None so far.
    writes: True if commands may write.  database: the number of the database that the script's commands are about.
    expired: a function that tells whether the script's time is over.
    """

    def __init__(self, client: RespSession, expired: Callable[[], bool], *, writes: bool) -> None:
        store = client.store
        self.overlay = Overlay(store, store.now_ms(), counts=True)
        self.failed: ReplicationError | None = None
        self.writes = writes
        self.database = 0
        self._bytes_max = client.service.request_bytes_max
        service = copy.copy(client.service)
        service.store = _Seen(store, self.overlay)
        self._expired = expired
        self._breaks = Breaks()
        service.scans = Scans(service.store, functools.partial(_free, self._breaks))
        # A script has one clock, the cluster's, and that stands still.
        now_s = self.overlay.now_ms / 1000
        service.wall = lambda: now_s
        self._session = RespSession(service, client.id, _ignore)
        self._session.role = client.role

    def call(self, words: Arguments) -> bytes:
        """Return the reply, in RESP2, to a command that a script calls; if the command fails, the reply is the error.

        words: the command's words.
        """
        return self._said(self._called, words)

    def answer(self, spec: Spec, words: Arguments, protocol: int) -> bytes:
        """Return the reply to a command of a transaction, encoded in version ``protocol`` (2 or 3) of RESP.

        spec: the command's row in the table of commands.  words: the words of the request.
        """
        self._session.speak(protocol)
        reply = self._said(self._answer, spec, words)
        self._session.speak(2)
        return reply

    def _said(self, answer: Callable[..., bytes], *arguments: object) -> bytes:
        try:
            # Also before the end: what a script has gathered takes memory.
            self.check_size()
            return answer(*arguments)
        except CommandError as wrong:
            return wrong.reply
        except ReplicationError as unreadable:
            self.failed = unreadable
            return failure(unreadable)

    def _called(self, words: Arguments) -> bytes:
        table = self._session.service.table
        spec = table.get(words[0]) or table.get(words[0].lower())
        if spec is None:
            raise CommandError(UNKNOWN)
        if not spec.takes(len(words)):
            raise CommandError(WRONG_COUNT)
        if "noscript" in spec.flags:
            raise CommandError(NOT_ALLOWED)
        if self._session.role < spec.needs:
            raise no_permission(self._session, spec.name, spec.needs)
        if spec.name == "select":
            self.database = database_named(words[1])
        return self._answer(spec, spec.placed_in(self.database, words) if self.database else words)

    def _answer(self, spec: Spec, words: Arguments) -> bytes:
        session, overlay = self._session, self.overlay
        if spec.publishes:
            # What is said cannot be taken back, and a script may begin again, or leave nothing.
            raise CommandError(f"ERR {spec.name.upper()} is not served in scripts")
        if spec.read is not None:
            return self._whole(spec.read(session, overlay.find, words))
        if spec.local is not None:
            return self._whole(spec.local(session, words))
        if spec.plan is None:
            raise CommandError(NOT_ALLOWED)
        if not self.writes:
            raise CommandError(READ_ONLY)
        commands, finish = spec.plan(session, overlay.find, words)
        if any(command[0] not in DECIDE for command in commands):
            raise CommandError(f"ERR {spec.name.upper()} is not served in scripts")
        results = overlay.expect(commands)
        # What is listed next shows what was written.
        session.service.scans.forget_copy()
        return self._whole(finish(results))

    def _whole(self, reply: Reply) -> bytes:
        """Return all bytes of ``reply``, which may be in pieces.

        Raises CommandError if the reply is too long or the script's time is over.
        """
        if isinstance(reply, bytes):
            return reply
        pieces, size = [], 0
        for piece in reply.pieces:
            pieces.append(piece)
            size += len(piece)
            if size > REPLY_BYTES_MAX:
                raise CommandError(f"ERR a reply to a script has at most {REPLY_BYTES_MAX} bytes")
            if self._expired():
                raise CommandError("ERR the script's time is over")
            self._breaks.give_way()
        return b"".join(pieces)

    def check_size(self) -> None:
        """Raise CommandError if the script would write more bytes than a request may bring, or uses too many keys."""
        overlay = self.overlay
        if len(overlay.seen) > KEYS_MAX or len(overlay.left) > CHANGED_MAX:
            raise CommandError(f"ERR a script reads at most {KEYS_MAX} keys, and changes at most {CHANGED_MAX}")
        if overlay.left_bytes > self._bytes_max:
            raise CommandError(f"ERR a script writes at most {self._bytes_max} bytes")
