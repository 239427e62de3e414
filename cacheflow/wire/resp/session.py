"""RESP commands: Spec, an entry of the table of commands, and RespSession, the connection as a command sees it.

There are four sorts of commands, by what answers them:

- ``local``: the connection itself.  ``answer(session, arguments)``
- ``read``: memory.  ``answer(session, find, arguments)``; in a transaction that writes, ``find`` looks at what the
  entry of the log found instead.
- ``plan``: the log.  ``plan(session, find, arguments)`` names the commands of the machine and how their results read.
  With ``steps`` it looks at memory first (through ``find``, which notes what was read), and its commands take place only
  if that still holds.
- ``control``: the connection's own state; ``control(connection, arguments)`` replies by itself. Beside ``local`` or
  ``read`` it answers outside of transactions, and these inside.

``arguments`` begin with the command's name. All of them raise CommandError.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Protocol

from cacheflow.access.roles import DEFAULT_NAME, Role, User
from cacheflow.access.users import Access
from cacheflow.contract import CHANNEL, PATTERN, SHARD, Entry
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine.language.commands import FIELDS_AT_ONCE_MAX, Command, Result
from cacheflow.machine.language.databases import PREFIXES
from cacheflow.measuring.request_times import RequestTimes
from cacheflow.net.slices import Slices
from cacheflow.wire.connection import Connection
from cacheflow.wire.measured import shown_address
from cacheflow.wire.optimistic import Condition, unchanged
from cacheflow.wire.resp.arguments import PlacedRequest, keys_of, placed
from cacheflow.wire.resp.command_stats import CommandStats
from cacheflow.wire.resp.mailbox import Mailbox
from cacheflow.wire.resp.notifications import Notifications
from cacheflow.wire.resp.parser import RequestParser
from cacheflow.wire.resp.replies import NULL, NULL_ARRAY, OK, CommandError, failure, outcome_of
from cacheflow.wire.resp.scans import GivenUp, Scans
from cacheflow.wire.resp.scripting.scripts import Scripts
from cacheflow.wire.resp.tracking import Options, OwnWrites, Tracker
from cacheflow.wire.streams import Reply, Stream

# The longest request has room for some values of the largest size, in an entry that still fits into one message between
# nodes.
REQUEST_BYTES_MIN: Final = 5 * 1024 * 1024
REQUEST_BYTES_MAX: Final = 65 * 1024 * 1024
VALUES_IN_REQUEST: Final = 4

# The most keys or channels of one request, and the most keys of a transaction that only reads; the most that one entry of the log
# writes; that it removes; that it compares; and the most words of a request that has no list. Each is some milliseconds of work
# that cannot be cut in slices.
KEYS_MAX: Final = 5000
WRITES_MAX: Final = 1000
REMOVED_MAX: Final = 1000
WATCHED_MAX: Final = 1000
WORDS_MAX: Final = 128

Arguments = list[bytes]


class Find(Protocol):
    """Interface: a function that looks up a key and returns its live entry, or None.

    count: True if the look-up counts as a use of the key.
    """

    def __call__(self, key: str, *, count: bool = True) -> Entry | None: ...


Finish = Callable[[Sequence[Result]], Reply]
Plan = tuple[Sequence[Command], Finish]

Local = Callable[["RespSession", Arguments], Reply]
Read = Callable[["RespSession", Find, Arguments], Reply]
Planner = Callable[["RespSession", Find, Arguments], Plan]
Control = Callable[["RespSession", Arguments], None]


@dataclass(frozen=True, slots=True)
class Spec:
    """One Redis command in the table of the commands that are served: its name, its description and what answers it.

    arity: the number of words, with the command's name; negative for "at least".
    keys: positions of the first and last key (negative: from the end) and their step, as in Redis' COMMAND.
    counted: where a request says how many keys it has, the position of that number; else 0.
    local, read, plan: one of them answers, from the connection's own state, from memory, or through the log.
    control: where given, a function that answers instead of these outside of transactions, in a way of its own.
    steps: True if ``plan`` looks at memory first, and the writes take place only if what was seen there still holds.
    publishes: True if the command sends other clients a message, which needs the role that a write does, though Redis' flags
    of the command do not say so.
    script: True if the command runs a script: in a transaction, EXEC runs it among the other commands.
    names: where the request has a list of channels, the position of the first; else 0.
    fields: where the request lists a hash's fields or a set's members, how many words each has: 2 with its value; else 0.
    """

    name: str
    arity: int
    summary: str
    _: KW_ONLY
    group: str
    flags: tuple[str, ...] = ()
    # The role that a client needs, by the sort of the command and the flags ``no_auth``, ``write`` and ``admin``.
    needs: Role = field(init=False, default=Role.READ)
    keys: tuple[int, int, int] = (0, 0, 0)
    counted: int = 0
    local: Local | None = None
    read: Read | None = None
    plan: Planner | None = None
    steps: bool = False
    publishes: bool = False
    control: Control | None = None
    script: bool = False
    names: int = 0
    fields: int = 0

    def __post_init__(self) -> None:
        writes = self.plan is not None or self.publishes or "write" in self.flags
        needs = Role.ADMIN if "admin" in self.flags else Role.WRITE if writes else Role.READ
        object.__setattr__(self, "needs", Role.NOBODY if "no_auth" in self.flags else needs)

    def takes(self, count: int) -> bool:
        """True if a request for this Redis command may have ``count`` words, with the command's name."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    @property
    def keys_max(self) -> int:
        """The most keys that a request for this Redis command may name; 0 if it has no list of keys."""
        _, last, step = self.keys
        if last >= 0:
            return 0
        return WRITES_MAX if step > 1 else KEYS_MAX if self.plan is None else REMOVED_MAX

    @property
    def words_max(self) -> int:
        """The most words that a request for this Redis command may have, with the command's name."""
        first, _, step = self.keys
        if self.names:
            return self.names + KEYS_MAX
        if self.script:
            return KEYS_MAX
        if self.fields:
            return 2 + self.fields * FIELDS_AT_ONCE_MAX
        return first + self.keys_max * step if self.keys_max else WORDS_MAX

    def keys_in(self, arguments: Arguments) -> list[bytes]:
        """Return those words of a request that are keys. arguments: all words of the request, with the command's name.

        The positions of keys stand in this command's row of the table of commands.
        """
        first, last, step = self.keys
        end = (last if last >= 0 else len(arguments) + last) + 1
        return arguments[first : self._end_in(arguments) if self.counted else end : step] if first else []

    def placed_in(self, database: int, arguments: Arguments) -> Arguments:
        """Return ``arguments``, the words of a request, with the prefix of ``database``, above 0, before each of the keys.

        The keys of a script stay as they are. Raises CommandError for a word that is no key.
        """
        first, last, step = self.keys
        words = PlacedRequest(arguments, database)
        # A script is shown its keys as they were sent: each command in it is placed.
        if first and not self.script:
            end = self._end_in(words) if self.counted else (last if last >= 0 else len(words) + last) + 1
            for position in range(first, min(end, len(words)), step):
                words[position] = placed(words[position], database)
        return words

    def _end_in(self, arguments: Arguments) -> int:
        """Return the position behind the last key in a request that says how many keys it has.

        If the number in the request is wrong, return the position of the first key.  arguments: the words of the request.
        """
        number = arguments[self.counted]
        count = int(number) if number.isdigit() and len(number) < 10 else 0
        return self.keys[0] + count if self.keys[0] + count <= len(arguments) else self.keys[0]

    @property
    def reads_keys(self) -> bool:
        """True if this Redis command is about keys of the selected database, some that it names or all."""
        return self.group != "connection" and bool(self.keys[0] or self.read or self.plan or self.script)


