"""Tracker: how one RESP client is told which of the keys that it has read and keeps have changed (CLIENT TRACKING).

1. The node notes what the client has read (node/tracking.py), or, with BCAST, tells it of all keys under its prefixes.
2. Messages travel as published ones do, in the client's mailbox or in that of the client to which it redirects them; so one
   that takes none is ended. What waits is sent before the client is answered again, and never between a read and its reply.
3. With NOLOOP a client is not told of the versions that its own writes have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from cacheflow.contract import Done, Invalidated, Outcome, Published, Written
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.resp.mailbox import Mailbox, push
from cacheflow.wire.resp.replies import bulk, integer

# Commands that write one key and whose result tells the version that they have made.
_WRITES: Final = frozenset((c.SET, c.INCR, c.APPEND, c.COUNT, c.SET_FIELDS, c.REMOVE_FIELDS, c.COUNT_FIELD))


class Client(Protocol):
    """Interface: the connection of a RESP client that tracks keys, or to which another one redirects its messages."""

    protocol: int
    mailbox: Mailbox | None

    @property
    def user_name(self) -> str: ...

    @property
    def has_subscribed(self) -> bool: ...
    def open_mailbox(self) -> Mailbox: ...


@dataclass
class Options:
    """The options of CLIENT TRACKING.

    redirect: the id of the client that gets the messages, 0 for this one.  broadcast: BCAST.  prefixes: those of BCAST.
    caching: what CLIENT CACHING has said of the next command: True, False, or None.
    """

    redirect: int = 0
    broadcast: bool = False
    opt_in: bool = False
    opt_out: bool = False
    no_loop: bool = False
    prefixes: list[str] = field(default_factory=list)
    caching: bool | None = None

    @property
    def notes(self) -> bool:
        """True if the keys that the client's next command reads are noted."""
        if self.broadcast:
            return False
        if self.opt_in:
            return self.caching is True
        return not (self.opt_out and self.caching is False)

    @property
    def compares(self) -> bool:
        """True if a later answer to the client's next command is compared with what is there by then.

        A client of prefixes, too, has been told before the answer of what makes it wrong.
        """
        return self.broadcast or self.notes


class Tracker:
    """Tells the client of the connection ``client`` which keys have changed that it may keep.

    other: returns the client that has an id, for redirected messages; None if there is none.
    """

    def __init__(self, client: Client, store: Store, options: Options, other: Callable[[int], Client | None]) -> None:
        self.options = options
        # True once the client to which messages are redirected was gone.
        self.is_broken = False
        self._client = client
        self._other = other
        self._tracking = store.tracking
        self._number = self._tracking.begin(self, not options.broadcast)

    def follow(self, prefix: str) -> None:
        """Tell the client of every key that begins with ``prefix``. Raises InvalidRequest if the node has no room for it."""
        self._tracking.follow(self._number, prefix)
        self.options.prefixes.append(prefix)

    def end(self) -> None:
        """Tell the client nothing more."""
        self._tracking.end(self._number, self.options.prefixes)

    def has_read(self, keys: Sequence[str]) -> None:
        """Note that the client is answered with what is under ``keys`` now; nothing has to be noted for one of prefixes."""
        if not self.options.broadcast:
            self._tracking.note(self._number, keys)

    def has_seen(self, seen: Iterable[tuple[str, int, int]]) -> None:
        """Note that the client is answered with what was under keys some time ago.

        seen: each key with the version and the expiry that it had, both 0 if it was absent.
        """
        self._tracking.note_seen(self._number, seen)

    def has_written(self, commands: Sequence[Command], outcome: Outcome) -> None:
        """Note that the client has written ``commands`` itself."""
        if not isinstance(outcome, ReplicationError):
            self._tracking.wrote(self._number, written_in(commands, outcome))

    # What the node asks

    def invalidate(self, message: Invalidated) -> None:
        client = self._receiver()
        if client is None:
            if not self.is_broken:
                self.is_broken = True
                self._say_that_it_is_broken()
        elif client.protocol == 3 or (self.options.redirect and client.has_subscribed):
            client.open_mailbox().take(message, None)

    def write(self) -> None:
        client = self._receiver()
        if client is not None and client.mailbox is not None:
            client.mailbox.write()

    def _receiver(self) -> Client | None:
        if not self.options.redirect:
            return self._client
        other = self._other(self.options.redirect)
        # Which keys there are is nothing for another user.
        return other if other is not None and other.user_name == self._client.user_name else None

    def _say_that_it_is_broken(self) -> None:
        if self._client.protocol == 3:
            message = Published(b"", b"", False)
            message.rendered[3, None] = push(3, bulk(b"tracking-redir-broken"), integer(self.options.redirect))
            self._client.open_mailbox().take(message, None)


class OwnWrites:
    """A store as a client with NOLOOP has it: it tells the client's ``tracker`` what the client has written."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self._store = store
        self._tracker = tracker

    @classmethod
    def over(cls, store: Store, tracker: Tracker) -> Store:
        """Return ``store`` for a client with NOLOOP, which has the tracker ``tracker``."""
        return cast(Store, cls(store, tracker))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def submit(self, commands: list[Command], done: Done, work: int = 0) -> None:
        """Replicate ``commands``; the client's tracker is told of their versions before ``done`` is."""

        def told(outcome: Outcome) -> Callable[[], None]:
            self._tracker.has_written(commands, outcome)
            return done(outcome)

        self._store.submit(commands, told, work)


def written_in(commands: Sequence[Command], results: Sequence[Result]) -> Iterator[Written]:
    """Yield what ``commands``, which had the ``results``, have written: each key, the version, and the version that is left.

    That is 0 where the key was removed, but where that was because its last field was.
    """
    for command, result in zip(commands, results, strict=True):
        if result[0] != c.OK:
            continue
        kind = command[0]
        if kind in (c.BATCH, c.GUARDED):
            yield from written_in(command[2], result[1])
        elif kind == c.DELETE or (kind == c.EXPIRE and len(result) == 2):
            # An EXPIRE with an end that is past removes; any other leaves the version of whoever has written the key.
            yield command[1], result[1], 0
        elif kind in _WRITES:
            yield command[1], result[1], result[1]
