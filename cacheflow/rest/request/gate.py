"""WaitingGate: a limit to the number of requests that wait for the cluster at the same time.

Without a leader every write waits until its timeout. Were all let in, they would take every thread, or as many
descriptors and as much memory as clients care to open; a request over the limit is refused at once, and its client tries
again, or elsewhere.
"""

from __future__ import annotations

import threading

from cacheflow.errors import Overloaded


class WaitingGate:
    """A limit to the number of HTTP requests that wait for the cluster at the same time. Never blocks; any thread may use it.

    Use it as ``with gate:`` around what waits, or call ``enter`` before waiting and ``leave`` afterwards.
    """

    def __init__(self, waiting_max: int) -> None:
        self.waiting_max = waiting_max
        self._lock = threading.Lock()  # guards the two counters
        # The number of requests that wait now, and of those refused since the start.
        self.waiting = 0
        self.refused = 0

    def refusal(self) -> Overloaded:
        """Return the error for a request that would wait beyond the limit of waiting requests, and count it as refused."""
        with self._lock:
            self.refused += 1
        return Overloaded(f"{self.waiting_max} requests wait for the cluster already; this one was not sent", 1.0)

    def enter(self) -> None:
        """Count a request that is going to wait for the cluster. Raises Overloaded at the limit of waiting requests."""
        with self._lock:
            if self.waiting < self.waiting_max:
                self.waiting += 1
                return
        raise self.refusal()

    def leave(self) -> None:
        """Stop counting a request that had to wait for the cluster and waits no longer."""
        with self._lock:
            self.waiting -= 1

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()
