"""RespService: the port that speaks RESP, and what its connections share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from cacheflow.access.users import Access
from cacheflow.contract import WireStore as Store
from cacheflow.net.slices import Slices
from cacheflow.wire.connection import Connection
from cacheflow.wire.port import WirePort
from cacheflow.wire.resp.connection import RespConnection
from cacheflow.wire.resp.gets import answer_gets
from cacheflow.wire.resp.session import Shared
from cacheflow.wire.resp.table import TABLE

# The reply to a client for whom there is no room.
REFUSAL: Final = b"-ERR max number of clients reached\r\n"
TLS_ONLY: Final = b"-ERR this port speaks TLS only: connect with TLS (redis-cli --tls, rediss://)\r\n"


def resp_port(
    store: Store,
    *,
    value_bytes_max: int,
    access: Access | None,
    connections_max: int,
    slices: Slices | None = None,
    notify: str = "",
) -> WirePort:
    """Return the port that serves RESP to clients of ``store``, a node's cache.

    access: the users, one of whose tokens AUTH must bring; None if nobody has to show one.
    slices: the queue of long work that is done in slices, shared with other ports of the event loop.
    notify: which changes of keys are published on channels, as Redis' flags.
    """
    service = RespService(store, TABLE, access=access, value_bytes_max=value_bytes_max, slices=slices)
    times = service.times
    service.notifications.choose(notify)
    return WirePort(
        "resp",
        service.connection,
        REFUSAL,
        TLS_ONLY,
        connections_max,
        functools.partial(answer_gets, store, times),
        service.limit_values,
        times,
    )


class RespService(Shared):
    """An object that holds what all RESP connections of one port share, and makes these connections."""

    def connection(self, on_closed: Callable[[Connection], None]) -> RespConnection:
        """Return a connection object for a new RESP client. on_closed: called with the connection after it has closed."""
        self.accepted += 1
        # The first client comes on the event loop, and before it nobody has subscribed.
        self.notifications.go_on()
        number = self.accepted

        def closed(connection: Connection) -> None:
            if self.connections.pop(number, None) is not None:
                self.requests_before += connection.requests
            on_closed(connection)

        connection = self.connections[number] = RespConnection(self, number, closed)
        return connection
