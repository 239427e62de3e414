"""Outgoing: a connection that this node opens to a peer, and the handshake in which both prove who they are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from cacheflow.config import split_address
from cacheflow.raft.transport.connection import Connection
from cacheflow.raft.transport.encryption import Encryption
from cacheflow.raft.transport.frames import FrameError, encode_frame
from cacheflow.raft.transport.handshake import Handshake, Hello, Refusal, failure
from cacheflow.raft.transport.network import PeerRefused, PeerUnreachable, Traffic
from cacheflow.raft.transport.outbox import Outbox


class Outgoing(Connection):
    """A connection that this node has opened and sends on; the other side only listens. The event loop owns it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handshake: Handshake,
        *,
        handshake_s: float,
        stall_s: float,
        defer: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(loop, handshake_s, stall_s)
        self._defer = defer
        self._handshake = handshake
        # The other side's hello once both sides have proved that they know the secret; or PeerUnreachable.
        self.answer: asyncio.Future[Hello] = loop.create_future()
        self.outbox: Outbox | None = None
        self.on_end: Callable[[str], None] | None = None
        self._reason = "the other side closed the connection"

    def opened(self) -> None:
        assert self.transport is not None
        self.transport.write(encode_frame(self._handshake.opening()))

    def frame_received(self, body: memoryview) -> None:
        assert self.transport is not None
        if self._established:
            raise FrameError("a listener says nothing after the handshake")
        try:
            reply = self._handshake.receive(bytes(body))
        except (Refusal, PeerRefused) as error:
            self._fail(error)
            self.abort()
            return
        if reply is not None:
            self.transport.write(encode_frame(reply))
        if self._handshake.done:
            assert self._handshake.remote is not None
            self.outbox = Outbox(self._loop, self.transport, self._stall_s, self._defer)
            # The transport says so as soon as it keeps a byte back.
            self.transport.set_write_buffer_limits(high=0)
            self.established(None)
            if not self.answer.done():
                self.answer.set_result(self._handshake.remote)

    def count_in(self, traffic: Traffic) -> None:
        """Count what is sent from now on in ``traffic``, the numbers of the node to which this connection leads."""
        assert self.outbox is not None
        self.outbox.traffic = traffic

    def close(self) -> None:
        if self.outbox is not None and not self.closed:
            self.outbox.flush_all()
        super().close()

    def pause_writing(self) -> None:
        if self.outbox is not None:
            self.outbox.pause()

    def resume_writing(self) -> None:
        if self.outbox is not None:
            self.outbox.resume()

    def broken(self, error: Exception) -> None:
        self._reason = str(error)
        self._fail(error)

    def ended(self, error: Exception | None) -> None:
        if self.outbox is not None:
            if self.outbox.stalled:
                self._reason = f"it took nothing for {self._stall_s:g} s"
            elif error is not None:
                self._reason = str(error)
            self.outbox.close()
        self._fail(FrameError("the connection was closed during the handshake"))
        if self.on_end is not None:
            self.on_end(self._reason)

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(failure(error))


async def dial(
    loop: asyncio.AbstractEventLoop,
    address: str,
    handshake: Handshake,
    *,
    handshake_s: float,
    stall_s: float,
    defer: Callable[[Callable[[], None]], None],
    encryption: Encryption | None,
) -> Outgoing:
    """Connect to the peer at ``address``, host:port, shake hands and return the connection.

    encryption: makes the connection with TLS where nodes have certificates; None for a plain connection.
    handshake_s: seconds for the handshake, from when the socket is connected; the caller limits the time of the whole call.
    Raises PeerUnreachable, PeerRefused.
    """
    connection = Outgoing(loop, handshake, handshake_s=handshake_s, stall_s=stall_s, defer=defer)
    try:
        host, port = split_address(address)
        if encryption is None:
            await loop.create_connection(lambda: connection, host, port)
        else:

            def begin(encrypted: bool) -> Outgoing:
                handshake.encrypted = encrypted
                return connection

            await encryption.dial(loop, begin, host, port)
        await connection.answer
    except (OSError, ValueError) as error:
        connection.answer.cancel()
        raise PeerUnreachable(_plain(error)) from None
    except BaseException:
        connection.answer.cancel()
        connection.abort()
        raise
    return connection


def _plain(error: Exception) -> str:
    """Return why an attempt to connect failed, in the operating system's words, because asyncio's leave out the reason."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error)
