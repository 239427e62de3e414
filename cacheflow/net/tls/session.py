"""Session: one TLS connection without its socket. Bytes in, bytes out: whoever has the socket moves them.

So one object serves whatever owns the socket: a thread while hands are shaken, then the event loop or the HTTP server. And what
one call does is bounded by the bytes that it is given: with a socket of its own OpenSSL would go on for as long as the other
side sends records that carry nothing (key updates of TLS 1.3), and hold the loop meanwhile.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

# The plaintext of one record at most (RFC 8446, 5.1): a read of this length leaves nothing of a record behind.
RECORD_BYTES: Final = 16 * 1024


class Session:
    """One side of one TLS connection, of which it has the keys and not the socket. Not safe for concurrent use.

    host: the name or address that the other side's certificate must have; only a client gives it.
    ``shake`` and ``decrypt`` raise ssl.SSLError; ``output`` may then hold an alert that tells the other side why.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, host: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, host)
        # True once the other side has said that it sends no more.
        self.ended = False
        # What the other side has sent behind its handshake, already: nothing will tell of it but this.
        self.early = b""

    def shake(self, data: bytes) -> bool:
        """Go on with the handshake, given ``data`` from the other side; return whether the handshake is done."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.early = self.decrypt(b"")
        return True

    @property
    def has_output(self) -> bool:
        """True if there are bytes to be sent that no call has returned yet."""
        return bool(self._outgoing.pending)

    def output(self) -> bytes:
        """Return the bytes to be sent to the other side: of the handshake, of alerts and of answers to key updates."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext of ``data``, which has come from the other side; b"" if no record is whole yet."""
        incoming, read = self._incoming, self._tls.read
        incoming.write(data)
        parts: list[bytes] = []
        try:
            while plain := read(RECORD_BYTES):
                if not incoming.pending and not parts:
                    return plain
                parts.append(plain)
                if not incoming.pending:
                    break
            else:
                self.ended = True
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return ``data`` as records to be sent."""
        if data:
            self._tls.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return the bytes by which this side says that it sends no more. Nothing can be encrypted afterwards."""
        # It raises when the other side has not said the same yet, or the session is broken.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()
