"""SecuredTransport: one client's socket and its TLS session, served by the Poller as any other client's."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Final

from cacheflow.net.tls.session import RECORD_BYTES, Session
from cacheflow.net.transport import Arrival, Polling, Receive, SocketTransport

logger = logging.getLogger(__name__)

# Bytes that are read from a socket at once: about a record.
_RECEIVE_BYTES: Final = RECORD_BYTES


class SecuredTransport(SocketTransport):
    """The asyncio transport of one client's socket whose bytes are encrypted, from the end of the TLS handshake on.

    Whatever has come on the socket is decrypted at once and given to the protocol: no plaintext stays here, where a poll of
    the socket would not show it. The event loop owns it.
    """

    __slots__ = ("_session",)

    def __init__(
        self,
        poller: Polling,
        sock: socket.socket,
        protocol: asyncio.Protocol,
        arrived: list[Arrival],
        session: Session,
    ) -> None:
        super().__init__(poller, sock, protocol, arrived)
        self._session = session

    def start(self) -> None:
        super().start()
        early, self._session.early = self._session.early, b""
        if early and not self._closing:
            self._protocol.data_received(early)
        if self._session.ended:
            self._poller.loop.call_soon(self._said_all)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        try:
            records = self._session.encrypt(data)
        except ssl.SSLError as error:
            self.fail(error)
            return
        super().write(records)

    def close(self) -> None:
        if not self._closing:
            super().write(self._session.farewell())
            super().close()

    def _receiving(self) -> Receive:
        return self._decrypted

    def _decrypted(self, size: int) -> bytes:
        """Return the plaintext of all that the socket has received, even above ``size`` bytes; b"" at the end of the input.

        Raises OSError.
        """
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            return data
        session = self._session
        try:
            plain = session.decrypt(data)
        except ssl.SSLError as error:
            super().write(session.output())  # the alert that says why
            self.fail(error)
            raise BlockingIOError from None
        if session.has_output:
            super().write(session.output())
        if session.ended:
            self._poller.loop.call_soon(self._said_all)
        if not plain:
            raise BlockingIOError
        return plain

    def _said_all(self) -> None:
        """Tell the client's protocol that the client will send no more, unless the protocol has been told already."""
        if self._ended or self._closing:
            return
        try:
            self.end_of_input()
        except Exception:
            logger.exception("a connection stumbled and was closed")
            self.abort()
