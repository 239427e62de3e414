"""The routes ``/backup`` and ``/restore``: the contents as a file, and a file's in the place of the cluster's contents."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO

from flask import Blueprint, Response, request

from cacheflow.contract import Backups
from cacheflow.errors import InvalidRequest
from cacheflow.rest.answers import Answer, FileAnswer, json_answer
from cacheflow.rest.request import checks
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.paths import parse_query

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PIECE_BYTES = 256 * 1024
BACKUP_TYPE = ("Content-Type", "application/x-cacheflow-backup")


def backups_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the routes ``/backup`` and ``/restore``."""
    blueprint = Blueprint("backups", __name__)
    store, gate = services.store, services.thread_gate

    @blueprint.get("/backup", endpoint="backup")
    def backup() -> Response:
        if request.method == "HEAD":
            # A whole backup would be made to tell its length.
            return Answer(b"", 200, [*services.raft_headers(), BACKUP_TYPE])
        with gate:
            file, meta = store.backups.take()
        name = f'attachment; filename="cacheflow-{meta.index}.backup"'
        headers = [BACKUP_TYPE, ("Content-Disposition", name), ("X-Backup-Index", str(meta.index))]
        return FileAnswer(file, [*services.raft_headers(), *headers])

    @blueprint.post("/restore", endpoint="restore")
    def restore() -> Answer:
        online = checks.flag(parse_query(request.environ), "online")
        with gate, contextlib.closing(_body(store.backups, request.environ)) as file:
            meta, revision = store.backups.restore(file, online=online)
        told: dict[str, Any] = {"items": meta.items, "revision": revision}
        told["backup"] = {"index": meta.index, "cluster_id": meta.cluster_id, "revision": meta.revision}
        return json_answer(told, services.raft_headers())

    @blueprint.delete("/restore", endpoint="give_up")
    def give_up() -> Answer:
        with gate:
            given_up = store.backups.give_up()
        return json_answer({"given_up": given_up}, services.raft_headers())

    return blueprint


def _body(backups: Backups, environ: WSGIEnvironment) -> BinaryIO:
    """Return the body of an HTTP request as an open file on the node's disk, which the caller has to close.

    The HTTP server has written a long body to the disk while it arrived (``server/files.py``).
    Raises InvalidRequest for no body.
    """
    body: Any = environ["wsgi.input"]
    missing = int(environ.get("CONTENT_LENGTH") or 0)
    if not missing:
        raise InvalidRequest("the body is to be a backup, as GET /backup gives it")
    try:
        body.fileno()
    except (AttributeError, io.UnsupportedOperation):
        pass
    else:
        return body  # type: ignore[no-any-return]
    file = backups.new_file()
    while missing and (piece := body.read(min(missing, _PIECE_BYTES))):
        file.write(piece)
        missing -= len(piece)
    return file
