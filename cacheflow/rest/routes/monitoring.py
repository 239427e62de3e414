"""The routes for health, metrics and the specification, answered from memory in whatever state the cluster is."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, request

from cacheflow.arguments import shown
from cacheflow.contract import Check
from cacheflow.errors import InvalidRequest
from cacheflow.measuring.metrics import Metrics
from cacheflow.rest.answers import JSON_TYPE, TEXT_TYPE, Answer, json_answer, json_bytes
from cacheflow.rest.openapi import specification
from cacheflow.rest.request import checks
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import media_quality
from cacheflow.rest.request.paths import parse_query
from cacheflow.rest.routes.metrics import Scraped


def monitoring_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the routes ``/livez``, ``/readyz``, ``/metrics`` and ``/openapi.json``."""
    blueprint = Blueprint("monitoring", __name__)
    store, gates, access = services.store, (services.gate, services.thread_gate), services.config.access
    document = json_bytes(specification(services.config))

    @blueprint.get("/livez", endpoint="livez")
    def livez() -> Answer:
        return _health("livez", store.liveness())

    @blueprint.get("/readyz", endpoint="readyz")
    def readyz() -> Answer:
        return _health("readyz", store.readiness() if access is None else [*store.readiness(), access.check()])

    def _health(name: str, results: Sequence[Check]) -> Answer:
        verbose = checks.flag(parse_query(request.environ), "verbose")
        return Answer(*health_text(name, results, verbose), [*services.raft_headers(), TEXT_TYPE])

    def measured() -> Metrics:
        return {
            **store.metrics(),
            "http_waiting_requests": sum(gate.waiting for gate in gates),
            "http_waiting_requests_max": sum(gate.waiting_max for gate in gates),
            "http_refused_total": sum(gate.refused for gate in gates),
            **({} if access is None else access.metrics()),
            **services.times.times.metrics(),
        }

    scraped = Scraped(measured)

    @blueprint.get("/metrics", endpoint="metrics")
    def metrics() -> Answer:
        environ = request.environ
        wanted = parse_query(environ).get("format")
        if wanted not in (None, "json", "prometheus"):
            raise InvalidRequest(f"format is json or prometheus, not {shown(wanted)}")
        accept = environ.get("HTTP_ACCEPT", "")
        prefers_json = media_quality(accept, "application/json") > media_quality(accept, "text/plain")
        if wanted == "json" or (wanted is None and prefers_json):
            return json_answer(scraped.plain(), services.raft_headers())
        body, content_type = scraped.text(accept)
        return Answer(body, 200, [*services.raft_headers(), ("Content-Type", content_type)])

    @blueprint.get("/openapi.json", endpoint="openapi")
    def openapi() -> Answer:
        return Answer(document, 200, [*services.raft_headers(), JSON_TYPE])

    return blueprint


def health_text(name: str, results: Sequence[Check], verbose: bool) -> tuple[bytes, int]:
    """Return (body, HTTP status) of the health check ``name``, in Kubernetes' format: ``ok``, or a line for each check made.

    The lines are given when ``verbose`` is true or a check failed. results: (check, True if passed, detail).
    """
    passed = all(ok for _, ok, _ in results)
    if passed and not verbose:
        return b"ok", 200
    lines = [
        f"[+]{check} ok{f': {detail}' if detail else ''}" if ok else f"[-]{check} failed: {detail}"
        for check, ok, detail in results
    ]
    lines.append(f"{name} check {'passed' if passed else 'failed'}")
    return ("\n".join(lines) + "\n").encode(), 200 if passed else 503