# The commands since MULTI.
Queue = list[tuple[Spec, Arguments]]
# Key -> what EXEC needs it to be, as it was at WATCH; None until the turn of WATCH has come.
Watched = dict[str, "Condition | None"]


class Shared:
    """The settings, scans, scripts and counters that all RESP connections of one port share. The event loop owns it.

    table: the commands that are served, by name.  access: the users, None if nobody has to show a token.
    wall: returns the wall clock's time, in seconds since 1970.
    slices: the queue of long work that is done in slices, shared with other ports of the event loop.
    """

    def __init__(
        self,
        store: Store,
        table: Mapping[bytes, Spec],
        *,
        access: Access | None,
        value_bytes_max: int,
        wall: Callable[[], float] = time.time,
        slices: Slices | None = None,
    ) -> None:
        self.store = store
        # Where answered requests are counted, with the time that their answers took.
        self.times = RequestTimes("resp", store.slow_log)
        self.slices = Slices() if slices is None else slices
        self.table = table
        self.access = access
        self.limit_values(value_bytes_max)
        self.wall = wall
        self.scans = Scans(store, GivenUp(self.slices).take)
        self.scripts = Scripts()
        self.notifications = Notifications(store, self.slices)
        self.connections: dict[int, RespSession] = {}
        self.accepted = 0
        # Requests of the connections that are closed, and what the counters in INFO were at CONFIG RESETSTAT.
        self.requests_before = 0
        self.stats_before: dict[str, int] = {}
        self.commands_before: dict[str, CommandStats] = {}
        self.started_at = wall()
        self.run_id = os.urandom(20).hex()

    def limit_values(self, bytes_max: int) -> int:
        """Take values of up to ``bytes_max`` bytes from now on; return the most bytes of a request, which follows from that."""
        self.value_bytes_max = bytes_max
        self.request_bytes_max = min(max(REQUEST_BYTES_MIN, VALUES_IN_REQUEST * bytes_max), REQUEST_BYTES_MAX)
        return self.request_bytes_max

    def wall_ms(self) -> int:
        """Return this node's wall clock in milliseconds since 1970, by which expiry times in Redis commands are counted."""
        return int(self.wall() * 1000)

    @property
    def requests(self) -> int:
        """The number of requests that this port's clients have sent so far."""
        # A copy, because a script's thread asks as well.
        return self.requests_before + sum([connection.requests for connection in list(self.connections.values())])

    @property
    def stranger(self) -> Role:
        """The role of a client that has shown no token."""
        return Role.ADMIN if self.access is None else Role.NOBODY

    def user_of(self, name: bytes, token: bytes) -> User | None:
        """Return the user with the ``name`` and ``token`` that an AUTH gives, or None; the name ``default`` fits any user."""
        user = None if self.access is None else self.access.user_of(token)
        return user if user is not None and name in (DEFAULT_NAME.encode(), user.name.encode()) else None

    def refused(self, role: bool = False) -> None:
        """Count a refused request. role: True if the user's role forbids it, False if the client has shown no known token."""
        if self.access is not None:
            self.access.refuse("resp", role)


