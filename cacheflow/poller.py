"""Poller: the sockets of many clients in an epoll object of their own, which is one descriptor to the event loop.

1. A loop's own transports cost several microseconds a request: a handle, a context and a row of checks for each event.
   Here one callback of the loop asks which sockets are ready and calls their protocols directly.
2. One turn does a bounded amount of work, so that peers and timers of the same loop do not wait for clients. The kernel
   puts whoever was told of to the end of its list: everybody has a turn.
3. What one connection does wrong ends that connection.

Not safe for concurrent use: the event loop owns it. Only Linux has epoll: see ``available``.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from typing import Final

from cacheflow.socket_transport import READ, WRITE, SocketTransport

logger = logging.getLogger(__name__)

# Of one socket at once. Far more would be a mapping of its own from the kernel for each read, which costs more than the
# read itself; asyncio's 256 KiB do.
RECEIVE_BYTES: Final = 64 * 1024
# A turn ends after so many events or bytes, whichever comes first; the bytes are looked at once a poll.
EVENTS_A_POLL: Final = 16
POLLS_A_TURN: Final = 4
BYTES_A_TURN: Final = 256 * 1024


def available() -> bool:
    """Whether this system has what it takes."""
    return hasattr(select, "epoll")


class Poller:
    """Belongs to ``loop`` from now until ``close``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.epoll = select.epoll()
        # By descriptor: all there are, and how to receive from those whose input is wanted.
        self.transports: dict[int, SocketTransport] = {}
        self.readers: dict[int, SocketTransport] = {}
        loop.add_reader(self.epoll.fileno(), self._turn)

    def adopt(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """Serve a connected socket that does not block with ``protocol``. Raises OSError."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        transport = SocketTransport(self, sock, protocol)
        try:
            transport.start()
        except Exception:
            _stumbled(transport)

    def close(self) -> None:
        """Cut off whoever is left."""
        for transport in list(self.transports.values()):
            transport.abort()
        self.loop.remove_reader(self.epoll.fileno())
        self.epoll.close()

    def _turn(self) -> None:
        readers = self.readers
        room = BYTES_A_TURN
        for _ in range(POLLS_A_TURN):
            ready = self.epoll.poll(0, EVENTS_A_POLL)
            for descriptor, events in ready:
                if events != READ:
                    self._write(descriptor)
                    if events == WRITE:
                        continue
                transport = readers.get(descriptor)
                # One before it in the same turn may have ended it, or wants to hear no more.
                if transport is None:
                    continue
                try:
                    data = transport.receive(RECEIVE_BYTES)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as error:
                    transport.fail(error)
                    continue
                room -= len(data)
                try:
                    if data:
                        transport.received(data)
                    else:
                        transport.end_of_input()
                except Exception:
                    _stumbled(transport)
            if len(ready) < EVENTS_A_POLL or room <= 0:
                return

    def _write(self, descriptor: int) -> None:
        """The socket takes bytes again, or is broken."""
        transport = self.transports.get(descriptor)
        if transport is not None:
            try:
                transport.writable()
            except Exception:
                _stumbled(transport)


def _stumbled(transport: SocketTransport) -> None:
    logger.exception("a connection stumbled and was closed")
    transport.abort()
