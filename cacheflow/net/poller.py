"""Poller: serves the sockets of many clients through an epoll object of its own, one descriptor to the event loop.

1. A loop's own transports cost several microseconds a request: a handle, a context and a row of checks for each event.
   Here one callback of the loop asks which sockets are ready and calls their protocols directly.
2. A turn has rounds: what has come is received from everybody who is ready, handed over, and only then answered. So a
   protocol may answer many at once, and a client that slept is woken by the first answer and finds the others coming.
3. One turn receives at most COST_A_TURN and what one more poll brings (1.3 MiB in all), and sends at most ROOM_A_TURN and
   one more answer: peers and timers of the same loop do not wait for clients longer than that, however fast these take
   their answers. Answers over it are kept until the next turn. Once the loop's turn has used up its time (``loop.py``) it has
   no further round, and a round whose requests are long (RECEIVED_A_ROUND) leaves the other sockets to the next one. The kernel
   puts a socket that it has told of to the end of its list, and sockets that it has told of and that were not served come first:
   every client has its turn.
4. What one connection does wrong ends that connection.

Not safe for concurrent use: the event loop owns it. Only Linux has epoll.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from cacheflow.net.loop import NodeLoop
from cacheflow.net.tls.polled import SecuredTransport
from cacheflow.net.tls.session import Session
from cacheflow.net.transport import HANG_UP, READ, WRITE, Arrival, Receive, SocketTransport
from cacheflow.net.unfinished import Unfinished, has_input
from cacheflow.net.unsent import LOOK_EVERY_S, Unsent

# A function that answers what it can of a round's arrivals, for all clients at once, and returns the rest. It may raise only
# before it has answered anybody.
AnswerMany = Callable[[list[Arrival]], list[Arrival]]

logger = logging.getLogger(__name__)

# Bytes read from one socket in a round: bounds a round of pipelines to about 10 ms. (A buffer over 128 KiB, as asyncio's of
# 256 KiB, would be a mapping of its own from the kernel, which costs more than the read itself.)
RECEIVE_BYTES: Final = 16 * 1024
# Bytes of the first read from a socket, enough for most requests: a bytes object of this length takes 512 bytes, the most for
# which Python has memory at hand.
SHORT_BYTES: Final = 512 - 33
# Events of one poll: bounds what a turn may take over its cost.
EVENTS_A_POLL: Final = 64
# Bytes of a round after which it receives from no further socket: short requests of all clients are far less, and of long
# pipelines 64 sockets would be half a second of work.
RECEIVED_A_ROUND: Final = 64 * 1024
# The cost after which a turn makes no further poll: 128 small requests (under a millisecond), or this many bytes.
COST_A_TURN: Final = 256 * 1024
# The cost of an event beside its bytes, counted in bytes.
COST_OF_EVENT: Final = 2 * 1024
# Bytes that may leave in one turn, which takes about a millisecond; what else is to leave is kept until the next turn.
ROOM_A_TURN: Final = 1024 * 1024
# Connections that are ended at once for taking nothing, and the pause before the next ones: the kernel frees megabytes for each.
ENDED_AT_ONCE: Final = 8
NEXT_ENDED_S: Final = 0.01


class Poller:
    """An object that serves many clients' sockets. An epoll object polls them: to the event loop ``loop`` one file descriptor.

    It serves from the start until ``close`` is called.
    run: called when sockets are ready, with a function that does the work of one turn; ``run`` has to call this function.
    unsent, unfinished: the node's budgets of answers that clients do not take, and of requests that clients do not end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Callable[[Callable[[], None]], None],
        unsent: Unsent | None = None,
        unfinished: Unfinished | None = None,
    ) -> None:
        self.loop = loop
        self.unsent = Unsent() if unsent is None else unsent
        self.unfinished = Unfinished() if unfinished is None else unfinished
        # The transports with unsent or unfinished bytes, in a dictionary for its order, and the timer of the next look at them.
        self._stalled: dict[SocketTransport, None] = {}
        self._look: asyncio.TimerHandle | None = None
        self.epoll = select.epoll()
        # By descriptor: all transports; and those whose input is wanted, with the socket's ``recv`` and the list for its input.
        self.transports: dict[int, SocketTransport] = {}
        self.readers: dict[int, tuple[Receive, asyncio.Protocol, SocketTransport, list[Arrival]]] = {}
        # The input of this round, by the function that may answer it for many clients at once.
        self._arrived: dict[AnswerMany, list[Arrival]] = {}
        # Bytes that may still leave in this turn; transports take from it what they send.
        self.room = ROOM_A_TURN
        # The events that the kernel told of when no room was left, or when enough was received.
        self._left: list[tuple[int, int]] = []
        # True while answers wait for the end of the round; the transports with such an answer.
        self.holds = False
        self.held: list[SocketTransport] = []
        loop.add_reader(self.epoll.fileno(), run, self._turn)
        if isinstance(loop, NodeLoop):
            loop.put_last(self.epoll.fileno())

    def adopt(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        answer_many: AnswerMany = list,
        session: Session | None = None,
    ) -> None:
        """Serve the connected, non-blocking socket ``sock`` with the asyncio protocol that ``make`` returns.

        Raises OSError when the socket is broken.
        answer_many: a function for all sockets served with it. When several of these are ready at the same time, it gets the
        input of all, answers what it can, and returns the rest, which goes to each socket's protocol.
        session: the TLS session that encrypts what goes over the socket; None for a plain socket.
        """
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        arrived = self._arrived.setdefault(answer_many, [])
        transport = (
            SocketTransport(self, sock, make(), arrived)
            if session is None
            else SecuredTransport(self, sock, make(), arrived, session)
        )
        try:
            transport.start()
        except Exception:
            _stumbled(transport)

    def close(self) -> None:
        """Close all clients' connections at once, and remove this poller from the event loop."""
        for transport in list(self.transports.values()):
            transport.abort()
        if self._look is not None:
            self._look.cancel()
        self.loop.remove_reader(self.epoll.fileno())
        if isinstance(self.loop, NodeLoop):
            self.loop.put_last()
        self.epoll.close()

    def watch(self, transport: SocketTransport) -> None:
        """Check every few seconds from now on whether the client's connection ``transport`` has to be ended.

        The checks go on while this client, or another one, has answers that it does not take or requests that it does not end.
        """
        self._stalled[transport] = None
        if self._look is None:
            self._look = self.loop.call_later(LOOK_EVERY_S, self._end_overdue)

    def _end_overdue(self) -> None:
        """End the connections of clients that are too slow, and do so again after a few seconds.

        These are clients that take no answers while the node has too many unsent, or that send nothing while the node has
        too many unfinished requests. While no client has unsent answers or unfinished requests, the check is not repeated.
        """
        self._look = None
        self._stalled = {each: None for each in self._stalled if each.unsent_bytes or each.unfinished_bytes}
        self.room = ROOM_A_TURN
        left = ENDED_AT_ONCE
        for transport in self.unsent.overdue(self._stalled, time.monotonic()):
            if self.room <= 0 or not left:
                break
            before = transport.unsent_bytes
            # This node itself may have been slow.
            self._write(transport.descriptor)
            if 0 < before == transport.unsent_bytes:
                self.unsent.ended += 1
                left -= 1
                transport.abort()
        self.room = ROOM_A_TURN
        now_s = time.monotonic()
        for transport in self.unfinished.overdue(self._stalled, now_s):
            if not left:
                break
            # A connection that waits is not read, and this node itself may have been slow: something may have come.
            if self.unfinished.has_stayed(transport, now_s) or not has_input(transport.descriptor):
                self.unfinished.ended += 1
                left -= 1
                transport.abort()
        if self._stalled:
            self._look = self.loop.call_later(LOOK_EVERY_S if left else NEXT_ENDED_S, self._end_overdue)

    def _turn(self) -> None:
        self.room = ROOM_A_TURN
        turn_ends = self.loop.budget.ends if isinstance(self.loop, NodeLoop) else math.inf
        cost = 0
        while cost < COST_A_TURN and self.room > 0:
            ready = self.epoll.poll(0, EVENTS_A_POLL)
            if self._left:
                # These sockets come first, and one that the kernel tells of again counts once.
                ready = list((dict(self._left) | dict(ready)).items())
                self._left = []
            if not ready:
                break
            cost += self._receive(ready)
            for answer_many, arrived in self._arrived.items():
                if arrived:
                    self._hand_over(answer_many, arrived)
            if len(ready) == 1 or time.monotonic() > turn_ends:
                # A lone client waits for its answer, which leaves at the end of the turn.
                break
        # Answers outside of turns have room of their own.
        self.room = ROOM_A_TURN

    def _receive(self, ready: list[tuple[int, int]]) -> int:
        """Read from those clients' sockets in ``ready`` that have input, and send to those that can take bytes again.

        ready: pairs of a file descriptor and epoll's events for it.
        Returns the cost of this work, for the limit of a turn: the bytes received, plus COST_OF_EVENT for each event.
        """
        readers = self.readers
        size = 0
        for descriptor, events in ready:
            if size >= RECEIVED_A_ROUND:
                self._left.append((descriptor, events))
                continue
            if events != READ:
                if self.room <= 0:
                    # Sockets with requests do not wait for sockets that take long answers.
                    self._left.append((descriptor, events))
                    continue
                if events & HANG_UP:
                    if descriptor in self.transports:
                        self.transports[descriptor].hang_up()
                    continue
                self._write(descriptor)
                if events == WRITE:
                    continue
            try:
                receive, protocol, transport, arrived = readers[descriptor]
                data = receive(SHORT_BYTES)
                length = len(data)
                if length == SHORT_BYTES:
                    data += _more(receive)
                    length = len(data)
            except (KeyError, BlockingIOError, InterruptedError):
                # An earlier event of the round has closed this connection or paused it; or the socket is not ready any more.
                continue
            except OSError as error:
                transport.fail(error)
                continue
            size += length
            if length:
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
        """Let the transport of the socket ``descriptor`` send its buffered bytes: the socket takes some again, or broke."""
        transport = self.transports.get(descriptor)
        if transport is not None:
            try:
                transport.writable()
            except Exception:
                _stumbled(transport)


def _more(receive: Receive) -> bytes:
    """Return the input that a socket still holds, RECEIVE_BYTES at most. receive: the socket's ``recv``.

    Returns no bytes on an error of the socket, which the next poll reports.
    """
    try:
        return receive(RECEIVE_BYTES)
    except OSError:
        return b""


def _stumbled(transport: asyncio.Transport) -> None:
    """Log the current exception and close the client's connection ``transport``, whose asyncio protocol raised it."""
    logger.exception("a connection stumbled and was closed")
    transport.abort()
