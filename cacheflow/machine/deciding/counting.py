"""Decisions of the two counting commands, by the rules of decisions.py: INCR is signed (HTTP, RESP), COUNT memcached's."""

from __future__ import annotations

import re
from typing import Any

from cacheflow.machine.deciding.plans import WRITE, Decision, Malformed, expires_at_ms_of, too_large, wrong_kind
from cacheflow.machine.language import commands as c
from cacheflow.machine.state.entries import (
    DATA,
    EXPIRES_AT_MS,
    KIND,
    KIND_JSON,
    KIND_VALUE_MAX,
    META,
    Entry,
    entry_bytes,
)

# The numbers that INCR accepts: as SET and INCR write them and no other spelling, so that a value read back is the
# value written.
INT64_DIGITS = re.compile(rb"0|-?[1-9][0-9]{0,18}")
# The numbers that COUNT accepts, as memcached does: also with leading zeros.
_UINT64_DIGITS = re.compile(rb"[0-9]{1,20}")


def decide_incr(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on an INCR command: a WRITE plan, or a result without effect.

    The result without effect is MISSING, NOT_AN_INTEGER, TOO_LARGE or WRONG_KIND.
    """
    _, key, delta, initial, ttl_ms = command
    for number in (delta, 0 if initial is None else initial):
        if type(number) is not int or not c.INT64_MIN <= number <= c.INT64_MAX:
            raise Malformed("the step or the first number is not a 64-bit integer")
    expires_at_ms = expires_at_ms_of(ttl_ms, 0, now_ms)
    kind: int = KIND_JSON
    meta: str | int | None = None
    if entry is None:
        if initial is None:
            return [c.MISSING]
        number = initial + delta
    else:
        if INT64_DIGITS.fullmatch(entry[DATA]) is None:
            if entry[KIND] > KIND_VALUE_MAX:
                return wrong_kind(entry)
            return [c.NOT_AN_INTEGER, "the value is not a decimal 64-bit integer"]
        present = int(entry[DATA])
        if not c.INT64_MIN <= present <= c.INT64_MAX:
            return [c.NOT_AN_INTEGER, "the value is not a decimal 64-bit integer"]
        number = present + delta
        kind, meta, expires_at_ms = entry[KIND], entry[META], entry[EXPIRES_AT_MS]
    if not c.INT64_MIN <= number <= c.INT64_MAX:
        return [c.NOT_AN_INTEGER, "the sum leaves the range of a 64-bit integer"]
    data = b"%d" % number
    if entry_bytes(key, data, meta) > bytes_max:
        return too_large(bytes_max)
    return (WRITE, key, data, kind, meta, expires_at_ms, number)


def decide_count(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a COUNT command, memcached's incr or decr: a WRITE plan, or a result without effect.

    The result without effect is MISSING, NOT_AN_INTEGER, TOO_LARGE or WRONG_KIND.
    """
    _, key, step, down, initial, ttl_ms = command
    for number in (step, 0 if initial is None else initial):
        if type(number) is not int or not 0 <= number <= c.UINT64_MAX:
            raise Malformed("the step or the first number is not an unsigned 64-bit integer")
    if type(down) is not bool:
        raise Malformed("the direction is not a bool")
    expires_at_ms = expires_at_ms_of(ttl_ms, 0, now_ms)
    kind: int = KIND_JSON
    meta: str | int | None = None
    if entry is None:
        if initial is None:
            return [c.MISSING]
        number = initial
    else:
        present = int(entry[DATA]) if _UINT64_DIGITS.fullmatch(entry[DATA]) is not None else c.UINT64_MAX + 1
        if present > c.UINT64_MAX:
            if entry[KIND] > KIND_VALUE_MAX:
                return wrong_kind(entry)
            return [c.NOT_AN_INTEGER, "the value is not a decimal unsigned 64-bit integer"]
        number = max(0, present - step) if down else (present + step) & c.UINT64_MAX
        kind, meta, expires_at_ms = entry[KIND], entry[META], entry[EXPIRES_AT_MS]
    data = b"%d" % number
    if entry_bytes(key, data, meta) > bytes_max:
        return too_large(bytes_max)
    return (WRITE, key, data, kind, meta, expires_at_ms, number)
