"""Frames: four bytes of head, big-endian, then a body.

The head is the body's length, and above it two bits: a body of more than PIECE_BYTES travels in pieces, a frame each, of which
MORE marks all but the last and LAST the last. Whole frames may come between the pieces of one body, other pieces may not.

1. A length over the limit is an error as soon as its head is here.
2. Memory follows the bytes that came, not the length that was claimed.
3. The socket reads straight into the buffer and whole frames are handed out as views of it: nothing is copied but the
   unfinished rest, to the front. Pieces are put together elsewhere (``pieces.py``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from cacheflow.errors import CacheFlowError
from cacheflow.raft.transport.pieces import Pieces

HEADER: Final = struct.Struct(">I")
# Bytes read from a socket at once: about 600 small messages, which take a few milliseconds of the loop.
BUFFER_BYTES: Final = 64 * 1024
# The largest frame behind the handshake, and so the largest piece: half the buffer, which always has room for the rest of one.
# A small message waits for a few pieces at most, 0.1 s on a link of 5 Mbit/s.
PIECE_BYTES = 32 * 1024
# The bits of a piece in a head, and those that are left for the length.
MORE: Final = 1 << 31
LAST: Final = 1 << 30
LENGTH: Final = LAST - 1


class FrameError(CacheFlowError):
    """Raised when the bytes on a connection are not what a peer sends; the connection must be closed."""


def encode_frame(body: bytes) -> bytes:
    """Return a frame, the unit of the peer protocol: the length of ``body`` and ``body`` itself."""
    return HEADER.pack(len(body)) + body


class FrameBuffer:
    """A buffer that cuts the bytes read from a socket into frames. Not safe for concurrent use: the event loop owns it.

    limit: the largest frame in bytes, at most PIECE_BYTES; it may change between frames.
    pieces: puts together the large messages that come in several frames; None while none are allowed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pieces: Pieces | None = None
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0

    def space(self) -> memoryview:
        """Return the free part of the buffer of received bytes, never empty, for the socket to read into."""
        return self._view[self._filled :]

    def received(self, count: int) -> Iterator[memoryview]:
        """Yield the bodies of the frames that are complete now that ``count`` more bytes were read into the buffer.

        Each body is valid until the next one is taken. Raises FrameError.
        """
        self._filled += count
        view, end, start = self._view, self._filled, 0
        while end - start >= HEADER.size:
            (length,) = HEADER.unpack_from(view, start)
            head = length
            if length > self.limit:
                length = self._length_of_piece(head)
            stop = start + HEADER.size + length
            if stop > end:
                break
            if head == length:
                yield view[start + HEADER.size : stop]
            else:
                yield from self._put_together(view[start + HEADER.size : stop], head)
            start = stop
        if start:
            rest = self._filled - start
            self._view[:rest] = self._view[start : self._filled]
            self._filled = rest

    def _length_of_piece(self, head: int) -> int:
        """Return the length of a piece of a large message, from its frame's header ``head``.

        Raises FrameError if no such piece is allowed.
        """
        kind, length = head & ~LENGTH, head & LENGTH
        if kind in (MORE, LAST) and self.pieces is not None and 0 < length <= PIECE_BYTES:
            return length
        raise FrameError(f"a frame of {length} bytes; at most {self.limit} are allowed")

    def _put_together(self, piece: memoryview, head: int) -> Iterator[memoryview]:
        assert self.pieces is not None
        if self.pieces.add(piece) > self.pieces.limit:
            raise FrameError(f"pieces of more than {self.pieces.limit} bytes")
        if head & LAST:
            whole = self.pieces.take()
            if whole is not None:
                yield memoryview(whole)
