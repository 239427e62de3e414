"""The composition root: a node with its HTTP front, from a NodeConfig to its clean end.

SIGTERM and SIGINT drain: readiness goes first, running requests end, a leader hands leadership over, and the files close.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from types import FrameType

from cacheflow.config import NodeConfig, read_secret
from cacheflow.raft.network import join_address
from cacheflow.rest import HttpServer, RestConfig, TurnAway, at_once, create_app
from cacheflow.store import ReplicatedStore

logger = logging.getLogger(__name__)


def run(config: NodeConfig) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. Raises ConfigError before anything is served."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    store = ReplicatedStore(config)
    rest = RestConfig(
        token=read_secret(config.api_token_file, "api-token-file"),
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
        turn_away=TurnAway(app.services),
        at_once=at_once,
    )
    address = join_address(config.advertise or config.host, http.port)
    try:
        store.start(address)
        http.start()
        logger.info("listening on http://%s", address)
        while not stopping.wait(1.0):
            pass
        logger.info("stopping")
        http.stop()
    finally:
        store.close()
    return 0
