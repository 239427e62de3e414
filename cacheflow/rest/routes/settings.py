"""The route ``/cluster/settings``: the settings that all nodes have, read and changed while the cluster runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, request

from cacheflow.errors import InvalidRequest, PreconditionFailed
from cacheflow.rest.answers import Answer, json_answer
from cacheflow.rest.request.auth import user_name
from cacheflow.rest.request.bodies import read_object
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import read_condition, repeatable, write_condition
from cacheflow.rest.request.waiting import Steps, waits
from cacheflow.results import ClusterSettings
from cacheflow.verbs import settings_command, settings_of


def settings_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the route ``/cluster/settings``."""
    blueprint = Blueprint("settings", __name__)
    store = services.store

    @blueprint.get("/cluster/settings", endpoint="get")
    def get() -> Answer:
        found = store.settings()
        ends = read_condition(request.environ, found.version)
        if ends == 412:
            raise _moved(found.version)
        if ends == 304:
            return Answer(b"", 304, [*services.raft_headers(), _tag(found)])
        return json_answer(asdict(found), [*services.raft_headers(), _tag(found)])

    @blueprint.patch("/cluster/settings", endpoint="patch")
    @waits(services)
    def patch() -> Steps:
        environ = request.environ
        changes = read_object(environ, services.limits.body_bytes_max)
        command = settings_command(changes, _wanted(environ, store.settings), user_name(environ))
        repeat = repeatable(environ, store.first_index)
        [result] = yield [command if repeat is None else (*repeat, command)]
        found = settings_of(result)
        return json_answer(asdict(found), [*services.raft_headers(), _tag(found)])

    return blueprint


def _wanted(environ: Mapping[str, Any], read: Callable[[], ClusterSettings]) -> int | None:
    """Return the version of the settings that the header If-Match asks for; None if any version will do.

    If the header names several versions, the settings' present version is returned. read: a function that returns
    the present settings. Raises InvalidRequest, PreconditionFailed.
    """
    condition = write_condition(environ)
    if condition.absent:
        raise InvalidRequest("If-None-Match makes no sense here: the settings are always there")
    if condition.versions is None:
        return None
    if len(condition.versions) == 1:
        return condition.versions[0]
    present = read().version
    if present not in condition.versions:
        raise _moved(present)
    return present


def _moved(version: int) -> PreconditionFailed:
    return PreconditionFailed(f"the settings are at version {version}: read them again", version)


def _tag(found: ClusterSettings) -> tuple[str, str]:
    return "ETag", f'"{found.version}"'
