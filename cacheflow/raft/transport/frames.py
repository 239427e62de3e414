"""Frames: four bytes of length, big-endian, then that many bytes.

1. A length over the limit is an error as soon as its four bytes are here.
2. Memory follows the bytes that came, not the length that was claimed: a buffer at most doubles when it is full.
3. The socket reads straight into the buffer and frames are handed out as views of it: nothing is copied but the
   unfinished rest, to the front.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from cacheflow.errors import CacheFlowError

HEADER: Final = struct.Struct(">I")
# Bytes read from a socket at once: about 600 small messages, which take a few milliseconds of the loop.
BUFFER_BYTES: Final = 64 * 1024
# The largest buffer that is kept: a larger one is given back after the frame that needed it. Entries of 1 MiB fit.
BUFFER_BYTES_KEPT: Final = 2 * 1024 * 1024


class FrameError(CacheFlowError):
    """The bytes of a connection are not what a peer sends; the connection must be closed."""


def encode_frame(body: bytes) -> bytes:
    """Return ``body`` as one whole frame."""
    return HEADER.pack(len(body)) + body


class FrameBuffer:
    """Cuts what a socket reads into frames. Not safe for concurrent use: the event loop owns it.

    limit: the largest body in bytes; it may change between frames.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0
        # The bytes that the first unfinished frame has in all, as far as known.
        self._wanted = HEADER.size

    def space(self) -> memoryview:
        """Return the free part of the buffer, for the next bytes; never empty."""
        capacity = len(self._view)
        if self._filled == capacity:
            self._move_to(min(self._wanted, 2 * capacity))
        return self._view[self._filled :]

    def received(self, count: int) -> Iterator[memoryview]:
        """Yield the bodies of the frames that ``count`` more bytes complete; each is valid until the next. Raises FrameError."""
        self._filled += count
        view, end, start = self._view, self._filled, 0
        wanted = HEADER.size
        while end - start >= HEADER.size:
            (length,) = HEADER.unpack_from(view, start)
            if length > self.limit:
                raise FrameError(f"a frame of {length} bytes; at most {self.limit} are allowed")
            stop = start + HEADER.size + length
            if stop > end:
                wanted = HEADER.size + length
                break
            yield view[start + HEADER.size : stop]
            start = stop
        self._keep_rest(start, wanted)

    def _keep_rest(self, start: int, wanted: int) -> None:
        self._wanted = wanted
        if start:
            rest = self._filled - start
            self._view[:rest] = self._view[start : self._filled]
            self._filled = rest
        if len(self._view) > BUFFER_BYTES_KEPT >= wanted:
            self._move_to(max(BUFFER_BYTES, wanted))

    def _move_to(self, capacity: int) -> None:
        # It must be a new buffer: the event loop may still hold the old one, and a held bytearray cannot be resized.
        view = memoryview(bytearray(capacity))
        view[: self._filled] = self._view[: self._filled]
        self._view = view
