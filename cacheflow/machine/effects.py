"""Effects: what a log entry did to the contents, as the digest covers it and as a watcher would be told.

An effect is a plain tuple that begins with its kind. An effect on a key goes on with (key, version, expires_at_ms); a
write adds (data, kind, meta). The numbers of the kinds are part of the digest and are never changed.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgpack

Effect: TypeAlias = tuple[Any, ...]

WRITTEN: Final = 1
TOUCHED: Final = 2  # the key has a new expiry; its version stays
DELETED: Final = 3
EXPIRED: Final = 4
EVICTED: Final = 5
CONFIGURED: Final = 6  # the settings, as the fields of Settings
MEMBERS_CHANGED: Final = 7  # cluster id, rows of the table
CONDEMNED: Final = 10  # prefix, revision, whether in database 0 alone: every key of it with a lower version is gone
LEVEL_RAISED: Final = 9  # the level in force from now on
APPENDED: Final = 8  # APPEND to a present value: the added data, whether in front, the kind of the whole
REVISION_RAISED: Final = 12  # the revision from now on
RESTORE_BEGUN: Final = 13  # its id, the number of its items, whether clients are served
RESTORE_ENDED: Final = 14  # its id, the number of items that have come
RECOVERED: Final = (
    15  # cluster id, rows of the table, ids of the replaced clusters, the revision: every version is another now
)
FIELDS_CHANGED: Final = 11  # of a present hash or set: fields and values, or the fields that are gone; which; its kind


# How a condemnation begins where effects are packed; other bytes may look the same.
_CONDEMNATION: Final = msgpack.packb((CONDEMNED, "", 0, False))[:2]


def may_concern(packed: bytes, part: bytes) -> bool:
    """Return False if surely no effect (change) in ``packed`` is on a key that holds ``part``, or on all keys of a prefix.

    packed: the effects of one log entry. Where these are short it takes less time than to unpack and look at them.
    """
    return part in packed or _CONDEMNATION in packed


def unpacked(packed: bytes) -> list[Effect]:
    """Return the effects (changes) of one log entry, from their packed bytes ``packed``, without the values of writes.

    What is left of an effect on a key is its kind, the key, its version and its expiry, and what stands behind a write's value.
    """
    return [(*effect[:4], *effect[5:]) for effect in msgpack.unpackb(packed)]
