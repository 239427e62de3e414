"""The factory of the REST application: RestApp and ``create_app``."""

from __future__ import annotations

from flask import Flask, Response, request

from cacheflow.contract import RestStore
from cacheflow.rest.answers import Answer
from cacheflow.rest.history import History
from cacheflow.rest.problems import answer_error
from cacheflow.rest.request.auth import NEEDS, role_check
from cacheflow.rest.request.context import Limits, RestConfig, Services
from cacheflow.rest.request.gate import WaitingGate
from cacheflow.rest.request.routing import KeyMap
from cacheflow.rest.route_times import RouteTimes
from cacheflow.rest.routes.backups import backups_blueprint
from cacheflow.rest.routes.cache import cache_blueprint
from cacheflow.rest.routes.cluster import cluster_blueprint
from cacheflow.rest.routes.monitoring import monitoring_blueprint
from cacheflow.rest.routes.page import page_blueprint
from cacheflow.rest.routes.past import past_blueprint
from cacheflow.rest.routes.scopes import scopes_blueprint
from cacheflow.rest.routes.settings import settings_blueprint
from cacheflow.rest.routes.slow import slow_blueprint
from cacheflow.rest.routes.watch import watch_blueprint
from cacheflow.rest.watches import Watches


class RestApp(Flask):
    """The Flask application of the REST API: the class KeyMap routes its paths below ``/cache/``.

    Its answers to OPTIONS carry the same headers X-Raft-Index, X-Raft-Term and X-Served-By as all others.
    """

    url_map_class = KeyMap
    services: Services
    watches: Watches
    history: History

    def make_default_options_response(self) -> Response:
        allowed = super().make_default_options_response().headers["Allow"]
        return Answer(b"", 204, [*self.services.raft_headers(), ("Allow", allowed)])


def create_app(store: RestStore, config: RestConfig) -> RestApp:
    """Return the Flask application that serves the cache ``store`` over HTTP, with the settings ``config``.

    Its attribute ``services`` holds what views use (the store, the settings, the limits), for further blueprints; ``history``
    keeps samples for who calls its ``look`` once a second.
    """
    app = RestApp("cacheflow.rest", static_folder=None)
    thread_gate = WaitingGate(max(1, config.threads * 3 // 4))
    limits = Limits(store.value_bytes_max)
    times = RouteTimes(store.slow_log, NEEDS)
    app.services = services = Services(store, config, WaitingGate(config.waiting_max), thread_gate, limits, times)
    store.on_value_limit(limits.take)
    app.register_blueprint(cache_blueprint(services))
    app.watches = Watches(store.watching, config.access)
    app.register_blueprint(scopes_blueprint(services))
    app.register_blueprint(watch_blueprint(services, app.watches))
    app.register_blueprint(cluster_blueprint(services))
    app.register_blueprint(settings_blueprint(services))
    app.register_blueprint(monitoring_blueprint(services))
    app.register_blueprint(slow_blueprint(services))
    app.register_blueprint(backups_blueprint(services))
    app.history = History(services.measured)
    app.register_blueprint(past_blueprint(services, app.history))
    app.register_blueprint(page_blueprint(services))
    app.register_error_handler(
        Exception,
        lambda error: answer_error(error, services, request.environ, (request.view_args or {}).get("raw_key")),
    )
    if config.access is not None:
        app.before_request(role_check(config.access, config.join_token, app.url_map))
    return app
