"""Decisions of the commands on fields of a hash or a set, by the rules of decisions.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from cacheflow.machine.deciding.counting import INT64_DIGITS
from cacheflow.machine.deciding.plans import EMPTY, EXTEND, WRITE, Decision, Malformed, too_large, wrong_kind
from cacheflow.machine.effects import FIELDS_CHANGED
from cacheflow.machine.language import commands as c
from cacheflow.machine.language import fields
from cacheflow.machine.state.entries import (
    DATA,
    EXPIRES_AT_MS,
    KIND,
    KIND_HASH,
    KIND_SET,
    KIND_VALUE_MAX,
    META,
    Entry,
    entry_bytes,
)

# The bytes that are searched in the time in which one field is taken out of a hash and put back; and those that count as a plain
# command. They take half of its time: of plain commands an entry holds 10 ms, and of one large hash it should hold less.
_BYTES_A_FIELD: Final = 400
BYTES_A_COMMAND: Final = 4 * 1024
KINDS_OF_FIELDS: Final = (KIND_HASH, KIND_SET)
# The most fields of a hash of which one command changes several: all of it is then taken apart and put together, in 2 to 5 ms.
FIELDS_TOGETHER_MAX: Final = 10_000


def decide_set_fields(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a SET_FIELDS command: an EXTEND plan for a present key, a WRITE plan for a new one, or a result.

    A result instead of a plan means that the command has no effect.
    """
    _, key, kind, pairs, only_absent, fields_bytes_max = command
    _check_kind(kind)
    _check_parts(pairs, 2)
    if type(only_absent) is not bool or (only_absent and (kind != KIND_HASH or len(pairs) != 2)):
        raise Malformed("only one field of a hash may be written where it is absent")
    if kind == KIND_SET and any(pairs[1::2]):
        raise Malformed("a member of a set has no value")
    _check_bytes_max(fields_bytes_max)
    if entry is not None:
        if entry[KIND] != kind:
            return wrong_kind(entry)
        if only_absent and fields.has(entry[DATA], pairs[0]):
            return [c.OK, 0, 0, 0]
        if len(pairs) > 2 and fields.has_more(entry[DATA], FIELDS_TOGETHER_MAX):
            return _too_many()
    present = b"" if entry is None else entry[DATA]
    if kind == KIND_SET:
        data, new = fields.with_members(present, pairs[::2])
        if not new:
            return [c.OK, 0, 0, 0]
    else:
        data, new = fields.with_fields(present, pairs)
    return _written(entry, key, data, kind, pairs, new, min(fields_bytes_max, c.FIELDS_BYTES_MAX), bytes_max)


