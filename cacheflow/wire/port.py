"""WirePort: the connections of one wire protocol; it counts them, caps their number and closes them.

A connection costs a descriptor and some kilobytes, and may be silent for ever, as with memcached and Redis: there is no
idle timeout. So their number has a cap, and who comes over it is told so and closed. But a request that was begun must be
complete in time, as over HTTP, and who has to show a token must do so.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Final, cast

from cacheflow.measuring.metrics import Metrics
from cacheflow.measuring.request_times import RequestTimes
from cacheflow.wire.arrivals import Arrival
from cacheflow.wire.connection import Connection

# The most connections of a port, Redis' default.
CONNECTIONS_MAX: Final = 10_000
# Descriptors that are left for everything else: the journal, peers, and what HTTP takes at most.
DESCRIPTORS_KEPT: Final = 384
DRAIN_S: Final = 1.0
# Seconds in which a request that was begun must be complete, and a token be shown; as many as over HTTP.
REQUEST_DEADLINE_S: Final = 30.0

Make = Callable[[Callable[[Connection], None]], Connection]
AnswerMany = Callable[[list[Arrival]], list[Arrival]]


class WirePort:
    """The port of one wire protocol and its connections. The event loop owns it; any thread may call ``metrics``.

    name: the port's name in metrics.
    make: makes a new connection; it is given the function that the connection calls when it has closed.
    refusal: the reply to a client that comes when ``connections_max`` connections are open.
    tls_only: the reply to a client that speaks no TLS where it has to.
    answer_many: is given the input of several connections, answers what it can together, and returns the input that is left.
    limit: sets the most bytes of a value that the protocol takes; returns the most bytes of a request from then on.
    times: where the connections count their answered requests, with the time that their answers took.
    clock: returns seconds.
    """

    def __init__(
        self,
        name: str,
        make: Make,
        refusal: bytes,
        tls_only: bytes,
        connections_max: int,
        answer_many: AnswerMany,
        limit: Callable[[int], int],
        times: RequestTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.tls_only = tls_only
        self.times = times
        self._clock = clock
        # Connections that were at a request when they were looked at last: their number of requests then, and since when.
        self._begun: dict[Connection, tuple[int, float]] = {}
        self.overdue = 0
        self.answer_many = answer_many
        self.connections_max = connections_max
        self.accepted = 0
        self.refused = 0
        self._make = make
        self._limit = limit
        self._refusal = refusal
        self._connections: set[Connection] = set()
        self._requests_before = 0
        self._empty: asyncio.Event | None = None

    def connect(self) -> asyncio.Protocol:
        """Return the asyncio protocol for a new client; over the limit of connections, a protocol that refuses and closes."""
        if len(self._connections) >= self.connections_max or self._empty is not None:
            self.refused += 1
            return _Refused(self._refusal)
        self.accepted += 1
        connection = self._make(self._closed)
        self._connections.add(connection)
        return connection

    def end_overdue(self) -> None:
        """Close connections whose client has owed the rest of a request, or a token, for REQUEST_DEADLINE_S seconds."""
        now_s = self._clock()
        begun = {}
        for connection in self._connections:
            if connection.is_due:
                then = self._begun.get(connection)
                if then is None or then[0] != connection.requests:
                    then = connection.requests, now_s
                begun[connection] = then
        self._begun = begun
        for connection, (_, since_s) in begun.items():
            if now_s - since_s >= REQUEST_DEADLINE_S:
                self.overdue += 1
                connection.abort()

    async def drain(self) -> None:
        """Let every connection of this port send its pending replies and close; after DRAIN_S seconds close the rest."""
        self._empty = asyncio.Event()
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            try:
                await asyncio.wait_for(self._empty.wait(), DRAIN_S)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()

    def limit_values(self, bytes_max: int) -> None:
        """Take values of up to ``bytes_max`` bytes from now on, on all connections of this port, and refuse larger ones."""
        request_bytes_max = self._limit(bytes_max)
        for connection in self._connections:
            connection.take_requests_of(request_bytes_max)

    def recheck(self) -> None:
        """Close the connections of users who were removed or changed, after the replies to what they have sent so far."""
        for connection in list(self._connections):
            if not connection.is_admitted():
                connection.finish()

    @property
    def connections(self) -> int:
        """The number of this port's open connections."""
        return len(self._connections)

    @property
    def requests(self) -> int:
        """The number of requests that clients have sent to this port so far."""
        return self._requests_before + sum([connection.requests for connection in list(self._connections)])

    def metrics(self) -> Metrics:
        """Return this port's counts of connections and requests, and the times of its answers, by metric name with labels."""
        label = f'{{port="{self.name}"}}'
        return {
            f"wire_connections{label}": self.connections,
            f"wire_connections_max{label}": self.connections_max,
            f"wire_accepted_total{label}": self.accepted,
            f"wire_refused_total{label}": self.refused,
            f"wire_overdue_total{label}": self.overdue,
            f"wire_requests_total{label}": self.requests,
            **self.times.metrics(),
        }

    def _closed(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._begun.pop(connection, None)
            self._requests_before += connection.requests
        if self._empty is not None and not self._connections:
            self._empty.set()


class _Refused(asyncio.Protocol):
    def __init__(self, words: bytes) -> None:
        self._words = words

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        transport = cast(asyncio.Transport, transport)
        transport.write(self._words)
        transport.close()


def connections_allowed(ports: int) -> int:
    """Return how many connections each port of a wire protocol may have, when this node has ``ports`` such ports.

    That is an equal share of what this process's limit of file descriptors leaves, and CONNECTIONS_MAX at most.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(16, min(CONNECTIONS_MAX, (soft - DESCRIPTORS_KEPT) // ports))
