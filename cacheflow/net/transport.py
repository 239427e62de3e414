"""SocketTransport: one client's socket, behind the interface of asyncio's transports.

To a protocol of this project it is as asyncio's own transport: ``pause_writing`` over the high-water mark and ``resume_writing``
below the low one; ``close`` sends what is left first; ``connection_lost`` comes once, in a later turn of the loop.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from cacheflow.net.unfinished import COUNTED_BYTES_MIN, Unfinished
from cacheflow.net.unsent import Unsent

Receive = Callable[[int], bytes]
# (protocol, its input of one round of the poller, its transport)
Arrival = tuple[Any, bytes, asyncio.Transport]

# Bytes that are not sent yet over which a protocol is told to pause, and below which to resume: asyncio's defaults.
HIGH_WATER_BYTES: Final = 64 * 1024
LOW_WATER_BYTES: Final = 16 * 1024
# The longest answer that waits for the end of the round; a longer one leaves at once.
HELD_BYTES_MAX: Final = 4 * 1024
# The shortest piece that is kept as it is: a short one is copied behind the one before.
KEPT_BYTES_MIN: Final = 32 * 1024

# The bits of epoll's events, also on systems that have no epoll and import this module.
READ: Final = getattr(select, "EPOLLIN", 1)
WRITE: Final = getattr(select, "EPOLLOUT", 4)
# A client sends no more, or the connection is broken; asked for only while nothing is read.
HANG_UP: Final = getattr(select, "EPOLLRDHUP", 0x2000)
# The protocol of a connection that is over.
_NO_PROTOCOL: Final = asyncio.Protocol()


class Polling(Protocol):
    """Interface: what the transport of one client's socket uses of the Poller, the object that polls all clients' sockets.

    The class poller.Poller explains each attribute.
    """

    loop: asyncio.AbstractEventLoop
    transports: dict[int, SocketTransport]
    readers: dict[int, tuple[Receive, asyncio.Protocol, SocketTransport, list[Arrival]]]
    room: int
    holds: bool
    held: list[SocketTransport]
    unsent: Unsent
    unfinished: Unfinished

    def watch(self, transport: SocketTransport) -> None: ...

    @property
    def epoll(self) -> select.epoll: ...


class SocketTransport(asyncio.Transport):
    """The asyncio transport of one client's socket; an epoll object, not the event loop, tells of the socket's events."""

    __slots__ = (
        "_arrived",
        "_buffered",
        "_closing",
        "_descriptor",
        "_ended",
        "_full",
        "_held",
        "_hung_up",
        "_lost",
        "_paused",
        "_pieces",
        "_poller",
        "_protocol",
        "_reserved",
        "_socket",
        "_socket_send",
        "_wanted",
        "came_s",
        "taken_s",
        "unfinished_bytes",
        "unsent_bytes",
        "waits",
    )

    def __init__(
        self, poller: Polling, sock: socket.socket, protocol: asyncio.Protocol, arrived: list[Arrival]
    ) -> None:
        super().__init__()
        self._poller = poller
        self._socket = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._arrived = arrived
        self._socket_send = sock.send
        # An answer that is sent at the end of the Poller's round.
        self._held: bytes | bytearray | memoryview = b""
        # What the socket did not take, and how many bytes that are. A long piece is the answer's own bytes, not a copy.
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._buffered = 0
        # Bytes that the protocol keeps for an answer of which it has handed over a part.
        self._reserved = 0
        # See unsent.py.
        self.unsent_bytes = 0
        self.taken_s = 0.0
        # See unfinished.py.
        self.unfinished_bytes = 0
        self.came_s = 0.0
        self.waits = False
        # True once the client is known to send no more, while what it has sent waits.
        self._hung_up = False
        # The events that epoll is asked for.
        self._wanted = 0
        self._paused = False
        # True once the client has shut down its side.
        self._ended = False
        # True while the protocol is told to pause.
        self._full = False
        self._closing = False
        # True once ``connection_lost`` is on its way.
        self._lost = False

    @property
    def descriptor(self) -> int:
        """The file descriptor of the client's socket."""
        return self._descriptor

    def start(self) -> None:
        """Tell the client's protocol that it is connected, and register the client's socket for polling."""
        self._poller.transports[self._descriptor] = self
        self._protocol.connection_made(self)
        self._want()

    # asyncio.Transport ------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        poller = self._poller
        if self._held:
            held, self._held = self._held, b""
            if len(data) < KEPT_BYTES_MIN:
                data = b"".join((held, data))
            else:
                # A long piece is never copied.
                self._keep(held)
        # A short answer does not wait behind the long ones of others.
        if self._buffered or self._closing or (poller.room <= 0 and len(data) > HELD_BYTES_MAX):
            self._keep(data)
            return
        if poller.holds and len(data) <= HELD_BYTES_MAX:
            self._held = data
            poller.held.append(self)
            return
        try:
            sent = self._socket_send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.fail(error)
            return
        poller.room -= sent
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        pieces = self._pieces
        if len(data) >= KEPT_BYTES_MIN:
            pieces.append(data)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))
        self._buffered += len(data)
        self._tell()
        self._want()
        if self._buffered > HIGH_WATER_BYTES and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def reserve(self, change: int) -> None:
        """Count ``change`` more bytes (fewer if negative) that the client's protocol keeps for an answer not written yet.

        These bytes belong to the client's unsent bytes.
        """
        if not self._lost:
            self._reserved += change
            self._tell()

    def _tell(self) -> None:
        """Report to the node's budget of unsent bytes how many bytes this client has not taken yet."""
        if not self.unsent_bytes:
            self.taken_s = time.monotonic()
            self._poller.watch(self)
        self._poller.unsent.tell(self, self._buffered + self._reserved)

    def hold(self, size: int) -> None:
        """Report to the node's budget that the client's protocol keeps ``size`` bytes of unfinished requests.

        A small ``size`` is not reported. While all clients together keep too much, nothing more is read from this client.
        """
        if (size >= COUNTED_BYTES_MIN or self.unfinished_bytes) and not self._lost:
            if not self.unfinished_bytes:
                self._poller.watch(self)
            self._poller.unfinished.tell(self, size)
            self._want()

    def read_on(self) -> None:
        """Read the client's input again, which had to wait because the node had too many unfinished requests.

        Any thread may call it.
        """
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._poller.loop.call_soon_threadsafe(self._want)

    def pause_reading(self) -> None:
        self._paused = True
        self._want()

    def resume_reading(self) -> None:
        self._paused = False
        self._want()

    def is_reading(self) -> bool:
        return not (self._paused or self.waits or self._ended or self._closing)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            if self._held:
                held, self._held = self._held, b""
                self._keep(held)
            self._closing = True
            if self._buffered:
                self._want()
            else:
                self.fail(None)

    def abort(self) -> None:
        self.fail(None)

    def get_write_buffer_size(self) -> int:
        return self._buffered + len(self._held)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        ask = {"peername": self._socket.getpeername, "sockname": self._socket.getsockname}.get(name)
        if ask is not None:
            with contextlib.suppress(OSError):
                return ask()
        return default

    def _receiving(self) -> Receive:
        """Return the function that reads the client's input, the ``recv`` of the client's socket."""
        return self._socket.recv

    # For the Poller ---------------------------------------------------------------------------------------------------

    def send_held(self) -> None:
        """Send this client's answer, which was held back until the input of all clients of this turn was handled."""
        data, self._held = self._held, b""
        if data:
            SocketTransport.write(self, data)

    def writable(self) -> None:
        """Send the buffered bytes, now that the client's socket takes some again.

        On an error of the socket end the client's connection.
        """
        if not self._buffered:
            return
        pieces, poller = self._pieces, self._poller
        before = self._buffered
        while pieces and poller.room > 0:
            piece = pieces[0]
            try:
                sent = self._socket_send(piece)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.fail(error)
                return
            poller.room -= sent
            self._buffered -= sent
            if sent < len(piece):
                pieces[0] = memoryview(piece)[sent:]
                break
            pieces.popleft()
        if self._buffered == before:
            return
        self.taken_s = time.monotonic()
        self._poller.unsent.tell(self, self._buffered + self._reserved)
        if self._buffered:
            pass
        elif self._closing:
            self.fail(None)
        else:
            self._want()
        if self._full and self._buffered <= LOW_WATER_BYTES and not self._closing:
            self._full = False
            self._protocol.resume_writing()

    def hang_up(self) -> None:
        """Note that this client will send no more.

        If its input had to wait because the node keeps too many unfinished requests, read the rest of the input now.
        """
        if self.waits:
            self._hung_up = True
            self._poller.unfinished.hasten(self)
            self._want()

    def end_of_input(self) -> None:
        """Tell the client's protocol that the client will send no more.

        Close the connection unless the protocol's ``eof_received`` asks to keep it open.
        """
        self._ended = True
        self._want()
        if not self._protocol.eof_received():
            self.close()

    def _want(self) -> None:
        """Register the client's socket with epoll for the events that are wanted now: input, room for output, or both.

        While the client's input has to wait, epoll still reports that the client has hung up, so that the bytes kept for it
        are freed. When no event is wanted the socket is unregistered: epoll would go on reporting its errors.
        """
        if self._lost:
            return
        reads = self.is_reading()
        wanted = (READ if reads else 0) | (WRITE if self._buffered else 0)
        if self.waits and not (self._hung_up or self._ended):
            wanted |= HANG_UP
        if wanted == self._wanted:
            return
        poller, descriptor = self._poller, self._descriptor
        if reads:
            poller.readers[descriptor] = self._receiving(), self._protocol, self, self._arrived
        else:
            poller.readers.pop(descriptor, None)
        try:
            if not self._wanted:
                poller.epoll.register(descriptor, wanted)
            elif wanted:
                poller.epoll.modify(descriptor, wanted)
            else:
                poller.epoll.unregister(descriptor)
        except OSError as error:
            # The kernel has no memory for another watch, or the user has too many.
            self.fail(error)
            return
        self._wanted = wanted

    def fail(self, error: OSError | None) -> None:
        """End the client's connection at once, because of ``error``, or on purpose (None).

        The protocol's ``connection_lost`` is called in a later turn of the event loop.
        """
        if self._lost:
            return
        self._closing = self._lost = True
        self._held = b""
        self._pieces.clear()
        self._buffered = self._reserved = 0
        poller, descriptor = self._poller, self._descriptor
        poller.unsent.tell(self, 0)
        if self.unfinished_bytes:
            poller.unfinished.tell(self, 0)
        poller.readers.pop(descriptor, None)
        del poller.transports[descriptor]
        if self._wanted:
            with contextlib.suppress(OSError):
                poller.epoll.unregister(descriptor)
        poller.loop.call_soon(self._end, error)

    def _end(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
            # The protocol refers to this transport. Two that refer to each other, and all that they have received, would
            # wait for a full pass of the garbage collector, which seldom comes.
            self._protocol = _NO_PROTOCOL
