"""RestConfig and Services: the settings, the store and the gates of one application, as all its blueprints get them."""

from __future__ import annotations

from dataclasses import dataclass

from cacheflow.access.users import Access
from cacheflow.contract import Check, RestStore
from cacheflow.measuring.metrics import Metrics
from cacheflow.rest.request.gate import WaitingGate
from cacheflow.rest.route_times import RouteTimes

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RestConfig:
    """The settings of the REST API's application: users, limits and the number of threads."""

    # The users, one of whose tokens is needed on everything but /livez and /readyz; None: no token is asked for.
    access: Access | None = None
    # The token with which nodes that know the cluster's secret register themselves; None: they need an admin's.
    join_token: bytes | None = None
    # Threads of the server around the application: three quarters of them may wait for the cluster.
    threads: int = 40
    # The most requests that wait without a thread. At some thousand writes a second the last of them waits well under 0.1 s;
    # more would only make a longer queue.
    waiting_max: int = 128


def body_bytes_max(value_bytes_max: int) -> int:
    """Return the most bytes that a request's body may have, on any route, where values may have ``value_bytes_max`` bytes.

    16 MiB has room for a batch, and for a text of 1 MiB of which JSON escapes every byte (as six bytes).
    With larger values there is room for base64 in JSON (four bytes for three) and the rest of the document.
    """
    return max(16 * MIB, value_bytes_max * 4 // 3 + 64 * 1024)


class Limits:
    """Holds the most bytes that a value and a request's body may have now. Any thread may read these two numbers."""

    __slots__ = ("body_bytes_max", "value_bytes_max")

    def __init__(self, value_bytes_max: int) -> None:
        self.take(value_bytes_max)

    def take(self, value_bytes_max: int) -> None:
        """Let a value have at most ``value_bytes_max`` bytes from now on, and a request's body as many as such values need."""
        self.value_bytes_max = value_bytes_max
        self.body_bytes_max = body_bytes_max(value_bytes_max)


@dataclass(frozen=True, slots=True)
class Services:
    """What all views of one REST application share: the cache's store, the settings, and limits."""

    store: RestStore
    config: RestConfig
    # gate: for requests that wait without a thread.  thread_gate: for those that hold one.
    gate: WaitingGate
    thread_gate: WaitingGate
    limits: Limits
    # The times of all answers: the server around the application notes them.
    times: RouteTimes

    def raft_headers(self) -> list[tuple[str, str]]:
        """Return this node's present headers X-Raft-Index, X-Raft-Term and X-Served-By, which every HTTP answer carries."""
        at = self.store.position()
        return [("X-Raft-Index", str(at.index)), ("X-Raft-Term", str(at.term)), ("X-Served-By", at.node_id)]

    def readiness(self) -> list[Check]:
        """Return the readiness checks of this node, and that of its users where they have to show tokens."""
        access = self.config.access
        return [*self.store.readiness(), *([] if access is None else [access.check()])]

    def measured(self) -> Metrics:
        """Return what this node and its HTTP front tell of themselves in numbers. Any thread may call it."""
        gates, access = (self.gate, self.thread_gate), self.config.access
        return {
            **self.store.metrics(),
            "http_waiting_requests": sum(gate.waiting for gate in gates),
            "http_waiting_requests_max": sum(gate.waiting_max for gate in gates),
            "http_refused_total": sum(gate.refused for gate in gates),
            **({} if access is None else access.metrics()),
            **self.times.times.metrics(),
        }
