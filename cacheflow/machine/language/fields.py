"""Fields: the bytes of a hash or a set, in which one field is found, written and removed without unpacking the others.

1. The bytes are ``FIELD field VALUE value``, once a field, in the order in which the fields came; a field that is written again
   keeps its place. A set is a hash whose values are empty. There is no empty one: its key is removed.
2. Each byte 0xFE of a field or a value is followed by a zero, so 0xFE 0x01 (FIELD) and 0xFE 0x02 (VALUE) stand nowhere else, and
   a search for ``FIELD field VALUE`` finds that field and nothing else. No text has a 0xFE, so most often nothing is added.
3. The same commands in the same order make the same bytes on every node.

A search and a copy are what one field costs, 0.5 ms in a hash of 1 MiB. Where several change at once, all of a hash are taken
apart and put together, by functions of bytes alone: 2 ms for 10,000 short fields, 5 ms where they are 1 MiB. Of a set the members
are only looked at, and new ones put behind them: 1 and 2 ms.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

FIELD: Final = b"\xfe\x01"
VALUE: Final = b"\xfe\x02"
# So many fields are searched and written one by one; to take 10,000 apart takes as long as 8 searches of a megabyte.
SINGLY_MAX: Final = 8
# What stands between two members of a set.
_NEXT_MEMBER: Final = VALUE + FIELD
_MARK: Final = b"\xfe"
_MARK_ITSELF: Final = b"\xfe\x00"
# The forms of a hash and of a set in which no part has a mark. Nothing fits them in two ways, so nothing is tried again ("*+",
# "++"): a megabyte takes 1 ms, and 7 ms where it is the smallest fields.
_HASH_FORM: Final = re.compile(rb"(?:\xfe\x01[^\xfe]*+\xfe\x02[^\xfe]*+)++")
_SET_FORM: Final = re.compile(rb"(?:\xfe\x01[^\xfe]*+\xfe\x02)++")


def _escaped(part: bytes) -> bytes:
    return part.replace(_MARK, _MARK_ITSELF) if _MARK in part else part


def _all_escaped(parts: Sequence[bytes]) -> Sequence[bytes]:
    # Most often there is no mark in any of a thousand, which is seen without a call for each.
    return list(map(_escaped, parts)) if _MARK in b"".join(parts) else parts


def _head(field: bytes) -> bytes:
    """Return the bytes that stand right before the value of ``field`` in the stored bytes of a hash, and nowhere else."""
    return b"\xfe\x01%b\xfe\x02" % _escaped(field)


def count(data: bytes) -> int:
    """Return the number of fields in ``data``, the bytes of a hash or set."""
    return data.count(FIELD)


def has_more(data: bytes, most: int) -> bool:
    """True if there are more than ``most`` fields in ``data``, the bytes of a hash or set."""
    # Each field has two marks at least, and to count single bytes takes a third of the time.
    return data.count(_MARK) > 2 * most and count(data) > most


def value_in(data: bytes, field: bytes) -> bytes | None:
    """Return the value of ``field`` in ``data``, the bytes of a hash or set; None if there is no such field."""
    head = _head(field)
    start = data.find(head)
    if start < 0:
        return None
    value = data[start + len(head) : _end(data, start)]
    return value.replace(_MARK_ITSELF, _MARK) if _MARK in value else value


def has(data: bytes, field: bytes) -> bool:
    """True if the field ``field`` is in ``data``, the bytes of a hash or set."""
    return _head(field) in data


def _end(data: bytes, start: int) -> int:
    """Return the position in ``data``, the bytes of a hash or set, where the field that begins at ``start`` ends.

    A field ends behind its value.
    """
    end = data.find(FIELD, start + len(FIELD))
    return len(data) if end < 0 else end


def with_fields(data: bytes, pairs: Sequence[bytes]) -> tuple[bytes, int]:
    """Return ``data``, the stored bytes of a hash, with some fields written, and how many of these fields are new.

    pairs: the fields to write: field, value, field, value, ...
    """
    if len(pairs) <= 2 * SINGLY_MAX:
        new = 0
        for place in range(0, len(pairs), 2):
            head, value = _head(pairs[place]), _escaped(pairs[place + 1])
            start = data.find(head)
            if start < 0:
                data, new = b"%b%b%b" % (data, head, value), new + 1
            else:
                # Views, so that all other fields are copied once.
                rest = memoryview(data)
                data = b"".join((rest[:start], head, value, rest[_end(data, start) :]))
        return data, new
    # One by one, each of many would be searched for and copied for.
    by_field = _by_field(data)
    before = len(by_field)
    parts = _all_escaped(pairs)
    by_field.update(zip(parts[::2], parts[1::2], strict=True))
    return _joined(by_field), len(by_field) - before


def with_members(data: bytes, members: Sequence[bytes]) -> tuple[bytes, int]:
    """Return ``data``, the bytes of a set, with ``members`` added, and how many of these are new.

    Takes a third of the time of writing the members as a hash's fields with empty values.
    """
    if len(members) <= SINGLY_MAX:
        new = 0
        for member in members:
            head = _head(member)
            if head not in data:
                data, new = data + head, new + 1
        return data, new
    present = set(_members(data))
    fresh = [member for member in dict.fromkeys(_all_escaped(members)) if member not in present]
    return (data + _joined_members(fresh), len(fresh)) if fresh else (data, 0)


def without_fields(data: bytes, names: Sequence[bytes]) -> tuple[bytes, int]:
    """Return ``data``, the bytes of a hash or set, without the fields ``names``, and how many fields were removed."""
    if len(names) <= SINGLY_MAX:
        removed = 0
        for name in names:
            start = data.find(_head(name))
            if start >= 0:
                rest = memoryview(data)
                data, removed = b"".join((rest[:start], rest[_end(data, start) :])), removed + 1
        return data, removed
    by_field = _by_field(data)
    removed = sum([by_field.pop(name, None) is not None for name in _all_escaped(names)])
    return (_joined(by_field), removed) if removed else (data, 0)


def without_members(data: bytes, members: Sequence[bytes]) -> tuple[bytes, int]:
    """Return ``data``, the bytes of a set, without ``members``, and how many members were removed."""
    if len(members) <= SINGLY_MAX:
        return without_fields(data, members)
    present = _members(data)
    gone = {*_all_escaped(members)}
    left = [member for member in present if member not in gone]
    removed = len(present) - len(left)
    return (_joined_members(left), removed) if removed else (data, 0)


def _members(data: bytes) -> list[bytes]:
    """Return the members in ``data``, the bytes of a set, in the escaped form in which ``data`` holds them."""
    return data[len(FIELD) : -len(VALUE)].split(_NEXT_MEMBER) if data else []


def _joined_members(members: Collection[bytes]) -> bytes:
    """Return the bytes of a set of ``members``, which are in the escaped form in which a set's bytes hold them."""
    return b"%b%b%b" % (FIELD, _NEXT_MEMBER.join(members), VALUE) if members else b""