def decide_remove_fields(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a REMOVE_FIELDS command: an EXTEND plan, an EMPTY plan if no field is left, or a result.

    A result instead of a plan means that the command has no effect.
    """
    _, key, kind, names = command
    _check_kind(kind)
    _check_parts(names, 1)
    if entry is None:
        return [c.MISSING]
    if entry[KIND] != kind:
        return wrong_kind(entry)
    if len(names) > 1 and fields.has_more(entry[DATA], FIELDS_TOGETHER_MAX):
        return _too_many()
    without = fields.without_members if kind == KIND_SET else fields.without_fields
    data, removed = without(entry[DATA], names)
    if not removed:
        return [c.OK, 0, 0, 0]
    if not data:
        return (EMPTY, key, removed)
    return (EXTEND, key, data, kind, entry[META], entry[EXPIRES_AT_MS], removed, FIELDS_CHANGED, names, True)


def decide_count_field(entry: Entry | None, command: list[Any], now_ms: int, bytes_max: float) -> Decision:
    """Return the decision on a COUNT_FIELD command: an EXTEND plan for a present key, a WRITE plan for a new one, or a result.

    A result instead of a plan means that the command has no effect.
    """
    _, key, field, delta, fields_bytes_max = command
    if type(field) is not bytes:
        raise Malformed("the field is not bytes")
    if type(delta) is not int or not c.INT64_MIN <= delta <= c.INT64_MAX:
        raise Malformed("the step is not a 64-bit integer")
    _check_bytes_max(fields_bytes_max)
    if entry is not None and entry[KIND] != KIND_HASH:
        return wrong_kind(entry)
    present = None if entry is None else fields.value_in(entry[DATA], field)
    number = 0
    if present is not None:
        if INT64_DIGITS.fullmatch(present) is None or not c.INT64_MIN <= int(present) <= c.INT64_MAX:
            return [c.NOT_AN_INTEGER, "the field's value is not a decimal 64-bit integer"]
        number = int(present)
    number += delta
    if not c.INT64_MIN <= number <= c.INT64_MAX:
        return [c.NOT_AN_INTEGER, "the sum leaves the range of a 64-bit integer"]
    pair = [field, b"%d" % number]
    data, _ = fields.with_fields(b"" if entry is None else entry[DATA], pair)
    return _written(entry, key, data, KIND_HASH, pair, number, min(fields_bytes_max, c.FIELDS_BYTES_MAX), bytes_max)


def _written(
    entry: Entry | None,
    key: str,
    data: bytes,
    kind: int,
    pairs: list[bytes],
    told: int,
    fields_bytes_max: int,
    bytes_max: float,
) -> Decision:
    """Return the plan that writes ``data`` as the bytes of the hash or set under ``key``, or the result TOO_LARGE.

    entry: the key's present item, None if it has none.  pairs: the fields that change, with their values.
    told: the number that the command's result has beside the new version.
    """
    if len(data) > fields_bytes_max:
        return [c.TOO_LARGE, f"a hash or set has at most {fields_bytes_max} bytes"]
    meta, expires_at_ms = (None, 0) if entry is None else (entry[META], entry[EXPIRES_AT_MS])
    if entry_bytes(key, data, meta) > bytes_max:
        return too_large(bytes_max)
    if entry is None:
        return (WRITE, key, data, kind, meta, expires_at_ms, told)
    return (EXTEND, key, data, kind, meta, expires_at_ms, told, FIELDS_CHANGED, pairs, False)


def _check_kind(kind: Any) -> None:
    if type(kind) is not int or not KIND_HASH <= kind <= KIND_SET:
        raise Malformed("the kind is neither a hash nor a set")


def _check_parts(parts: Any, each: int) -> None:
    if type(parts) is not list or not 0 < len(parts) <= each * c.FIELDS_AT_ONCE_MAX or len(parts) % each:
        raise Malformed(f"a command has 1 to {c.FIELDS_AT_ONCE_MAX} fields")
    for part in parts:
        if type(part) is not bytes:
            raise Malformed("a field or a value is not bytes")


def _check_bytes_max(fields_bytes_max: Any) -> None:
    if type(fields_bytes_max) is not int or fields_bytes_max < 0:
        raise Malformed("the most bytes are not a number")


def _too_many() -> c.Result:
    return [c.TOO_LARGE, f"a hash or set of more than {FIELDS_TOGETHER_MAX} fields is changed one field a command"]


FIELD_DECISIONS: Final[dict[int, Callable[[Entry | None, list[Any], int, float], Decision]]] = {
    c.SET_FIELDS: decide_set_fields,
    c.REMOVE_FIELDS: decide_remove_fields,
    c.COUNT_FIELD: decide_count_field,
}


def searched_bytes(entry: Entry | None, command: Sequence[Any], growth: int = 0) -> int:
    """Return the cost of deciding ``command`` on ``entry``, a key's item: as many bytes as a search reads in the same time.

    command: one that changes fields of a hash or set, or a SET, which checks all the bytes of a hash or set that it writes.
    The bytes searched are copied as well, which counts like another search.
    growth: the bytes that earlier commands, not applied yet, may add to the hash or set before this command is applied.
    """
    if command[0] == c.SET:
        return 8 * len(command[2]) if command[3] in KINDS_OF_FIELDS else 0
    size = growth if entry is None or entry[KIND] <= KIND_VALUE_MAX else len(entry[DATA]) + growth
    if size > c.FIELDS_BYTES_MAX:
        size = c.FIELDS_BYTES_MAX
    if command[0] == c.COUNT_FIELD:
        return 3 * size
    count = len(command[3]) // (2 if command[0] == c.SET_FIELDS else 1)
    if count <= fields.SINGLY_MAX:
        return 2 * size * count
    # All are taken apart, and put together. How many there are is not counted: a field has about eight bytes at least.
    return 8 * size + _BYTES_A_FIELD * (count + min(size // 8, FIELDS_TOGETHER_MAX))


def growth_of(command: Sequence[Any]) -> int:
    """Return the most bytes by which ``command``, one on fields of a hash or set, makes the hash or set longer.

    The digits of a counter are left out.
    """
    return sum(map(len, command[3])) + len(fields.FIELD) * len(command[3]) if command[0] == c.SET_FIELDS else 0


def work_of(entry: Entry | None, command: Sequence[Any], growth: int = 0) -> int:
    """Return how much more work ``command`` is for the state machine than a plain command, as a number of plain commands.

    command: one that changes fields of a hash or set, or a SET of a string, hash or set.  entry: the present item of its key.
    growth: the bytes that earlier commands, not applied yet, may add to the hash or set before this command is applied.
    """
    return searched_bytes(entry, command, growth) // BYTES_A_COMMAND
