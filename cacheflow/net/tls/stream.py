"""TlsStream: TLS between a transport of asyncio and the protocol above it, for a connection whose hands are shaken."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from cacheflow.net.tls.session import Session
from cacheflow.net.tls.trust import told


class TlsStream(asyncio.Transport, asyncio.Protocol):
    """A link for TLS between a socket's transport and the asyncio protocol ``above``, which sees plaintext only.

    To the transport it is a protocol, and to the protocol a transport. Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self, session: Session, above: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._session = session
        self._above: Any = above
        self._below: asyncio.Transport
        # Why the session has ended, where it did not end well.
        self._error: Exception | None = None

    # What the transport below calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        self._above.connection_made(self)
        early, self._session.early = self._session.early, b""
        self._deliver(early)

    def data_received(self, data: bytes) -> None:
        try:
            plain = self._session.decrypt(data)
        except ssl.SSLError as error:
            self._break(error)
            return
        if self._session.has_output:
            self._below.write(self._session.output())
        self._deliver(plain)

    def eof_received(self) -> bool | None:
        keeps: bool | None = self._above.eof_received()
        return keeps

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._above.connection_lost(self._error or exc)

    def _deliver(self, plain: bytes) -> None:
        above: Any = self._above
        if isinstance(self._above, asyncio.BufferedProtocol):
            left = memoryview(plain)
            while left and not self._below.is_closing():
                space = above.get_buffer(len(left))
                count = min(len(space), len(left))
                space[:count] = left[:count]
                above.buffer_updated(count)
                left = left[count:]
        elif plain:
            above.data_received(plain)
        if self._session.ended and not self._below.is_closing() and not above.eof_received():
            self.close()

    def _break(self, error: ssl.SSLError) -> None:
        self._error = ConnectionError(f"TLS: {told(error)}")
        # The alert that says why.
        self._below.write(self._session.output())
        self._below.close()

    # What the protocol above calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._below.is_closing():
            return
        try:
            self._below.write(self._session.encrypt(data))
        except ssl.SSLError as error:
            self._break(error)

    def close(self) -> None:
        if not self._below.is_closing():
            self._below.write(self._session.farewell())
            self._below.close()

    def abort(self) -> None:
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)
