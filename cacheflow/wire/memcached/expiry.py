"""exptime: seconds from now, a Unix time, never, or already over (memcached's protocol.txt, "Expiration times").

A time that arrives absolute is turned into a relative one here, by this node's wall clock, before it is proposed: the
cluster's own time need not be anybody's wall clock.
"""

from __future__ import annotations

import re
from typing import Final

from cacheflow.machine.language.commands import TTL_NONE

# An exptime up to 30 days counts from now; above that it is a Unix time.
RELATIVE_MAX_S: Final = 60 * 60 * 24 * 30
# The TTL of a time that is over. No command says "expire now", so whoever gets this removes the key in the same entry.
OVER: Final = -1

_INT32 = re.compile(rb"-?[0-9]{1,10}")


def exptime_of(word: bytes) -> int | None:
    """Return the signed 32-bit number that ``word``, the expiry time in a memcached command, spells; None for no number."""
    if not word.isdigit() and _INT32.fullmatch(word) is None:
        return None
    number = int(word) if len(word) <= 11 else 2**31
    return number if -(2**31) <= number < 2**31 else None


def ttl_ms_of(exptime: int, wall_s: float) -> int:
    """Return the milliseconds from now to a memcached ``exptime``: TTL_NONE for 0 (never), OVER for a time in the past.

    wall_s: this node's wall clock, in seconds since 1970.
    """
    if exptime == 0:
        return TTL_NONE
    if 0 < exptime <= RELATIVE_MAX_S:
        return exptime * 1000
    if exptime < 0:
        return OVER
    left_ms = round((exptime - wall_s) * 1000)
    return left_ms if left_ms > 0 else OVER


def seconds_left(expires_at_ms: int, now_ms: int) -> int:
    """Return the whole seconds from ``now_ms`` to an entry's expiry, as memcached's flag ``t`` shows it; -1 for no expiry."""
    return max(0, (expires_at_ms - now_ms + 999) // 1000) if expires_at_ms else -1
