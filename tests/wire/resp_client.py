"""A RESP connection over the fake store, and what tests say on it."""

from __future__ import annotations

import shlex

from fakes.users import access_of
from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.turns import endless

from cacheflow.net.slices import Slices
from cacheflow.wire.connection import Connection
from cacheflow.wire.port import WirePort
from cacheflow.wire.resp.service import RespService, resp_port
from cacheflow.wire.resp.table import TABLE

VALUE_BYTES_MAX = 1024 * 1024


def ignore(connection: Connection) -> None:
    """Nobody waits for its end."""


def service(store: FakeStore, token: bytes | None = None, slices: Slices | None = None) -> RespService:
    """A service whose node's wall clock stands where the cluster's clock stood at the start."""
    return RespService(
        store,
        TABLE,
        access=None if token is None else access_of(token),
        value_bytes_max=VALUE_BYTES_MAX,
        wall=lambda: START_MS / 1000,
        slices=slices or endless(),
    )


def port(store: FakeStore, token: bytes | None = None) -> WirePort:
    """A port whose clients are never put off."""
    access = None if token is None else access_of(token)
    return resp_port(store, value_bytes_max=VALUE_BYTES_MAX, access=access, connections_max=8, slices=endless())


def connect(store: FakeStore | None = None, token: bytes | None = None) -> Client:
    """One client."""
    # An empty store is false.
    return Client(service(FakeStore() if store is None else store, token).connection(ignore))


def pack(*arguments: bytes | str) -> bytes:
    """A request as clients send it."""
    parts = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


def line(words: str) -> bytes:
    """A request written as in a shell."""
    return pack(*shlex.split(words))


def lines(words: str) -> bytes:
    """A pipeline, one request a line."""
    return b"".join([line(each) for each in words.strip().splitlines()])
