"""The protocols by which memcached's commands see the connection they came through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cacheflow.machine.commands import Command, Result
from cacheflow.wire.connection import End
from cacheflow.wire.memcached_fetch import Fetch
from cacheflow.wire.optimistic import Client


class Port(Protocol):
    """The figures of a port, as ``stats`` shows them. See serving.WirePort."""

    connections_max: int
    accepted: int
    refused: int

    @property
    def connections(self) -> int: ...
    @property
    def requests(self) -> int: ...


class Shared(Protocol):
    """The settings and figures that all connections of one port share. See memcached.Shared."""

    token: bytes | None
    version: str

    @property
    def port(self) -> Port: ...


class Session(Client, Protocol):
    """A connection, as commands see it. missing: bytes still to come of the request at hand. See connection.Connection."""

    linearizable: bool
    missing: int
    value_bytes_max: int

    @property
    def shared(self) -> Shared: ...
    @property
    def answers_at_once(self) -> bool: ...
    def wall_s(self) -> float: ...
    def reply(self, answer: bytes) -> None: ...
    def read(self, answer: Callable[[], bytes]) -> None: ...
    def write(self, command: Command, answer: Callable[[Result], bytes]) -> None: ...
    def behind_barrier(self, begin: Callable[[End], None]) -> None: ...
    def fetch(self, fetch: Fetch) -> None: ...
    def skip(self, count: int) -> None: ...
    def close(self) -> None: ...


Handler = Callable[[Session, list[bytes]], None]
