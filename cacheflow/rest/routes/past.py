"""The routes ``/events`` and ``/history``: what has lately happened on this node, for people and for the page."""

from __future__ import annotations

import gzip

from flask import Blueprint, request

from cacheflow.machine.language.commands import INT64_MAX
from cacheflow.rest.answers import JSON_TYPE, Answer, json_answer
from cacheflow.rest.history import History
from cacheflow.rest.request import checks
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import takes_gzip
from cacheflow.rest.request.paths import parse_query

_NOT_KEPT = ("Cache-Control", "no-store")
# Shorter answers gain less by being compressed than that costs.
_PACKED_BYTES_MIN = 4096
# A fraction of the time that the best compression takes, for a few per cent more bytes.
_PACKED_LEVEL = 1


def past_blueprint(services: Services, history: History) -> Blueprint:
    """Return the Flask blueprint of the routes ``/events`` and ``/history``. history: the samples of this node."""
    blueprint = Blueprint("past", __name__)
    store = services.store

    @blueprint.get("/events", endpoint="events")
    def events() -> Answer:
        since = checks.integer(parse_query(request.environ), "since", 0, INT64_MAX) or 0
        kept = store.events()
        following = kept[-1].number + 1 if kept else 1
        # Numbers grow across starts; one that is not reached yet is of a start before the node's clock was set back.
        told = [event for event in kept if event.number >= since or since > following]
        shown = [{"number": e.number, "at": e.at_s, "what": e.what, "text": e.text, "about": e.about} for e in told]
        return json_answer({"events": shown, "next": following}, [*services.raft_headers(), _NOT_KEPT])

    @blueprint.get("/history", endpoint="history")
    def samples() -> Answer:
        since_s = checks.moment(parse_query(request.environ), "since")
        body = history.as_json(since_s)
        headers = [*services.raft_headers(), JSON_TYPE, _NOT_KEPT, ("Vary", "Accept-Encoding")]
        if len(body) >= _PACKED_BYTES_MIN and takes_gzip(request.environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, _PACKED_LEVEL, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return Answer(body, 200, headers)

    return blueprint
