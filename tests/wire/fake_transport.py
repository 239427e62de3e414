"""The other end of a wire connection: what a client sends and gets, without a socket."""

from __future__ import annotations

import asyncio

from cacheflow.wire.connection import Connection


class FakeTransport(asyncio.Transport):
    """Keeps what is written. takes: false is a client that does not read, which the protocol is told as asyncio would."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.written = bytearray()
        self.reading = True
        self.closed = False
        self.aborted = False
        self.takes = True
        self._protocol = protocol
        self._told = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written += data
        if data and not self.takes and not self._told:
            self._told = True
            self._protocol.pause_writing()

    def take_all(self) -> None:
        """The client reads again."""
        self.takes = True
        self._told = False
        self._protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Client:
    """One connection: ``send`` bytes, look at ``replies``."""

    def __init__(self, protocol: Connection) -> None:
        self.protocol = protocol
        self.transport = FakeTransport(protocol)
        protocol.connection_made(self.transport)

    def send(self, data: bytes) -> bytes:
        """What comes back at once."""
        if not self.transport.closed:
            self.protocol.data_received(data)
        return self.replies()

    def replies(self) -> bytes:
        """What has come back since the last time."""
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written

    @property
    def closed(self) -> bool:
        """Whether the other side has ended it."""
        return self.transport.closed
