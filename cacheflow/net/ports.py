"""ListeningPorts: the ports on which the node's own loop serves the wire protocols."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Protocol

from cacheflow.net.listener import Listener
from cacheflow.net.poller import Poller
from cacheflow.net.transport import Arrival

Run = Callable[[Callable[[], None]], None]


class Service(Protocol):
    """The server of one wire protocol. The loop calls everything but ``metrics``."""

    @property
    def name(self) -> str:
        """The port's name in its flag: ``memcached`` for --memcached-port."""

    def connect(self) -> asyncio.Protocol:
        """Return the protocol of a connection that was accepted."""

    def answer_many(self, arrived: list[Arrival]) -> list[Arrival]:
        """Answer what can be answered for several connections at once; return the arrivals that each handles by itself."""

    async def drain(self) -> None:
        """Give every connection a moment to answer what is under way, and close it."""

    def metrics(self) -> dict[str, float]:
        """Return counters and gauges by name. Any thread may call it."""


class ListeningPorts:
    """The wire-protocol servers that are listening now. The event loop owns it; any thread may ask for ``metrics``.

    run: runs the work of one turn of the poller; by default it is just called.
    direct: clients' sockets are polled past the loop, where the system can; else they are asyncio's transports.
    """

    def __init__(self, run: Run = lambda work: work(), *, direct: bool = hasattr(select, "epoll")) -> None:
        self._run = run
        self._open: list[tuple[Service, Listener]] = []
        self._direct = direct
        self._poller: Poller | None = None

    async def open(self, service: Service, host: str, port: int) -> int:
        """Let clients of ``service`` in, on a free port when ``port`` is 0; return the port. Raises ConfigError."""
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
        """Accept no more connections, and close those there are."""
        for _, listener in self._open:
            await listener.close()
        await asyncio.gather(*(service.drain() for service, _ in self._open))
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def descriptors(self) -> list[int]:
        """Return the descriptors of the clients that are polled past the loop."""
        return [] if self._poller is None else [self._poller.epoll.fileno(), *self._poller.transports]

    def metrics(self) -> dict[str, float]:
        """The metrics of every open service, merged."""
        return {name: value for service, _ in self._open for name, value in service.metrics().items()}
