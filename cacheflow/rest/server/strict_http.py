"""Where waitress reads HTTP too kindly, and where it never gives up.

1. A request framed two ways (Content-Length and Transfer-Encoding) is refused: a proxy in front may have read it the
   other way, and then its second half is somebody else's request (RFC 9112, 6.1).
2. A request target must be what it looks like: ``#`` cuts a key short, and tabs vanish in Python's URL parser.
3. A request must be complete within a deadline. waitress counts idleness only, so a byte a minute holds for ever.
4. An answer that nobody takes must not hold its thread for ever.
5. A request of HTTP/1.1 names its host once, and a request of no version is none (RFC 9112, 3.2 and 2.3).
6. What a web page of another site sends is not served (doors.py).
7. An answer without a body keeps its connection, as any other.
8. What is refused here is told in problem+json, and the connection lingers until the client has had time to read it:
   closing at once, with its body still under way, resets the connection and takes the answer along.
9. The next request of a pipeline is read when the client has taken the answer to the one before: so nothing piles up, and no
   thread ever waits for a client. What clients have not taken counts in one budget with the other fronts' (net/unsent.py), and so
   do bodies that are not complete, or not answered, in memory or in waitress' temporary files (net/unfinished.py).
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from waitress.buffers import OverflowableBuffer
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

from cacheflow.net.unfinished import COUNTED_BYTES_MIN, Unfinished, has_ended, has_input
from cacheflow.net.unsent import LOOK_EVERY_S, Unsent
from cacheflow.rest.problems import PROBLEM_TYPE, problem_bytes
from cacheflow.rest.server import access_log
from cacheflow.rest.server.doors import Doors
from cacheflow.rest.server.files import UPLOAD_PATH, SentFile
from cacheflow.rest.server.pieces import PIECE_BYTES_MAX, Piece, cut
from cacheflow.rest.server.request_ids import HEADER, id_of, served, served_ids
from cacheflow.rest.server.sockets import Sockets

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Seconds for which a refused client may go on sending before its connection is cut.
_LINGER_S = 5.0
# Seconds after which an idle connection makes room when there are too many.
_IDLE_WHEN_FULL_S = 2.0
_ID: Final = HEADER.encode()
# Characters that a request target must not hold (see rule 2).
_NOT_IN_TARGETS = re.compile(r"[\x00-\x20\x7f#]")


class RequestTimeout(Error):  # type: ignore[misc]
    """The error for an HTTP request that did not arrive whole in time; it is answered with 408."""

    code = 408
    reason = "Request Timeout"


class Forbidden(Error):  # type: ignore[misc]
    """The error for a web browser's request that is not let in; it is answered with 403."""

    code = 403
    reason = "Forbidden"


