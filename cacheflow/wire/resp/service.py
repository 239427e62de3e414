"""RespService: the settings, scans and figures that the RESP connections of one node share."""

from __future__ import annotations

import functools
import hmac
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.connection import Connection
from cacheflow.wire.port import WirePort
from cacheflow.wire.resp.commands.scan import Scans
from cacheflow.wire.resp.connection import RespConnection
from cacheflow.wire.resp.gets import answer_gets
from cacheflow.wire.resp.spec import Spec
from cacheflow.wire.resp.table import TABLE

# The reply to a client for whom there is no room.
REFUSAL: Final = b"-ERR max number of clients reached\r\n"
# The longest request has room for some values of the largest size, in an entry that still fits into one message between
# nodes.
REQUEST_BYTES_MIN: Final = 5 * 1024 * 1024
REQUEST_BYTES_MAX: Final = 65 * 1024 * 1024
VALUES_IN_REQUEST: Final = 4


def resp_port(store: Store, *, value_bytes_max: int, token: bytes | None, connections_max: int) -> WirePort:
    """Return the port on which RESP is spoken over ``store``."""
    service = RespService(store, TABLE, token=token, value_bytes_max=value_bytes_max)
    return WirePort("resp", service.connection, REFUSAL, connections_max, functools.partial(answer_gets, store))


class RespService:
    """The settings, scans and figures that the connections of one port share. The event loop owns it.

    table: the commands that are served.  token: AUTH must bring it, unless it is None.  wall: seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        table: Mapping[bytes, Spec],
        *,
        token: bytes | None,
        value_bytes_max: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.table = table
        self.token = token
        self.value_bytes_max = value_bytes_max
        self.request_bytes_max = min(max(REQUEST_BYTES_MIN, VALUES_IN_REQUEST * value_bytes_max), REQUEST_BYTES_MAX)
        self.wall = wall
        self.scans = Scans(store)
        self.connections: dict[int, RespConnection] = {}
        self.accepted = 0
        self.started_at = wall()
        self.run_id = os.urandom(20).hex()

    def connection(self, on_closed: Callable[[Connection], None]) -> RespConnection:
        """Return a new connection. on_closed: called with it when it is over."""
        self.accepted += 1
        number = self.accepted

        def closed(connection: Connection) -> None:
            self.connections.pop(number, None)
            on_closed(connection)

        connection = self.connections[number] = RespConnection(self, number, closed)
        return connection

    def wall_ms(self) -> int:
        """Return the time of this node's wall clock, to which expiry times of clients refer."""
        return int(self.wall() * 1000)

    def admits(self, user: bytes, password: bytes) -> bool:
        """True if user and password are right. It takes as long whatever is wrong."""
        right = hmac.compare_digest(password, self.token or b"")
        return right and user == b"default" and self.token is not None
