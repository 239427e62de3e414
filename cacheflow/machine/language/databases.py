"""Databases: how a key tells which of the RESP port's sixteen databases it belongs to.

1. A client's key has no control character. A key of a database above 0 stands in the machine behind a prefix that no client's key
   can have: U+0001 and the database's number, a hexadecimal digit. Database 0 has no prefix.
2. So HTTP, memcached and Python, whose keys are clients' keys as they are, name keys of database 0 alone.
3. Any text has a database: what a hostile peer may send is no reason to stumble.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

DATABASES: Final = 16
# The character with which every key of another database than 0 begins, and no client's key.
MARK: Final = "\x01"
MARK_BYTE: Final = 1
PREFIXES: Final = ("", *[f"{MARK}{number:x}" for number in range(1, DATABASES)])
PREFIX_BYTES: Final = 2
# A text that sorts behind every key of another database than 0, and before every key of database 0.
OTHERS_BEFORE: Final = "\x02"

_NUMBERS: Final = {prefix: number for number, prefix in enumerate(PREFIXES)}


def database_of(key: str) -> int:
    """Return the number, 0 to 15, of the database to which ``key`` belongs: a prefix of the key tells it; without one, 0."""
    return _NUMBERS.get(key[:PREFIX_BYTES], 0) if key.startswith(MARK) else 0


def keys_of_database(keys: Iterable[str], database: int) -> list[str]:
    """Return those of ``keys`` that belong to the database with the number ``database``, in the same order.

    keys: as the state machine has them, with a prefix that tells the database; the keys of database 0 have none.
    """
    if database:
        prefix = PREFIXES[database]
        return [key for key in keys if key.startswith(prefix)]
    return [key for key in keys if not key.startswith(MARK)]
