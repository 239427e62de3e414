"""The format of a file, in two bytes behind its magic: a number, and its complement, so that damage is no newer build.

A newer build reads the formats of all levels from 1 on, and writes a new format once its feature level is in force.
"""

from __future__ import annotations

from cacheflow.errors import NewerCacheFlow

FORMAT_BYTES = 2


def encode_format(number: int) -> bytes:
    """Return the two bytes of a format."""
    return bytes((number, number ^ 0xFF))


def is_format(data: bytes, known: int, what: str) -> bool:
    """Return whether ``data`` is the format ``known``, False for damage.

    Raises NewerCacheFlow for a later one. what: was written in it, for people.
    """
    if len(data) != FORMAT_BYTES or data[0] ^ 0xFF != data[1]:
        return False
    if data[0] > known:
        raise NewerCacheFlow.wrote(what, data[0], known, number="format")
    return data[0] == known
