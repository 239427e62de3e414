"""Redis' glob patterns, in linear time.

A pattern becomes a regular expression of single bytes between stars, each part matched at the first place it fits and
never again (atomic groups): moving a part to a later place cannot help the ones behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_PATTERNS_KEPT: Final = 256
# The longest pattern: no key has more bytes, and compiling takes its time.
PATTERN_BYTES_MAX: Final = 1024


@lru_cache(_PATTERNS_KEPT)
def matcher(pattern: bytes) -> Callable[[bytes], object]:
    """Return a function whose result is true for the keys that the glob ``pattern``, as Redis understands it, matches."""
    parts = _parts(pattern)
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL).fullmatch
    first, *middle, last = parts
    expression = first + b"".join([b"(?>.*?%b)" % part for part in middle if part]) + b".*" + last
    return re.compile(expression, re.DOTALL).fullmatch


def _parts(pattern: bytes) -> list[bytes]:
    """Return the parts of a glob pattern between its stars (``*``), each as a regular expression."""
    parts = [b""]
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            parts.append(b"")
        elif byte == b"?":
            parts[-1] += b"."
        elif byte == b"[":
            expression, position = _class(pattern, position)
            parts[-1] += expression
        else:
            if byte == b"\\" and position < len(pattern):
                byte = pattern[position : position + 1]
                position += 1
            parts[-1] += re.escape(byte)
    return parts


def _class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """Return the regular expression for a glob's ``[...]`` class, and the position behind the class in ``pattern``.

    position: where the inside of the class begins. A class that is not closed ends with the pattern.
    """
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members = bytearray(256)
    while position < len(pattern):
        byte = pattern[position]
        if byte == 0x5C and position + 1 < len(pattern):
            members[pattern[position + 1]] = 1
            position += 2
        elif byte == 0x5D:
            position += 1
            break
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            low, high = sorted((byte, pattern[position + 2]))
            members[low : high + 1] = b"\x01" * (high + 1 - low)
            position += 3
        else:
            members[byte] = 1
            position += 1
    inside = re.escape(bytes([byte for byte in range(256) if members[byte]]))
    if not inside:
        return (b"." if negated else b"(?!)"), position
    return b"[%b%b]" % (b"^" if negated else b"", inside), position
