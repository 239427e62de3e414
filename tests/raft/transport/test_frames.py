"""Frames and pieces are cut from bytes however they arrive; nobody can make us hold more than was sent, or than is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheflow.raft.transport.frames import (
    BUFFER_BYTES,
    HEADER,
    LAST,
    MORE,
    PIECE_BYTES,
    FrameBuffer,
    FrameError,
    encode_frame,
)
from cacheflow.raft.transport.pieces import STALLED_S, Budget, Pieces


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


def in_pieces(body: bytes, size: int = PIECE_BYTES) -> list[bytes]:
    """Return the frames of a large body."""
    parts = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return [
        HEADER.pack((LAST if number == len(parts) - 1 else MORE) | len(part)) + part
        for number, part in enumerate(parts)
    ]


class Node:
    """The receiving side of some connections: what was dropped, and the time."""

    def __init__(self, bytes_max: int) -> None:
        self.now_s = 0.0
        self.dropped: list[tuple[str, int]] = []
        self.members: set[str] = set()
        self.budget = Budget(
            bytes_max, lambda: self.now_s, lambda pieces, size: self.dropped.append((pieces.sender, size))
        )

    def connection(self, sender: str, limit: int = 1 << 27) -> FrameBuffer:
        """Return the buffer of a connection behind its handshake."""
        buffer = FrameBuffer(PIECE_BYTES)
        buffer.pieces = Pieces(limit, self.budget, sender, lambda: sender in self.members)
        return buffer


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from([0, 1, 5000, PIECE_BYTES - 4, PIECE_BYTES, PIECE_BYTES + 1, 200_000, 3_000_000]), max_size=6
    ),
    st.integers(1, 300_000),
)
def test_large_and_small_messages_may_alternate(sizes: list[int], step: int) -> None:
    bodies = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    frames = [[encode_frame(body)] if len(body) <= PIECE_BYTES else in_pieces(body) for body in bodies]
    data = b"".join(frame for row in frames for frame in row)
    node = Node(1 << 30)
    buffer = node.connection("b")
    seen = []
    for start in range(0, len(data), max(step, 1000)):
        seen += feed(buffer, data[start : start + max(step, 1000)])
    assert seen == bodies and node.budget.held_bytes == 0
    assert len(buffer.space().obj) == BUFFER_BYTES  # type: ignore[arg-type]


def test_whole_frames_may_come_between_the_pieces_of_a_large_message() -> None:
    large = bytes(range(256)) * 1000
    frames = in_pieces(large)
    data = b"".join(frame + encode_frame(b"small %d" % number) for number, frame in enumerate(frames))
    seen = feed(Node(1 << 30).connection("b"), data)
    last = len(frames) - 1
    assert seen == [*(b"small %d" % number for number in range(last)), large, b"small %d" % last]


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


def test_what_is_no_piece_is_refused() -> None:
    connection = Node(1000).connection
    for head in (MORE, LAST, MORE | LAST | 1, MORE | (PIECE_BYTES + 1), LAST | (PIECE_BYTES + 1), PIECE_BYTES + 1):
        with pytest.raises(FrameError):
            feed(connection("b"), HEADER.pack(head))
    with pytest.raises(FrameError, match="a frame of 1 bytes"):
        feed(FrameBuffer(1000), HEADER.pack(MORE | 1) + b"x")  # during the handshake


def test_pieces_over_the_limit_are_refused_and_not_kept() -> None:
    node = Node(1 << 30)
    buffer = node.connection("b", limit=50_000)
    with pytest.raises(FrameError, match="more than 50000"):
        feed(buffer, b"".join(in_pieces(bytes(50_001))))
    assert node.budget.held_bytes == PIECE_BYTES
    assert buffer.pieces is not None
    buffer.pieces.drop()
    assert node.budget.held_bytes == 0


def test_what_many_peers_are_sending_is_bounded_together_and_the_oldest_is_finished() -> None:
    node = Node(10 * PIECE_BYTES)
    node.members = {f"n{number}" for number in range(16)}
    body = bytes(8 * PIECE_BYTES)
    frames = in_pieces(body)
    buffers = {name: node.connection(name) for name in sorted(node.members)}
    finished = []
    for frame in frames:
        for name, buffer in buffers.items():
            finished += [name for whole in feed(buffer, frame + encode_frame(b"alive")) if whole == body]
            assert node.budget.held_bytes <= 10 * PIECE_BYTES
    assert finished == ["n0"] and node.budget.held_bytes == 0
    assert {name for name, _ in node.dropped} == node.members - {"n0"}
    # Each of them may try again.
    assert feed(buffers["n7"], b"".join(frames)) == [body]


def test_strangers_make_room_for_members_and_what_has_stalled_for_what_moves() -> None:
    node = Node(10 * PIECE_BYTES)
    node.members = {"n1", "n2"}
    body = bytes(8 * PIECE_BYTES)
    frames = in_pieces(body)
    feed(node.connection("stranger"), b"".join(frames[:7]))
    assert feed(node.connection("n1"), b"".join(frames)) == [body]
    assert node.dropped == [("stranger", 7 * PIECE_BYTES)]
    feed(node.connection("n1"), b"".join(frames[:7]))
    node.now_s = STALLED_S + 1
    assert feed(node.connection("n2"), b"".join(frames)) == [body]
    assert node.dropped[1:] == [("n1", 7 * PIECE_BYTES)]


def test_the_limit_may_change_between_frames() -> None:
    buffer = FrameBuffer(3)
    assert feed(buffer, encode_frame(b"abc")) == [b"abc"]
    buffer.limit = 4
    assert feed(buffer, encode_frame(b"abcd")) == [b"abcd"]
