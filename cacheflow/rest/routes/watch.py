"""The route ``/watch``: the changes of keys as they happen, as server-sent events."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from flask import Blueprint, request

from cacheflow.rest.answers import Answer, Headers
from cacheflow.rest.problems import PROBLEM_TYPE, problem_bytes
from cacheflow.rest.request import checks
from cacheflow.rest.request.auth import user_of
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.paths import parse_query
from cacheflow.rest.request.waiting import BARRIER, Steps, waits
from cacheflow.rest.server.suspending import SUSPENDS, Answered, TakenOver
from cacheflow.rest.watches import STREAM_HEADERS, Watches

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from cacheflow.access.roles import User


def watch_blueprint(services: Services, watches: Watches) -> Blueprint:
    """Return the Flask blueprint of the route ``/watch``. watches: keeps the watches of this node's clients."""
    blueprint = Blueprint("watch", __name__)
    watching = services.store.watching

    @blueprint.get("/watch", endpoint="watch")
    @waits(services)
    def watch() -> Steps:
        environ = request.environ
        query = parse_query(environ)
        prefix = checks.prefix(query) or ""
        # A browser that connects again asks with the same URL, and this header.
        since = environ.get("HTTP_LAST_EVENT_ID") or query.get("since") or None
        watches.check_room()
        watching.check()
        if since is not None:
            if watching.is_behind(since):
                # Another node was faster, and has told of more.
                yield BARRIER
            watching.check_since(since)
        headers = [*services.raft_headers(), ("Date", formatdate(usegmt=True))]
        if environ["REQUEST_METHOD"] == "HEAD":
            return Answer(b"", 200, [*headers, *STREAM_HEADERS])
        return _WatchAnswer(watches, prefix, since, user_of(environ), headers)

    return blueprint


class _WatchAnswer(Answer):
    """The answer to a request for a watch: has the HTTP server give up the connection, on which the node then tells changes.

    Under a WSGI server that cannot do so it is an error 501.
    """

    def __init__(self, watches: Watches, prefix: str, since: str | None, user: User | None, headers: Headers) -> None:
        body = problem_bytes("about:blank", "Not implemented", 501, "a watch needs CacheFlow's own HTTP server")
        super().__init__(body, 501, [*headers, PROBLEM_TYPE])
        self._watches = watches
        self._prefix = prefix
        self._since = since
        self._user = user
        self._headers = headers

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if SUSPENDS not in environ:
            return super().__call__(environ, start_response)
        raise TakenOver(self._begin)

    def _begin(self, sock: Any, headers: Headers, answered: Answered) -> None:
        self._watches.begin(sock, self._prefix, self._since, self._user, [*self._headers, *headers], answered)
