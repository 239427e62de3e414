"""Frames: how snapshot and backup files hold their pieces, so that no damaged byte and no missing end passes.

A frame is length 4, check 8, data. The first is the file's header, an empty one ends them, and a digest of 16 bytes over all
frames' heads ends the file. A check is BLAKE2b-64 over the frame's number, length and data, so a frame that is damaged, missing,
doubled or moved is found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Final

_FRAME: Final = struct.Struct("<I8s")
_NUMBERED: Final = struct.Struct("<II")
_TOTAL_BYTES: Final = 16


class BrokenFrames(Exception):
    """Raised for a file of frames (pieces with a checksum) that is damaged or ends too soon; the message says where."""


def framed(header: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a file that holds ``header`` and then each of ``pieces`` in a frame with a checksum."""
    total = blake2b(digest_size=_TOTAL_BYTES)
    for number, data in enumerate(_with_end(header, pieces)):
        head = _FRAME.pack(len(data), _check_of(number, data))
        total.update(head)
        yield head
        yield data
    yield total.digest()


def _with_end(header: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield header
    for piece in pieces:
        if piece:  # an empty frame is the end
            yield piece
    yield b""


def unframed(read: Callable[[int, int], bytes], begin: int, size: int, bytes_max: int | None = None) -> Iterator[bytes]:
    """Yield the header and then each piece of a file of frames (pieces with a checksum), after checking its checksum.

    Raises BrokenFrames when the file is damaged.
    read: a function of an offset and a length that returns these bytes of the file.  begin: the first frame's offset.
    size: the file's length.  bytes_max: the most bytes of one piece, None for any.
    """
    total = blake2b(digest_size=_TOTAL_BYTES)
    offset = begin
    number = 0
    while True:
        head = read(offset, _FRAME.size)
        length, check = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, b"")
        offset += _FRAME.size
        is_there = offset + length <= size and (bytes_max is None or length <= bytes_max)
        data = read(offset, length) if is_there else b""
        if len(data) != length or _check_of(number, data) != check:
            raise BrokenFrames(f"frame {number} at byte {offset - _FRAME.size} is damaged or missing")
        total.update(head)
        offset += length
        number += 1
        if length == 0:
            break
        yield data
    if offset + _TOTAL_BYTES != size or read(offset, _TOTAL_BYTES) != total.digest():
        raise BrokenFrames(f"the end of the file, byte {offset}, is damaged")


def _check_of(number: int, data: bytes) -> bytes:
    check = blake2b(_NUMBERED.pack(number, len(data)), digest_size=8)
    check.update(data)
    return check.digest()
