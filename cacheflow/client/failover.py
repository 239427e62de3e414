"""Nodes: one answer from a cluster, whichever node gives it.

1. A request goes to the node that answered last; a node that cannot be reached or says 503 hands it to the next one,
   round after round, until the deadline.
2. A request may be sent more than once: a write is only handed in here with what makes it count once.
3. What is raised tells whether a write may have happened: NotCommitted is certainly not, OutcomeUnknown may be.

Needs nothing outside the standard library.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import random
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from cacheflow import errors
from cacheflow.config import split_url
from cacheflow.errors import (
    AnswerNotKept,
    CacheFlowError,
    InvalidRequest,
    NotCommitted,
    OutcomeForgotten,
    OutcomeUnknown,
    PreconditionFailed,
)
from cacheflow.net.tls.trust import told, trusting

# Seconds to connect: a host that is switched off answers nothing at all; one on the network answers in a fraction of this.
CONNECT_TIMEOUT_S_MAX: Final = 2.0
# Idle connections that are kept to one node: more threads than this open and close their own.
IDLE_CONNECTIONS_MAX: Final = 32
# Seconds between two rounds over all nodes: doubled after each, up to PAUSE_S_MAX.
PAUSE_S_FIRST: Final = 0.05
PAUSE_S_MAX: Final = 0.5
# Rounds in which no node takes a connection before a call gives up: enough for a node that is just restarting.
REFUSED_ROUNDS_MAX: Final = 3


class Request(NamedTuple):
    """One HTTP request, sent to as many nodes as it takes.

    write: True if the request changes something that its caller wants changed. Its headers, or what it asks for, make such a
    request count once, however often it is sent.
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
        except ValueError:
            raise CacheFlowError(f"{self.url} answered {self.status} with something that is not JSON") from None


class _NotSent(Exception):
    """Raised when no connection to a node could be opened: that node has seen nothing of the request."""


class _NoAnswer(Exception):
    """Raised when an HTTP request was sent to a node, wholly or partly, and no answer came back."""


