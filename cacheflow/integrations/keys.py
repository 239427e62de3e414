"""Keys of frameworks, which may be anything that a visitor has typed: long paths, control characters, lone surrogates."""

from __future__ import annotations

import hashlib
from typing import Final

# What a key may have in bytes before it is hashed. The rest of the 1024 that a cluster takes is for prefixes.
PLAIN_BYTES_MAX: Final = 700
# The beginning of every hashed key. A key that begins so is hashed too, so that nobody can name another one's hash.
HASHED: Final = "sha256:"
# The longest prefix in bytes that stays in front of a hash: with both a key is still no longer than a plain one.
PREFIX_BYTES_MAX: Final = PLAIN_BYTES_MAX - len(HASHED) - 64


def storable(key: str, prefix: str = "") -> str:
    """Return ``prefix`` and ``key`` if a cluster can store them as one key, otherwise ``prefix`` and the key's hash.

    A key is hashed when it would be empty, have over PLAIN_BYTES_MAX bytes with its prefix, has control characters or lone
    surrogates, or begins as such a hash does. A prefix that no cluster takes is hashed together with the key.
    """
    whole = prefix + key
    if _is_plain(whole) and not key.startswith(HASHED) and not whole.startswith(HASHED):
        return whole
    if prefix and _is_plain(prefix) and len(prefix.encode()) <= PREFIX_BYTES_MAX:
        return prefix + _hash(key)
    return _hash(whole)


def _is_plain(key: str) -> bool:
    plain = key.isprintable() or not any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in key
    )
    return plain and 0 < len(key.encode()) <= PLAIN_BYTES_MAX


def _hash(key: str) -> str:
    return HASHED + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
