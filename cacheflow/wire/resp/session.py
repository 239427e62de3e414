"""RESP commands: Spec, an entry of the table of commands, and RespSession, the connection as a command sees it.

There are four sorts of commands, by what answers them:

- ``local``: the connection itself.  ``answer(session, arguments)``
- ``read``: memory.  ``answer(session, find, arguments)``; in a transaction that writes, ``find`` looks at what the
  entry of the log found instead.
- ``plan``: the log.  ``plan(session, find, arguments)`` names the commands of the machine and how their results read.
  With ``steps`` it looks at memory first (through ``find``, which notes what was read), and its commands take place only
  if that still holds.
- ``control``: the connection's own state; ``control(connection, arguments)`` replies by itself.

``arguments`` begin with the command's name. All of them raise CommandError.
"""

from __future__ import annotations

import functools
import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Protocol

from cacheflow.contract import VERSION, Entry
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import Connection
from cacheflow.wire.resp.parser import RequestParser
from cacheflow.wire.resp.replies import NULL, NULL_ARRAY, OK, CommandError, failure
from cacheflow.wire.resp.scans import Scans
from cacheflow.wire.slices import Slices
from cacheflow.wire.streams import Reply

# The longest request has room for some values of the largest size, in an entry that still fits into one message between
# nodes.
REQUEST_BYTES_MIN: Final = 5 * 1024 * 1024
REQUEST_BYTES_MAX: Final = 65 * 1024 * 1024
VALUES_IN_REQUEST: Final = 4

# The most keys of one request, and of a transaction that only reads; the most that one entry of the log writes; that it compares;
# and the most words of a request that has no list of keys. Each is some milliseconds of work that cannot be cut in slices.
KEYS_MAX: Final = 5000
WRITES_MAX: Final = 1000
WATCHED_MAX: Final = 2000
WORDS_MAX: Final = 128

Arguments = list[bytes]


class Find(Protocol):
    """Interface: a function that returns the live entry of a key, or None. count: True if the look-up counts as a use."""

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
    local, read, plan, control: functions that answer the command: by the connection itself, from memory, through the log,
    or in a way of their own.
    steps: True if ``plan`` looks at memory first, and its writes take place only if what it saw still holds.
    """

    name: str
    arity: int
    summary: str
    _: KW_ONLY
    group: str
    flags: tuple[str, ...] = ()
    keys: tuple[int, int, int] = (0, 0, 0)
    local: Local | None = None
    read: Read | None = None
    plan: Planner | None = None
    steps: bool = False
    control: Control | None = None

    def takes(self, count: int) -> bool:
        """True if a request for this Redis command may have ``count`` words, with the command's name."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    @property
    def keys_max(self) -> int:
        """The most keys that a request for this Redis command may name; 0 if it has no list of keys."""
        _, last, step = self.keys
        return 0 if last >= 0 else KEYS_MAX if step == 1 else WRITES_MAX

    @property
    def words_max(self) -> int:
        """The most words that a request for this Redis command may have, with the command's name."""
        first, _, step = self.keys
        return first + self.keys_max * step if self.keys_max else WORDS_MAX

    def keys_in(self, arguments: Arguments) -> list[bytes]:
        """Return those words of a request that are keys. arguments: all words of the request, with the command's name.

        The positions of keys stand in this command's row of the table of commands.
        """
        first, last, step = self.keys
        return arguments[first : (last if last >= 0 else len(arguments) + last) + 1 : step] if first else []


# The commands since MULTI.
Queue = list[tuple[Spec, Arguments]]
# Key -> its version at WATCH; 0 for an absent key, None until the turn of WATCH has come.
Watched = dict[str, "int | None"]


