"""The server process: it builds a node with its HTTP front from a NodeConfig, runs it, and ends it cleanly.

SIGTERM and SIGINT drain: readiness goes first, running requests end, a leader hands leadership over, and the files close.
A disk that hangs does not keep the process.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import replace

from cacheflow.config import NodeConfig, join_address, join_token, read_secret
from cacheflow.rest import Doors, HttpServer, RestConfig, at_once, create_app, turn_away
from cacheflow.store import ReplicatedStore
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import connections_allowed
from cacheflow.wire.resp.service import resp_port
from cacheflow.wire.slices import Slices

logger = logging.getLogger(__name__)

# The garbage collector's passes over its middle generation before a full pass, instead of ten: then one comes every few
# minutes under full load.
FULL_PASS_AFTER = 1000


def run(config: NodeConfig) -> int:
    """Serve a node until SIGTERM or SIGINT; return the process's exit code.

    Raises ConfigError before anything is served.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # Nothing else runs in this process.
    store = ReplicatedStore(replace(config, collect_garbage=True))
    token = read_secret(config.api_token_file, "api-token-file")
    secret = read_secret(config.cluster_secret_file, "cluster-secret-file")
    rest = RestConfig(
        token=token,
        join_token=None if secret is None else join_token(secret),
        max_value_bytes=config.max_value_bytes,
        threads=config.http_threads,
    )
    # The port is taken before the node tells anybody that it lives there.
    app = create_app(store, rest)
    http = HttpServer(
        app,
        config.host,
        config.port,
        threads=rest.threads,
        body_bytes_max=rest.body_bytes_max,
        refusal_headers=app.services.raft_headers,
        turn_away=functools.partial(turn_away, app.services),
        at_once=at_once,
        unsent=store.unsent,
        doors=Doors(
            None if token is not None else [config.host, config.advertise or config.host, *config.allow_host],
            config.allow_origin,
        ),
    )
    address = join_address(config.advertise or config.host, http.port)
    try:
        store.start(address)
        _serve_wires(store, config, token)
        http.start()
        _freeze_what_stays()
        logger.info("listening on http://%s", address)
        while not stopping.wait(1.0):
            pass
        logger.info("stopping")
        http.stop()
    finally:
        _close(store)
    return 0


def _close(store: ReplicatedStore) -> None:
    """Close the store; end the process without a last flush if the disk hangs. No promise depends on that flush."""

    if not store.close():
        logger.error("the disk does not answer: this process ends without its last flush")
        os._exit(1)


def _freeze_what_stays() -> None:
    """Let the garbage collector never look at the objects that exist now, and seldom make full passes.

    A full pass goes through everything, the dictionary of a million items too, and stops the loop for up to 0.2 s. What is
    there by now is never looked at again; what comes later (a cleared cache begins a new dictionary) seldom. So what is
    large or often comes and goes must not be in a cycle: machines and connections are not, and tests see to it. This is the
    process's own affair, so an embedded store leaves it alone.
    """
    # Garbage of the start must not be frozen with the rest.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], FULL_PASS_AFTER)


def _serve_wires(store: ReplicatedStore, config: NodeConfig, token: bytes | None) -> None:
    """Open the configured ports of the wire protocols on the node's own loop; they close with the store."""
    wires = {memcached_port: config.memcached_port, resp_port: config.resp_port}
    told = {make: port for make, port in wires.items() if port is not None}
    slices = Slices()
    for make, port in told.items():
        service = make(
            store,
            value_bytes_max=config.max_value_bytes,
            token=token,
            connections_max=connections_allowed(len(told)),
            slices=slices,
        )
        bound = store.serve(service, config.host, port)
        logger.info("%s protocol on %s", service.name, join_address(config.host, bound))
