"""The REST front: a Flask application over a store, and the server around it."""

from cacheflow.rest.app import create_app
from cacheflow.rest.context import RestConfig
from cacheflow.rest.serving import HttpServer
from cacheflow.rest.turning_away import TurnAway
from cacheflow.rest.waiting import at_once

__all__ = ["HttpServer", "RestConfig", "TurnAway", "at_once", "create_app"]
