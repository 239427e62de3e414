"""Outbox: the frames that wait to be sent on one connection.

1. Messages of one turn of the loop leave in one write: a system call costs more than a small message.
2. The number of waiting bytes is known, so that the owner can refuse more.
3. Bytes that wait for a whole ``stall_s`` while the system takes none of them end the connection: the other side
   hangs, or its host is gone without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cacheflow.raft.transport.frames import HEADER

# As many waiting bytes are written at once: keeping them until the end of the turn would only cost memory.
_FLUSH_BYTES: Final = 256 * 1024
# The smallest body that is written by itself: copying a smaller one beside its neighbours is cheaper than a system call.
_ALONE_BYTES: Final = 64 * 1024


class Outbox:
    """The frames that wait to be sent on one connection. Not safe for concurrent use: the event loop owns it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        stall_s: float,
        defer: Callable[[Callable[[], None]], None],
    ) -> None:
        self._loop = loop
        self._defer = defer
        self._transport = transport
        self._stall_s = stall_s
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._scheduled = False
        self._written_bytes = 0
        # The bytes that the system had taken when the stall timer was set.
        self._taken_bytes = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self.stalled = False

    @property
    def waiting_bytes(self) -> int:
        """The bytes that were put in and that the system has not taken."""
        return self._parts_bytes + self._transport.get_write_buffer_size()

    def put(self, body: bytes) -> None:
        """Send a frame with ``body``: at the end of the turn, or now if much waits."""
        size = len(body)
        self._parts.append(HEADER.pack(size))
        if size >= _ALONE_BYTES:
            self._parts_bytes += HEADER.size
            self.flush()
            # The part that the system does not take at once is copied once if it is given as a view, else twice.
            self._transport.write(memoryview(body))
            self._written_bytes += size
            self._watch()
            return
        self._parts.append(body)
        self._parts_bytes += HEADER.size + size
        if self._parts_bytes >= _FLUSH_BYTES:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._defer(self._end_of_turn)

    def flush(self) -> None:
        """Write the waiting frames to the socket."""
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._written_bytes += self._parts_bytes
            self._parts.clear()
            self._parts_bytes = 0
            self._watch()

    def close(self) -> None:
        """Drop what waits and stop the timer, because the connection has ended."""
        self._parts.clear()
        self._parts_bytes = 0
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

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
