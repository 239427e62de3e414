"""Watches: clients that follow the changes of keys over HTTP, as server-sent events, on the node's own event loop.

1. A watch holds no thread. The HTTP server lets go of its connection when the request is understood, and the poller that serves
   the wire ports has it from then on (net/poller.py).
2. What a client does not take stays in the feed, not here (node/feed.py): its transport keeps 64 KiB at most and what comes at
   once. A client that is so slow that the feed has forgotten what comes next is told ``gone``, and ended.
3. A quiet watch is told now and then how far it is, so that it can go on from there however long nothing happens to its keys.
4. A node that could not be asked for reads, or that hears no leader, ends its watches: clients go on at another node.

The event loop owns a ``Watches`` and its connections; any thread may call ``check_room``, ``begin`` and ``recheck``.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from json.encoder import encode_basestring as json_string
from typing import Any, Final, cast

from cacheflow.access.roles import User
from cacheflow.access.users import Access
from cacheflow.contract import Told, Watching
from cacheflow.errors import NotReady, Overloaded, PositionGone
from cacheflow.rest.answers import seconds_json
from cacheflow.rest.problems import PROBLEM_TYPE, Problem, problem_bytes, urn_of
from cacheflow.rest.request.auth import unauthorized
from cacheflow.rest.server.suspending import Answered

# The most watches of a node: each costs a descriptor and some kilobytes.
WATCHES_MAX: Final = 2048
# Seconds between two looks at whether this node may tell changes, and the looks from one sign of life to the next: proxies close
# what is silent for a minute or less.
LOOK_EVERY_S = 1.0
LOOKS_A_BEAT = 10

Headers = list[tuple[str, str]]


class Watches:
    """Keeps the watches of a node: the HTTP connections on which clients are told changes of keys.

    access: the users; None where nobody has to show a token.
    """

    def __init__(self, watching: Watching, access: Access | None) -> None:
        self._watching = watching
        self._access = access
        self._connections: dict[Watch, None] = {}
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None
        # Those who are still to be given a sign of life.
        self._due: deque[Watch] = deque()

    def check_room(self) -> None:
        """Raise Overloaded if this node has as many clients' watches as it may have."""
        if len(self._connections) >= WATCHES_MAX:
            raise Overloaded(f"this node has {WATCHES_MAX} watches already; ask another one")

    def begin(
        self, sock: Any, prefix: str, since: str | None, user: User | None, headers: Headers, answered: Answered
    ) -> None:
        """Tell the client on the connection ``sock`` all changes of keys that begin with ``prefix``; the request was checked.

        since: the position after which changes are told; None: from now on.  user: the user whose token the client has shown.
        headers: the answer's HTTP headers.  answered: is called with the answer's status and the length of its body, which is 0
        for changes: these end when the client leaves, or the node.
        """
        self._watching.adopt(sock, lambda: Watch(self, self._watching, prefix, since, user, headers, answered))

    def recheck(self) -> None:
        """End the watches of users who were removed or changed. To be called on the event loop."""
        for watch in list(self._connections):
            if not self.is_admitted(watch.user):
                watch.end()

    def is_admitted(self, user: User | None) -> bool:
        """True if ``user``, whose token a client has shown, was not removed or changed since. To be called on the event loop."""
        return self._access is None or user is None or self._access.is_current(user)

    def came(self, watch: Watch) -> None:
        """Add ``watch``, which begins, to the watches of this node; begin to look after them if it is the first one."""
        self._connections[watch] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def went(self, watch: Watch) -> None:
        """Remove ``watch``, whose connection has ended, from the watches of this node."""
        self._connections.pop(watch, None)

    def _look(self) -> None:
        self._timer = None
        if not self._connections:
            return
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        self._watching.feed.look()
        try:
            self._watching.check()
        except NotReady:
            self._each_in_turn(Watch.end)
            return
        self._looks += 1
        if self._looks % LOOKS_A_BEAT == 0:
            self._each_in_turn(Watch.beat)

    def _each_in_turn(self, call: Callable[[Watch], None]) -> None:
        """Call the function ``call`` with each watch of this node, some watches in each turn of the event loop.

        Watches that an earlier round has not reached yet are left out by that round."""
        self._due = due = deque(self._connections)
        slices = self._watching.slices

        def work() -> None:
            while due and due is self._due:
                call(due.popleft())
                if slices.over():
                    slices.put(work)
                    return

        slices.put(work)


