"""ListeningPorts: the open ports of the wire protocols, which the node's event loop serves."""

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
    """The server of one wire protocol, as ListeningPorts uses it. Only the event loop calls it, except for ``metrics``."""

    @property
    def name(self) -> str:
        """The protocol's name, as in its option: ``memcached`` for --memcached-port."""

    def connect(self) -> asyncio.Protocol:
        """Return the asyncio protocol for a newly accepted client."""

    def answer_many(self, arrived: list[Arrival]) -> list[Arrival]:
        """Answer what can be answered together of several clients' input; return the arrivals of all other clients."""

    async def drain(self) -> None:
        """Let every connection send its pending replies for a moment, then close it."""

    def metrics(self) -> dict[str, float]:
        """Return the service's counters and gauges by name. Any thread may call it."""


class ListeningPorts:
    """The wire-protocol servers that are listening now. The event loop owns it; any thread may call ``metrics``.

    run: runs the work of one turn of the poller; by default it is just called.
    direct: a Poller serves the clients' sockets (default: where epoll exists); else asyncio's transports do.
    """

    def __init__(self, run: Run = lambda work: work(), *, direct: bool = hasattr(select, "epoll")) -> None:
        self._run = run
        self._open: list[tuple[Service, Listener]] = []
        self._direct = direct
        self._poller: Poller | None = None

    async def open(self, service: Service, host: str, port: int) -> int:
        """Serve clients of ``service`` on ``port`` (0: a free one); return the port.

        Raises ConfigError when it cannot listen.
        """
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
        """Close all ports: accept no more clients, let open connections send their pending replies, and close them."""
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
        """Return the metrics of every open service, merged into one dictionary."""
        return {name: value for service, _ in self._open for name, value in service.metrics().items()}
