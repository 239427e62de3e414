"""Poller: the sockets of many clients in an epoll object of their own, which is one descriptor to the event loop.

1. A loop's own transports cost several microseconds a request: a handle, a context and a row of checks for each event.
   Here one callback of the loop asks which sockets are ready and calls their protocols directly.
2. A turn has rounds: what has come is received from everybody who is ready, handed over, and only then answered. So a
   protocol may answer many at once, and a client that slept is woken by the first answer and finds the others coming.
3. One turn does a bounded amount of work, so that peers and timers of the same loop do not wait for clients, however
   fast these take their answers: when it is over, answers are kept until the next one. The kernel puts whoever was told
   of to the end of its list, and who was told of and not served comes first: everybody has a turn.
4. What one connection does wrong ends that connection.

Not safe for concurrent use: the event loop owns it. Only Linux has epoll: see ``available``.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable
from typing import Final

from cacheflow.loop import NodeLoop
from cacheflow.socket_transport import READ, WRITE, Arrival, Receive, SocketTransport

# Answers what it can of a round's arrivals, for all of them at once, and returns the rest. It raises before it answers.
AnswerMany = Callable[[list[Arrival]], list[Arrival]]

logger = logging.getLogger(__name__)

# Of one socket at once. So that a turn of nothing but pipelines is some ten milliseconds. (Over 128 KiB each read would also
# be a mapping of its own from the kernel, which costs more than the read itself: asyncio's 256 KiB do.)
RECEIVE_BYTES: Final = 16 * 1024
# Tried first: memory for that much costs next to nothing, and most requests are no longer.
SHORT_BYTES: Final = 512 - 33
EVENTS_A_POLL: Final = 64
# A turn ends after so much, looked at once a poll: some hundred small requests (under a millisecond), or this many bytes.
COST_A_TURN: Final = 256 * 1024
# What an event costs beside its bytes.
COST_OF_EVENT: Final = 2 * 1024
# And when so many bytes have left, which takes a few milliseconds: what else is to leave is kept until the next one.
ROOM_A_TURN: Final = 4 * 1024 * 1024


def available() -> bool:
    """Whether this system has what it takes."""
    return hasattr(select, "epoll")


class Poller:
    """Belongs to ``loop`` from now until ``close``. run: runs what one turn brings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[Callable[[], None]], None]) -> None:
        self.loop = loop
        self.epoll = select.epoll()
        # By descriptor: all there are; and those whose input is wanted, with how to receive it and where to put it.
        self.transports: dict[int, SocketTransport] = {}
        self.readers: dict[int, tuple[Receive, asyncio.Protocol, SocketTransport, list[Arrival]]] = {}
        # What has come in this round.
        self._arrived: dict[AnswerMany, list[Arrival]] = {}
        # How many bytes may still leave before others of the loop have their turn; transports take from it what they send.
        self.room = ROOM_A_TURN
        # Whom the kernel told of when there was no room any more.
        self._left: list[tuple[int, int]] = []
        # Answers that leave at the end of the round, and whether they are to wait for it.
        self.holds = False
        self.held: list[SocketTransport] = []
        loop.add_reader(self.epoll.fileno(), run, self._turn)
        if isinstance(loop, NodeLoop):
            loop.put_last(self.epoll.fileno())

    def adopt(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], answer_many: AnswerMany = list) -> None:
        """Serve a connected socket that does not block with the protocol that ``make`` gives. Raises OSError.

        answer_many: what comes for several protocols in one round is shown to it first.
        """
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        transport = SocketTransport(self, sock, make(), self._arrived.setdefault(answer_many, []))
        try:
            transport.start()
        except Exception:
            _stumbled(transport)

    def close(self) -> None:
        """Cut off whoever is left."""
        for transport in list(self.transports.values()):
            transport.abort()
        self.loop.remove_reader(self.epoll.fileno())
        if isinstance(self.loop, NodeLoop):
            self.loop.put_none_last()
        self.epoll.close()

    def _turn(self) -> None:
        self.room = ROOM_A_TURN
        cost = 0
        while cost < COST_A_TURN and self.room > 0:
            ready = self._left or self.epoll.poll(0, EVENTS_A_POLL)
            if not ready:
                break
            self._left = []
            cost += self._receive(ready)
            for answer_many, arrived in self._arrived.items():
                if arrived:
                    self._hand_over(answer_many, arrived)
            if len(ready) == 1:
                # A lone client waits for its answer, and that for the end of the turn.
                break
        # For what leaves outside turns.
        self.room = ROOM_A_TURN

    def _receive(self, ready: list[tuple[int, int]]) -> int:
        """Take what these sockets have; what that costs."""
        readers = self.readers
        size = 0
        for descriptor, events in ready:
            if events != READ:
                if self.room <= 0:
                    self._left = ready[ready.index((descriptor, events)) :]
                    break
                self._write(descriptor)
                if events == WRITE:
                    continue
            try:
                receive, protocol, transport, arrived = readers[descriptor]
                data = receive(SHORT_BYTES)
                if len(data) == SHORT_BYTES:
                    data += _more(receive)
            except (KeyError, BlockingIOError, InterruptedError):
                # One before it in the same round has ended it, or wants to hear no more; or it was ready once.
                continue
            except OSError as error:
                transport.fail(error)
                continue
            size += len(data)
            if data:
                arrived.append((protocol, data, transport))
                continue
            try:
                transport.end_of_input()
            except Exception:
                _stumbled(transport)
        return size + len(ready) * COST_OF_EVENT

    def _hand_over(self, answer_many: AnswerMany, arrived: list[Arrival]) -> None:
        several = len(arrived) > 1
        try:
            rest = answer_many(arrived) if several else arrived[:]
        except Exception:
            logger.exception("what came for several connections was not understood")
            rest = arrived[:]
        arrived.clear()
        self.holds = several
        for protocol, data, transport in rest:
            if transport.is_closing():
                continue
            try:
                protocol.data_received(data)
            except Exception:
                _stumbled(transport)
        self.holds = False
        for transport in self.held:
            transport.send_held()
        self.held.clear()

    def _write(self, descriptor: int) -> None:
        """The socket takes bytes again, or is broken."""
        transport = self.transports.get(descriptor)
        if transport is not None:
            try:
                transport.writable()
            except Exception:
                _stumbled(transport)


def _more(receive: Receive) -> bytes:
    """What is there beside; an end or an error is told by the next event."""
    try:
        return receive(RECEIVE_BYTES)
    except OSError:
        return b""


def _stumbled(transport: asyncio.Transport) -> None:
    """To be called where the exception is."""
    logger.exception("a connection stumbled and was closed")
    transport.abort()
