"""The format of a file, in two bytes behind its magic: a number, and its complement, so that damage is no newer build.

A newer build reads the formats of all levels from 1 on, and writes a new format once its feature level is in force.
"""

from __future__ import annotations

from cacheflow.errors import NewerCacheFlow

FORMAT_BYTES = 2


def encode_format(number: int) -> bytes:
    """Return the two bytes, near the beginning of a file, that tell readers the version of the file's format.

    The bytes are ``number``, that version, and the complement of ``number``: so damage is not taken for a version."""
    return bytes((number, number ^ 0xFF))


def is_format(data: bytes, known: int, what: str) -> bool:
    """Return whether ``data``, the two bytes of a file that tell its format's version, is the version ``known``.

    Returns False if the bytes are damaged. Raises NewerCacheFlow for a higher version. what: the file's name, for the message.
    """
    if len(data) != FORMAT_BYTES or data[0] ^ 0xFF != data[1]:
        return False
    if data[0] > known:
        raise NewerCacheFlow.wrote(what, data[0], known, number="format")
    return data[0] == known
