"""RespService: what the RESP connections of one node share."""

from __future__ import annotations

import functools
import hmac
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from cacheflow.contract import WireStore as Store
from cacheflow.wire.connection import Connection
from cacheflow.wire.resp import RespConnection
from cacheflow.wire.resp_gets import answer_gets
from cacheflow.wire.resp_scan import Scans
from cacheflow.wire.resp_spec import Spec
from cacheflow.wire.resp_table import TABLE
from cacheflow.wire.serving import WirePort

# To a client for whom there is no room.
REFUSAL: Final = b"-ERR max number of clients reached\r\n"
# A request is room for some values of the largest size, in an entry that still fits into one message between nodes.
REQUEST_BYTES_MIN: Final = 5 * 1024 * 1024
REQUEST_BYTES_MAX: Final = 65 * 1024 * 1024
VALUES_IN_REQUEST: Final = 4


def resp_port(store: Store, *, value_bytes_max: int, token: bytes | None, connections_max: int) -> WirePort:
    """The port on which RESP is spoken over ``store``."""
    service = RespService(store, token=token, value_bytes_max=value_bytes_max)
    return WirePort("resp", service.connection, REFUSAL, connections_max, functools.partial(answer_gets, store))


class RespService:
    """Not safe for concurrent use: the event loop owns it.

    token: what AUTH must bring, None: nothing.  wall: seconds since 1970.
    """

    def __init__(
        self, store: Store, *, token: bytes | None, value_bytes_max: int, wall: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.token = token
        self.value_bytes_max = value_bytes_max
        self.request_bytes_max = min(max(REQUEST_BYTES_MIN, VALUES_IN_REQUEST * value_bytes_max), REQUEST_BYTES_MAX)
        self.wall = wall
        self.scans = Scans(store)
        self.connections: dict[int, RespConnection] = {}
        self.accepted = 0
        self.started_at = wall()
        self.run_id = os.urandom(20).hex()
        self.table: Mapping[bytes, Spec] = TABLE

    def connection(self, on_closed: Callable[[Connection], None]) -> RespConnection:
        """A new one."""
        self.accepted += 1
        connection = RespConnection(self, self.accepted, on_closed)
        self.connections[connection.id] = connection
        return connection

    def closed(self, connection: RespConnection) -> None:
        """It is no more."""
        self.connections.pop(connection.id, None)

    def wall_ms(self) -> int:
        """This node's wall clock: what ends that are given as times refer to."""
        return int(self.wall() * 1000)

    def admits(self, user: bytes, password: bytes) -> bool:
        """Whether they may come in. Takes as long whatever is wrong."""
        right = hmac.compare_digest(password, self.token or b"")
        return right and user == b"default" and self.token is not None
