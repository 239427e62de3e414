"""Nodes: one answer from a cluster, whichever node gives it.

1. A request goes to the node that answered last; a node that cannot be reached or says 502 or 503 hands it to the next one,
   round after round, until the deadline. Which that is, and which nodes there are, ``members`` knows.
2. A request may be sent more than once: a write is only handed in here with what makes it count once.
3. What is raised tells whether a write may have happened: NotCommitted is certainly not, OutcomeUnknown may be.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cacheflow import errors
from cacheflow.client.exchange import Answer, NoAnswer, NodeHttp, NotSent, Request
from cacheflow.client.members import Members
from cacheflow.client.timed import left_s
from cacheflow.errors import (
    HTTPS_ONLY,
    AnswerNotKept,
    CacheFlowError,
    InvalidRequest,
    NotCommitted,
    OutcomeForgotten,
    OutcomeUnknown,
    PreconditionFailed,
)
from cacheflow.net.tls.trust import check_is_of_use, trusting

# Seconds between two rounds over all nodes: doubled after each, up to PAUSE_S_MAX.
PAUSE_S_FIRST: Final = 0.05
PAUSE_S_MAX: Final = 0.5
# Seconds that must be left for another try: a shorter one would mostly end without an answer, and nobody would know its outcome.
TRY_S_MIN: Final = 0.02
# Rounds in which no node takes a connection before a call gives up: enough for a node that is just restarting.
REFUSED_ROUNDS_MAX: Final = 3
# The most characters of a request's id, as nodes have them (rest/server/request_ids.py); a proxy may send anything.
REQUEST_ID_MAX: Final = 128


class Nodes:
    """The nodes of a cluster, any of which may answer a request. Safe for concurrent use, also after a fork.

    ca: a file with the CA of the nodes' certificates; None for what the system trusts. Raises ConfigError if it is broken,
    InvalidRequest if no address is for TLS.
    discover: ask a node for the list of members, and use these too.  headers: those of that request.
    """

    def __init__(
        self,
        urls: Sequence[str],
        timeout_s: float,
        ca: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        discover: bool = False,
    ) -> None:
        trusted = functools.cache(lambda: trusting(ca))
        given = [NodeHttp(url, trusted) for url in urls]
        if not given:
            raise InvalidRequest("a client needs the address of at least one node")
        check_is_of_use(ca, [node.url for node in given])
        self._members = Members(given, lambda url: NodeHttp(url, trusted), headers or {}, discover)
        self._timeout_s = timeout_s

    @property
    def urls(self) -> list[str]:
        """The addresses of the cluster's nodes: those that this client was given, in that order, and those it has learned."""
        return [node.url for node in self._members.nodes]

    def close(self) -> None:
        """Close the idle connections to all nodes; the next request opens new ones."""
        for node in self._members.nodes:
            node.close()

    def call(self, request: Request, deadline: float | None = None) -> Answer:
        """Send ``request`` to one node after the other until ``deadline``; return the first whose status is not 502 to 504.

        Raises NotCommitted, OutcomeUnknown, or the error that the last answer 503 stands for. The outcome of a write that one
        node may have applied is unknown also when the next node refuses the write for reasons of its own. Raises
        AnswerNotKept if a try of this call has been applied and no node knows its answer any more; OutcomeForgotten if none
        has been applied, and none ever will be under the number that the client gave the write.
        """
        self._members.begin()
        try:
            return self._call(request, deadline)
        finally:
            self._members.end()

    def open(
        self, target: str, headers: Mapping[str, str], silent_s: float
    ) -> tuple[socket.socket, http.client.HTTPResponse]:
        """Send a GET of ``target``, whose answer never ends, to nodes until one answers with 200.

        Returns (the socket, the answer, whose header has come); the caller closes the answer.
        silent_s: reading the answer fails when no byte comes for so many seconds.
        Raises NotCommitted if no node answers within the timeout of a call; the error that any other answer stands for.
        """
        deadline = time.monotonic() + self._timeout_s
        pause_s = PAUSE_S_FIRST
        failures: dict[str, str] = {}
        while True:
            nodes = self._members.nodes
            for offset, node in enumerate(self._members.in_turn(nodes)):
                try:
                    connection, prefix = node.connect(left_s(deadline) / max(len(nodes) - offset, 1))
                except NotSent as error:
                    failures[node.url] = str(error)
                    continue
                sock = connection.sock
                try:
                    connection.request("GET", prefix + target, headers=dict(headers))
                    response = connection.getresponse()
                    if response.status == 200:
                        sock.settimeout(silent_s)
                        return sock, response
                    answer = Answer(response.status, response.headers, response.read(1 << 20), node.url)
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    failures[node.url] = str(error) or type(error).__name__
                    continue
                connection.close()
                problem = problem_of(answer)
                if answer.status not in (502, 503, 504):
                    raise problem
                failures[node.url] = str(problem)
            if time.monotonic() + pause_s >= deadline:
                raise NotCommitted("no node answered: " + "; ".join(f"{url}: {why}" for url, why in failures.items()))
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    def _call(self, request: Request, deadline: float | None) -> Answer:
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
            asked_s = 0.0
            refusing: NodeHttp | None = None
            nodes = self._members.nodes
            for offset, node in enumerate(self._members.in_turn(nodes)):
                if time.monotonic() >= deadline:
                    break
                try:
                    # A share of what is left, so that one frozen node does not use up the time of the others.
                    answer = node.exchange(
                        _of_age(request, began) if tried else request, left_s(deadline) / max(len(nodes) - offset, 1)
                    )
                except NotSent as error:
                    failures[node.url] = str(error)
                    continue
                except NoAnswer as error:
                    failures[node.url] = maybe_applied = str(error)
                    refused_rounds = 0
                    tried = True
                    continue
                if answer.status == 400 and problem_document(answer).get("type") == HTTPS_ONLY:
                    # As a member that another one has named may, while a cluster changes over to TLS. Another node may do.
                    failures[node.url] = str(problem_of(answer))
                    continue
                refused_rounds = 0
                tried = True
                if answer.status == 502:
                    # A proxy's: the node behind it may have carried the request out, and has given no answer.
                    failures[node.url] = maybe_applied = "a proxy answered 502"
                    continue
                if answer.status not in (503, 504):
                    if request.write and maybe_applied is not None and _says_nothing_of_the_log(answer):
                        raise _named(OutcomeUnknown(f"{problem_of(answer)}; before: {maybe_applied}"), answer)
                    if request.write and answer.status >= 500 and type(problem_of(answer)) is CacheFlowError:
                        # Whoever failed may have done so behind the write. Another try may well fail in the same way.
                        unsure = OutcomeUnknown(f"the write may have taken place: {problem_of(answer)}")
                        raise _named(unsure, answer)
                    self._members.answered(node, answer, others_failed=bool(failures) or refusal is not None)
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
                            raise _named(OutcomeUnknown(f"{problem}; before: {maybe_applied}"), answer)
                        raise problem
                    maybe_applied = str(problem)
                elif problem_document(answer).get("title") == errors.Overloaded.title:
                    asked_s = max(asked_s, _retry_after_s(answer))
                    continue
                refusing = node
            if refusing is not None:
                self._members.refused(refusing)
            # Not all clients at once; and never sooner than a node that has too much to do has asked for.
            wait_s = max(pause_s * random.uniform(0.5, 1), asked_s * random.uniform(1, 1.5))
            if time.monotonic() + wait_s + TRY_S_MIN >= deadline or refused_rounds == REFUSED_ROUNDS_MAX:
                break
            time.sleep(wait_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
        if request.write and maybe_applied is not None:
            raise _named(OutcomeUnknown(f"the write was sent and no answer came: {maybe_applied}"), refusal)
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
    """Return whether ``answer`` is an HTTP error or a redirect by a node or a proxy, and not the result of a log entry.

    An earlier try of the same request may have been applied in spite of such an answer.
    """
    if answer.status < 300:
        return False
    if answer.status in (404, 409, 412):
        return answer.headers.get("X-Raft-Index") is None
    return True


def check_is_ours(answer: Answer) -> None:
    """Raise CacheFlowError if ``answer``, a 404, is not from a CacheFlow node: another server's 404 tells nothing of a key."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith("application/problem+json") and "X-Served-By" not in answer.headers:
        raise CacheFlowError(f"{answer.url} answered 404 and is not a CacheFlow node")


def problem_document(answer: Answer) -> dict[str, Any]:
    """Return the problem document (RFC 9457) in ``answer``, an HTTP error; {} when the body is no JSON object."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _retry_after_s(answer: Answer) -> float:
    try:
        return min(max(float(answer.headers.get("Retry-After", "1")), 0.0), 60.0)
    except ValueError:
        return 1.0


def problem_of(answer: Answer) -> CacheFlowError:
    """Return the exception that the HTTP error ``answer`` of a node stands for; it names the request's id."""
    return _named(_problem_in(answer), answer)


def _named(error: CacheFlowError, answer: Answer | None) -> CacheFlowError:
    """Return ``error`` with the id of the request that ``answer``, an HTTP error, is about. answer: None if none came."""
    given = None if answer is None else answer.headers.get("X-Request-Id")
    if answer is not None and given and given.isascii() and given.isprintable():
        error.request_id = given[:REQUEST_ID_MAX]
        # Python shows it below the error. Of a miss or a wrong request no log says more than the error itself.
        if error.http_status >= 500:
            error.add_note(f"request {error.request_id} at {answer.url}")
    return error


def _problem_in(answer: Answer) -> CacheFlowError:
    document = problem_document(answer)
    kind = _BY_TITLE.get((answer.status, str(document.get("title")))) or _BY_STATUS.get(answer.status, CacheFlowError)
    message = document.get("detail") or document.get("title") or f"{answer.url} answered {answer.status}"
    if kind is PreconditionFailed:
        version = document.get("version")
        return PreconditionFailed(message, version if isinstance(version, int) else 0)
    error = kind(message)
    if isinstance(error, errors.PositionGone):
        error.oldest = str(document.get("oldest") or "")
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
