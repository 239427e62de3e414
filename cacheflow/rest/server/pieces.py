"""Pieces of long HTTP answers, each of which is freed when the client has taken it: a body in one piece would stay to the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# A longer body is not joined with its header, and leaves in pieces of so many bytes.
PIECE_BYTES_MAX: Final = 64 * 1024


def cut(body: bytes) -> Iterator[bytes]:
    """Yield the bytes ``body`` of a long HTTP answer in pieces, each PIECE_BYTES_MAX long but for the last."""
    for start in range(0, len(body), PIECE_BYTES_MAX):
        yield body[start : start + PIECE_BYTES_MAX]


class Piece:
    """A piece of a long HTTP answer, kept in waitress' list of output buffers; the piece's bytes are never copied."""

    # The bytes of one of waitress' own buffers, which are looked at when nothing is to be sent any more.
    buf = None

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def __len__(self) -> int:
        return len(self._left)

    def get(self, size: int) -> memoryview:
        """Return the next bytes of this piece of an answer that are to be sent, ``size`` at most."""
        return self._left[:size]

    def skip(self, size: int, _: bool) -> None:
        """Let go of the next ``size`` bytes of this piece of an answer, which the client has taken."""
        self._left = self._left[size:]

    def close(self) -> None:
        """Let go of all bytes of this piece of an answer, because the piece is sent or the connection ends."""
        self._left = memoryview(b"")
