"""Decisions: what a command on one key would do, as functions without effects.

1. Each function is a pure function of the live entry (None when absent), the command, the time and the byte limit.
2. It returns a list, which is the command's final result and has no effect, or a tuple, which is a *plan* that cannot
   fail.
3. It checks everything. Any exception that it raises means a malformed command.

So an atomic batch can decide all of its commands before the first one takes place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from cacheflow.machine.deciding.counting import decide_count, decide_incr
from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS
from cacheflow.machine.deciding.plans import (
    EMPTY,
    EXTEND,
    REMOVE,
    RETIME,
    USE,
    WRITE,
    Decision,
    Malformed,
    Plan,
    expires_at_ms_of,
    too_large,
    wrong_kind,
)
from cacheflow.machine.effects import APPENDED
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.fields import is_well_formed
from cacheflow.machine.state.entries import (
    APPENDED_BYTES_MAX,
    EXPIRES_AT_MS,
    KIND,
    KIND_BYTES,
    KIND_JSON,
    KIND_MAX,
    KIND_SET,
    KIND_TEXT,
    KIND_VALUE_MAX,
    META_CHARS_MAX,
    VERSION,
    Entry,
    entry_bytes,
)

# The conditions of EXPIRE that make sense: one of them, or "set" together with "later" or "earlier".
_EXPIRE_CONDITIONS: Final = (
    c.ALWAYS,
    c.IF_UNSET,
    c.IF_SET,
    c.IF_LATER,
    c.IF_EARLIER,
    c.IF_SET | c.IF_LATER,
    c.IF_SET | c.IF_EARLIER,
    c.IF_ONE_VALUE,
)


def decide_set(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a SET command: a WRITE plan, or the result PRECONDITION or TOO_LARGE."""
    _, key, data, kind, meta, ttl_ms, when, version = command
    if type(data) is not bytes:
        raise Malformed("the value is not bytes")
    if type(kind) is not int or not 0 <= kind <= KIND_MAX:
        raise Malformed("the value's kind is unknown")
    if kind > KIND_VALUE_MAX and not (len(data) <= c.FIELDS_BYTES_MAX and is_well_formed(data, kind == KIND_SET)):
        raise Malformed("the value is no hash and no set")
    if meta is not None and type(meta) is not int and (type(meta) is not str or len(meta) > META_CHARS_MAX):
        raise Malformed("the value's metadata is neither a number nor a short text")
    if type(when) is not int or not c.ALWAYS <= when <= c.IF_VALUE_OR_ABSENT or type(version) is not int or version < 0:
        raise Malformed("the condition is unknown")
    if ttl_ms == 0 and type(ttl_ms) is int:
        expires_at_ms = 0
    else:
        expires_at_ms = expires_at_ms_of(ttl_ms, 0 if entry is None else entry[EXPIRES_AT_MS], now_ms)
    if when:
        present = 0 if entry is None else entry[VERSION]
        if (
            (when == c.IF_ABSENT and entry is not None)
            or (when == c.IF_PRESENT and entry is None)
            or (when == c.IF_VERSION and (entry is None or present != version))
            or (when == c.IF_VALUE and (entry is None or entry[KIND] > KIND_VALUE_MAX))
            or (when == c.IF_VALUE_OR_ABSENT and entry is not None and entry[KIND] > KIND_VALUE_MAX)
        ):
            return [c.PRECONDITION, present]
    if entry_bytes(key, data, meta) > bytes_max:
        return too_large(bytes_max)
    return (WRITE, key, data, kind, meta, expires_at_ms, entry is None)