class Watch(asyncio.Protocol):
    """One client's watch: the connection on which the client is told the changes of keys that begin with ``prefix``."""

    def __init__(
        self,
        watches: Watches,
        watching: Watching,
        prefix: str,
        since: str | None,
        user: User | None,
        headers: Headers,
        answered: Answered,
    ) -> None:
        self.prefix = prefix
        self.user = user
        self._watches = watches
        self._feed = watching.feed
        self._since = since
        self._headers = headers
        self._answered = answered
        self._transport: asyncio.Transport
        # True while the client does not take what it was sent.
        self._full = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self._watches.came(self)
        answered = self._answered
        # Kept for as long as the watch lives, the function would keep the request and the HTTP server's part of the connection.
        del self._answered
        try:
            if not self._watches.is_admitted(self.user):
                # The user was removed or changed since the request was looked at: it may have waited for a leader.
                raise unauthorized()
            position = self._follow()
        except Problem as problem:
            body = problem_bytes(problem.kind, problem.title, problem.http_status, str(problem), **problem.members)
            headers = [*self._headers, *problem.headers, PROBLEM_TYPE, ("Content-Length", str(len(body)))]
            transport.write(_head(problem.http_status, headers) + body)
            answered(problem.http_status, len(body))
            transport.close()
            return
        answered(200, 0)
        transport.write(_head(200, [*self._headers, *STREAM_HEADERS]) + f"id: {position}\n\n".encode())

    def _follow(self) -> str:
        try:
            return self._feed.follow(self, self._since)
        except PositionGone as error:
            kind, status = urn_of(PositionGone), error.http_status
            raise Problem(str(error), status=status, title=error.title, kind=kind, oldest=error.oldest) from None

    def data_received(self, data: bytes) -> None:
        """Drop ``data``, which the client has sent behind its request: nothing is answered on this connection any more."""

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._feed.go_on(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._feed.unfollow(self)
        self._watches.went(self)

    # Follower

    def take(self, changes: list[Told]) -> bool:
        """Send the client ``changes`` of keys; return False if the client takes no more now."""
        self._transport.write(b"".join([told.rendered or _rendered(told) for told in changes]))
        return not self._full

    def missed(self) -> None:
        """Tell the client that it has missed some changes, and end its watch."""
        oldest = json.dumps({"oldest": self._feed.oldest()})
        self._transport.write(f"event: gone\ndata: {oldest}\n\n".encode())
        self._finish()

    # Watches

    def beat(self) -> None:
        """Give the client a sign of life, with the position up to which it was told everything."""
        if self._full:
            return
        position = self._feed.told_position(self)
        self._transport.write(b": alive\n\n" if position is None else f": alive\nid: {position}\n\n".encode())

    def end(self) -> None:
        """End this watch: the client goes on at another node, or at this one later."""
        self._feed.unfollow(self)
        self._finish()

    def _finish(self) -> None:
        # Nobody waits for one who takes nothing.
        if self._full:
            self._transport.abort()
        else:
            self._transport.close()


STREAM_HEADERS: Final[Headers] = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    # nginx would keep events until it has some kilobytes of them.
    ("X-Accel-Buffering", "no"),
]


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}Connection: close\r\n\r\n".encode("latin-1")


def _rendered(told: Told) -> bytes:
    """Return the change ``told`` as the bytes of a server-sent event, and keep these bytes in ``told`` for other clients."""
    what, key, prefix, version, ttl_s, position = told.change
    keys = f'"prefix":{json_string(prefix or "")}' if key is None else f'"key":{json_string(key)}'
    ttl = f',"ttl":{seconds_json(ttl_s)}' if what in ("set", "touch") else ""
    told.rendered = f'event: {what}\nid: {position}\ndata: {{{keys},"version":{version}{ttl}}}\n\n'.encode()
    return told.rendered
