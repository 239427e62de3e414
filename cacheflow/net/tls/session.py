"""Session: one TLS connection without its socket. Bytes in, bytes out: whoever has the socket moves them.

So one object serves whatever owns the socket: a thread while hands are shaken, then the event loop or the HTTP server. And what
one call does is bounded. With a socket of its own OpenSSL would go on for as long as the other side sends records that carry
nothing, such as key updates of TLS 1.3: 27 bytes cost 18 microseconds, so that 64 clients that send nothing else would hold the
loop for a second. Here OpenSSL gets one record at a time, and those without data are counted.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

# The plaintext of one record at most (RFC 8446, 5.1): a read of this length leaves nothing of a record behind.
RECORD_BYTES: Final = 16 * 1024
# Records without data that the other side may send: some, and one more for so many with data. Honest ones are tickets at the
# beginning, and a key update for gigabytes.
EMPTY_MAX: Final = 32
FILLED_FOR_ONE_EMPTY: Final = 1024
_HEAD_BYTES: Final = 5
# A record's length in its head (RFC 5246, 6.2.3; RFC 8446, 5.2 allows less).
_LENGTH_MAX: Final = RECORD_BYTES + 2048


class Session:
    """One side of one TLS connection, of which it has the keys and not the socket. Not safe for concurrent use.

    host: the name or address that the other side's certificate must have; only a client gives it.
    ``shake`` and ``decrypt`` raise ssl.SSLError; ``output`` may then hold an alert that tells the other side why.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, host: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, host)
        # The beginning of a record whose rest is still to come.
        self._partial = b""
        # Records behind the handshake, without data and with some.
        self._empty = 0
        self._filled = 0
        # True once the other side has said that it sends no more.
        self.ended = False
        # What the other side has sent behind its handshake, already: nothing will tell of it but this.
        self.early = b""

    def shake(self, data: bytes) -> bool:
        """Go on with the TLS handshake, given ``data`` from the other side; return whether the handshake is done."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        # From here on OpenSSL gets whole records only.
        self.early = self.decrypt(self._incoming.read())
        return True

    @property
    def has_output(self) -> bool:
        """True if TLS itself has bytes for the other side (handshake, alert, key update) that are still to be sent."""
        return bool(self._outgoing.pending)

    def output(self) -> bytes:
        """Return the bytes that TLS itself has to send to the other side: handshake, alerts, answers to key updates."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext of ``data``, encrypted bytes from the other side; b"" if no TLS record is whole yet."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        if len(data) == _record_end(data, 0):
            return self._open(data)
        parts, view, begin = [], memoryview(data), 0
        while (end := _record_end(data, begin)) <= len(data):
            parts.append(self._open(view[begin:end]))
            begin = end
        self._partial = data[begin:]
        return b"".join(parts)

    def _open(self, record: bytes | memoryview) -> bytes:
        """Return the plaintext of one whole TLS record; b"" if the record carries none."""
        self._incoming.write(record)
        try:
            plain = self._tls.read(RECORD_BYTES)
        except ssl.SSLWantReadError:
            self._empty += 1
            if self._empty > EMPTY_MAX + self._filled // FILLED_FOR_ONE_EMPTY:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "too many records that carry nothing") from None
            return b""
        except ssl.SSLZeroReturnError:
            plain = b""
        if plain:
            self._filled += 1
        else:
            self.ended = True
        return plain

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return ``data`` encrypted, as TLS records to be sent."""
        if len(data) <= RECORD_BYTES:
            if data:
                self._tls.write(data)
            return self._outgoing.read()
        # OpenSSL's buffer never shrinks, and so is never more than a record's: every client would keep its largest answer.
        view, records = memoryview(data), []
        for begin in range(0, len(view), RECORD_BYTES):
            self._tls.write(view[begin : begin + RECORD_BYTES])
            records.append(self._outgoing.read())
        return b"".join(records)

    def farewell(self) -> bytes:
        """Return the bytes that tell the other side, in TLS, that this side sends no more.

        Nothing can be encrypted afterwards.
        """
        # ``unwrap`` raises when the other side has not said the same yet, or the session is broken.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()


def _record_end(data: bytes, begin: int) -> int:
    """Return the position behind the TLS record that begins at ``begin`` of ``data``; it may lie behind the end of ``data``.

    While the record's head has not come whole, return the position behind the head. Raises ssl.SSLError for a record that is
    longer than TLS allows.
    """
    if len(data) < begin + _HEAD_BYTES:
        return begin + _HEAD_BYTES
    length = data[begin + 3] << 8 | data[begin + 4]
    if length > _LENGTH_MAX:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"a record of {length} bytes")
    return begin + _HEAD_BYTES + length
