"""One HTTP exchange with one node, over connections that are kept.

1. What is raised tells whether the node may have seen the request: NotSent is certainly not, NoAnswer may be.
2. Nothing is sent twice and no redirect is followed here: who tries again is ``failover``.
3. A process forked from this one opens its own connections; the parent still talks over the others.

http.client and a queue of idle connections: urllib3's pool costs a GET nearly twice the CPU (docs/DESIGN.md, 16).
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cacheflow.arguments import shown
from cacheflow.client.timed import CONNECT_TIMEOUT_S_MAX, Host, TimedConnection
from cacheflow.config import split_url
from cacheflow.errors import CacheFlowError, InvalidRequest
from cacheflow.net.tls.trust import told

# Idle connections that are kept to one node: more threads than this open and close their own.
IDLE_CONNECTIONS_MAX: Final = 32


class Request(NamedTuple):
    """One HTTP request, sent to as many nodes as it takes to get an answer.

    write: True if the request changes something for its caller. Such a request takes effect once, however often it is sent,
    because of its headers, or because a repetition changes nothing.
    """

    method: str
    target: str
    body: bytes | None
    headers: Mapping[str, str]
    write: bool


class Answer(NamedTuple):
    """One HTTP answer of a node. url: that node's address."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: str

    def json(self) -> Any:
        """Return the value of this answer's JSON body. Raises CacheFlowError when the body is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise CacheFlowError(f"{self.url} answered {self.status} with something that is not JSON") from None


class NotSent(Exception):
    """Raised when no connection to a node could be opened: that node has seen nothing of the request."""


class NoAnswer(Exception):
    """Raised when an HTTP request was sent to a node, wholly or partly, and no answer came back."""


class NodeHttp:
    """One node's address, and the idle connections to that node. Safe for concurrent use, also after a fork.

    trusted: a function that returns the TLS context by which nodes' certificates are checked. Raises InvalidRequest for a
    wrong address.
    """

    def __init__(self, url: str, trusted: Callable[[], ssl.SSLContext]) -> None:
        if not isinstance(url, str):
            raise InvalidRequest(f"a node's address is a str, not {shown(url)}")
        try:
            parts = split_url(url if "//" in url else f"http://{url}")
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        if parts.username is not None or parts.password is not None:
            # Not shown: it may be a token.
            raise InvalidRequest(
                "a node's address has no user and password: give token=, or use cacheflow.open_cache(url)"
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        port = parts.port or (http.client.HTTPS_PORT if secure else http.client.HTTP_PORT)
        self._host = Host(parts.hostname or "", port, trusted() if secure else None)
        # A deque's append and pop are atomic.
        self._idle: deque[TimedConnection] = deque()
        self._pid = os.getpid()

    def connect(self, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
        """Return (a new HTTP connection to this node, the path of the node's URL, which must precede every request's target).

        The caller closes the connection. timeout_s: the most seconds in which no byte comes or goes. Raises NotSent.
        """
        timed = TimedConnection(self._host)
        timed.deadline = time.monotonic() + CONNECT_TIMEOUT_S_MAX
        try:
            timed.connect()
        except (OSError, UnicodeError) as error:
            timed.close()
            raise NotSent(_reason(error)) from None
        # All of it may take as long as it takes, so no deadline ends this one.
        connection = http.client.HTTPConnection(self._host.name, self._host.port)
        connection.default_port = timed.default_port
        connection.sock = timed.sock
        connection.sock.settimeout(timeout_s)
        return connection, self._prefix

    def exchange(self, request: Request, timeout_s: float, body_bytes_max: int | None = None) -> Answer:
        """Send ``request`` to this node and return its answer, within ``timeout_s`` seconds.

        body_bytes_max: the most bytes of the answer's body that are read; None for any number.
        Raises NotSent if no connection could be opened, NoAnswer if no answer came back, or one that is larger.
        """
        connection = self._borrow()
        connection.deadline = time.monotonic() + timeout_s
        try:
            if connection.sock is None:
                connection.connect()
        except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
            connection.close()
            raise NotSent(_reason(error)) from None
        try:
            connection.request(request.method, self._prefix + request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            body = _body_of(response, body_bytes_max)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswer(_reason(error)) from None
        except BaseException:  # Ctrl-C in the middle of an answer: the rest of it must not be read as the next one
            connection.close()
            raise
        answer = Answer(response.status, response.headers, body, self.url)
        if response.will_close or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections to this node; the next request opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> TimedConnection:
        if self._pid != os.getpid():
            # After a fork the parent still talks over these sockets.
            self._idle = deque()
            self._pid = os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if connection.sock is not None and not _readable(connection.sock):
                return connection
            connection.close()
        return TimedConnection(self._host)


def _body_of(response: http.client.HTTPResponse, bytes_max: int | None) -> bytes:
    """Return the whole body of ``response``, an HTTP answer. Raises OSError or HTTPException if it does not come whole.

    bytes_max: raise HTTPException when the body is larger; None: it may have any size.
    """
    chunks = []
    room = bytes_max
    # None where chunks, or the end of the connection, end the body.
    missing = response.length
    while missing is None or missing:
        # What comes at once, and no more: memory is taken for what has come, not for what the headers promise.
        chunk = response.read1(65536 if missing is None else min(65536, missing))
        if not chunk:
            break
        chunks.append(chunk)
        if room is not None:
            room -= len(chunk)
            if room < 0:
                raise http.client.HTTPException(f"its answer is larger than {bytes_max} bytes")
        if missing is not None:
            missing -= len(chunk)
    if missing:  # read1 does not complain when the connection ends early
        raise http.client.IncompleteRead(b"", missing)
    # The connection takes its next request only then.
    response.close()
    return b"".join(chunks)


def _readable(sock: socket.socket) -> bool:
    """Return whether ``sock``, an idle connection to a node, has input, which means that the node has closed it."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {told(error)}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
