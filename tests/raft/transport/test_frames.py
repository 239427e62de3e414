"""Frames are cut from bytes however they arrive, and nobody can make us hold more than was sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheflow.raft.transport.frames import (
    BUFFER_BYTES,
    BUFFER_BYTES_KEPT,
    HEADER,
    FrameBuffer,
    FrameError,
    encode_frame,
)


def feed(buffer: FrameBuffer, data: bytes) -> list[bytes]:
    """Hand ``data`` over as a socket does: into the space that is offered."""
    bodies = []
    while data:
        space = buffer.space()
        assert len(space) > 0
        count = min(len(space), len(data))
        space[:count] = data[:count]
        data = data[count:]
        bodies += [bytes(body) for body in buffer.received(count)]
    return bodies


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 400), max_size=60))
def test_frames_come_out_whole_and_in_order_however_they_are_split(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(encode_frame, bodies))
    buffer = FrameBuffer(300)
    seen = []
    for cut in cuts:
        seen += feed(buffer, data[:cut])
        data = data[cut:]
    seen += feed(buffer, data)
    assert seen == bodies


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 5000, BUFFER_BYTES - 4, BUFFER_BYTES, 200_000, 3_000_000]), max_size=6),
    st.integers(1, 300_000),
)
def test_large_and_small_frames_may_alternate(sizes: list[int], step: int) -> None:
    bodies = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    data = b"".join(map(encode_frame, bodies))
    buffer = FrameBuffer(3_000_000)
    seen = []
    for start in range(0, len(data), max(step, 1000)):
        seen += feed(buffer, data[start : start + max(step, 1000)])
    assert seen == bodies


@given(st.binary(max_size=200), st.integers(1, 50))
def test_arbitrary_bytes_give_frames_within_the_limit_or_an_error(data: bytes, step: int) -> None:
    buffer = FrameBuffer(100)
    try:
        for start in range(0, len(data), step):
            for body in feed(buffer, data[start : start + step]):
                assert len(body) <= 100
    except FrameError as error:
        assert "at most 100" in str(error)


def test_a_length_over_the_limit_is_refused_before_any_of_it_arrives() -> None:
    with pytest.raises(FrameError):
        feed(FrameBuffer(1000), HEADER.pack(1001))


def test_memory_follows_what_arrived_and_not_what_was_claimed() -> None:
    buffer = FrameBuffer(1 << 30)
    feed(buffer, HEADER.pack(1 << 30) + bytes(300_000))
    assert len(buffer.space().obj) <= 2 * 300_000 + BUFFER_BYTES  # type: ignore[arg-type]


def test_the_memory_of_a_large_frame_is_given_back() -> None:
    buffer = FrameBuffer(1 << 30)
    feed(buffer, encode_frame(bytes(2 * BUFFER_BYTES_KEPT)) + b"\0")
    assert len(buffer.space().obj) == BUFFER_BYTES  # type: ignore[arg-type]
    assert feed(buffer, encode_frame(b"after")[1:]) == [b"after"]


def test_the_limit_may_change_between_frames() -> None:
    buffer = FrameBuffer(3)
    assert feed(buffer, encode_frame(b"abc")) == [b"abc"]
    buffer.limit = 4
    assert feed(buffer, encode_frame(b"abcd")) == [b"abcd"]
