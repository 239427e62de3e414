"""Stream: a reply that is made piece by piece, as time allows and as the client takes it.

A short reply is bytes. One of many megabytes is never joined: its pieces are the stored values themselves and what stands between
them. One that takes long to make (all keys, ten thousand requests of a transaction) is made in slices (net/slices.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# A reply of more bytes is a Stream.
WHOLE_BYTES_MAX: Final = 1024 * 1024
# A longer piece is written by itself, as it is, and not joined with its neighbours.
JOINED_BYTES_MAX: Final = 32 * 1024
# Enough of a reply to know what kind of error it is.
HEAD_BYTES: Final = 64


class Failure(bytes):
    """The last piece of a reply that ends in an error: the request counts as failed, whatever was sent before."""


class Stream:
    """A reply that is sent in pieces. An empty piece means: the next one takes long to make, and may be asked for later.

    pieces: an iterator of the pieces.
    held: the bytes of stored values in the reply that are still to be sent, and stay in memory although their keys may change.
    head: the beginning of what was sent so far, or of the error at its end: tells a reply from an error.
    """

    __slots__ = ("head", "held", "pieces")

    def __init__(self, pieces: Iterator[bytes], held: int = 0) -> None:
        self.pieces = pieces
        self.held = held
        self.head = b""


Reply = bytes | Stream


def size_of(reply: Reply) -> int:
    """Return the number of bytes that ``reply`` keeps in memory."""
    return len(reply) if isinstance(reply, bytes) else reply.held


def whole(reply: Reply) -> bytes:
    """Return all bytes of ``reply`` in one piece, for callers in this process: a client would get them piece by piece."""
    return reply if isinstance(reply, bytes) else b"".join(reply.pieces)
