"""Positions: places between two effects of the log, as texts that clients keep and show again, to whichever node.

A position names the group of the log, an index and how many effects of that entry come before it, and holds a part of the digest
over all effects up to the end of that entry. So a node knows a position of another cluster, of before a recovery, or told by a
node whose contents were wrong: the digest there is another one.
"""

from __future__ import annotations

import binascii
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, NamedTuple

from cacheflow.errors import InvalidRequest

# The number of effects that stands for all of an entry.
ALL: Final = 2**32 - 1
TAG_BYTES: Final = 8
# The only Raft group so far, and the version of a position's bytes.
GROUP: Final = 0
_VERSION: Final = 1
_LAYOUT: Final = struct.Struct(f">BHQI{TAG_BYTES}s")
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{31}")


class Position(NamedTuple):
    """A place in the log, behind the first ``seen`` effects (changes) of the log entry ``entry``.

    If ``seen`` is the constant ALL, the place is behind the entry's last effect.
    tag: the beginning of the digest over all effects up to the end of that entry.
    """

    entry: int
    seen: int
    tag: bytes


def text_of(index: int, seen: int, digest: bytes) -> str:
    """Return, as a text for clients, the place in the log behind the first ``seen`` effects of the entry ``index``.

    digest: the one over all effects up to the end of that entry.
    """
    packed = _LAYOUT.pack(_VERSION, GROUP, index, seen, digest[:TAG_BYTES])
    return urlsafe_b64encode(packed).decode().rstrip("=")


def parse(text: str) -> Position:
    """Return the place in the log that ``text``, shown by a client, stands for. Raises InvalidRequest for any other text."""
    if not _TEXT.fullmatch(text):
        raise InvalidRequest("since is a position that a watch or a list of keys has told")
    try:
        version, group, index, seen, tag = _LAYOUT.unpack(urlsafe_b64decode(text + "="))
    except (binascii.Error, struct.error):
        raise InvalidRequest("since is a position that a watch or a list of keys has told") from None
    if version != _VERSION or group != GROUP:
        raise InvalidRequest("since is a position of a newer CacheFlow: ask a node that runs it")
    return Position(index, seen, tag)
