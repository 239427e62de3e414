"""Entry: what the machine keeps under a key, a tuple; and the formula for an item's size.

An entry is a plain tuple of atoms, because a million of them live at once: the garbage collector drops exact tuples of
atoms from its lists, and a tuple is immutable, so that any thread may read one without a lock.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from cacheflow.machine.language.databases import PREFIX_BYTES

# (data, kind, meta, version, expires_at_ms); an expiry of 0 means never.
Entry: TypeAlias = tuple[bytes, int, str | int | None, int, int]

DATA: Final = 0
KIND: Final = 1
META: Final = 2
VERSION: Final = 3
EXPIRES_AT_MS: Final = 4

# The kinds of values.py again: this layer must not import that module, and a test compares the two.
KIND_TEXT: Final = 0
KIND_BYTES: Final = 1
KIND_JSON: Final = 2
KIND_HASH: Final = 3
KIND_SET: Final = 4
KIND_MAX: Final = 4
# The last kind that is one value. Behind it are those with fields.
KIND_VALUE_MAX: Final = KIND_JSON

# The longest key: a client's, behind a database's prefix.
KEY_BYTES_MAX: Final = 1024 + PREFIX_BYTES
META_CHARS_MAX: Final = 1024
# What each item counts for beside its bytes: about what the tuple, its numbers and two dictionary slots cost. It is
# part of the replicated rules and must never change.
ENTRY_BYTES: Final = 64
# The longest value that APPEND may make: config.py's largest max_value_bytes. It must never change either.
APPENDED_BYTES_MAX: Final = 64 * 1024 * 1024


def key_bytes(key: str) -> int:
    """Return the number of bytes that ``key`` has in UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
    return len(key) if key.isascii() else len(key.encode())


def entry_bytes(key: str, data: bytes, meta: str | int | None) -> int:
    """Return an item's size as it counts against the limit ``max_bytes``; it is equal on every node and Python version."""
    size = ENTRY_BYTES + len(data) + (len(key) if key.isascii() else len(key.encode()))
    return size + len(meta) if type(meta) is str else size


def total_bytes(keys: list[str], entries: list[Entry]) -> int:
    """Return the sum of the sizes, as they count against ``max_bytes``, of the items with these ``keys`` and ``entries``.

    A million take a few dozen milliseconds.
    """
    size = ENTRY_BYTES * len(keys) + sum(map(len, keys)) + sum([len(entry[0]) for entry in entries])
    size += sum([len(entry[2]) for entry in entries if type(entry[2]) is str])
    if not all(map(str.isascii, keys)):
        size += sum([len(key.encode()) - len(key) for key in keys if not key.isascii()])
    return size