class _Node:
    """A client's view of one node: its address and idle HTTP connections to it.

    Safe for concurrent use: a deque's append and pop are atomic.
    """

    def __init__(self, url: str, trusted: Callable[[], ssl.SSLContext]) -> None:
        try:
            parts = split_url(url if "//" in url else f"http://{url}")
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._connection: Callable[[], http.client.HTTPConnection] = functools.partial(
            http.client.HTTPConnection, parts.hostname or "", parts.port
        )
        if parts.scheme == "https":
            self._connection = functools.partial(
                http.client.HTTPSConnection, parts.hostname or "", parts.port, context=trusted()
            )
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._pid = os.getpid()

    def exchange(self, request: Request, timeout_s: float) -> Answer:
        """Send ``request`` to this node and return its answer, within ``timeout_s`` seconds.

        Raises _NotSent if no connection could be opened, _NoAnswer if no answer came back.
        """
        deadline = time.monotonic() + timeout_s
        connection = self._borrow()
        try:
            if connection.sock is None:
                connection.timeout = min(timeout_s, CONNECT_TIMEOUT_S_MAX)
                connection.connect()
        except OSError as error:
            connection.close()
            raise _NotSent(_reason(error)) from None
        sock = connection.sock
        assert sock is not None
        try:
            sock.settimeout(_left(deadline))
            connection.request(request.method, self._prefix + request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            chunks = []
            # In pieces, so that a long answer that comes slowly does not outlast the deadline.
            while not response.isclosed() and (chunk := response.read(65536)):
                chunks.append(chunk)
                sock.settimeout(_left(deadline))
            if response.length:  # read(amount) does not complain when the connection ends early
                raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _NoAnswer(_reason(error)) from None
        except BaseException:  # Ctrl-C in the middle of an answer: the rest of it must not be read as the next one
            connection.close()
            raise
        answer = Answer(response.status, response.headers, b"".join(chunks), self.url)
        if response.will_close or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> http.client.HTTPConnection:
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
        return self._connection()


class Nodes:
    """The nodes of a cluster, any of which may answer a request. Safe for concurrent use, also after a fork.

    ca: a file with the CA of the nodes' certificates; None for what the system trusts. Raises ConfigError if it is broken.
    """

    def __init__(self, urls: Sequence[str], timeout_s: float, ca: str | os.PathLike[str] | None = None) -> None:
        trusted = functools.cache(lambda: trusting(ca))
        self._nodes = [_Node(url, trusted) for url in urls]
        if not self._nodes:
            raise InvalidRequest("a client needs the address of at least one node")
        self._timeout_s = timeout_s
        self._preferred = 0

    @property
    def urls(self) -> list[str]:
        """The addresses of the cluster's nodes, in the order in which this object got them."""
        return [node.url for node in self._nodes]

    def close(self) -> None:
        """Close the idle connections to all nodes; the next request opens new ones."""
        for node in self._nodes:
            node.close()

    def call(self, request: Request, deadline: float | None = None) -> Answer:
        """Send ``request`` to the nodes in turn until ``deadline``; return the first answer that is no 503 or 504.

        Raises NotCommitted, OutcomeUnknown, or what the last 503 said. The outcome of a write that one node may have applied
        is unknown also when the next node refuses the write for reasons of its own. Raises AnswerNotKept if a try of this call
        has been applied and no node knows its answer any more; OutcomeForgotten if none has been applied, and none ever will be
        under the number that the client gave the write.
        """
        began = time.monotonic()
        tried = False
        if deadline is None:
            deadline = time.monotonic() + self._timeout_s
        pause_s = PAUSE_S_FIRST
        refused_rounds = 0
        maybe_applied: str | None = None
        refusal: Answer | None = None
        failures: dict[str, str] = {}
        while True:
            refused_rounds += 1
            first = self._preferred
            for offset in range(len(self._nodes)):
                number = (first + offset) % len(self._nodes)
                node = self._nodes[number]
                if time.monotonic() >= deadline:
                    break
                try:
                    # A share of what is left, so that one frozen node does not use up the time of the others.
                    answer = node.exchange(
                        _of_age(request, began) if tried else request, _left(deadline) / (len(self._nodes) - offset)
                    )
                except _NotSent as error:
                    failures[node.url] = str(error)
                    continue
                except _NoAnswer as error:
                    failures[node.url] = maybe_applied = str(error)
                    refused_rounds = 0
                    tried = True
                    continue
                refused_rounds = 0
                tried = True
                if answer.status not in (503, 504):
                    if request.write and maybe_applied is not None and _says_nothing_of_the_log(answer):
                        raise OutcomeUnknown(f"{problem_of(answer)}; before: {maybe_applied}")
                    self._preferred = number
                    return answer
                refusal = answer
                failures.pop(node.url, None)
                if answer.status == 504:
                    problem = problem_of(answer)
                    if isinstance(problem, AnswerNotKept):
                        # No node knows more of it.
                        raise problem
                    if isinstance(problem, OutcomeForgotten):
                        # Trying again would give the same answer.
                        if maybe_applied is not None:
                            raise OutcomeUnknown(f"{problem}; before: {maybe_applied}")
                        raise problem
                    maybe_applied = str(problem)
                elif problem_document(answer).get("title") == errors.Overloaded.title:
                    pause_s = max(pause_s, _retry_after_s(answer))
            if time.monotonic() + pause_s >= deadline or refused_rounds == REFUSED_ROUNDS_MAX:
                break
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
        if request.write and maybe_applied is not None:
            raise OutcomeUnknown(f"the write was sent and no answer came: {maybe_applied}")
        if refusal is not None:
            raise problem_of(refusal)
        raise NotCommitted("no node answered: " + "; ".join(f"{url}: {why}" for url, why in failures.items()))


def _of_age(request: Request, began: float) -> Request:
    """Return ``request`` with the header Idempotency-Age, the ms since the request was first sent.

    began: that time, by the monotonic clock. A request without an Idempotency-Key is returned unchanged.
    """
    if "Idempotency-Key" not in request.headers:
        return request
    age_ms = int((time.monotonic() - began) * 1000)
    return request._replace(headers={**request.headers, "Idempotency-Age": str(age_ms)})


def _says_nothing_of_the_log(answer: Answer) -> bool:
    """Return whether ``answer`` is an HTTP error that a node or a proxy has made by itself, and not a result from the log.

    An earlier try of the same request may have been applied in spite of such an answer.
    """
    if answer.status < 400:
        return False
    if answer.status in (404, 409, 412):
        return answer.headers.get("X-Raft-Index") is None
    return True


def _left(deadline: float) -> float:
    """Return the seconds until ``deadline``, at least 0.001: a timeout of 0 would make the socket non-blocking."""
    return max(deadline - time.monotonic(), 0.001)


def _readable(sock: socket.socket) -> bool:
    """Return whether an idle connection has input, which means that the node has closed it."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {told(error)}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def check_is_ours(answer: Answer) -> None:
    """Raise CacheFlowError if ``answer``, a 404, is not a CacheFlow node's: another server's does not mean an absent key."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith("application/problem+json") and "X-Served-By" not in answer.headers:
        raise CacheFlowError(f"{answer.url} answered 404 and is not a CacheFlow node")


def problem_document(answer: Answer) -> dict[str, Any]:
    """Return the problem document (RFC 9457) in ``answer``, an HTTP error; {} when the body is no JSON object."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _retry_after_s(answer: Answer) -> float:
    try:
        return min(max(float(answer.headers.get("Retry-After", "1")), 0.0), 60.0)
    except ValueError:
        return 1.0


def problem_of(answer: Answer) -> CacheFlowError:
    """Return the exception that the HTTP error ``answer`` of a node stands for."""
    document = problem_document(answer)
    kind = _BY_TITLE.get((answer.status, str(document.get("title")))) or _BY_STATUS.get(answer.status, CacheFlowError)
    message = document.get("detail") or document.get("title") or f"{answer.url} answered {answer.status}"
    if kind is PreconditionFailed:
        version = document.get("version")
        return PreconditionFailed(message, version if isinstance(version, int) else 0)
    error = kind(message)
    if isinstance(error, NotCommitted):
        error.retry_after_s = _retry_after_s(answer)
    return error


def _subclasses(base: type[CacheFlowError]) -> Iterator[type[CacheFlowError]]:
    yield base
    for sub in base.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from _subclasses(sub)


_BY_TITLE: Final = {(sub.http_status, sub.title): sub for sub in _subclasses(CacheFlowError)}
_BY_STATUS: Final[dict[int, type[CacheFlowError]]] = {
    400: InvalidRequest,
    401: InvalidRequest,
    403: InvalidRequest,
    409: errors.NotAnInteger,
    412: PreconditionFailed,
    413: errors.ValueTooLarge,
    422: errors.IdempotencyKeyReused,
    503: NotCommitted,
    504: OutcomeUnknown,
}