def set_of(members: Sequence[bytes]) -> bytes:
    """Return the bytes of a set of ``members``, no two of which are the same."""
    return _joined_members(_all_escaped(members))


def _by_field(data: bytes) -> dict[bytes, bytes]:
    parts = data.replace(VALUE, FIELD).split(FIELD)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _joined(by_field: dict[bytes, bytes]) -> bytes:
    return FIELD + FIELD.join(map(VALUE.join, by_field.items())) if by_field else b""


def parts_of(data: bytes) -> list[bytes]:
    """Return all fields and values in ``data``, the bytes of a hash or set: field, value, field, value, ..."""
    parts = data.replace(VALUE, FIELD).split(FIELD)
    del parts[0]
    if _MARK_ITSELF in data:
        return [part.replace(_MARK_ITSELF, _MARK) if _MARK in part else part for part in parts]
    return parts


def slices(data: bytes, size: int) -> Iterator[bytes]:
    """Yield ``data``, the bytes of a hash or set, in slices of whole fields; each slice has ``size`` bytes or a little more.

    A slice with a large value is larger.
    """
    start = 0
    while start < len(data):
        end = _end(data, start + size)
        yield data[start:end]
        start = end


def is_well_formed(data: bytes, is_set: bool) -> bool:
    """True if ``data`` is the bytes of a hash, or of a set if ``is_set``, with one field at least."""
    plain = data.replace(_MARK_ITSELF, b"_")
    return (_SET_FORM if is_set else _HASH_FORM).fullmatch(plain) is not None
