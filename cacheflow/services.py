"""Services: what else is served on the node's own loop, each on a port of its own."""

from __future__ import annotations

import asyncio
from typing import Protocol

from cacheflow.listener import Listener


class Service(Protocol):
    """A protocol for clients. Called on the loop, but for ``metrics``."""

    @property
    def name(self) -> str:
        """Of its port, as in the flag: ``memcached`` for --memcached-port."""

    def connect(self) -> asyncio.BaseProtocol:
        """For a connection that was accepted."""

    async def drain(self) -> None:
        """Answer what is under way, for a moment; then close every connection."""

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by name. Any thread."""


class Services:
    """Those that are open. The event loop owns it; any thread may ask for ``metrics``."""

    def __init__(self) -> None:
        self._open: list[tuple[Service, Listener]] = []

    async def open(self, service: Service, host: str, port: int) -> int:
        """Listen, on a free port when ``port`` is 0; the port. Raises ConfigError."""
        listener = Listener(asyncio.get_running_loop(), service.connect, service.name)
        await listener.open(host, port)
        self._open.append((service, listener))
        return listener.address[1]

    async def close(self) -> None:
        """Accept nobody, and end who is there."""
        for _, listener in self._open:
            await listener.close()
        await asyncio.gather(*(service.drain() for service, _ in self._open))

    def metrics(self) -> dict[str, float]:
        """Of all of them."""
        return {name: value for service, _ in self._open for name, value in service.metrics().items()}
