"""Connection: one socket between two nodes, from its first byte to its last; the base of Incoming and Outgoing.

1. A handshake that takes longer than its deadline or more than 4 KiB ends the connection.
2. A peer that breaks a rule loses this connection and nothing else.
3. Once the connection is closed no frame is handled any more, not even one that was already read.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from cacheflow.raft.transport.frames import PIECE_BYTES, FrameBuffer, FrameError
from cacheflow.raft.transport.handshake import HANDSHAKE_BYTES_MAX
from cacheflow.raft.transport.network import Traffic
from cacheflow.raft.transport.pieces import Pieces


class Connection(asyncio.BufferedProtocol):
    """One socket between two nodes. A subclass decides what to do with a frame and at the connection's end.

    handshake_s: seconds for the handshake.  stall_s: seconds after which unacknowledged bytes end the connection.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, handshake_s: float, stall_s: float) -> None:
        self._loop = loop
        self._handshake_s = handshake_s
        self._stall_s = stall_s
        self._frames = FrameBuffer(HANDSHAKE_BYTES_MAX)
        # Counts what comes on all connections of this node.
        self.traffic = Traffic()
        self._established = False
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = False
        # Done when the socket is closed, for callers that must wait for that.
        self.gone: asyncio.Future[None] = loop.create_future()
        self.remote = "?"

    # Subclasses fill these in.

    def opened(self) -> None:
        """Begin the handshake, in a subclass; here nothing is done. Called when the socket is connected."""

    def frame_received(self, body: memoryview) -> None:
        """Act on ``body``, that of a received frame, which is valid during the call only; subclasses define this.

        May raise FrameError.
        """
        raise NotImplementedError

    def broken(self, error: Exception) -> None:
        """Report that the other side broke a rule of the protocol; subclasses define this. The connection is being aborted."""
        raise NotImplementedError

    def ended(self, error: Exception | None) -> None:
        """Clean up after the connection has ended, whichever side ended it; subclasses define this. Called once."""
        raise NotImplementedError

    # Subclasses call these.

    def established(self, pieces: Pieces | None) -> None:
        """Replace the limits on the handshake's time and frames by those for a peer's messages, because the handshake is done.

        pieces: puts the peer's large messages together; None if the peer may send no messages.
        """
        self._established = True
        self._frames.limit = 0 if pieces is None else min(PIECE_BYTES, pieces.limit)
        self._frames.pieces = pieces
        self._cancel_deadline()

    def close(self) -> None:
        """Close the connection once all written bytes have left; frames that still come are ignored."""
        if not self.closed:
            self.closed = True
            self._cancel_deadline()
            if self.transport is not None:
                self.transport.close()

    def abort(self) -> None:
        """Close the connection at once and drop the bytes that wait to be sent."""
        self.closed = True
        self._cancel_deadline()
        if self.transport is not None:
            self.transport.abort()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.remote = _readable_address(transport.get_extra_info("peername"))
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _tune(sock, self._stall_s)
        if self.closed:
            self.transport.abort()
            return
        self._deadline = self._loop.call_later(self._handshake_s, self._too_late)
        self.opened()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        self.traffic.received_bytes += nbytes
        try:
            if not self._established and self.traffic.received_bytes > HANDSHAKE_BYTES_MAX:
                raise FrameError(f"more than {HANDSHAKE_BYTES_MAX} bytes before the handshake was done")
            for body in self._frames.received(nbytes):
                if self.closed:
                    return
                self.frame_received(body)
        except FrameError as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._cancel_deadline()
        if self._frames.pieces is not None:
            self._frames.pieces.drop()
        if not self.gone.done():
            self.gone.set_result(None)
        self.ended(exc)
        if self.transport is not None:
            # asyncio's transport keeps a method of its own, which keeps the transport until the garbage collector comes.
            vars(self.transport).pop("_read_ready_cb", None)

    def _too_late(self) -> None:
        self._break(TimeoutError(f"no handshake within {self._handshake_s:g} s"))

    def _break(self, error: Exception) -> None:
        if not self.closed:
            self.abort()
            self.broken(error)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _tune(sock: socket.socket, stall_s: float) -> None:
    """Set the socket's options: small messages leave at once, and a vanished host is noticed even when nothing is sent.

    TCP_USER_TIMEOUT covers what this process cannot see: bytes that the system took and that nobody acknowledges.
    """
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(stall_s * 1000)),
        # What the system has and has not sent cannot be overtaken; by itself it takes megabytes.
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", PIECE_BYTES),
    ):
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            try:
                sock.setsockopt(level, option, value)
            except OSError:
                continue  # the connection is gone already, and its end will be reported in its own way


def _readable_address(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return "?"
