"""Outbox: the messages that wait to be sent on one connection.

1. Messages of one turn of the loop leave in one write: a system call costs more than a small message.
2. Large messages leave in pieces (``frames.py``), the next one when the system has taken the last. A message that may overtake
   goes between them; all others keep their order. So a heartbeat is late by a few pieces, however large what waits.
3. What is not about the log goes last: only when nothing else waits, and never more of it than a piece at once.
4. The number of waiting bytes is known, so that the owner can refuse more.
5. Bytes that wait for a whole ``stall_s`` while the system takes none of them end the connection: the other side
   hangs, or its host is gone without a word.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cacheflow.raft.transport import frames, messages
from cacheflow.raft.transport.frames import HEADER, LAST, MORE
from cacheflow.raft.transport.network import Traffic

# As many waiting bytes are written at once: keeping them until the end of the turn would only cost memory.
_FLUSH_BYTES: Final = 64 * 1024
# Bytes of messages that go last which may wait on one connection: some seconds of them on a link of 10 Mbit/s.
LAST_BYTES_MAX: Final = 4 * 1024 * 1024


class Timers(Protocol):
    """Interface: the part of an event loop that an outbox, a connection's queue of messages to send, uses."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle: ...


class Socket(Protocol):
    """Interface: the part of asyncio's transports that an outbox, a connection's queue of messages to send, uses.

    Such a transport calls the outbox's ``pause`` whenever the system takes no more bytes.
    """

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...


class Outbox:
    """The messages that wait to be sent on one connection. Not safe for concurrent use: the event loop owns it."""

    def __init__(
        self,
        loop: Timers,
        transport: Socket,
        stall_s: float,
        defer: Callable[[Callable[[], None]], None],
    ) -> None:
        self._loop = loop
        self._defer = defer
        self._transport = transport
        self._stall_s = stall_s
        # Whole frames for the next write, which comes at the end of the turn.
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        # Large messages, and those behind them that must keep their order; how much of the first one has left.
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._left_bytes = 0
        # Whole frames that leave when nothing else waits.
        self._last: deque[bytes] = deque()
        self._last_bytes = 0
        # Whether the system takes nothing more at present.
        self._paused = False
        self._scheduled = False
        self._written_bytes = 0
        # Counts what is written on all connections to this node.
        self.traffic = Traffic()
        # The bytes that the system had taken when the stall timer was set.
        self._taken_bytes = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self.stalled = False

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes waiting to be sent on this connection, which the operating system has not taken yet.

        Published messages, which are sent only when nothing else waits, do not count.
        """
        return self._queue_bytes + self._parts_bytes + self._transport.get_write_buffer_size()

    @property
    def overtaking_bytes(self) -> int:
        """The number of bytes waiting on this connection that leave before a message sent now that may overtake others."""
        return self._parts_bytes + self._transport.get_write_buffer_size()

    def put(self, body: bytes, message: Mapping[str, Any]) -> None:
        """Send ``message``, which is packed in ``body``, at the end of the event loop's turn, or now if many bytes wait."""
        size = len(body)
        if size > frames.PIECE_BYTES or ((self._queue or self._paused) and not messages.may_overtake(message)):
            self._queue.append(body)
            self._queue_bytes += size
        else:
            self._parts.append(HEADER.pack(size))
            self._parts.append(body)
            self._parts_bytes += HEADER.size + size
            if self._parts_bytes >= _FLUSH_BYTES:
                self.flush()
                return
        if not self._scheduled:
            self._scheduled = True
            self._defer(self._end_of_turn)

    def put_last(self, frame: bytes) -> bool:
        """Send ``frame``, a whole frame, once nothing else waits.

        Returns False if too many bytes of such frames wait already.
        """
        if self._last_bytes + len(frame) > LAST_BYTES_MAX:
            return False
        self._last.append(frame)
        self._last_bytes += len(frame)
        if self._last_bytes >= _FLUSH_BYTES and not self._paused:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._defer(self._end_of_turn)
        return True

    def flush(self) -> None:
        """Write the waiting small messages to the socket.

        Then write pieces of the large messages, and then the messages that may wait for all others (published ones), as long as
        the system takes bytes.
        """
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._written_bytes += self._parts_bytes
            self.traffic.sent_bytes += self._parts_bytes
            self._parts.clear()
            self._parts_bytes = 0
        while self._queue and not self._paused and not self._transport.is_closing():
            self._write_pieces()
        while self._last and not self._paused and not self._transport.is_closing():
            self._write_last()
        self._watch()

    def pause(self) -> None:
        """Stop writing pieces of large messages: the system takes no more bytes of this socket."""
        self._paused = True

    def resume(self) -> None:
        """Go on writing pieces of large messages: the system has taken everything that was written to the socket."""
        self._paused = False
        self.flush()

    def flush_all(self) -> None:
        """Write all waiting messages, whatever the system takes now: the connection is about to be closed."""
        self.flush()
        while self._queue and not self._transport.is_closing():
            self._write_pieces()
        while self._last and not self._transport.is_closing():
            self._write_last()

    def close(self) -> None:
        """Drop the messages that wait to be sent and stop the stall timer, because the connection has ended."""
        self._parts.clear()
        self._parts_bytes = 0
        self._queue.clear()
        self._queue_bytes = 0
        self._last.clear()
        self._last_bytes = 0
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _write_pieces(self) -> None:
        """Write the next waiting messages: a piece of a large message, or some small messages that are as long together."""
        parts: list[bytes | memoryview] = []
        room = piece_bytes = frames.PIECE_BYTES
        while self._queue and room > 0:
            body, begin = self._queue[0], self._left_bytes
            end = min(len(body), begin + piece_bytes)
            kind = MORE if end < len(body) else LAST if begin else 0
            parts += (HEADER.pack(kind | (end - begin)), memoryview(body)[begin:end])
            room -= HEADER.size + end - begin
            self._queue_bytes -= end - begin
            self._left_bytes = end
            if end == len(body):
                self._queue.popleft()
                self._left_bytes = 0
        data = b"".join(parts)
        self._transport.write(data)
        self._written_bytes += len(data)
        self.traffic.sent_bytes += len(data)

    def _write_last(self) -> None:
        """Write published messages to the peer, now that no other message waits: as many as fit into one write, at least one."""
        last = self._last
        parts = [last.popleft()]
        size = len(parts[0])
        while last and size + len(last[0]) <= frames.PIECE_BYTES:
            parts.append(last.popleft())
            size += len(parts[-1])
        self._last_bytes -= size
        self._transport.write(b"".join(parts))
        self._written_bytes += size
        self.traffic.sent_bytes += size

    def _end_of_turn(self) -> None:
        self._scheduled = False
        self.flush()

    def _watch(self) -> None:
        if self._stall_timer is None and self._transport.get_write_buffer_size():
            self._taken_bytes = self._written_bytes - self._transport.get_write_buffer_size()
            self._stall_timer = self._loop.call_later(self._stall_s, self._check)

    def _check(self) -> None:
        self._stall_timer = None
        waiting = self._transport.get_write_buffer_size()
        if waiting and self._written_bytes - waiting == self._taken_bytes:
            self.stalled = True
            self._transport.abort()
        else:
            self._watch()
