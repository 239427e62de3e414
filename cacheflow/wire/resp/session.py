"""RespSession: a RESP connection as its commands see it, with their state and the ways to answer later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from cacheflow.contract import VERSION
from cacheflow.errors import ReplicationError
from cacheflow.wire.connection import Connection
from cacheflow.wire.resp.parser import RequestParser
from cacheflow.wire.resp.replies import NULL, NULL_ARRAY, OK, CommandError, failure
from cacheflow.wire.resp.spec import Queue, Shared, Watched


class RespSession(Connection):
    """The state that commands keep in a RESP connection. See resp_spec.Session.

    queue: the commands since MULTI, None outside a transaction.  refused: one of them was wrong.
    watched: the keys since WATCH, with their versions.
    """

    def __init__(self, service: Shared, number: int, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(service.store, service.request_bytes_max, on_closed)
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
        """Speak RESP2 or RESP3 from now on."""
        self.protocol = protocol
        self.null = NULL[protocol]
        self.null_array = NULL_ARRAY[protocol]

    @property
    def trusted(self) -> bool:
        """True if the client has shown who it is."""
        return self._parser.trusted

    def trust(self, trusted: bool) -> None:
        """Let the client in, or ask it for its password again."""
        self._parser.trusted = trusted
        self.plain = trusted and self.queue is None

    def begin_transaction(self) -> None:
        """Queue commands from now on, after MULTI."""
        self.queue = []
        self.plain = False

    def forget_transaction(self) -> None:
        """Forget the queued commands and the watched keys."""
        self.queue = None
        self.refused = False
        self.watched = {}
        self._queued_bytes = 0
        self.plain = self.trusted

    def watch(self, keys: list[str]) -> None:
        """Note the versions of ``keys`` when the turn comes."""
        watched = self.watched
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
        """Return the connection's line in CLIENT LIST."""
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
        """Reply when all requests before are answered, and handle no request behind this one until then."""
        if self._promises:
            self.exclusive(lambda end: end(self.said(answer)))
        else:
            self.reply(self.said(answer))

    def said(self, answer: Callable[[], bytes]) -> bytes:
        """Return the reply that ``answer`` makes, or the error that it raises."""
        try:
            return answer()
        except CommandError as wrong:
            return wrong.reply
        except ReplicationError as failed_:
            return failure(failed_)


def _address(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?:0"
