"""ListeningPorts: the open ports of the wire protocols, which the node's event loop serves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
from collections.abc import Callable
from typing import Final, Protocol

from cacheflow.measuring.metrics import Metrics
from cacheflow.net.listener import Listener
from cacheflow.net.poller import Poller
from cacheflow.net.slices import Slices
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.tls.secured_socket import SecuredSocket
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.stream import TlsStream
from cacheflow.net.transport import Arrival
from cacheflow.net.unfinished import Unfinished
from cacheflow.net.unsent import Unsent

# Seconds between two looks at connections that are at a request for too long.
OVERDUE_EVERY_S: Final = 5.0

Run = Callable[[Callable[[], None]], None]


class Service(Protocol):
    """Interface: the server of one wire protocol (memcached's or Redis'); the node opens a port for each such server.

    Only the event loop calls it, except for ``metrics``.
    """

    @property
    def name(self) -> str:
        """The wire protocol's name, as in its option: ``memcached`` for --memcached-port."""

    @property
    def tls_only(self) -> bytes:
        """The bytes that are sent to a client without TLS at a port of this wire protocol where clients have to speak TLS."""

    def connect(self) -> asyncio.Protocol:
        """Return a new asyncio protocol for a client whose connection was just accepted."""

    def answer_many(self, arrived: list[Arrival]) -> list[Arrival]:
        """Answer what can be answered together of ``arrived``, the inputs of several clients; return the others.

        arrived: tuples of (a client's asyncio protocol, its input, its transport); what is returned is such tuples, too.
        """

    def end_overdue(self) -> None:
        """Close the connections of clients that take too long to send a whole request. Called every few seconds."""

    def limit_values(self, bytes_max: int) -> None:
        """From now on take values of up to ``bytes_max`` bytes from clients of this wire protocol, and refuse larger ones."""

    async def drain(self) -> None:
        """Close all clients' connections of this wire protocol, after a moment in which each may send its pending replies."""

    def metrics(self) -> Metrics:
        """Return the counters, gauges and histograms of this wire protocol, by metric name. Any thread may call it."""


