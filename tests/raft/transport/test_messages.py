"""What is in a frame is data of the right shape within every limit, or an error."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow.raft.transport import messages
from cacheflow.raft.transport.frames import FrameError

atoms = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.binary() | st.text()
)
values = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=30
)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def decode(body: bytes) -> tuple[int, dict[str, Any]]:
    return messages.decode(memoryview(body))


@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_message_arrives_as_it_was_sent(fields: dict[str, Any]) -> None:
    message = {**fields, "type": "test"}
    assert decode(messages.encode(message)) == (messages.GROUP, message)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data)


@given(st.dictionaries(st.text(), values, max_size=5), st.data())
def test_a_damaged_message_is_a_message_or_an_error(fields: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(messages.encode({**fields, "type": "test"}))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        group, message = decode(bytes(body))
    except FrameError:
        return
    assert type(group) is int and type(message["type"]) is str


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [0],
        [0, []],
        [0, {}],
        [0, {"type": 1}],
        [0, {"type": b"x"}],
        ["0", {"type": "x"}],
        [True, {"type": "x"}],
        [0, {"type": "x"}, 1],
        {"type": "x", "group": 0},
        "ab",
    ],
)
def test_other_shapes_are_refused(value: Any) -> None:
    with pytest.raises(FrameError):
        decode(msgpack.packb(value))


@pytest.mark.parametrize(
    "inner",
    [
        msgpack.packb(msgpack.ExtType(5, b"abc")),
        msgpack.packb(msgpack.ExtType(5, b"")),
        msgpack.packb(msgpack.Timestamp(1, 1)),
        msgpack.packb({1: 2}),
        msgpack.packb("x" * (messages.STRING_BYTES_MAX + 1)),
        msgpack.packb([0] * (messages.ARRAY_ITEMS_MAX + 1)),
        msgpack.packb({str(n): 0 for n in range(messages.MAP_ITEMS_MAX + 1)}),
        b"\xa2\xff\xfe",  # no UTF-8
        b"\xc1",  # never used
        b"\x91" * 2000 + b"\xc0",
        msgpack.packb(nested(messages.DEPTH_MAX)),
        msgpack.packb({"a": {"b": nested(500)}}),
    ],
)
def test_every_limit_holds(inner: bytes) -> None:
    with pytest.raises(FrameError):
        decode(b"\x92\x00\x82\xa4type\xa1x\xa1v" + inner)


def test_the_deepest_message_allowed_passes() -> None:
    value = nested(messages.DEPTH_MAX - 1)
    assert decode(messages.encode({"type": "x", "v": value}))[1]["v"] == value


def test_a_large_frame_of_many_tiny_items_is_refused_before_it_is_built() -> None:
    lists: list[Any] = [[[]] * 60_000] * 30
    with pytest.raises(FrameError, match="items"):
        decode(messages.encode({"type": "x", "v": lists}))


@given(st.lists(values, max_size=8))
def test_items_are_counted_to_the_end_of_any_message(inner: list[Any]) -> None:
    body = messages.encode({"type": "x", "v": inner, "f": [1.5, 300, -300, 2**40]})
    messages._check_items(memoryview(body))
    # It reads exactly to the end: one byte less is too few.
    with pytest.raises(FrameError):
        messages._check_items(memoryview(body)[:-9])


@pytest.mark.parametrize("inner", [bytes(3_000_000), [[bytes(30), n, 7] for n in range(60_000)]])
def test_large_honest_messages_pass(inner: Any) -> None:
    assert decode(messages.encode({"type": "x", "v": inner}))[1]["v"] == inner