class Shared:
    """The settings, scans and figures that all RESP connections of one port share. The event loop owns it.

    table: the commands that are served, by name.  token: the password for AUTH, None for no password.
    wall: returns the wall clock's time, in seconds since 1970.  slices: for long work, shared with other ports of the loop.
    """

    def __init__(
        self,
        store: Store,
        table: Mapping[bytes, Spec],
        *,
        token: bytes | None,
        value_bytes_max: int,
        wall: Callable[[], float] = time.time,
        slices: Slices | None = None,
    ) -> None:
        self.store = store
        self.slices = Slices() if slices is None else slices
        self.table = table
        self.token = token
        self.value_bytes_max = value_bytes_max
        self.request_bytes_max = min(max(REQUEST_BYTES_MIN, VALUES_IN_REQUEST * value_bytes_max), REQUEST_BYTES_MAX)
        self.wall = wall
        self.scans = Scans(store)
        self.connections: dict[int, RespSession] = {}
        self.accepted = 0
        self.started_at = wall()
        self.run_id = os.urandom(20).hex()

    def wall_ms(self) -> int:
        """Return this node's wall clock in milliseconds since 1970, by which expiry times in Redis commands are counted."""
        return int(self.wall() * 1000)

    def admits(self, user: bytes, password: bytes) -> bool:
        """True if ``user`` and ``password`` of an AUTH are right. The comparison takes equally long whatever is wrong."""
        right = hmac.compare_digest(password, self.token or b"")
        return right and user == b"default" and self.token is not None


class RespSession(Connection):
    """A RESP connection as the commands' functions see it, with the state that they keep in it between requests.

    queue: the commands since MULTI, None outside a transaction.  refused: True if one of those was wrong.
    watched: key -> its version at WATCH, for every watched key.
    """

    def __init__(self, service: Shared, number: int, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(service.store, service.request_bytes_max, on_closed, service.slices)
        self.service: Shared = service
        self.id = number
        self.name = ""
        self.library: dict[str, str] = {}
        self.queue: Queue | None = None
        self.refused = False
        self.watched: Watched = {}
        # True if no password is missing and no transaction gathers.
        self.plain = False
        self._queued_bytes = 0
        self._since = service.wall()
        self._parser = RequestParser(service.request_bytes_max, trusted=False)
        self.speak(2)
        self.trust(service.token is None)

    def speak(self, protocol: int) -> None:
        """Use version 2 or 3 of RESP, given by ``protocol``, for all further replies to this client."""
        self.protocol = protocol
        self.null = NULL[protocol]
        self.null_array = NULL_ARRAY[protocol]

    @property
    def trusted(self) -> bool:
        """True if this client may use all commands: it has authenticated, or need not."""
        return self._parser.trusted

    def trust(self, trusted: bool) -> None:
        """Treat this client as authenticated if ``trusted`` is true; otherwise require its password again."""
        self._parser.trusted = trusted
        self.plain = trusted and self.queue is None

    def begin_transaction(self) -> None:
        """Begin a transaction for MULTI: queue all further commands of this client until EXEC or DISCARD."""
        self.queue = []
        self.plain = False

    def forget_transaction(self) -> None:
        """End this client's transaction: drop the queued commands and the watched keys."""
        self.queue = None
        self.refused = False
        self.watched = {}
        self._queued_bytes = 0
        self.plain = self.trusted

    def watch(self, keys: list[str]) -> None:
        """Answer WATCH with OK: note the versions that ``keys`` have when all earlier requests of this client are answered."""
        watched = self.watched
        if len(watched) + len(keys) > WATCHED_MAX and len({*watched, *keys}) > WATCHED_MAX:
            raise CommandError(f"ERR at most {WATCHED_MAX} keys can be watched at once")
        for key in keys:
            watched.setdefault(key, None)

        def look() -> bytes:
            for key in keys:
                if watched[key] is None:
                    entry = self.store.lookup(key, count=False)
                    watched[key] = 0 if entry is None else entry[VERSION]
            return OK

        self.read(functools.partial(self.said, look))

    def describe(self) -> str:
        """Return this connection's line in the reply to CLIENT LIST."""
        peer, own = (self._transport.get_extra_info(name) for name in ("peername", "sockname"))
        fields = {
            "id": self.id,
            "addr": _address(peer),
            "laddr": _address(own),
            "name": self.name,
            "age": int(self.service.wall() - self._since),
            "db": 0,
            "multi": -1 if self.queue is None else len(self.queue),
            "user": "default",
            "resp": self.protocol,
            "lib-name": self.library.get("lib-name", ""),
            "lib-ver": self.library.get("lib-ver", ""),
        }
        return " ".join([f"{name}={value}" for name, value in fields.items()])

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


def _address(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?:0"
