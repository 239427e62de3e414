"""``/scopes``: where a client opens a scope for the writes that it numbers."""

from __future__ import annotations

import secrets

from flask import Blueprint, request

from cacheflow.arguments import known_fields
from cacheflow.machine.language import commands
from cacheflow.rest.answers import json_answer
from cacheflow.rest.request.bodies import read_object
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import scope_name
from cacheflow.rest.request.waiting import Steps, run_one, waits


def scopes_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the route ``/scopes``, on which a client opens a scope."""
    blueprint = Blueprint("scopes", __name__)

    @blueprint.post("/scopes", endpoint="open")
    @waits(services)
    def open_scope() -> Steps:
        known_fields(read_object(request.environ, services.limits.body_bytes_max), ())
        # Beside the number, so that a scope of another cluster, or of this one before it lost its data, is none here.
        nonce = secrets.token_hex(8)
        _, scope = yield from run_one("", commands.open_scope(nonce), None)
        return json_answer({"scope": scope_name(scope, nonce)}, services.raft_headers(), 201)

    return blueprint
