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
from collections.abc import Callable
from typing import Final

from cacheflow.socket_transport import READ, WRITE, SocketTransport

Receive = Callable[[int], bytes]
Received = Callable[[bytes], None]

logger = logging.getLogger(__name__)

# Of one socket at once. Far more would be a mapping of its own from the kernel for each read, which costs more than the
# read itself; asyncio's 256 KiB do.
RECEIVE_BYTES: Final = 64 * 1024
EVENTS_A_POLL: Final = 64
# A turn ends after so much, looked at once a poll: some hundred small requests (under a millisecond), or this many bytes.
COST_A_TURN: Final = 256 * 1024
# What an event costs beside its bytes.
COST_OF_EVENT: Final = 2 * 1024


def available() -> bool:
    """Whether this system has what it takes."""
    return hasattr(select, "epoll")


class Poller:
    """Belongs to ``loop`` from now until ``close``. run: runs what one turn brings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[Callable[[], None]], None]) -> None:
        self.loop = loop
        self.epoll = select.epoll()
        # By descriptor: all there are; and those whose input is wanted, with how to receive it and whom to give it to.
        self.transports: dict[int, SocketTransport] = {}
        self.readers: dict[int, tuple[Receive, Received]] = {}
        # Answers that leave at the end of the round, and whether they are to wait for it: a client that sleeps is woken by the
        # first of them, finds the next ones coming, and need not be woken for each.
        self.holds = False
        self.held: list[SocketTransport] = []
        loop.add_reader(self.epoll.fileno(), run, self._turn)

    def adopt(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """Serve a connected socket that does not block with ``protocol``. Raises OSError."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        try:
            SocketTransport(self, sock, protocol).start()
        except Exception:
            self._stumbled(sock.fileno())

    def close(self) -> None:
        """Cut off whoever is left."""
        for transport in list(self.transports.values()):
            transport.abort()
        self.loop.remove_reader(self.epoll.fileno())
        self.epoll.close()

    def _turn(self) -> None:
        room = COST_A_TURN
        while room > 0:
            ready = self.epoll.poll(0, EVENTS_A_POLL)
            if not ready:
                return
            self.holds = len(ready) > 1
            room -= self._receive(ready)
            self.holds = False
            for transport in self.held:
                transport.send_held()
            self.held.clear()

    def _receive(self, ready: list[tuple[int, int]]) -> int:
        """Hand over what these sockets have; what that has cost."""
        readers = self.readers
        cost = 0
        for descriptor, events in ready:
            if events != READ:
                self._write(descriptor)
                if events == WRITE:
                    continue
            try:
                receive, received = readers[descriptor]
                data = receive(RECEIVE_BYTES)
            except (KeyError, BlockingIOError, InterruptedError):
                # One before it in the same turn has ended it, or wants to hear no more; or it was ready once.
                continue
            except OSError as error:
                self.transports[descriptor].fail(error)
                continue
            cost += len(data) + COST_OF_EVENT
            try:
                if data:
                    received(data)
                else:
                    self.transports[descriptor].end_of_input()
            except Exception:
                self._stumbled(descriptor)
        return cost

    def _write(self, descriptor: int) -> None:
        """The socket takes bytes again, or is broken."""
        transport = self.transports.get(descriptor)
        if transport is not None:
            try:
                transport.writable()
            except Exception:
                self._stumbled(descriptor)

    def _stumbled(self, descriptor: int) -> None:
        """To be called where the exception is."""
        logger.exception("a connection stumbled and was closed")
        transport = self.transports.get(descriptor)
        if transport is not None:
            transport.abort()
