"""Keys of frameworks, which may be anything that a visitor has typed: long paths, control characters, lone surrogates."""

from __future__ import annotations

import hashlib
from typing import Final

# What a key may have in bytes before it is hashed. The rest of the 1024 that a cluster takes is for prefixes.
PLAIN_BYTES_MAX: Final = 700
# The beginning of every hashed key. A key that begins so is hashed too, so that nobody can name another one's hash.
HASHED: Final = "sha256:"


def storable(key: str) -> str:
    """Return ``key`` itself if a cluster can store it, otherwise its hash, which names it as well.

    A key is hashed when it is empty, has over PLAIN_BYTES_MAX bytes, control characters or lone surrogates, or begins as a hash.
    """
    data = key.encode("utf-8", "surrogatepass")
    plain = key.isprintable() or not any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in key
    )
    if plain and 0 < len(data) <= PLAIN_BYTES_MAX and not key.startswith(HASHED):
        return key
    return HASHED + hashlib.sha256(data).hexdigest()
