"""Errors as ``application/problem+json`` (RFC 9457): every exception becomes its answer here.

The status and the title stand on the exception's class; ``type`` is its name as a URN, so that a client can tell
``urn:cacheflow:no-leader`` from ``urn:cacheflow:overloaded``. What nobody raised on purpose is logged under an id, and
the answer carries that id and nothing else: no stack trace leaves the process.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed

from cacheflow.errors import (
    AnswerNotKept,
    CacheFlowError,
    InvalidRequest,
    KeyNotFound,
    NoCluster,
    NotCommitted,
    OutcomeUnknown,
    PositionGone,
    PreconditionFailed,
    ReplicationError,
)
from cacheflow.rest.answers import Answer, Headers, json_bytes
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.paths import decode_key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PROBLEM_TYPE = ("Content-Type", "application/problem+json")

logger = logging.getLogger("cacheflow.rest")


class Problem(CacheFlowError):
    """An exception that states the whole error answer of a request: HTTP status, title, kind (a URN) and further JSON members.

    For errors that have no exception class of their own.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        title: str,
        kind: str,
        headers: Iterable[tuple[str, str]] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.http_status = status
        self.title = title
        self.kind = kind
        self.headers = list(headers)
        self.members = members


def urn_of(error_class: type[CacheFlowError]) -> str:
    """Return the URN of an error class as problem documents name it: ``urn:cacheflow:no-leader`` for ``NoLeader``."""
    return "urn:cacheflow:" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error_class.__name__).lower()


def problem_bytes(kind: str, title: str, status: int, detail: str, **members: Any) -> bytes:
    """Return the JSON body of an RFC 9457 problem document with the type ``kind``. members: further fields of the document."""
    return json_bytes({"type": kind, "title": title, "status": status, "detail": detail, **members})


def problem_of_command(error: CacheFlowError, index: int) -> Problem:
    """Return the exception that refuses a whole batch because operation number ``index``, from 0, failed with ``error``."""
    members: dict[str, Any] = {"version": error.version} if isinstance(error, PreconditionFailed) else {}
    return Problem(
        f"ops[{index}]: {error}",
        status=error.http_status,
        title=error.title,
        kind=urn_of(type(error)),
        index=index,
        **members,
    )


def answer_error(error: Exception, services: Services, environ: WSGIEnvironment, raw_key: str | None) -> Answer:
    """Return the HTTP answer to the exception ``error`` of a view or of routing: the REST application's only error handler.

    raw_key: the key in the request's path, each byte as one character; None when the path has no key.
    """
    if isinstance(error, CacheFlowError) and error.http_status != 500:
        return _answer_known(error, services, environ, raw_key)
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        headers = services.raft_headers()
        if isinstance(error, MethodNotAllowed):
            headers.append(("Allow", ", ".join(sorted(error.valid_methods or ()))))
        detail = _routing_detail(error, environ["REQUEST_METHOD"])
        return _answer("about:blank", error.name, error.code, detail, headers, {})
    incident = secrets.token_hex(8)
    logger.error("%s %s failed [%s]", environ["REQUEST_METHOD"], environ["PATH_INFO"], incident, exc_info=error)
    headers = []
    # A broken node may not know where it stands and must still say that it is broken.
    with contextlib.suppress(Exception):
        headers = services.raft_headers()
    return _answer(
        "urn:cacheflow:internal-error",
        "Internal error",
        500,
        f"This node failed to answer; its log tells more under {incident}.",
        headers,
        {"incident": incident},
    )


def _answer_known(error: CacheFlowError, services: Services, environ: WSGIEnvironment, raw_key: str | None) -> Answer:
    headers = services.raft_headers()
    members: dict[str, Any] = {}
    detail = str(error)
    kind = urn_of(type(error))
    if isinstance(error, Problem):
        kind = error.kind
        headers += error.headers
        members.update(error.members)
    key = _requested_key(environ, raw_key)
    if key is not None:
        members["key"] = key
        if isinstance(error, KeyNotFound):
            detail = "the key is absent"  # the store's message is the key alone, like KeyError's
    if isinstance(error, PreconditionFailed):
        members["version"] = error.version
    if isinstance(error, PositionGone):
        members["oldest"] = error.oldest
    if isinstance(error, ReplicationError):
        leader = services.store.position().leader_id
        if leader is not None:
            members["leader"] = leader
    if isinstance(error, NoCluster):
        members["raft_address"] = error.raft_address
    if isinstance(error, OutcomeUnknown):
        members["outcome"] = "applied" if isinstance(error, AnswerNotKept) else "unknown"
    if isinstance(error, NotCommitted):
        members["outcome"] = "not applied"
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after_s)))))
    return _answer(kind, error.title, error.http_status, detail, headers, members)


def _requested_key(environ: WSGIEnvironment, raw_key: str | None) -> str | None:
    """Return the key in an HTTP request's path, decoded from ``raw_key``; None when the path has no key or an invalid one."""
    if raw_key is None:
        return None
    try:
        return decode_key(raw_key, environ)
    except InvalidRequest:
        return None


def _routing_detail(error: HTTPException, method: str) -> str:
    if error.code == 404:
        return "there is no such route; /openapi.json lists them"
    if error.code == 405:
        return f"{method} is not allowed here"
    return str(error.description or error.name)


def _answer(kind: str, title: str, status: int, detail: str, headers: Headers, members: dict[str, Any]) -> Answer:
    headers.append(PROBLEM_TYPE)
    return Answer(problem_bytes(kind, title, status, detail, **members), status, headers)
