"""One client of a wire port: bytes in, replies out, in the order of the requests.

1. A subclass parses (``take``) and says for each request one of: ``reply`` (the answer is known), ``read`` (it comes
   from memory), ``write`` (it comes from the log) or ``exclusive`` (it takes several steps).
2. Replies leave in the order of the requests. A read behind a write that is not answered yet looks into memory only when
   its turn comes, so that a pipeline reads what it wrote; and a write behind such a read waits for it, so that it does
   not read what comes later.
3. All writes of one piece of input are one proposal, and all replies of one turn are one system call.
4. Nothing piles up: at most REQUESTS_MAX requests of a connection are under way, at most ``request_bytes_max`` of one
   that is not complete are kept, and a client that does not take its replies is not read, nor answered further. A long
   reply is made piece by piece, as the client takes it (streams.py).
5. Nobody keeps the event loop for long: whoever has used up this turn's slice goes on in the next turn (net/slices.py).
6. All requests are measured (measured.py).

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast

from cacheflow.contract import Outcome
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine.language.commands import Command, Result
from cacheflow.measuring.request_times import RequestTimes
from cacheflow.net.slices import Slices
from cacheflow.wire.measured import MeasuredConnection
from cacheflow.wire.promises import Promise
from cacheflow.wire.streams import HEAD_BYTES, JOINED_BYTES_MAX, Failure, Reply, Stream

logger = logging.getLogger("cacheflow.wire")

REQUESTS_MAX = 1024
# Replies of more bytes than this are handed to the transport before more are made: it stops us for a client that does not read.
REPLY_BYTES_MAX = 1024 * 1024

# A function that takes the reply to a request of several steps.
End = Callable[[Reply], None]


def no_reply(result: Result) -> bytes:
    """Return the empty reply to any ``result`` of a write, for a client that wants no reply, not even when the write fails."""
    return b""


def _count_nothing(change: int) -> None:
    """Do nothing: takes the place of the methods ``reserve`` and ``hold``, which count bytes, of a transport without them."""


class Pushes(Protocol):
    """Interface: what waits for a client beside its answers."""

    def write(self) -> None:
        """Send what waits, as far as the client takes it."""

    def go_on(self) -> bool:
        """Send the rest of what was begun; return True if nothing of it is left."""


class Connection(MeasuredConnection):
    """One client's connection that speaks a wire protocol: it takes input, and sends replies in the order of the requests.

    linearizable: True if reads see every write acknowledged before them, which costs each read a barrier in the log.
    request_bytes_max: the most bytes of one request.  on_closed: called once with the connection, after it has closed.
    requests: the number of requests so far; subclasses count them.
    at_rest: True while no request is unanswered and no input is left: a read may be answered from memory at once.
    """

    # Slots, because these are looked at for every request; a subclass has its own attributes in a dictionary.
    __slots__ = (
        "_at_end",
        "_behind",
        "_closing",
        "_commands",
        "_connected",
        "_cut",
        "_draining",
        "_hold",
        "_holds",
        "_in_row",
        "_input",
        "_last_read",
        "_on_closed",
        "_paused",
        "_pieces",
        "_pushes",
        "_request_bytes_max",
        "_reserve",
        "_slices",
        "_stalled",
        "_waits",
        "_writes_waiting",
        "_written",
        "_written_work",
        "at_rest",
        "linearizable",
        "missing",
        "requests",
        "store",
    )

    # The reply to a request that is too long, after which the connection is closed.
    TOO_LONG: ClassVar[bytes]

    def __init__(
        self,
        store: Store,
        request_bytes_max: int,
        on_closed: Callable[[Connection], None],
        slices: Slices,
        times: RequestTimes,
    ) -> None:
        super().__init__(times)
        self.store = store
        self.linearizable = False
        self.requests = 0
        self.at_rest = False
        # The least number of bytes that are missing of the request at the end of the input; ``take`` sets it. A large value
        # that comes in small pieces is then looked at once, not once a piece.
        self.missing = 0
        self._request_bytes_max = request_bytes_max
        self._on_closed = on_closed
        self._slices = slices
        # Whether this connection waits for its next slice before it handles more input.
        self._waits = False
        # Tell the transport how many more bytes a reply keeps that is not written yet, and how many unfinished requests keep.
        self._reserve = self._hold = _count_nothing
        self._input = b""
        # Input behind ``_input`` that came while bytes were missing.
        self._pieces = bytearray()
        # The number of requests, beside one, that the first promise stands for.
        self._in_row = 0
        # The latest read that waits for its turn, and the number of writes that wait for such a read.
        self._last_read: Promise | None = None
        self._writes_waiting = 0
        # The writes of this piece of input, what more the machine could run instead, in plain commands; the promise of each, and
        # the function that renders its result.
        self._commands: list[Command] = []
        self._written_work = 0
        self._written: list[tuple[Promise, Callable[[Result], Reply]]] = []
        # Earlier writes of this piece of input, as many as are enough work for a proposal of their own: commands, promises, work.
        self._cut: list[tuple[list[Command], list[tuple[Promise, Callable[[Result], Reply]]], int]] = []
        # The reads of this piece that must see all that was acknowledged before; the first is the barrier itself.
        self._behind: list[tuple[Promise, Callable[[bytes], bytes] | None]] = []
        # What is sent to this client beside its answers, and has to come before those that are made later; None for most.
        self._pushes: Pushes | None = None
        self._connected = False
        self._holds = False
        self._draining = False
        self._paused = False
        self._stalled = False
        self._closing = False
        self._at_end = False

    # For subclasses ---------------------------------------------------------------------------------------------------

    def take(self, data: bytes) -> int:
        """Handle the complete requests at the start of the input ``data``; return how many bytes these requests took.

        Stop early when the attribute ``goes_on`` turns false: then the connection has to wait for replies, or closes.
        """
        raise NotImplementedError

    @property
    def has_input(self) -> bool:
        """True if this connection has received input that it has not handled yet."""
        return bool(self._input)

    def advance(self) -> bool:
        """Handle the input that this connection has received; return whether it held a complete request.

        Stop early when the attribute ``goes_on`` turns false. A subclass whose input is not bytes overrides this method, and
        also ``has_input``, ``is_due`` and ``data_received``; it then needs no method ``take``.
        """
        if not self._input:
            return False
        self.missing = 0
        taken = self.take(self._input)
        if taken:
            self._input = self._input[taken:]
        if len(self._input) > self._request_bytes_max and self.goes_on:
            self._input = b""
            self.close(self.TOO_LONG)
        return taken > 0

    def take_requests_of(self, bytes_max: int) -> None:
        """Let a request of this client have up to ``bytes_max`` bytes. The limit never falls: a long one may be on its way."""
        self._request_bytes_max = max(bytes_max, self._request_bytes_max)

    def failure(self, error: ReplicationError) -> bytes:
        """Return the reply to a client's request that failed with ``error``: not committed, or of unknown outcome."""
        raise NotImplementedError

    def is_admitted(self) -> bool:
        """True unless this client has shown the token of a user who was removed or changed since then."""
        raise NotImplementedError

    def may_rest(self) -> bool:
        """True if this connection has no unanswered request and no input left, and its client's reads need no barrier.

        Code that changes one of these conditions also sets the attribute ``at_rest`` to what this method returns.
        """
        return not (
            self._promises or self._paused or self._stalled or self._closing or self.linearizable or self._input
        )

    @property
    def is_due(self) -> bool:
        """True if this client has to send something soon: the rest of a request, or the token that says who it is."""
        return bool(self._input) and not self._paused

    @property
    def is_gone(self) -> bool:
        """True if this connection is closed or closing, so that nobody reads further replies. Any thread may ask."""
        return self._transport.is_closing()

    @property
    def answers_at_once(self) -> bool:
        """True if this connection would answer a read at once, from this node's memory."""
        return not self._promises and not self.linearizable

    @property
    def goes_on(self) -> bool:
        """True if this connection may handle another request now; False if it has to wait for earlier replies, or closes."""
        return not (self._holds or self._waits or self._closing or self._stalled or self._writes_waiting) and (
            len(self._promises) + self._in_row < REQUESTS_MAX
        )

    def reply(self, answer: bytes) -> None:
        """Answer a client's request with the bytes ``answer``; they are sent after the replies to all earlier requests."""
        if self._promises:
            self._promises.append(Promise(answer))
        else:
            self._output.append(answer)
            self._output_bytes += len(answer)
            if self._output_bytes >= REPLY_BYTES_MAX:
                self.flush()

    def rests(self) -> bool:
        """Return whether this connection's time in the present turn is used up: then its input waits for a later turn."""
        over = self._slices.over()
        if over:
            self._wait()
        return over

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._slices.put(self._next_slice)

    def _next_slice(self) -> None:
        self._waits = False
        self._settle()

    def read(self, answer: Callable[[], Reply], refused: Callable[[bytes], bytes] | None = None) -> None:
        """Answer a client's request from memory: ``answer`` makes the reply as soon as all earlier requests are answered.

        refused: makes the reply from an error's bytes when the barrier that a linearizable read needs has failed; if None, the
        error's bytes are the reply.
        """
        if self.linearizable:
            if not self._behind:
                self._promises.append(Promise())
                self._behind.append((self._promises[-1], None))
            self._last_read = Promise(answer)
            self._promises.append(self._last_read)
            self._behind.append((self._last_read, refused))
        elif self._promises:
            self._last_read = Promise(answer)
            self._promises.append(self._last_read)
        else:
            self.answer(answer())

    def answer(self, reply: Reply) -> None:
        """Answer a client's request with ``reply``, which is sent after the replies to all earlier requests."""
        if isinstance(reply, bytes):
            self.reply(reply)
        elif self._promises:
            self._promises.append(Promise(lambda: reply))
        else:
            self._begin_stream(reply)

    def _begin_stream(self, stream: Stream) -> None:
        """Begin to send ``stream``, a reply in pieces to a client's request. All earlier requests are answered already."""
        promise = Promise(stream)
        self._promises.appendleft(promise)
        if self._last_read is None:
            # A write behind it must wait: what it changes might be in the pieces that are not made yet.
            self._last_read = promise
        self._reserve(stream.held)

    def stream_ended(self) -> None:
        """Called when a client was given all of a reply in pieces, and nothing of what comes behind it."""

    def read_alone(self, answer: Callable[[], Reply], command: str, about: Any) -> None:
        """Answer a client's read, before which no request waits, with what ``answer`` returns after a barrier in the log.

        command, about: as ``asked`` takes them.
        """
        promise = self._last_read = Promise(None, (command, self._came_s, 1, about, None))
        self._promises.append(promise)

        def done(outcome: Outcome) -> Callable[[], None]:
            promise.answer = self.failure(outcome) if isinstance(outcome, ReplicationError) else answer
            return self._settle

        self.store.submit_barrier(done)

    def write(self, command: Command, answer: Callable[[Result], Reply], work: int = 0) -> None:
        """Replicate the write ``command``, and answer the client with the bytes that ``answer`` makes of the write's result.

        work: how many further requests a slow write counts for, in the limit of unanswered requests; 0 for a quick one.
        """
        if work:
            self._in_row += work
        if self._last_read is not None or self._writes_waiting:
            self._writes_waiting += 1
            self._promises.append(Promise(functools.partial(self._start_write, command, answer, work)))
            return
        if work:
            self._add_work(work)
        promise = Promise()
        self._promises.append(promise)
        self._commands.append(command)
        self._written.append((promise, answer))

    def _add_work(self, work: int) -> None:
        """Add the cost ``work`` of a client's next write to a sum; if that gets too large, propose earlier writes alone."""
        if self._commands and self._written_work + work > REQUESTS_MAX:
            # Proposed with the rest: a refusal comes at once, and would have later requests answered before this one.
            self._cut.append((self._commands, self._written, self._written_work))
            self._commands, self._written, self._written_work = [], [], 0
        self._written_work += work

    def _start_write(self, command: Command, answer: Callable[[Result], Reply], work: int) -> None:
        self._writes_waiting -= 1
        if work:
            self._add_work(work)
        promise = Promise()
        self._promises.appendleft(promise)
        self._commands.append(command)
        self._written.append((promise, answer))

    def write_row(
        self, commands: list[Command], answer: Callable[[list[Result]], bytes], command: str, about: Any
    ) -> None:
        """Replicate ``commands``, writes of one client, together; send the client what ``answer`` makes of their results.

        command, about: as ``asked`` takes them.
        """
        count = len(commands)
        promise = Promise(None, (command, self._came_s, count, about, None))
        self.at_rest = False
        self._promises.append(promise)
        self._in_row = count - 1

        def done(outcome: Outcome) -> Callable[[], None]:
            if isinstance(outcome, ReplicationError):
                promise.answer = self.failure(outcome) * count
            else:
                promise.answer = answer, outcome
            return self._settle

        self.store.submit(commands, done)

    def exclusive(self, begin: Callable[[End], None]) -> None:
        """Answer a client's request of several steps; handle no other request of this connection until its reply is given.

        begin: a function that does the first step, once all earlier requests are answered. It is given a function, which has
        to be called with the reply, at once or later; ``begin`` may raise ReplicationError.
        """
        promise = Promise()
        self._holds = True

        def end(answer: Reply) -> None:
            self._holds = False
            promise.answer = answer
            if not self._draining:
                self._settle()

        def start() -> None:
            self._promises.appendleft(promise)
            self.contained(end, begin, end)

        self._promises.append(Promise(start))

    def behind_barrier(self, begin: Callable[[End], None]) -> None:
        """Answer a client's request of several steps; handle no other request of this connection until its reply is given.

        begin: does the first step, after a barrier if reads are linearizable; it gets a function, to be called with the reply.
        """
        if not self.linearizable:
            self.exclusive(begin)
            return

        def start(end: End) -> None:
            def passed(outcome: Outcome) -> Callable[[], None]:
                if isinstance(outcome, ReplicationError):
                    return functools.partial(end, self.failure(outcome))
                return functools.partial(self.contained, end, begin, end)

            self.store.submit_barrier(passed)

        self.exclusive(start)

    def contained(self, end: End, call: Callable[..., None], *arguments: object) -> None:
        """Do one step of a client's request by calling ``call(*arguments)``; do nothing if the client has gone.

        end: called with the error reply if ``call`` raises ReplicationError. Any other exception only closes this connection.
        """
        if self._transport.is_closing():
            return
        try:
            call(*arguments)
        except ReplicationError as error:
            end(self.failure(error))
        except Exception:
            self._stumbled()

    def close(self, farewell: bytes = b"") -> None:
        """Handle no more requests of this client; close the connection once earlier replies and then ``farewell`` are sent."""
        self.reply(farewell)
        self._closing = True
        self.at_rest = False

    def finish(self) -> None:
        """Handle no more requests of this client, as the node stops; close the connection once earlier replies are sent."""
        self._closing = True
        self.at_rest = False
        if self._connected and not self._transport.is_closing():
            self._set_reading()
            self._end_when_idle()

    def abort(self) -> None:
        """Close this client's connection at once, without waiting for replies that are not sent yet."""
        self._closing = True
        self.at_rest = False
        if self._connected:
            self._transport.abort()

    # asyncio.Protocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of its methods and do not derive from it.
        self._transport = cast(asyncio.Transport, transport)
        # A loop's own transports have no part in these budgets.
        self._reserve = getattr(transport, "reserve", _count_nothing)
        self._hold = getattr(transport, "hold", _count_nothing)
        self._connected = True
        self.at_rest = self.may_rest()
        if self._closing:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self.at_rest = False
        self._promises.clear()
        self._input = b""
        self._pieces.clear()
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        self._came_s = self._clock()
        self.at_rest = False
        if not self._input:
            self._input = data
            self._work()
            return
        self._pieces += data
        if len(self._pieces) >= self.missing:
            self._input += self._pieces
            self._pieces.clear()
            self._work()
        # Also a line whose end has not come, but not what waits for earlier requests.
        self._hold(0 if self._paused else len(self._input) + len(self._pieces))

    def eof_received(self) -> bool:
        # A client that has shut down its side may still read.
        self._at_end = True
        self._end_when_idle()
        return True

    def pause_writing(self) -> None:
        self._stalled = True
        self.at_rest = False
        self._set_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        self._work()

    # ----------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Make this connection's replies that can be made now, then handle as much of its input as may be handled now."""
        try:
            if self._pushes is not None:
                self._pushes.write()
            if self._promises:
                self._drain()
            if self._promises or self.has_input or self._paused or self._closing or self._at_end:
                self._handle()
            else:
                self.flush()
            self.at_rest = self.may_rest()
            if self._pushes is not None:
                self._pushes.go_on()
        except Exception:
            self._stumbled()

    def _stumbled(self) -> None:
        """Log the current exception and close this client's connection: one broken request must not end everybody's."""
        logger.exception("a wire connection stumbled and was closed")
        self._closing = True
        self.at_rest = False
        self._transport.abort()

    def _handle(self) -> None:
        while self.goes_on and self.advance():
            all_taken = self.goes_on
            self._send()
            if all_taken:
                break
        self._send()
        self.flush()
        self._set_reading()
        self._end_when_idle()

    def _send(self) -> None:
        if self._behind:
            self._propose_barrier()
        while self._commands:
            self._propose()
        if self._promises:
            self._drain()

    def _propose(self) -> None:
        if self._cut:
            commands, written, work = self._cut.pop(0)
        else:
            commands, self._commands = self._commands, []
            written, self._written = self._written, []
            work, self._written_work = self._written_work, 0

        def done(outcome: Outcome) -> Callable[[], None]:
            if isinstance(outcome, ReplicationError):
                failure = self.failure(outcome)
                for promise, answer in written:
                    promise.answer = failure
                    if answer is no_reply:
                        promise.answer = b""
                        if promise.call is not None:
                            promise.call = (*promise.call[:4], failure)
            else:
                for (promise, answer), result in zip(written, outcome, strict=True):
                    promise.answer = answer, result
            return self._settle

        self.store.submit(commands, done, work)

    def _propose_barrier(self) -> None:
        ((barrier, _), *reads), self._behind = self._behind, []

        def done(outcome: Outcome) -> Callable[[], None]:
            if isinstance(outcome, ReplicationError):
                failure = self.failure(outcome)
                for promise, refused in reads:
                    promise.answer = failure if refused is None else functools.partial(refused, failure)
            barrier.answer = b""
            return self._settle

        self.store.submit_barrier(done)

    def _drain(self) -> None:
        promises = self._promises
        has_streamed = False
        self._draining = True
        while promises and not self._stalled:
            promise = promises[0]
            answer = promise.answer
            head = b""
            if answer is None:
                break
            if isinstance(answer, Stream):
                if not self._send_pieces(answer):
                    break
                head, answer = answer.head, b""
                has_streamed = True
            promises.popleft()
            self._in_row = 0
            if promise is self._last_read:
                self._last_read = None
            if has_streamed:
                has_streamed = False
                self.stream_ended()
            data: Reply | None
            if isinstance(answer, tuple):
                read, result = answer
                data = read(result)
            else:
                data = answer if isinstance(answer, bytes) else answer()
            if not isinstance(data, bytes):
                if data is not None:
                    self._begin_stream(data)
                # The reply is still to come: another promise stands in the place of this one.
                promises[0].call = promise.call
                continue
            if promise.call is not None:
                self._answered.append((promise.call, head or data))
            self._output.append(data)
            self._output_bytes += len(data)
            if self._output_bytes >= REPLY_BYTES_MAX:
                self.flush()
        self._draining = False

    def _send_pieces(self, stream: Stream) -> bool:
        """Send pieces of ``stream``, a reply, while the client takes them and time is left; return whether all are sent."""
        for piece in stream.pieces:
            size = len(piece)
            if size and (not stream.head or isinstance(piece, Failure)):
                stream.head = piece[:HEAD_BYTES]
            if size > JOINED_BYTES_MAX:
                self.flush()
                self._transport.write(piece)
            elif size:
                self._output.append(piece)
                self._output_bytes += size
                if self._output_bytes >= REPLY_BYTES_MAX:
                    self.flush()
            if stream.held:
                written = min(size, stream.held)
                stream.held -= written
                self._reserve(-written)
            if self._stalled:
                return False
            if self._slices.over():
                self._wait()
                return False
        self._reserve(-stream.held)
        return True

    def _settle(self) -> None:
        """Send this connection's replies that are known now, and handle the input that it has received.

        Called at the end of the turn in which results of this client's requests came.
        """
        if not self._transport.is_closing():
            self._work()

    def flush(self) -> None:
        """Write this connection's finished replies to the client's socket."""
        output = self._output
        if output:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))
            self._output = []
            self._output_bytes = 0
        if self._answered:
            self._note_answered()

    def _set_reading(self) -> None:
        pause = not self.goes_on
        if pause != self._paused and not self._transport.is_closing():
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _end_when_idle(self) -> None:
        if (self._closing or self._at_end) and not self._promises and not self._output and not self._stalled:
            if not self._transport.is_closing():
                self._transport.close()