class RespSession(Connection):
    """A client's RESP connection as the functions that answer commands see it, with its state between requests.

    user: the user whose token this client has shown, None before that.  role: what this client may do.
    database: the number of this connection's database.
    selected: the number of the database that the next request is about: another one behind a SELECT in a transaction, and None
    behind a SELECT that failed, until a SELECT succeeds.
    queue: the commands since MULTI, None outside a transaction.  refused: True if one of these commands was wrong.
    watched: key -> the condition that the key is as it was at WATCH, for every watched key.
    mailbox: the client's subscriptions, None before the first.  tracker: tells it which keys have changed; None without tracking.
    confined: True if the client has subscriptions and speaks RESP2, in which the replies to most commands could not be told
    from published messages.
    """

    def __init__(self, service: Shared, number: int, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(service.store, service.request_bytes_max, on_closed, service.slices, service.times)
        self.service: Shared = service
        self.id = number
        self.name = ""
        self.library: dict[str, str] = {}
        # The latest command that was noted, as the client spelled it, and how many requests there were by then. Plain GETs are
        # not noted, which would cost them more than it tells.
        self.called = b""
        self.called_at = 0
        self.queue: Queue | None = None
        self.refused = False
        self.watched: Watched = {}
        self.mailbox: Mailbox | None = None
        self.tracker: Tracker | None = None
        self.confined = False
        self.database = 0
        self.selected: int | None = 0
        # True if this client may read, no transaction gathers, database 0 is selected, and all commands are allowed.
        self.plain = False
        # True if the client may write as well.
        self.plain_writes = False
        # Where this client may read, and no transaction gathers, in a database above 0: the prefix of its keys.
        self.prefix = ""
        self.user: User | None = None
        self.role = Role.NOBODY
        self._queued_bytes = 0
        self._since = service.wall()
        self._parser = RequestParser(service.request_bytes_max, trusted=False)
        self.speak(2)
        self.admit(None)

    def take_requests_of(self, bytes_max: int) -> None:
        super().take_requests_of(bytes_max)
        self._parser.take_requests_of(self._request_bytes_max)

    def speak(self, protocol: int) -> None:
        """Use version 2 or 3 of RESP, given by ``protocol``, for all further replies to this client."""
        self.protocol = protocol
        self.null = NULL[protocol]
        self.null_array = NULL_ARRAY[protocol]
        if self.mailbox is not None:
            self.confine()

    def confine(self) -> None:
        """Allow this client only a RESP2 subscriber's commands if it has subscriptions and speaks RESP2, else all commands."""
        self.confined = self.protocol == 2 and self.has_subscribed
        self._choose_ways()

    def open_mailbox(self) -> Mailbox:
        """Return the mailbox of this client, in which messages wait for it."""
        if self.mailbox is None:
            self.mailbox = Mailbox(self, self.store.channels)
            self._choose_pushes()
        return self.mailbox

    def forget_subscriptions(self) -> None:
        """End all of this client's subscriptions; published messages that still wait for the client are not sent."""
        self.end_tracking()
        mailbox, self.mailbox = self.mailbox, None
        if mailbox is not None:
            mailbox.close()
            self._choose_pushes()
            self.confine()

    def admit(self, user: User | None) -> None:
        """Treat this client as ``user``, whose token it has shown; if that is None, as a client that has shown no token.

        A client that may read nothing is sent no published messages either: its subscriptions end.
        """
        self.user = user
        self.role = self.service.stranger if user is None else user.role
        self._parser.trusted = self.role >= Role.READ
        if self.role < Role.READ:
            self.forget_subscriptions()
        self._choose_ways()

    def _choose_ways(self) -> None:
        unqueued = self.role >= Role.READ and self.queue is None and not self.confined
        options = None if self.tracker is None else self.tracker.options
        # Whose reads are noted goes the general way with them, and with everything when CLIENT CACHING is about the next command.
        notes = options is not None and not options.broadcast
        plain = unqueued and self.selected == 0 and (options is None or options.caching is None)
        self.plain = plain and not notes
        self.plain_writes = plain and self.role >= Role.WRITE
        self.prefix = PREFIXES[self.selected] if unqueued and self.selected and not notes else ""

    # Tracking -----------------------------------------------------------------------------------------------------------

    def track(self, options: Options) -> None:
        """Tell this client from now on which keys have changed that it may keep, as ``options`` say."""
        if self.tracker is None:
            self.tracker = Tracker(self, self.service.store, options, self.service.connections.get)
        self.tracker.options = options
        self.tracker.is_broken = False
        self.store = OwnWrites.over(self.service.store, self.tracker) if options.no_loop else self.service.store
        self._choose_ways()
        self._choose_pushes()

    def end_tracking(self) -> None:
        """Tell this client no more which keys have changed."""
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            tracker.end()
            self.store = self.service.store
            self._choose_ways()
            self._choose_pushes()
            if self.mailbox is not None:
                # What has waited for replies in the middle of which it might not be sent.
                self.mailbox.go_on()

    def _choose_pushes(self) -> None:
        # What has changed before answers are made comes before them.
        self._pushes = None if self.tracker is None else self.mailbox

    def cache_next(self, caching: bool | None) -> None:
        """Note the reads of this client's next command if ``caching`` is true; None: as its tracking does by itself."""
        if self.tracker is not None and self.tracker.options.caching is not caching:
            self.tracker.options.caching = caching
            self._choose_ways()

    @property
    def notes(self) -> bool:
        """True if the keys that this client's present command reads are noted for its tracking."""
        return self.tracker is not None and self.tracker.options.notes

    @property
    def compares(self) -> bool:
        """True if what a later answer to this client's present command tells is compared with what is there by then."""
        return self.tracker is not None and self.tracker.options.compares

    def has_read(self, raws: list[bytes]) -> None:
        """Note for this client's tracking that it is answered with what is under the keys ``raws`` now."""
        if self.tracker is not None:
            try:
                keys = keys_of(raws)
            except CommandError:
                # What is no key has no changes; all others have.
                keys = []
                for raw in raws:
                    with contextlib.suppress(CommandError):
                        keys += keys_of([raw])
            self.tracker.has_read(keys)

    def has_seen(self, conditions: Iterable[Condition]) -> None:
        """Note for this client's tracking that it is answered with what it saw when ``conditions`` held of keys."""
        if self.tracker is not None:
            self.tracker.has_seen(conditions)

    def is_admitted(self) -> bool:
        return self.user is None or self.service.access is None or self.service.access.is_current(self.user)

    def use_database(self, database: int) -> None:
        """Make ``database`` the number of the database that this client's further requests are about."""
        self.database = self.selected = database
        self._choose_ways()

    def leave_database(self) -> None:
        """Leave this client without a database: its requests about keys are refused until a database is selected."""
        self.selected = None
        self._choose_ways()

    def begin_transaction(self) -> None:
        """Begin a transaction for MULTI: queue all further commands of this client until EXEC or DISCARD."""
        self.queue = []
        self._choose_ways()

    def forget_transaction(self) -> None:
        """End this client's transaction: drop the queued commands and the watched keys."""
        self.queue = None
        self.refused = False
        self.watched = {}
        self._queued_bytes = 0
        self._count_kept()
        if self.selected is not None:
            self.selected = self.database
        self._choose_ways()

    def _count_kept(self) -> None:
        """Report to the transport how many bytes this connection keeps: an incomplete request, and commands since MULTI."""
        self._hold(self._parser.kept_bytes + self._queued_bytes)

    def watch(self, keys: list[str]) -> None:
        """Answer WATCH with OK, once all earlier requests are answered; note the entries of ``keys``, which EXEC compares."""
        watched = self.watched
        if len(watched) + len(keys) > WATCHED_MAX and len({*watched, *keys}) > WATCHED_MAX:
            raise CommandError(f"ERR at most {WATCHED_MAX} keys can be watched at once")
        for key in keys:
            watched.setdefault(key, None)

        def look() -> bytes:
            for key in keys:
                if watched[key] is None:
                    watched[key] = unchanged(key, self.store.lookup(key, count=False))
            return OK

        self.read(functools.partial(self.said, look))

    @property
    def has_subscribed(self) -> bool:
        """True if this client has subscribed to channels."""
        return self.mailbox is not None and self.mailbox.subscriptions > 0

    @property
    def own_address(self) -> str:
        """The address of this node that the client is connected to."""
        return shown_address(self._transport.get_extra_info("sockname"))

    @property
    def user_name(self) -> str:
        """The name of this client's user; ``default`` if the client has shown no token."""
        return DEFAULT_NAME if self.user is None else self.user.name

    def describe(self) -> str:
        """Return this connection's line in the reply to CLIENT LIST."""
        names = {} if self.mailbox is None else self.mailbox.names
        fields = {
            "id": self.id,
            "addr": self.address,
            "laddr": self.own_address,
            "name": self.name,
            "age": int(self.service.wall() - self._since),
            "db": self.database,
            "sub": len(names.get(CHANNEL, ())),
            "psub": len(names.get(PATTERN, ())),
            "ssub": len(names.get(SHARD, ())),
            "multi": -1 if self.queue is None else len(self.queue),
            "cmd": self.called.decode().lower() if self.called_at == self.requests else "get",
            "user": self.user_name,
            "resp": self.protocol,
            "lib-name": self.library.get("lib-name", ""),
            "lib-ver": self.library.get("lib-ver", ""),
        }
        return " ".join([f"{name}={value}" for name, value in fields.items()])

    # Subscriptions: what a mailbox asks ---------------------------------------------------------------------------------

    @property
    def is_stalled(self) -> bool:
        """True while no message may be sent: the client's socket takes no more bytes, or the client has a part of a reply."""
        # Behind a part of a message nothing may come but its rest, also where a reply was made since.
        if self._stalled or not self._promises or (self.mailbox is not None and self.mailbox.has_begun):
            return self._stalled
        made = self._promises[0].answer
        if self.tracker is None:
            return isinstance(made, Stream)
        # A reply that is made and not sent may hold what a message to a tracking client says is changed since. So may the
        # finished write of one that keeps what it writes; others are told of a change before the write is answered.
        return isinstance(made, Stream | bytes) or (self.tracker.options.no_loop and isinstance(made, tuple))

    def stream_ended(self) -> None:
        if self.mailbox is not None:
            self.flush()
            self.mailbox.write()

    def write_pushes(self, data: bytes) -> None:
        """Write ``data``, published messages or a part of one, to the client's socket, behind all finished replies."""
        if not self._transport.is_closing():
            self.flush()
            self._transport.write(data)

    def resume_writing(self) -> None:
        self._stalled = False
        # The client may have a part of a message: nothing may come before the rest of it.
        if self.mailbox is None or self.mailbox.go_on():
            super().resume_writing()

    def finish(self) -> None:
        # The end may wait for a client that does not read, and who was taken out is told nothing that comes later.
        if self.mailbox is not None:
            self.mailbox.leave()
        self.end_tracking()
        super().finish()

    def connection_lost(self, error: Exception | None) -> None:
        self.forget_subscriptions()
        super().connection_lost(error)

    # Measuring --------------------------------------------------------------------------------------------------------

    FAILURES = b"-"

    def outcome(self, reply: bytes) -> str:
        return outcome_of(reply)

    def outcomes(self, command: str, reply: bytes, count: int) -> list[tuple[str, int]]:
        if command != "set" or count == 1 or b"-" not in reply:
            return [(outcome_of(reply), count)]
        # A row of SETs, some of which were refused: a reply is a line.
        return [(outcome_of(line), 1) for line in reply.splitlines()]

    def key_bytes(self, command: str, about: Arguments | str | bytes) -> int | None:
        """Return the length of the first key in ``about``: the words of a request, or a key; None if there is none."""
        if isinstance(about, str):
            return len(about.encode())
        if isinstance(about, bytes):
            return len(about)
        spec = self.service.table.get(command.encode())
        keys = spec.keys_in(about) if spec is not None and spec.takes(len(about)) else []
        return len(keys[0]) if keys else None

    # Answers ----------------------------------------------------------------------------------------------------------

    def in_turn(self, answer: Callable[[], bytes]) -> None:
        """Answer a client's request with what the function ``answer`` returns, once all earlier requests are answered.

        No later request of the client is handled before.
        """
        if self._promises:
            self.exclusive(lambda end: end(self.said(answer)))
        else:
            self.reply(self.said(answer))

    def said(self, answer: Callable[[], bytes]) -> bytes:
        """Return the RESP reply that the function ``answer`` makes.

        If it raises CommandError or ReplicationError, return the error reply for that.
        """
        try:
            return answer()
        except CommandError as wrong:
            return wrong.reply
        except ReplicationError as failed_:
            return failure(failed_)


def wrong_arity(name: str) -> str:
    """Return Redis' error message for a wrong number of arguments to the command ``name``."""
    return f"ERR wrong number of arguments for '{name}' command"


def no_permission(session: RespSession, name: str, needs: Role) -> CommandError:
    """Return Redis' error for the command ``name``, which the client ``session`` may not give, and count the refusal.

    needs: the role that the command needs.
    """
    session.service.refused(role=True)
    return CommandError(
        f"NOPERM this user has no permissions to run the '{name}' command: it needs the role {needs.word}"
    )
