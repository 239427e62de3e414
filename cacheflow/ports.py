"""ListeningPorts: what else is served on the node's own loop, each on a port of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from cacheflow import poller
from cacheflow.listener import Listener
from cacheflow.poller import Poller
from cacheflow.socket_transport import Arrival

Run = Callable[[Callable[[], None]], None]


def _call(work: Callable[[], None]) -> None:
    work()


class Service(Protocol):
    """A protocol for clients. Called on the loop, but for ``metrics``."""

    @property
    def name(self) -> str:
        """Of its port, as in the flag: ``memcached`` for --memcached-port."""

    def connect(self) -> asyncio.Protocol:
        """For a connection that was accepted."""

    def answer_many(self, arrived: list[Arrival]) -> list[Arrival]:
        """Answer what can be answered for several connections at once; the rest, for each to handle by itself."""

    async def drain(self) -> None:
        """Answer what is under way, for a moment; then close every connection."""

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by name. Any thread."""


class ListeningPorts:
    """Those that are open. The event loop owns it; any thread may ask for ``metrics``.

    run: runs what one poll of their clients brings; by default it is just called.
    direct: their clients' sockets are polled past the loop, where the system can; else they are asyncio's transports.
    """

    def __init__(self, run: Run = _call, *, direct: bool = poller.available()) -> None:
        self._run = run
        self._open: list[tuple[Service, Listener]] = []
        self._direct = direct
        self._poller: Poller | None = None

    async def open(self, service: Service, host: str, port: int) -> int:
        """Listen, on a free port when ``port`` is 0; the port. Raises ConfigError."""
        loop = asyncio.get_running_loop()
        listener = Listener(loop, service.connect, service.name, self._adopting(loop, service))
        await listener.open(host, port)
        self._open.append((service, listener))
        return listener.address[1]

    def _adopting(self, loop: asyncio.AbstractEventLoop, service: Service) -> Callable[[socket.socket], None] | None:
        if not self._direct:
            return None
        if self._poller is None:
            self._poller = Poller(loop, self._run)
        adopt = self._poller.adopt
        return lambda sock: adopt(sock, service.connect, service.answer_many)

    async def close(self) -> None:
        """Accept nobody, and end who is there."""
        for _, listener in self._open:
            await listener.close()
        await asyncio.gather(*(service.drain() for service, _ in self._open))
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def metrics(self) -> dict[str, float]:
        """Of all of them."""
        return {name: value for service, _ in self._open for name, value in service.metrics().items()}
