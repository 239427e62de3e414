"""The bytes of hashes and sets: whatever the fields and values are, they come back, and one is found among all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheflow import values
from cacheflow.machine.language import fields

PART = st.text(alphabet="ab", max_size=2).map(str.encode) | st.lists(
    st.sampled_from([b"\xfe", b"\x00", b"\x01", b"\x02", b"a", b"\xff"]), max_size=5
).map(b"".join)
PAIRS = st.lists(st.tuples(PART, PART), max_size=8)
# More than are written or removed one by one.
MANY = st.lists(st.tuples(PART, PART), max_size=3 * fields.SINGLY_MAX)
MEMBERS = st.lists(PART, max_size=3 * fields.SINGLY_MAX)


def made(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A hash with ``pairs``, put in one after the other."""
    data = b""
    for pair in pairs:
        data, _ = fields.with_fields(data, pair)
    return data


def as_dict(data: bytes) -> dict[bytes, bytes]:
    parts = fields.parts_of(data)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@given(PAIRS)
def test_what_was_put_in_comes_back_in_the_order_of_the_first_time(pairs: list[tuple[bytes, bytes]]) -> None:
    data, wanted = made(pairs), dict(pairs)
    assert list(as_dict(data).items()) == list(wanted.items())
    assert fields.count(data) == len(wanted)
    assert not data or fields.is_well_formed(data, False)
    assert bool(data) == bool(wanted)


@given(PAIRS, PART)
def test_a_field_is_found_where_it_is_and_nowhere_else(pairs: list[tuple[bytes, bytes]], field: bytes) -> None:
    data, wanted = made(pairs), dict(pairs)
    assert fields.value_in(data, field) == wanted.get(field)
    assert fields.has(data, field) == (field in wanted)
    assert all(fields.value_in(data, name) == value for name, value in wanted.items())


@given(PAIRS, MANY)
def test_several_fields_at_once_leave_what_they_leave_one_by_one(
    pairs: list[tuple[bytes, bytes]], more: list[tuple[bytes, bytes]]
) -> None:
    data = made(pairs)
    flat = [part for pair in more for part in pair]
    together, new = fields.with_fields(data, flat)
    assert together == made([*pairs, *more])
    assert new == len({*dict(more)} - {*dict(pairs)})


@given(MANY, st.lists(PART, min_size=1, max_size=3 * fields.SINGLY_MAX))
def test_fields_are_removed_alone_and_together(pairs: list[tuple[bytes, bytes]], names: list[bytes]) -> None:
    data, wanted = made(pairs), dict(pairs)
    together, removed = fields.without_fields(data, names)
    one_by_one = data
    for name in names:
        one_by_one, _ = fields.without_fields(one_by_one, [name])
        wanted.pop(name, None)
    assert together == one_by_one == made(list(wanted.items()))
    assert removed == fields.count(data) - len(wanted)


@given(MEMBERS, MEMBERS, MEMBERS)
def test_the_members_of_a_set_are_fields_without_values(
    first: list[bytes], more: list[bytes], gone: list[bytes]
) -> None:
    data, _ = fields.with_members(b"", first)
    assert data == made([(member, b"") for member in first])
    together, new = fields.with_members(data, more)
    assert (together, new) == fields.with_fields(data, [part for member in more for part in (member, b"")])
    assert fields.without_members(together, gone) == fields.without_fields(together, gone)
    assert not together or fields.is_well_formed(together, True)


@given(MANY, st.integers(0, 30))
def test_more_fields_than_a_number_are_told_by_their_marks(pairs: list[tuple[bytes, bytes]], most: int) -> None:
    assert fields.has_more(made(pairs), most) == (len(dict(pairs)) > most)


@given(PAIRS, st.integers(1, 30))
def test_slices_are_whole_fields(pairs: list[tuple[bytes, bytes]], size: int) -> None:
    data = made(pairs)
    parts = list(fields.slices(data, size))
    assert b"".join(parts) == data
    assert all(fields.is_well_formed(part, False) for part in parts)


@given(
    st.lists(st.sampled_from([b"\xfe\x01", b"\xfe\x02", b"\xfe\x00", b"\xfe", b"\x01", b"a"]), max_size=9).map(b"".join)
)
def test_only_well_formed_bytes_are_taken_for_a_hash_or_a_set(data: bytes) -> None:
    if fields.is_well_formed(data, False):
        parts = fields.parts_of(data)
        assert (
            parts
            and b"".join(fields.with_fields(b"", pair)[0] for pair in zip(parts[::2], parts[1::2], strict=True)) == data
        )
        assert fields.is_well_formed(data, True) == (not any(parts[1::2]))
    else:
        assert not fields.is_well_formed(data, True)


def test_python_reads_a_dict_and_a_set_of_texts_and_of_bytes_where_they_are_none() -> None:
    data, _ = fields.with_fields(b"", [b"a", b"1", "ü".encode(), b"\xff", b"\xfe", b""])
    assert values.decode(values.HASH, data) == {"a": "1", "ü": b"\xff", b"\xfe": ""}
    data, _ = fields.with_fields(b"", [b"", b"", b"a", b"", b"\xfe\x01", b""])
    assert values.decode(values.SET, data) == {"", "a", b"\xfe\x01"}
