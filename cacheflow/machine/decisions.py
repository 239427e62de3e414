"""What a command on one key would do, decided without doing it.

1. Pure functions of the live entry (None when absent), the command, the time and the byte limit.
2. They return a list, which is the command's final result and has no effect, or a tuple, which is a *plan* that cannot
   fail.
3. They check everything. Whatever they raise means a malformed command.

So an atomic batch can decide all of its commands before the first one takes place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from cacheflow.machine import commands as c
from cacheflow.machine.entries import KIND_JSON, KIND_MAX, META_CHARS_MAX, Entry, entry_bytes

# key, data, kind, meta, expires_at_ms, then what SET and INCR tell beside the version: created, or the number
WRITE: Final = 1
REMOVE: Final = 2  # key
RETIME: Final = 3  # key, expires_at_ms, version
USE: Final = 4  # key, entry

Plan: TypeAlias = tuple[Any, ...]
Decision: TypeAlias = c.Result | Plan

# What SET and INCR write and no other spelling, so that a value read back is the value written.
_INT64_DIGITS = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class Malformed(Exception):
    """The command is none; the message says why."""


def _expires_at_ms(ttl_ms: Any, kept_ms: int, now_ms: int) -> int:
    """The expiry that ``ttl_ms`` asks for, 0 for none. kept_ms: what TTL_KEEP means here."""
    if type(ttl_ms) is not int or not c.TTL_KEEP <= ttl_ms <= c.TTL_MS_MAX:
        raise Malformed("the TTL is not a number of milliseconds")
    if ttl_ms > 0:
        return now_ms + ttl_ms
    return kept_ms if ttl_ms else 0


def _too_large(bytes_max: float) -> c.Result:
    return [c.TOO_LARGE, f"the item is larger than the whole cache may be ({bytes_max} bytes)"]


def decide_set(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """SET: a WRITE, PRECONDITION or TOO_LARGE."""
    _, key, data, kind, meta, ttl_ms, when, version = command
    if type(data) is not bytes:
        raise Malformed("the value is not bytes")
    if type(kind) is not int or not 0 <= kind <= KIND_MAX:
        raise Malformed("the value's kind is unknown")
    if meta is not None and type(meta) is not int and (type(meta) is not str or len(meta) > META_CHARS_MAX):
        raise Malformed("the value's metadata is neither a number nor a short text")
    if type(when) is not int or not c.ALWAYS <= when <= c.IF_VERSION or type(version) is not int or version < 0:
        raise Malformed("the condition is unknown")
    if ttl_ms == 0 and type(ttl_ms) is int:
        expires_at_ms = 0
    else:
        expires_at_ms = _expires_at_ms(ttl_ms, 0 if entry is None else entry[4], now_ms)
    if when:
        present = 0 if entry is None else entry[3]
        if (
            (when == c.IF_ABSENT and entry is not None)
            or (when == c.IF_PRESENT and entry is None)
            or (when == c.IF_VERSION and (entry is None or present != version))
        ):
            return [c.PRECONDITION, present]
    if entry_bytes(key, data, meta) > bytes_max:
        return _too_large(bytes_max)
    return (WRITE, key, data, kind, meta, expires_at_ms, entry is None)


def decide_delete(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """DELETE: a REMOVE, MISSING or PRECONDITION."""
    _, key, version = command
    if type(version) is not int or version < 0:
        raise Malformed("the version is not a number")
    if entry is None:
        return [c.MISSING]
    if version and entry[3] != version:
        return [c.PRECONDITION, entry[3]]
    return (REMOVE, key)


def decide_incr(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """INCR: a WRITE, MISSING, NOT_AN_INTEGER or TOO_LARGE."""
    _, key, delta, initial, ttl_ms = command
    for number in (delta, 0 if initial is None else initial):
        if type(number) is not int or not c.INT64_MIN <= number <= c.INT64_MAX:
            raise Malformed("the step or the first number is not a 64-bit integer")
    expires_at_ms = _expires_at_ms(ttl_ms, 0, now_ms)
    kind: int = KIND_JSON
    meta: str | int | None = None
    if entry is None:
        if initial is None:
            return [c.MISSING]
        number = initial + delta
    else:
        if _INT64_DIGITS.fullmatch(entry[0]) is None:
            return [c.NOT_AN_INTEGER, "the value is not a decimal 64-bit integer"]
        present = int(entry[0])
        if not c.INT64_MIN <= present <= c.INT64_MAX:
            return [c.NOT_AN_INTEGER, "the value is not a decimal 64-bit integer"]
        number = present + delta
        kind, meta, expires_at_ms = entry[1], entry[2], entry[4]
    if not c.INT64_MIN <= number <= c.INT64_MAX:
        return [c.NOT_AN_INTEGER, "the sum leaves the range of a 64-bit integer"]
    data = b"%d" % number
    if entry_bytes(key, data, meta) > bytes_max:
        return _too_large(bytes_max)
    return (WRITE, key, data, kind, meta, expires_at_ms, number)


def decide_touch(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """TOUCH: a RETIME or MISSING."""
    _, key, ttl_ms = command
    expires_at_ms = _expires_at_ms(ttl_ms, 0 if entry is None else entry[4], now_ms)
    if entry is None:
        return [c.MISSING]
    return (RETIME, key, expires_at_ms, entry[3])


def decide_get(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """GET: a USE or MISSING."""
    _, key = command
    if entry is None:
        return [c.MISSING]
    return (USE, key, entry)


Decide: TypeAlias = Callable[[Entry | None, list[Any], int, float], Decision]

DECIDE: Final[dict[int, Decide]] = {
    c.SET: decide_set,
    c.DELETE: decide_delete,
    c.INCR: decide_incr,
    c.TOUCH: decide_touch,
    c.GET: decide_get,
}


# The version of what a batch has decided to write but has not written; equal to none that a command may name.
UNDECIDED: Final = -1


def after(plan: Plan, entry: Entry | None) -> Entry | None:
    """What ``plan`` leaves behind of ``entry``; what it writes has no version yet."""
    if plan[0] == WRITE:
        return (plan[2], plan[3], plan[4], UNDECIDED, plan[5])
    if plan[0] == RETIME and entry is not None:
        return (*entry[:4], plan[2])
    return entry if plan[0] == USE else None
