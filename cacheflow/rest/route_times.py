"""RouteTimes: HTTP requests counted by method and route, and how long their answers took.

The server tells of each answer: it alone sees all of them, those that never come to the application too. A request is measured
from the moment when it is complete, or the client's last answer is taken, until its answer is handed to the system. What waits
for the cluster meanwhile, or for a thread, counts.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any, Final

from cacheflow.measuring.request_times import ERROR, OK, REFUSED, UNKNOWN, RequestTimes
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.rest.request.routing import PREFIX, post_action

_KEY_ROUTES: Final = {method: f"{method} /cache/{{key}}" for method in ("GET", "HEAD", "PUT", "DELETE")}
_POST_ROUTES: Final = {
    "cache.batch": "POST /cache/_batch",
    "cache.incr": "POST /cache/{key}/incr",
    "cache.touch": "POST /cache/{key}/touch",
}
# The beginning of the paths of the page's files, whose names may have several parts.
_PAGE: Final = "/page/"
# Answers that say no to a request that is as it should be: no such key, no such member, a condition that does not hold.
_SAYS_NO: Final = (404, 412)
_HEALTH: Final = (" /livez", " /readyz")


class RouteTimes:
    """The times of the answers that a node gives over HTTP, by route. Any thread may use it.

    slow: the node's slow log.  routes: the names of all routes but those with HEAD, such as ``GET /cache/{key}``.
    """

    def __init__(self, slow: SlowLog, routes: Collection[str]) -> None:
        self.times = RequestTimes("http", slow)
        self._routes = routes
        self._lock = threading.Lock()  # held while a request is counted: many threads answer

    def note(self, method: str, path: str, status: int, seconds: float, address: Any, request_id: str) -> None:
        """Count a request that was answered with ``status`` after ``seconds`` seconds; keep it if it was slow.

        path: the request's decoded path, each byte as one character.  address: the client's, as the system names it.
        request_id: the id that the answer names.
        """
        route = route_of(method, path, self._routes)
        outcome = outcome_of(route, status)
        with self._lock:
            self.times.note(route, outcome, seconds)
        if seconds >= self.times.slow.from_s:
            key_bytes = key_bytes_of(route, path)
            self.times.slow.note("http", route, outcome, seconds, key_bytes, 1, _shown(address), request_id)


def route_of(method: str, path: str, routes: Collection[str]) -> str:
    """Return the name of the route that answers ``method`` at ``path``, such as ``GET /cache/{key}``; "unknown" for none.

    routes: the names of all routes but those with HEAD.
    """
    path = _one_slash(path)
    if path.startswith(PREFIX):
        if method != "POST":
            return _KEY_ROUTES.get(method, UNKNOWN)
        return _POST_ROUTES.get(post_action(path[len(PREFIX) :])[0] or "", UNKNOWN)
    asked = "GET" if method == "HEAD" else method
    name = f"{asked} {path}"
    if path.startswith(_PAGE):
        name = f"{asked} {_PAGE}{{name}}"
        if name not in routes or path[len(_PAGE) : len(_PAGE) + 1] in ("", "/"):
            return UNKNOWN
    elif name not in routes or "{" in path:
        parts = path.split("/")
        name = "/".join([f"{asked} ", *parts[1:2], "{id}", *parts[3:]])
        if len(parts) < 3 or not parts[2] or name not in routes:
            return UNKNOWN
    return name if asked == method else method + name[len(asked) :]


def outcome_of(route: str, status: int) -> str:
    """Return how a request to ``route`` has ended that was answered with ``status``: ok, refused, or error for the node's own."""
    if status == 503 and route.endswith(_HEALTH):
        # What it is asked for: to say that it is not ready.
        return OK
    if status >= 500:
        return ERROR
    return OK if status < 400 or (status in _SAYS_NO and route != UNKNOWN) else REFUSED


def key_bytes_of(route: str, path: str) -> int | None:
    """Return the length of the key in the decoded ``path`` of a request to ``route``; None for a route without a key."""
    _, found, suffix = route.partition("{key}")
    return len(_one_slash(path)) - len(PREFIX) - len(suffix) if found else None


def _one_slash(path: str) -> str:
    """Return ``path`` with one slash at its beginning: the application takes several, or none, for one."""
    return f"/{path.lstrip('/')}"


def _shown(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
