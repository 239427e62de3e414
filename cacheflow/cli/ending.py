"""The end of a server: not ready, then some seconds for load balancers, then out of the membership, then closed ports.

A second signal ends at once: what is waited for then is waited for no more.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from cacheflow.config import NodeConfig
from cacheflow.rest import HttpServer
from cacheflow.store import ReplicatedStore

logger = logging.getLogger(__name__)

# Seconds for requests that run when the ports are closed.
REQUESTS_END_WITHIN_S: Final = 10.0
# Seconds between two looks: at signals, and whether something is done.
LOOK_S: Final = 0.05


def end(store: ReplicatedStore, http: HttpServer, config: NodeConfig, signals: queue.SimpleQueue[int]) -> None:
    """End a running server: make its node not ready, drain, leave the cluster if so configured, and close the HTTP port.

    signals: the numbers of the signals that come meanwhile; one of them makes the server end sooner.
    store: the running node, which the caller closes afterwards.
    """
    # The leader hands over now: writes go on elsewhere long before the ports are closed.
    store.retire()
    hurry = False
    if config.drain_s:
        logger.info("not ready from now on; the ports are closed in %g s, or at a second signal", config.drain_s)
        hurry = _told_again(signals, time.monotonic() + config.drain_s)
    if config.leave and not hurry:
        hurry = not _done(store.leave, signals)
    logger.info("stopping")
    if hurry or not _done(lambda: http.stop(REQUESTS_END_WITHIN_S), signals):
        http.stop(0.0)


def _done(work: Callable[[], object], signals: queue.SimpleQueue[int]) -> bool:
    """Call the function ``work`` in another thread; return True once it returns, False if a signal to end comes before."""
    worker = threading.Thread(target=work, name="cacheflow-ending", daemon=True)
    worker.start()
    while worker.is_alive():
        if _told_again(signals, time.monotonic() + LOOK_S):
            return False
    return True


def _told_again(signals: queue.SimpleQueue[int], until_s: float) -> bool:
    """Wait until ``until_s``, a monotonic time, and return False; return True at once if another signal to end comes."""
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            # In pieces: another thread may be the one that a signal interrupts, and its handler runs when this one looks again.
            if signals.get(timeout=min(left_s, 1.0)) != signal.SIGHUP:
                return True
        except queue.Empty:
            continue
    return False
