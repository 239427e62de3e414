"""A memcached connection over the fake store, and what tests say on it."""

from __future__ import annotations

from fakes.users import access_of
from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.turns import endless

from cacheflow.net.slices import Slices
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import WirePort

VALUE_BYTES_MAX = 1000


def port(
    store: FakeStore, token: bytes | None = None, connections_max: int = 8, slices: Slices | None = None
) -> WirePort:
    """A port whose node's wall clock stands where the cluster's clock stood at the start."""
    return memcached_port(
        store,
        value_bytes_max=VALUE_BYTES_MAX,
        access=None if token is None else access_of(token),
        connections_max=connections_max,
        wall_s=lambda: START_MS / 1000,
        slices=slices or endless(),
    )


def connect(store: FakeStore, token: bytes | None = None) -> Client:
    """One client."""
    protocol = port(store, token).connect()
    assert isinstance(protocol, Connection)
    return Client(protocol)


def talk(*said: bytes, store: FakeStore | None = None) -> list[bytes]:
    """What is answered to each of these, on one connection."""
    # An empty store is false.
    client = connect(FakeStore() if store is None else store)
    return [client.send(data) for data in said]
