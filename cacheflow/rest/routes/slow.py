"""The route ``GET /slow``: the requests that took long lately, answered from memory in whatever state the cluster is."""

from __future__ import annotations

from flask import Blueprint

from cacheflow.measuring.slow_log import SlowRequest
from cacheflow.rest.answers import Answer, json_answer
from cacheflow.rest.request.context import Services


def slow_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the route ``/slow``."""
    blueprint = Blueprint("slow", __name__)

    @blueprint.get("/slow", endpoint="slow")
    def slow() -> Answer:
        log = services.store.slow_log
        told = {"slow_ms": log.slow_ms, "slow": [_shown(each) for each in log.latest()]}
        return json_answer(told, services.raft_headers())

    return blueprint


def _shown(each: SlowRequest) -> dict[str, object]:
    return {
        "id": each.number,
        "time": each.at_s,
        "front": each.front,
        "command": each.command,
        "outcome": each.outcome,
        "duration_ms": round(each.seconds * 1000, 3),
        "key_bytes": each.key_bytes,
        "requests": each.requests,
        "client": each.client or None,
        "request_id": each.request_id or None,
    }