def decide_delete(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a DELETE command: a REMOVE plan, or the result MISSING or PRECONDITION."""
    _, key, version = command
    if type(version) is not int or version < 0:
        raise Malformed("the version is not a number")
    if entry is None:
        # What is absent is at no version, as for a SET.
        return [c.PRECONDITION, 0] if version else [c.MISSING]
    if version and entry[VERSION] != version:
        return [c.PRECONDITION, entry[VERSION]]
    return (REMOVE, key)


def decide_touch(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a TOUCH command: a RETIME plan, which gives the key a new expiry, or the result MISSING."""
    _, key, ttl_ms = command
    expires_at_ms = expires_at_ms_of(ttl_ms, 0 if entry is None else entry[EXPIRES_AT_MS], now_ms)
    return [c.MISSING] if entry is None else (RETIME, key, expires_at_ms, entry[VERSION])


def decide_get(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a GET command: a USE plan, which counts a use of the key, or the result MISSING."""
    _, key = command
    return [c.MISSING] if entry is None else (USE, key, entry)


def decide_append(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on an APPEND command: an EXTEND plan for a present key, a WRITE plan for a new one, or a result.

    A result instead of a plan means that the command has no effect: MISSING, TOO_LARGE or WRONG_KIND.
    """
    _, key, added, front, create = command
    if type(added) is not bytes:
        raise Malformed("the value is not bytes")
    if type(front) is not bool or type(create) is not bool:
        raise Malformed("front or create is not a bool")
    if entry is None:
        if not create:
            return [c.MISSING]
        data, kind, meta, expires_at_ms = added, KIND_TEXT if _is_text(added) else KIND_BYTES, None, 0
    else:
        old, old_kind, meta, _, expires_at_ms = entry
        if old_kind > KIND_VALUE_MAX:
            return wrong_kind(entry)
        if len(old) + len(added) > APPENDED_BYTES_MAX:
            return _too_long()
        data = added + old if front else old + added
        # Text stays text when text is added, so only JSON, which an addition makes text or bytes, is looked at as a whole.
        text = _is_text(added) if old_kind == KIND_TEXT else old_kind == KIND_JSON and _is_text(data)
        kind = KIND_TEXT if text else KIND_BYTES
    if len(data) > APPENDED_BYTES_MAX:
        return _too_long()
    if entry_bytes(key, data, meta) > bytes_max:
        return too_large(bytes_max)
    plan = (WRITE, key, data, kind, meta, expires_at_ms, len(data))
    return plan if entry is None else (EXTEND, *plan[1:], APPENDED, added, front)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _too_long() -> c.Result:
    return [c.TOO_LARGE, f"a value cannot grow beyond {APPENDED_BYTES_MAX} bytes"]


def decide_expire(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on an EXPIRE command: a RETIME or REMOVE plan, or the result MISSING or PRECONDITION."""
    _, key, ttl_ms, when = command
    if type(when) is not int or when not in _EXPIRE_CONDITIONS:
        raise Malformed("the condition is unknown")
    if ttl_ms == c.TTL_KEEP:
        raise Malformed("the TTL is not a number of milliseconds")
    ends = type(ttl_ms) is int and ttl_ms == c.TTL_ENDED
    expires_at_ms = now_ms if ends else expires_at_ms_of(ttl_ms, 0, now_ms)
    if entry is None:
        return [c.MISSING]
    if when:
        present, wanted = entry[EXPIRES_AT_MS] or math.inf, expires_at_ms or math.inf
        if (
            (when & c.IF_UNSET and entry[EXPIRES_AT_MS])
            or (when & c.IF_SET and not entry[EXPIRES_AT_MS])
            or (when & c.IF_LATER and wanted <= present)
            or (when & c.IF_EARLIER and wanted >= present)
            or (when & c.IF_ONE_VALUE and entry[KIND] > KIND_VALUE_MAX)
        ):
            return [c.PRECONDITION, entry[VERSION]]
    return (REMOVE, key) if ends else (RETIME, key, expires_at_ms, entry[VERSION])


Decide: TypeAlias = Callable[[Entry | None, list[Any], int, float], Decision]

DECIDE: Final[dict[int, Decide]] = {
    c.SET: decide_set,
    c.DELETE: decide_delete,
    c.INCR: decide_incr,
    c.TOUCH: decide_touch,
    c.GET: decide_get,
    c.APPEND: decide_append,
    c.COUNT: decide_count,
    c.EXPIRE: decide_expire,
    **FIELD_DECISIONS,
}


# The version of an entry that an atomic batch has decided to write and has not written: below 0, where no command's is.
UNDECIDED: Final = -1


def after(plan: Plan, entry: Entry | None) -> Entry | None:
    """Return the entry (value, version, expiry) that ``plan`` would leave in place of a key's ``entry``; None means no entry.

    An entry that the plan would write has no version yet; the constant UNDECIDED stands for it.
    """
    if plan[0] in (WRITE, EXTEND):
        return (plan[2], plan[3], plan[4], UNDECIDED, plan[5])
    if plan[0] == RETIME and entry is not None:
        return (*entry[:4], plan[2])
    return entry if plan[0] == USE else None


def result_of(decision: Decision) -> c.Result:
    """Return the result that a command will have by its ``decision``, a final result or a plan; carry nothing out.

    The constant UNDECIDED stands for a version that is known only once the plan is carried out.
    """
    if isinstance(decision, list):
        return decision
    if decision[0] in (WRITE, EXTEND):
        return [c.OK, UNDECIDED, decision[6], decision[5]]
    if decision[0] == USE:
        return [c.OK, *decision[2]]
    if decision[0] == EMPTY:
        return [c.OK, UNDECIDED, decision[2], 0]
    return [c.OK, UNDECIDED] if decision[0] == REMOVE else [c.OK, decision[3], decision[2]]