class StrictParser(HTTPRequestParser):  # type: ignore[misc]
    """A parser of one HTTP request as its bytes arrive, stricter than waitress' own.

    began_s: when the first byte came, by the monotonic clock.  arrived_s: when it was complete and could be answered.
    """

    # waitress names these in its own log lines, also for requests whose header never came.
    path = ""
    command = ""
    error: Error | None = None
    # Why the request is not let in; "" while nothing says so.
    forbidden = ""
    # Whether its body goes into a file, however long it is (files.py).
    is_upload = False
    # "" until somebody asks for it: most of a request's time nobody does.
    _id = ""

    def __init__(self, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.began_s = self.arrived_s = time.monotonic()

    @property
    def id(self) -> str:
        """The request's id, which its answer and the log name (request_ids.py)."""
        if not self._id:
            self._id = id_of(self.headers.get("X_REQUEST_ID"))
        return self._id

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.error is not None:
            if self.forbidden:
                self.error = Forbidden(self.forbidden)
            # Otherwise waitress would answer "100 Continue" and take the body that it just refused.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        lowered = header_plus.lower()
        if b"\r\ntransfer-encoding:" in lowered and b"\r\ncontent-length:" in lowered:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
        if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
            raise ParsingError(
                "a header line begins with a blank"
            )  # RFC 9112, 5.2: who unfolds it reads another header
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # from Python's URL parser
            raise ParsingError(f"the request target is no URL: {error}") from None
        if "TRANSFER_ENCODING" in self.headers:
            raise ParsingError(f"HTTP/{self.version} has no Transfer-Encoding")
        if _NOT_IN_TARGETS.search(self.request_uri):
            raise ParsingError("the request target has a character that must be percent-encoded")
        if self.version not in ("1.1", "1.0"):
            raise ParsingError("only HTTP/1.1 and HTTP/1.0 are spoken here")
        headers = self.headers
        if self.path == UPLOAD_PATH and self.adj.uploads is not None:
            self.is_upload = self.adj.uploads.begin(self, headers)
        host = headers.get("HOST")
        doors: Doors = self.adj.doors
        if host in doors.known and "ORIGIN" not in headers and "SEC_FETCH_SITE" not in headers:
            return
        if malformed := doors.malformed(host, self.version):
            raise ParsingError(malformed)
        self.forbidden = doors.refusal(headers, self.path)
        if self.forbidden:
            raise ParsingError(self.forbidden)

    def time_out(self) -> None:
        """End the parsing of an HTTP request that has not arrived whole in time, so that it is answered with 408."""
        if not self.headers_finished:
            super().parse_header(b"GET / HTTP/1.0\r\n")
        self.error = RequestTimeout("the request was not complete in time")
        self.completed = True


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """A waitress task that sends a problem+json answer to an HTTP request that the parser refused."""

    def execute(self) -> None:
        channel, error = self.channel, self.request.error
        body = problem_bytes("about:blank", error.reason, error.code, str(error.body))
        self.status = f"{error.code} {error.reason}"
        # Where an application has failed, this task has waitress' copy of its request; the request itself is named and measured.
        answered: Any = served.request or self.request
        self.response_headers += [PROBLEM_TYPE, (HEADER, served_ids()[0])]
        self.response_headers.extend(channel.server.refusal_headers())
        if not self.request.forbidden:
            self.response_headers.extend(
                self.request.adj.doors.answer_headers(self.request.headers, self.request.command)
            )
        self.set_close_on_finish()
        channel.refused = True
        self.content_length = len(body)
        self.write(body)
        channel.server.answered(channel, answered, error.code)
        if access_log.is_on():
            access_log.note(channel, answered, error.code, len(body))


class OneWriteTask(WSGITask):  # type: ignore[misc]
    """A waitress task that sends an answer's header and body in one system call and one packet, not in two of each."""

    wrote_header: bool = False
    # The parts of a body that have come, of one that comes in several.
    _parts: tuple[bytes, ...] = ()
    # waitress wants to close behind an answer without a length, which 204 and 304 have no use for (RFC 9112, 6.3).
    keeps_open = False

    def build_response_header(self) -> bytes:
        request = self.request
        # The client's time to take the answer begins now, however long that was in the making (``enforce``).
        self.channel.last_activity = time.time()
        if self.channel.server.draining:
            # So that a client with a kept connection opens its next one elsewhere.
            self.set_close_on_finish()
        elif not self.has_body:
            self.keeps_open = self.version == "1.1" and not request.connection_close
        if request.adj.doors.varies:
            self.response_headers += request.adj.doors.answer_headers(request.headers, request.command)
        header: bytes = super().build_response_header()
        self.keeps_open = False
        # Here, not among the headers of before: those are spelled, sorted and looked through, one by one.
        return b"%b%b: %b\r\n\r\n" % (header[:-2], _ID, request.id.encode())

    def set_close_on_finish(self) -> None:
        if not self.keeps_open:
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        if self.wrote_header or not data or not self.complete:
            super().write(data)
            return
        size = self.content_length
        if self._parts or (size is not None and len(data) < size and self.has_body):
            self._write_part(data)
            return
        header = self.build_response_header()
        self.wrote_header = True
        channel = self.channel
        if self.has_body and not self.chunked_response and size == len(data):
            self.content_bytes_written = size
            if size <= PIECE_BYTES_MAX:
                channel.write_soon(header + data)
            else:
                channel.write_long(header, *cut(data))
        else:
            channel.write_soon(header)
            super().write(data)
        if channel.total_outbufs_len:
            channel.tell_unsent()

    def _write_part(self, data: bytes) -> None:
        """Keep ``data``, a part of an HTTP answer's body, until all of the body is there; then send the answer."""
        self._parts += (data,)
        size = sum(map(len, self._parts))
        if size < self.content_length:
            return
        if size > self.content_length:
            # waitress cuts it.
            super().write(b"".join(self._parts))
            return
        header = self.build_response_header()
        self.wrote_header = True
        self.content_bytes_written = size
        channel = self.channel
        channel.write_long(header + self._parts[0], *self._parts[1:])
        if channel.total_outbufs_len:
            channel.tell_unsent()


class StrictChannel(HTTPChannel):  # type: ignore[misc]
    """One HTTP client's connection, with deadlines; after a refusal it stays open until the client has had time to read it."""

    parser_class = StrictParser
    error_task_class = ProblemTask

    refused = False
    lingers_until_s: float | None = None  # monotonic
    # waitress' own; named here for the type checker.
    will_close: bool = False
    close_when_flushed: bool = False
    request: Any = None
    total_outbufs_len: int = 0
    sent_continue: bool = False
    # See net/unsent.py.
    unsent_bytes = 0
    taken_s = 0.0
    # See net/unfinished.py.
    unfinished_bytes = 0
    came_s = 0.0
    waits = False
    # Input behind the request that is being answered.
    _further = b""
    # True while the next request waits until the client has taken the last answer.
    held = False

    def received(self, data: bytes) -> bool:
        """Parse ``data``, input of this client, up to the end of one HTTP request; the rest waits until that is answered."""
        if not data:
            return False
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            while data:
                if self.requests:
                    self._further += data
                    break
                if self.request is None:
                    self.request = self.parser_class(self.adj)
                request = self.request
                taken = request.received(data)
                # A request without a body is complete, and owed its answer alone.
                if (
                    request.expect_continue
                    and request.headers_finished
                    and not (request.completed or self.sent_continue)
                ):
                    self.send_continue()
                if request.completed:
                    self.sent_continue = False
                    self.request = None
                    if not request.empty:
                        self.requests.append(request)
                        self.server.add_task(self)
                data = data[taken:]
            if self.request is not None or self.unfinished_bytes:
                self.tell_unfinished()
        return True

    def service(self) -> None:
        sockets = self.server.sockets
        if threading.get_ident() != self.server.reader:
            sockets.being_served.add(self)
        served.request = self.requests[0]
        try:
            super().service()
            served.request = None
            if self.unfinished_bytes or self._further:
                self._go_on()
        finally:
            served.request = None
            sockets.look_again(self._fileno)
            sockets.being_served.discard(self)

    def _go_on(self) -> None:
        """Give back the memory budget of the request just answered, and parse what this client has sent behind it."""
        if self.unfinished_bytes:
            with self.requests_lock:
                self.tell_unfinished()
        if self._further and not self.requests and not self.will_close and not self.close_when_flushed:
            further, self._further = self._further, b""
            self.received(further)
            # The poll loop may not know yet that this connection is held.
            self.server.pull_trigger()

    def _flush_some(self, do_close: bool = True) -> bool:
        """Send the client as much of its waiting answers as its socket takes; return whether anything was sent.

        Do nothing while another thread is sending: waitress' poll loop takes no lock when no request is left, but here another
        thread may begin the next request at that moment.
        do_close: True if the socket may be closed when all is sent. Only the poll loop's thread closes it, since that thread
        may be about to use it; waitress would close it in any thread that sends "100 Continue" to a client that has gone.
        """
        if not self.outbuf_lock.acquire(False):
            return False
        try:
            if self.socket is None:
                return False
            return bool(super()._flush_some(do_close=do_close and threading.get_ident() == self.server.reader))
        finally:
            self.outbuf_lock.release()

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Do nothing; waitress' own method would make a thread wait until the client has taken enough of its answer."""

    def write_long(self, *pieces: bytes) -> None:
        """Send the long answer ``pieces`` to the client, as much as the socket takes now; the poll loop sends the rest."""
        with self.outbuf_lock:
            if not self.connected:
                raise ClientDisconnected
            self.outbufs += [*map(Piece, pieces), OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
            self.total_outbufs_len += sum(map(len, pieces))
            self._flush_exception(self._flush_some, do_close=False)
            if self.total_outbufs_len or self.will_close:
                self.server.pull_trigger()

    def tell_unsent(self) -> None:
        """Report to the node's budget of unsent bytes how many bytes this client has not taken yet."""
        if not self.unsent_bytes:
            self.taken_s = time.monotonic()
        self.server.unsent.tell(self, self._waits_in_memory())

    def _waits_in_memory(self) -> int:
        """Return how many bytes of answers wait in memory for this client: all but those of files on the disk."""
        files = sum([len(buffer) for buffer in self.outbufs if isinstance(buffer, SentFile)])
        return self.total_outbufs_len - files

    def tell_unfinished(self) -> None:
        """Report to the node's budget of unfinished input how many bytes of a request's body this connection keeps.

        The request is the oldest without an answer, or the one that is being received. Called with waitress' requests_lock held.
        """
        request = self.requests[0] if self.requests else self.request
        size = 0 if request is None or request.is_upload else request.body_bytes_received
        if size >= COUNTED_BYTES_MIN or self.unfinished_bytes:
            self.server.unfinished.tell(self, size)

    def read_on(self) -> None:
        """Read the rest of this client's request, now that the node's budget of unfinished input has room.

        Any thread may call it.
        """
        self.server.sockets.look_again(self._fileno)
        self.server.wake()

    def readable(self) -> bool:
        return self.lingers_until_s is not None or not (self._further or self.waits or not super().readable())

    def writable(self) -> bool:
        if self.held or not super().writable():
            return self.held
        # While a thread of the pool sends, there is nothing to do here: it wakes the poll loop behind that.
        if not self.outbuf_lock.acquire(False):
            return False
        self.outbuf_lock.release()
        return True

    def handle_read(self) -> None:
        try:
            data = self.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return  # a part of a TLS record
        except OSError:
            self.handle_close()
            return
        if self.lingers_until_s is not None:
            return  # thrown away; the end of it closes the connection
        if data:
            self.last_activity = time.time()
            self.received(data)
        else:
            self.connected = False

    def handle_write(self) -> None:
        if not self.refused or not self.close_when_flushed or self.will_close:
            super().handle_write()
            if not self.total_outbufs_len and self.outbufs[0].buf is not None:
                self.drop_what_was_sent()
            if self.unsent_bytes:
                before = self.unsent_bytes
                self.server.unsent.tell(self, self._waits_in_memory())
                if self.unsent_bytes < before:
                    self.taken_s = time.monotonic()
            if self.held and not self.total_outbufs_len:
                self.held = False
                with self.requests_lock:
                    if self.requests and self.connected:
                        self.server.add_task(self)
                if not self.requests:
                    # The server has turned the request away.
                    self._go_on()
            return
        self._flush_exception(self._flush_some)
        # (The client may have gone: then it is closed by now.)
        if self.connected and not self.total_outbufs_len and not self.will_close:
            self.close_when_flushed = False
            self.lingers_until_s = time.monotonic() + _LINGER_S
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.handle_close()

    def handle_close(self) -> None:
        super().handle_close()
        self.held = False
        self._further = b""
        if self.unsent_bytes:
            self.server.unsent.tell(self, 0)
        if self.unfinished_bytes:
            self.server.unfinished.tell(self, 0)

    def drop_what_was_sent(self) -> None:
        """Release the last answer, all of which was sent; do nothing if another thread is sending on this connection.

        waitress would keep that answer until the next one: up to a megabyte, and for a larger one a file with a descriptor.
        """
        if self.outbuf_lock.acquire(False):
            try:
                if self.connected and not self.total_outbufs_len:
                    self.outbufs[-1].close()
                    self.outbufs[:] = [OverflowableBuffer(self.adj.outbuf_overflow)]
                    self.current_outbuf_count = 0
            finally:
                self.outbuf_lock.release()

    def enforce(self, now_s: float, wall_s: float, deadline_s: float) -> None:
        """Close this HTTP connection, or answer its request with 408, when one of its deadlines is over.

        now_s: the time by the monotonic clock.  wall_s: the time by the clock that waitress uses.
        deadline_s: seconds that a request may take to arrive, and that a client may leave an answer untaken.
        """
        if self.lingers_until_s is not None:
            if now_s >= self.lingers_until_s:
                self.handle_close()
        elif self.total_outbufs_len:
            # last_activity moves with every byte that the client takes. Setting will_close would not do: waitress looks
            # at it when the socket takes bytes, and this one takes none.
            if wall_s - self.last_activity > deadline_s:
                self.handle_close()
        elif self.request is not None and now_s - self.request.began_s > deadline_s:
            # A backup takes the time that it takes, as long as any of it comes.
            if not self.request.is_upload or wall_s - self.last_activity > deadline_s:
                self.time_out_request()

    def time_out_request(self) -> None:
        """Answer 408 to the HTTP request of which this client has sent a part only."""
        with self.requests_lock:
            request = self.request
            if request is None or self.requests or self.will_close or self.close_when_flushed:
                return
            request.time_out()
            self.request = None
            self.tell_unfinished()
            self.requests.append(request)
            self.server.add_task(self)
        self.server.sockets.look_again(self._fileno)

    @property
    def idle(self) -> bool:
        """True if no HTTP request is being received, served or answered on this connection."""
        return not (self.requests or self.request is not None or self.total_outbufs_len or self.lingers_until_s)


class StrictServer(TcpWSGIServer):  # type: ignore[misc]
    """A waitress server of one listening socket, which enforces the deadlines of its connections."""

    channel_class = StrictChannel
    draining = False
    # The identifier of the reading thread, which runs the poll loop.
    reader: int | None = None

    def __init__(
        self,
        application: WSGIApplication,
        sockets: Sockets,
        *args: Any,
        deadline_s: float,
        refusal_headers: Callable[[], list[tuple[str, str]]],
        unsent: Unsent,
        unfinished: Unfinished,
        **kwargs: Any,
    ) -> None:
        self.unsent = unsent
        self.unfinished = unfinished
        # When connections with unfinished input or unsent answers were looked at last.
        self._looked_s = 0.0
        self.deadline_s = deadline_s
        self.refusal_headers = refusal_headers
        self.sockets = sockets
        super().__init__(application, sockets, *args, **kwargs)

    def wake(self) -> None:
        """Wake the HTTP server's poll loop. Any thread may call it."""
        raise NotImplementedError

    def answered(self, channel: StrictChannel, request: StrictParser, status: int) -> None:
        """Measure the answer to ``request``, with the HTTP status ``status``, that was handed to the connection ``channel``."""
        raise NotImplementedError

    def end_overdue(self) -> None:
        """If memory budgets are exceeded, end HTTP connections whose clients take no answers or do not end their requests."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        if self.unfinished.crowded:
            self._end_unfinished(now_s)
        if self.unsent.bytes > self.unsent.bytes_max:
            for channel in self.unsent.overdue(list(self.active_channels.values()), now_s):
                before = channel.unsent_bytes
                # This node itself may have been slow.
                channel.handle_write()
                self.sockets.look_again(channel._fileno)
                if 0 < before == channel.unsent_bytes:
                    self.unsent.ended += 1
                    channel.handle_close()

    def _end_unfinished(self, now_s: float) -> None:
        channels = [channel for channel in self.active_channels.values() if channel.request is not None]
        for channel in self.unfinished.overdue(channels, now_s):
            # A connection that waits is not read, and this node itself may have been slow: something may have come.
            if self.unfinished.has_stayed(channel, now_s) or not has_input(channel.socket.fileno()):
                self.unfinished.ended += 1
                channel.time_out_request()
        for channel in channels:
            # The poll loop does not look at those who wait.
            if channel.waits and has_ended(channel.socket.fileno()):
                self.unfinished.hasten(channel)

    def maintenance(self, now: float) -> None:
        """Enforce the deadlines of all HTTP connections; when there are too many connections, also close idle ones.

        waitress calls it every ``cleanup_interval`` seconds. now: the time by waitress' clock.
        """
        super().maintenance(now)
        now_s = time.monotonic()
        full = self.in_connection_overflow
        for channel in list(self.active_channels.values()):
            channel.enforce(now_s, now, self.deadline_s)
            if full and channel.idle and now - channel.last_activity > _IDLE_WHEN_FULL_S:
                channel.will_close = True
        self.sockets.look_at_all()
