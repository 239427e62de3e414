"""Plans: what a decision about a command on one key may be beside a final result; a plan cannot fail.

A plan is a tuple that begins with its kind; the comments name the fields that follow.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from cacheflow.machine.language import commands as c
from cacheflow.machine.state.entries import KIND, KIND_HASH, KIND_SET, Entry

# key, data, kind, meta, expires_at_ms, and what the result tells beside the version: created, the number, or the length
WRITE: Final = 1
REMOVE: Final = 2  # key
RETIME: Final = 3  # key, expires_at_ms, version
USE: Final = 4  # key, entry
# the fields of WRITE, the kind of its effect, and what that tells: what has changed (added data, or fields), and whether that is
# in front, or removed
EXTEND: Final = 5
EMPTY: Final = 6  # key, and what the result tells beside the version: how many fields there were

Plan: TypeAlias = tuple[Any, ...]
Decision: TypeAlias = c.Result | Plan


class Malformed(Exception):
    """Raised for a command that is not well-formed; the message says why."""


def expires_at_ms_of(ttl_ms: Any, kept_ms: int, now_ms: int) -> int:
    """Return the expiry, in ms of absolute time, that a command's TTL ``ttl_ms`` leads to; 0 stands for no expiry.

    kept_ms: the key's present expiry, which is returned for the special TTL_KEEP.
    """
    if type(ttl_ms) is not int or not c.TTL_KEEP <= ttl_ms <= c.TTL_MS_MAX:
        raise Malformed("the TTL is not a number of milliseconds")
    if ttl_ms > 0:
        return now_ms + ttl_ms
    return kept_ms if ttl_ms else 0


def too_large(bytes_max: float) -> c.Result:
    """Return the result that refuses a command because its item would be larger than the whole cache may be."""
    return [c.TOO_LARGE, f"the item is larger than the whole cache may be ({bytes_max} bytes)"]


def wrong_kind(entry: Entry) -> c.Result:
    """Return the result that refuses a command because it is not for the kind (string, hash, set) of the item ``entry``."""
    kinds = {KIND_HASH: "a hash", KIND_SET: "a set"}
    return [c.WRONG_KIND, f"the key holds {kinds.get(entry[KIND], 'a value that is neither a hash nor a set')}"]
