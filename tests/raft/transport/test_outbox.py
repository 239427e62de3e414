"""What overtakes goes between the pieces of what is large; all else keeps its order, and what waits is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from cacheflow.raft.transport.frames import PIECE_BYTES, FrameBuffer, encode_frame
from cacheflow.raft.transport.outbox import LAST_BYTES_MAX, Outbox
from cacheflow.raft.transport.pieces import Budget, Pieces

LARGE = bytes(range(256)) * 1000


class Link:
    """A socket of which the system takes so many bytes at a time, and the node at its other end."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.came: list[bytes] = []
        self.written = 0
        self.closing = False
        self._kept = b""
        self._turn: list[Callable[[], None]] = []
        self._buffer = FrameBuffer(PIECE_BYTES)
        self._buffer.pieces = Pieces(1 << 30, Budget(1 << 30, lambda: 0.0, lambda *_: None), "b", lambda: True)
        self.outbox = Outbox(cast(Any, self), cast(Any, self), 3.0, self._turn.append)

    def put(self, body: bytes, overtakes: bool = False) -> None:
        self.outbox.put(body, {"type": "append_ack" if overtakes else "propose"})

    def end_turn(self) -> None:
        calls, self._turn = self._turn, []
        for call in calls:
            call()

    def drain(self) -> None:
        """Let the system take what it takes once."""
        taken, self._kept = self._kept[: self.takes], self._kept[self.takes :]
        while taken:
            space = self._buffer.space()
            count = min(len(space), len(taken))
            space[:count], taken = taken[:count], taken[count:]
            self.came += [bytes(body) for body in self._buffer.received(count)]
        if not self._kept:
            self.outbox.resume()

    def drain_all(self) -> None:
        while self._kept:
            self.drain()

    # What an outbox asks of asyncio.

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._kept += data
        self.outbox.pause()

    def get_write_buffer_size(self) -> int:
        return len(self._kept)

    def is_closing(self) -> bool:
        return self.closing

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        return None


def test_what_overtakes_waits_for_a_piece_and_the_others_for_their_turn() -> None:
    link = Link(takes=PIECE_BYTES)
    link.put(b"before")
    link.put(LARGE)
    link.put(b"behind")
    link.end_turn()
    link.put(b"heartbeat", overtakes=True)
    link.put(b"last")
    link.end_turn()
    assert link.outbox.waiting_bytes > len(LARGE) and link.outbox.overtaking_bytes < 2 * PIECE_BYTES
    for _ in range(3):
        link.drain()
    assert link.came == [b"before", b"heartbeat"]
    link.drain_all()
    assert link.came == [b"before", b"heartbeat", LARGE, b"behind", b"last"]
    assert link.outbox.waiting_bytes == link.outbox.overtaking_bytes == 0


def test_while_the_system_takes_nothing_small_messages_can_be_overtaken_too() -> None:
    link = Link(takes=100)
    link.put(bytes(20_000))
    link.end_turn()
    for number in range(10):
        link.put(b"%d" % number)
    link.put(b"heartbeat", overtakes=True)
    link.end_turn()
    link.drain_all()
    assert link.came == [bytes(20_000), b"heartbeat", *(b"%d" % number for number in range(10))]


def test_small_messages_in_the_queue_leave_together() -> None:
    link = Link(takes=1 << 20)
    link.put(LARGE)
    for number in range(100):
        link.put(b"%d" % number)
    link.end_turn()
    writes = 0
    while link.outbox.waiting_bytes:
        link.drain()
        writes += 1
    assert link.came == [LARGE, *(b"%d" % number for number in range(100))]
    assert writes <= len(LARGE) // PIECE_BYTES + 2


def test_a_connection_that_is_closed_sends_all_that_waits_and_one_that_broke_nothing() -> None:
    link = Link(takes=100)
    link.put(LARGE)
    link.put(b"behind")
    link.outbox.flush_all()
    link.drain_all()
    assert link.came == [LARGE, b"behind"]
    link.put(LARGE)
    link.closing = True
    written = link.written
    link.outbox.flush_all()
    link.outbox.resume()
    assert link.written == written
    link.outbox.close()
    assert link.outbox.waiting_bytes == 0


def test_what_goes_last_leaves_when_nothing_else_waits() -> None:
    link = Link(takes=PIECE_BYTES)
    link.put(LARGE)
    for number in range(3):
        assert link.outbox.put_last(encode_frame(b"last %d" % number))
    link.put(b"entry")
    link.end_turn()
    link.put(b"heartbeat", overtakes=True)
    link.end_turn()
    for _ in range(3):
        link.drain()
    assert link.came == [b"heartbeat"]
    link.drain_all()
    assert link.came == [b"heartbeat", LARGE, b"entry", b"last 0", b"last 1", b"last 2"]


def test_a_heartbeat_and_an_entry_wait_for_a_piece_of_what_goes_last_at_most() -> None:
    link = Link(takes=PIECE_BYTES)
    for _ in range(100):
        assert link.outbox.put_last(encode_frame(bytes(20_000)))
    link.end_turn()
    # None of it counts for those who ask how much of the log is on its way.
    assert link.outbox.waiting_bytes < 2 * PIECE_BYTES
    for kind in (True, False):
        link.put(b"small", overtakes=kind)
        link.end_turn()
        before = len(link.came)
        while b"small" not in link.came[before:]:
            link.drain()
        assert sum(map(len, link.came[before:])) <= 3 * PIECE_BYTES
    link.put(LARGE)
    link.end_turn()
    before = len(link.came)
    while LARGE not in link.came:
        link.drain()
    assert sum(map(len, link.came[before:])) <= len(LARGE) + 2 * PIECE_BYTES
    link.drain_all()
    assert link.came.count(bytes(20_000)) == 100


def test_too_much_of_what_goes_last_is_dropped_and_nothing_else() -> None:
    link = Link(takes=0)
    frame = encode_frame(bytes(30_000))
    taken = sum([link.outbox.put_last(frame) for _ in range(1000)])
    # One of them is in the socket.
    assert taken == LAST_BYTES_MAX // len(frame) + 1
    link.put(LARGE)
    link.end_turn()
    link.takes = 1 << 20
    link.drain_all()
    assert link.came.count(bytes(30_000)) == taken and link.came[1] == LARGE
    assert link.outbox.put_last(frame)
    link.outbox.close()
    link.outbox.flush_all()
    assert link.came.count(bytes(30_000)) == taken


def test_what_goes_last_does_not_wait_for_the_end_of_a_turn_with_much_of_it() -> None:
    link = Link(takes=1 << 30)
    for _ in range(1000):
        assert link.outbox.put_last(encode_frame(bytes(30_000)))
        link.drain()
    link.end_turn()
    link.drain_all()
    assert len(link.came) == 1000