class ListeningPorts:
    """The open ports of a node's wire protocols. The event loop owns it; any thread may call ``metrics``.

    run: a function that is given the work of one turn (a function), and has to call it; the default does only that.
    handshakes: the node's TLS handshakes, if clients have to speak TLS; None for plain ports.
    direct: True if epoll is used for the clients' sockets (default: where it exists), False if asyncio's transports are.
    """

    def __init__(
        self,
        run: Run = lambda work: work(),
        handshakes: Handshakes | None = None,
        *,
        direct: bool = hasattr(select, "epoll"),
    ) -> None:
        self._run = run
        # The answers of all fronts that clients have not taken.
        self.unsent = Unsent()
        # The requests of all fronts that clients have not ended.
        self.unfinished = Unfinished()
        # The time of the loop that long work for all clients may take.
        self.slices = Slices()
        self._handshakes = handshakes
        # Connections of clients that asyncio's transports are to serve, once these are made.
        self._welcomes: set[asyncio.Task[None]] = set()
        self._open: list[tuple[Service, Listener]] = []
        self._direct = direct
        self._timer: asyncio.TimerHandle | None = None
        self._poller: Poller | None = None
        self._closed = False

    async def open(self, service: Service, host: str, port: int) -> int:
        """Listen on ``host`` and ``port`` (0: a free one) for clients of the wire protocol ``service``; return the port.

        Raises ConfigError when that is not possible.
        """
        loop = asyncio.get_running_loop()
        adopting = self._adopting if self._handshakes is None else self._securing
        listener = Listener(loop, service.connect, service.name, adopting(loop, service))
        await listener.open(host, port)
        self._open.append((service, listener))
        if self._timer is None:
            self._timer = loop.call_later(OVERDUE_EVERY_S, self._end_overdue)
        return listener.address[1]

    def _adopting(self, loop: asyncio.AbstractEventLoop, service: Service) -> Callable[[socket.socket], None] | None:
        if not self._direct:
            return None
        adopt = self._poller_on(loop).adopt
        return lambda sock: adopt(sock, service.connect, service.answer_many)

    def _securing(self, loop: asyncio.AbstractEventLoop, service: Service) -> Callable[[socket.socket], None]:
        """Return a function that makes the TLS handshake on an accepted socket; then ``service`` serves the client.

        service: the server of a wire protocol.
        """
        assert self._handshakes is not None
        take, door = self._handshakes.take, self._handshakes.door(service.name, service.tls_only)
        if self._direct:
            self._poller_on(loop)

        def done(sock: socket.socket, session: Session | None) -> None:
            assert session is not None
            loop.call_soon_threadsafe(self._run, functools.partial(self._serve, service, sock, session))

        return lambda sock: take(door, sock, done)

    def _serve(self, service: Service, sock: socket.socket, session: Session) -> None:
        """Let ``service`` serve a client whose TLS handshake is done; if the ports were closed meanwhile, close its socket.

        service: the server of a wire protocol.
        """
        if not self._open:
            sock.close()
        elif self._poller is not None:
            with contextlib.suppress(OSError):  # it has gone already
                self._poller.adopt(sock, service.connect, service.answer_many, session)
        else:
            self._welcome_soon(functools.partial(_over_tls, session, service.connect), sock)

    def adopt(self, sock: socket.socket | SecuredSocket, make: Callable[[], asyncio.Protocol]) -> None:
        """Serve a client from now on that another server has served so far, with the asyncio protocol that ``make`` returns.

        sock: the client's non-blocking socket, or that of a client that speaks TLS. This socket is closed if the node's
        ports were closed already.
        """
        session = None
        try:
            if self._closed:
                raise OSError("this node ends")
            if isinstance(sock, SecuredSocket):
                sock, session = sock.release()
        except OSError:
            sock.close()
            return
        assert isinstance(sock, socket.socket)
        if self._direct:
            with contextlib.suppress(OSError):  # it has gone already
                self._poller_on(asyncio.get_running_loop()).adopt(sock, make, session=session)
        else:
            self._welcome_soon(make if session is None else functools.partial(_over_tls, session, make), sock)

    def _welcome_soon(self, make: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._welcome(make, sock))
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, make: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, sock)
        except OSError:
            sock.close()

    def _poller_on(self, loop: asyncio.AbstractEventLoop) -> Poller:
        if self._poller is None:
            self._poller = Poller(loop, self._run, self.unsent, self.unfinished)
        return self._poller

    def _end_overdue(self) -> None:
        """Let each wire protocol close the connections of clients that send a request too slowly; do so again later."""
        self._timer = asyncio.get_running_loop().call_later(OVERDUE_EVERY_S, self._end_overdue)
        for service, _ in self._open:
            service.end_overdue()

    async def close(self) -> None:
        """Close all ports of wire protocols: accept no more clients; close each connection after its pending replies."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        opened, self._open = self._open, []
        for _, listener in opened:
            await listener.close()
        await asyncio.gather(*(service.drain() for service, _ in opened))
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def limit_values(self, bytes_max: int) -> None:
        """Have every open wire protocol take values of up to ``bytes_max`` bytes from now on."""
        for service, _ in self._open:
            service.limit_values(bytes_max)

    def descriptors(self) -> list[int]:
        """Return the file descriptors of the clients' sockets, and of the epoll object that watches these for the event loop.

        The list is empty when asyncio's own transports serve the clients.
        """
        return [] if self._poller is None else [self._poller.epoll.fileno(), *self._poller.transports]

    def metrics(self) -> Metrics:
        """Return the metrics of all open wire protocols, merged into one dictionary of values by name."""
        return {
            "unsent_bytes": self.unsent.bytes,
            "unsent_bytes_max": self.unsent.bytes_max,
            "unsent_ended_total": self.unsent.ended,
            "unfinished_bytes": self.unfinished.bytes,
            "unfinished_bytes_max": self.unfinished.bytes_max,
            "unfinished_ended_total": self.unfinished.ended,
            **{name: value for service, _ in self._open for name, value in service.metrics().items()},
        }


def _over_tls(session: Session, make: Callable[[], asyncio.Protocol]) -> asyncio.BaseProtocol:
    """Return an asyncio protocol for a client's socket that encrypts and decrypts by the TLS ``session``.

    make: returns the asyncio protocol that sends and receives the plaintext.
    """
    return TlsStream(session, make())
