"""Encryption: how connections between nodes begin where nodes have certificates: with TLS, in which both sides show theirs.

1. A node is dialed with TLS. If it ends the connection without a word it has no certificates, as while a cluster changes over,
   and is dialed again plainly, unless TLS is required. What fails otherwise, such as a certificate of another CA, fails.
2. The first byte tells a TLS connection from a plain one on the same port. Where TLS is required a plain one ends at once.
3. The handshake of ``handshake.py`` comes inside, the same for both, and refuses a plain connection of two nodes that could do
   better: an attacker between them may cut connections, not read them.
4. A dialer checks that the certificate is for the host that it has dialed; a listener, that it is of the CA.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable

from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.stream import TlsStream
from cacheflow.net.tls.trust import told
from cacheflow.raft.transport.connection import Connection


class NoTlsThere(ConnectionError):
    """Raised when a node that was dialed with TLS has ended the connection without answering anything in TLS."""


class Encryption:
    """Begins this node's connections to and from other nodes, with TLS. The event loop owns the object.

    required: False if a node without certificates may talk to this one.
    """

    def __init__(self, handshakes: Handshakes, required: bool) -> None:
        self._handshakes = handshakes
        self._required = required
        self._door = handshakes.door("raft", b"" if required else None, peers=True)
        self._welcomes: set[asyncio.Task[None]] = set()

    def accepting(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[bool], Connection]
    ) -> Callable[[socket.socket], None]:
        """Return a function that takes an accepted socket, makes the TLS handshake on it, and then has ``make`` called.

        make: returns the asyncio protocol for a connection between nodes, given whether the connection is encrypted.
        """

        def begin(sock: socket.socket, session: Session | None) -> None:
            task = loop.create_task(self._welcome(loop, make, sock, session))
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)

        def done(sock: socket.socket, session: Session | None) -> None:
            loop.call_soon_threadsafe(begin, sock, session)

        return lambda sock: self._handshakes.take(self._door, sock, done)

    async def _welcome(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[bool], Connection],
        sock: socket.socket,
        session: Session | None,
    ) -> None:
        try:
            await _attach(loop, make, sock, session)
        except OSError:
            sock.close()  # it has gone already
        except asyncio.CancelledError:
            sock.close()
            raise

    async def dial(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[bool], Connection], host: str, port: int
    ) -> None:
        """Connect to the node at ``host`` and ``port``, with TLS if that node speaks it. Raises OSError.

        make: returns the asyncio protocol for a connection between nodes, given whether the connection is encrypted.
        """
        sock = await _connected(loop, host, port)
        try:
            session: Session | None = await self._shake(loop, sock, host)
        except NoTlsThere:
            if self._required:
                raise
            sock, session = await _connected(loop, host, port), None
        try:
            await _attach(loop, make, sock, session)
        except BaseException:
            sock.close()
            raise

    async def _shake(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, host: str) -> Session:
        """Make the TLS handshake, as the side that dialed, in a thread for handshakes; return the TLS session.

        That thread owns the socket meanwhile. Raises OSError.
        """
        shaken: asyncio.Future[Session] = loop.create_future()

        def settle(session: Session) -> None:
            if shaken.done():
                sock.close()
            else:
                shaken.set_result(session)

        def give_up(error: Exception, heard: bool) -> None:
            if shaken.done():
                return
            if not heard and isinstance(error, ConnectionError):
                shaken.set_exception(NoTlsThere("it ended without a word of TLS, and --peer-tls is require"))
            else:
                shaken.set_exception(ConnectionError(f"TLS: {_why(error)}"))

        def done(_: socket.socket, session: Session | None) -> None:
            assert session is not None
            loop.call_soon_threadsafe(settle, session)

        def failed(error: Exception, heard: bool) -> None:
            loop.call_soon_threadsafe(give_up, error, heard)

        self._handshakes.dial(sock, host, done, failed)
        try:
            return await shaken
        except asyncio.CancelledError:
            # The thread has the socket until it tells how the handshake came out, which may have been in this very turn.
            if shaken.done() and not shaken.cancelled():
                shaken.exception()  # else it would be told as one that nobody has looked at
                sock.close()
            raise


def _why(error: Exception) -> str:
    """Return why the TLS handshake with another node has failed, as text for people."""
    if getattr(error, "reason", None) == "TLSV1_ALERT_INTERNAL_ERROR":
        # What a node says of handshakes for which it has no place.
        return f"it shakes no hands now, because too many want to or it has trouble of its own ({told(error)})"
    return told(error)


async def _attach(
    loop: asyncio.AbstractEventLoop, make: Callable[[bool], Connection], sock: socket.socket, session: Session | None
) -> None:
    protocol: Callable[[], asyncio.BaseProtocol] = functools.partial(make, session is not None)
    if session is not None:
        below = TlsStream(session, protocol())
        await loop.connect_accepted_socket(lambda: below, sock)
    else:
        await loop.connect_accepted_socket(protocol, sock)


async def _connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Return a socket that is connected to the first address of ``host`` that answers. Raises OSError."""
    error: OSError = ConnectionError(f"{host!r} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
            return sock
        except OSError as failure:
            sock.close()
            error = failure
        except BaseException:
            sock.close()
            raise
    raise error
