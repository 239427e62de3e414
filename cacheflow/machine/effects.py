"""What an entry did to the contents: the words of the digest and of whoever watches.

An effect is a plain tuple that begins with its kind. One about a key goes on with (key, version, expires_at_ms); a
write adds (data, kind, meta). Numbers here are part of the digest and are never changed.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Effect: TypeAlias = tuple[Any, ...]

WRITTEN: Final = 1
TOUCHED: Final = 2  # a new expiry; the version stays
DELETED: Final = 3
EXPIRED: Final = 4
EVICTED: Final = 5
CONFIGURED: Final = 6  # policy, max_items, max_bytes, replicas
MEMBERS_CHANGED: Final = 7  # cluster id, rows of the table
APPENDED: Final = 8  # a write by APPEND to what is there: the added data, in front or not, kind
