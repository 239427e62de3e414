"""The REST front: the Flask application that serves a store over HTTP, and the server that runs it."""

from cacheflow.rest.app import create_app
from cacheflow.rest.request.auth import may
from cacheflow.rest.request.context import RestConfig, body_bytes_max
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.doors import Doors
from cacheflow.rest.server.files import Uploads
from cacheflow.rest.server.refusals import turn_away
from cacheflow.rest.server.request_ids import served_ids
from cacheflow.rest.server.serving import TLS_ONLY, HttpServer
from cacheflow.rest.watches import Watches

__all__ = [
    "TLS_ONLY",
    "Doors",
    "HttpServer",
    "RestConfig",
    "Uploads",
    "Watches",
    "at_once",
    "body_bytes_max",
    "create_app",
    "may",
    "served_ids",
    "turn_away",
]
