"""The fuzzer's TLS: records of any length, noise in the place of a record, and beginnings of a handshake that are none."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from random import Random

from fuzz.grammar import Malformed
from fuzz.mutating import mutated

from cacheflow.net.tls.session import Session

# What no session can read: no record, one that nobody has encrypted, a handshake in the middle, and a record without an end.
NOISE = (
    b"\x17\x03\x03\x00\x05",
    b"\x16\x03\x03\x00\x04",
    b"\x14\x03\x03\x00\x01\x01",
    b"\x15\x03\x03\x00\x02\x02\x00",
    b"",
)
HELLO_TOKENS = (b"\x16\x03\x01", b"\x00\x00", b"\xff\xff", b"\x03\x04", b"\x01")


class Secured:
    """A reader and writer of plaintext over one connection, as asyncio's, whose hands are shaken already."""

    def __init__(
        self, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, random: Random
    ) -> None:
        self._session = session
        self._reader = reader
        self._writer = writer
        self._random = random
        self._plain, session.early = session.early, b""
        self._spoiled = False

    async def read(self, size: int) -> bytes:
        """Return some plaintext; b"" at the end. Raises Malformed for what no session of TLS says."""
        while not self._plain and not self._session.ended:
            data = await self._reader.read(size)
            if not data:
                return b""
            try:
                self._plain = self._session.decrypt(data)
            except ssl.SSLError as error:
                if not self._spoiled:
                    raise Malformed(f"TLS: {error}") from None
                return b""  # the alert that says why
        plain, self._plain = self._plain[:size], self._plain[size:]
        return plain

    async def readexactly(self, size: int) -> bytes:
        """Return so many bytes. Raises asyncio.IncompleteReadError."""
        found = b""
        while len(found) < size:
            more = await self.read(size - len(found))
            if not more:
                raise asyncio.IncompleteReadError(found, size)
            found += more
        return found

    def write(self, data: bytes) -> None:
        """Send ``data`` in some records."""
        while data and not self._spoiled:
            size = self._random.choice((len(data), self._random.randint(1, len(data))))
            self._writer.write(self._session.encrypt(data[:size]))
            data = data[size:]

    def spoil(self, data: bytes) -> None:
        """Send what is no record; nothing can follow."""
        self._writer.write(self._random.choice(NOISE) + data)
        self._spoiled = True
        # Half a record would be waited for.
        self._writer.write_eof()

    def write_eof(self) -> None:
        """Tell that nothing follows, by TLS alone."""
        self._writer.write(self._session.farewell())

    def close(self) -> None:
        """End the connection."""
        if not self._spoiled and self._random.random() < 0.5:
            self._writer.write(self._session.farewell())
        self._writer.close()


async def shake_hands(host: str, port: int, context: ssl.SSLContext, random: Random) -> Secured:
    """Connect and shake hands. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port)
    session = Session(context, server_side=False, host=host)
    done, said = False, b""
    while not done:
        done = session.shake(said)
        writer.write(session.output())
        if not done:
            said = await reader.read(65536)
            if not said:
                raise ConnectionResetError("the node has left in the handshake")
    return Secured(session, reader, writer, random)


async def knock(host: str, port: int, context: ssl.SSLContext, random: Random) -> None:
    """Begin a handshake as nobody does; the node must end the connection. Raises OSError, TimeoutError when it does not."""
    session = Session(context, server_side=False, host=host)
    session.shake(b"")
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        writer.write(mutated(session.output(), random, HELLO_TOKENS))
        writer.write_eof()
        while await reader.read(65536):
            pass
    writer.close()
