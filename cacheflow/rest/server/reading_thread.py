"""The HTTP server's reading thread: it also serves short requests, and resumes those that were put aside.

A hand-over to a thread costs more than most requests here: two thread switches each way, in an interpreter that runs one
thread at a time anyway. So the thread that reads requests also

1. serves the short ones (``at_once``), the node's health before all others, so that it is told whatever clients do;
2. goes on with requests that were put aside (see suspending.py), all those of a turn after one wake-up, but only one a turn
   of those that are answered at length, or begin a watch: nobody's short request stands behind a row of them;
3. turns away what could only be refused (``turn_away``), for a twentieth of what a refusal by the application costs.

It never waits for a client: what does not fit into a socket is left to the poll loop, and nobody is served who has not taken his
last answer. Nor does it serve short requests for longer than SERVING_S in a row.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from cacheflow.rest.server import access_log
from cacheflow.rest.server.request_ids import HEADER
from cacheflow.rest.server.strict_http import OneWriteTask, StrictChannel, StrictParser, StrictServer
from cacheflow.rest.server.suspending import SUSPENDS, Suspended, TakenOver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("cacheflow.rest")

_RESUMED: Final = "cacheflow.resumed"
# What tells a node's health: served first.
HEALTH: Final = frozenset(("/livez", "/readyz", "/metrics"))
# What begins one a turn, as long answers do, however short it is: when a node ends, a thousand watches come to another at once.
WATCH: Final = "/watch"
# Seconds for which short requests are served before the reading thread looks at its sockets again.
SERVING_S: Final = 0.01
# Seconds for which other threads are given way behind a long answer, if another one waits: the least, the most, and how many
# times as long as this thread was kept from working. While it works the node's loop may wait at each of its system calls until
# this thread makes one, or for the interpreter's 5 ms; that two want to work at once shows in both of them waiting.
_GIVEN_WAY_S_MIN: Final = 0.002
_GIVEN_WAY_S_MAX: Final = 0.02
_GIVEN_WAY: Final = 5
# The most connections that one turn of the poll loop accepts.
_ACCEPTED_AT_ONCE: Final = 64
# Seconds without another try when the system cannot accept a client, most often for lack of file descriptors.
_ACCEPTED_AGAIN_S: Final = 1.0


class SecuredSocket(Protocol):
    """Interface: the socket of a client that speaks TLS; plaintext goes in and comes out, by the methods of any socket."""

    @property
    def early(self) -> bool:
        """True if input of this TLS client is decrypted already, so that it can be read although no poll tells of it."""

    def close(self) -> None: ...


# Shakes hands on an accepted socket in a thread of its own, and calls the function there with what came of it.
Secure = Callable[[socket.socket, Callable[[SecuredSocket], None]], None]
# Is told of each answer: method, path, status, seconds, the client's address as the system names it, the request's id.
Note = Callable[[str, str, int, float, Any, str], None]


class ReadingTask(OneWriteTask):
    """A waitress task, which answers one HTTP request.

    The connection (waitress' channel) refers to this task only while the request is put aside: the task refers to the
    connection, too, and two objects that refer to each other stay until the garbage collector comes.
    """

    def service(self) -> None:
        # As waitress' own, without another call on the way.
        try:
            self.start()
            self.execute()
            self.finish()
            channel = self.channel
            if not channel.total_outbufs_len and channel.outbufs[0].buf is not None:
                channel.drop_what_was_sent()
            status = int(self.status[:3])
            channel.server.answered(channel, self.request, status)
            if access_log.is_on():
                size = self.content_bytes_written or (self.content_length if self.request.command != "HEAD" else 0) or 0
                access_log.note(channel, self.request, status, size, self.environ)
        except Suspended:
            self.channel.put_aside = self
            raise
        except TakenOver as taken:
            taken.environ = self.environ
            raise
        except OSError:
            self.close_on_finish = True
            if self.channel.adj.log_socket_errors:
                raise


class ReadingChannel(StrictChannel):
    """One HTTP client's connection; a request on it may be put aside while it waits for the cluster (see suspending.py)."""

    # waitress' own; named here for the type checker.
    socket: Any

    # The task of the request that is put aside; None while none is.
    put_aside: ReadingTask | None = None
    # True if the next ``service`` goes on with the request that was put aside.
    resumes = False
    # The reading thread's queue in which the present request waits for its turn, also when it goes on; None if it is another
    # thread's work.
    line: deque[ReadingChannel] | None = None

    def task_class(self, channel: StrictChannel, request: Any) -> Any:
        """Return the waitress task that answers ``request``: a new one, or the earlier one if this request was put aside."""
        if not self.resumes:
            return ReadingTask(channel, request)
        self.resumes = False
        task, self.put_aside = self.put_aside, None
        return task

    def service(self) -> None:
        try:
            super().service()
        except Suspended as suspended:
            suspended.begin(self._resume_in_turn if suspended.in_turn else self._resume)
        except TakenOver as taken:
            self.server.hand_over(self, taken)

    def _resume_in_turn(self, application: WSGIApplication) -> Callable[[], None]:
        assert self.put_aside is not None
        self.put_aside.environ[_RESUMED] = application
        return self._go_on_in_turn

    def _go_on_in_turn(self) -> None:
        self.resumes = True
        self.server.long.append(self)
        self.server.pull_trigger()

    def _resume(self, application: WSGIApplication) -> Callable[[], None]:
        assert self.put_aside is not None
        self.put_aside.environ[_RESUMED] = application
        return functools.partial(self.server.resume, self)

    def let_go(self, taken: TakenOver) -> None:
        """Give this client's socket to the application, which takes it over; do nothing if the client has gone.

        taken: the exception by which the application has asked for the socket.

        Called in the reading thread. What the client has sent behind its request is not read any more.
        """
        sock = self.socket
        if not self.connected or sock is None or not self.requests:
            return
        request = self.requests[0]
        headers = [(HEADER, request.id), *request.adj.doors.answer_headers(request.headers, request.command)]
        self.socket = None
        self.handle_close()

        def answered(status: int, body_bytes: int) -> None:
            self.server.answered(self, request, status)
            if access_log.is_on():
                access_log.note(self, request, status, body_bytes, taken.environ)

        taken.begin(sock, headers, answered)

    def answer_at_once(self, answer: bytes, status: int) -> None:
        """Send ``answer``, a whole HTTP response with this ``status``, to the oldest unanswered request of this connection.

        Called with waitress' requests_lock held.
        """
        request = self.requests.pop(0)
        self.write_soon(answer.replace(b"\r\n", f"\r\n{HEADER}: {request.id}\r\n".encode(), 1))
        if access_log.is_on():
            access_log.note(self, request, int(answer[9:12]), len(answer.partition(b"\r\n\r\n")[2]))
        if self.total_outbufs_len:
            self.tell_unsent()
        self.server.answered(self, request, status)
        if request.connection_close:
            self.close_when_flushed = True
        request.close()


class ReadingServer(StrictServer):
    """A waitress server of one listening socket, whose reading thread serves short requests itself.

    turn_away: given a request's method and path, returns the whole response (503) that refuses the request, or None to serve it.
    note: is given, for each answer, the request's method and path, the status, the seconds that it took, the client's address,
    and the request's id.
    at_once: given a request's path and the length of its body, returns whether it is short work that never blocks.
    secure: shakes hands with a client in another thread, where clients speak TLS; None for plain HTTP.
    """

    channel_class = ReadingChannel

    def __init__(
        self,
        application: WSGIApplication,
        *args: Any,
        turn_away: Callable[[str, str], bytes | None],
        at_once: Callable[[str, int], bool],
        secure: Secure | None,
        note: Note,
        **kwargs: Any,
    ) -> None:
        self._turn_away = turn_away
        self._at_once = at_once
        self._secure = secure
        self._note = note
        # Clients whose hands were shaken, with their addresses, and who have no channel yet.
        self._secured: deque[tuple[SecuredSocket, Any]] = deque()
        # Requests for the node's health, and other short ones, served at the end of this turn of the poll loop or of a later one.
        self.health: deque[ReadingChannel] = deque()
        self.short: deque[ReadingChannel] = deque()
        # Requests that are served one a turn: those that are to be answered at length, and those for watches, in turns; and when
        # the next one may be (by the monotonic clock).
        self.long: deque[ReadingChannel] = deque()
        self.watches: deque[ReadingChannel] = deque()
        self._lines = deque((self.long, self.watches))
        self._long_from_s = 0.0
        self._resumed: deque[ReadingChannel] = deque()
        # Connections that somebody else has from now on.
        self._taken: deque[tuple[ReadingChannel, TakenOver]] = deque()
        self._woken = False
        self._closed = False
        self._wake_lock = threading.Lock()  # guards the trigger's descriptor against its end

        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ[SUSPENDS] = True
            return environ.pop(_RESUMED, application)(environ, start_response)  # type: ignore[no-any-return]

        super().__init__(serve, *args, **kwargs)

    def _accept_later(self) -> None:
        """Have the poll loop not tell of clients that wait to be accepted, for _ACCEPTED_AGAIN_S seconds."""
        until_s = time.monotonic() + _ACCEPTED_AGAIN_S

        def readable() -> bool:
            if time.monotonic() < until_s:
                return False
            del self.readable
            return bool(self.readable())

        # In place of the method, which each poll calls: nobody pays for a look at the clock while all is well.
        self.readable = readable

    def handle_accept(self) -> None:
        """Accept the clients that wait; where clients speak TLS, another thread makes the handshake and hands them back.

        waitress accepts only one client in each turn of its poll loop: behind 500 that come at once a health check would wait
        for 500 turns.
        """
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted = self.accept()
                if accepted is None:
                    return
                self.set_socket_options(accepted[0])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    # Whoever waits goes on waiting, and would be told of in each poll.
                    logger.warning(
                        "no new HTTP connection is accepted for a second: %s; too many files need a higher limit (ulimit -n)",
                        error.strerror,
                    )
                    self._accept_later()
                return
            if self._secure is None:
                self.channel_class(self, *accepted, self.adj, map=self._map)
            else:
                self._secure(accepted[0], functools.partial(self._shaken, accepted[1]))
            if len(self._map) >= self.adj.connection_limit:
                return

    def _shaken(self, address: Any, secured: SecuredSocket) -> None:
        self._secured.append((secured, address))
        self.wake()

    def add_task(self, channel: ReadingChannel) -> None:
        """Refuse the next HTTP request of the connection ``channel`` if too many wait already; otherwise queue the connection.

        Short requests are served by the reading thread, which has a queue of its own, and all others by the thread pool.
        """
        if channel.total_outbufs_len:
            # ``handle_write`` comes back here.
            channel.held = True
            return
        request = channel.requests[0]
        request.arrived_s = time.monotonic()
        # (A browser would not show its page an answer that is made without looking at the request.)
        if request.error is None and not self.draining and "ORIGIN" not in request.headers:
            answer = self._turn_away(request.command, request.path)
            if answer is not None:
                channel.answer_at_once(answer, 503)
                return
        self._place(channel)

    def _place(self, channel: ReadingChannel) -> None:
        request = channel.requests[0]
        body_bytes = len(request.body_rcv) if request.body_rcv is not None else 0
        channel.line = None
        if threading.get_ident() != self.reader:
            super().add_task(channel)
        elif request.path in HEALTH:
            self.health.append(channel)
        elif request.path == WATCH and request.error is None:
            channel.line = self.watches
            self.watches.append(channel)
        elif request.error is not None or self._at_once(request.path, body_bytes):
            channel.line = self.short
            self.short.append(channel)
        else:
            super().add_task(channel)

    def resume(self, channel: ReadingChannel) -> None:
        """Have the reading thread go on with the request of the connection ``channel``, which was put aside.

        Any thread may call it.
        """
        self._resumed.append(channel)
        self.wake()

    def hand_over(self, channel: ReadingChannel, taken: TakenOver) -> None:
        """Have the reading thread give the socket of the connection ``channel`` to the application, which takes it over.

        taken: the exception by which the application has asked for the socket. Any thread may call it.
        """
        self._taken.append((channel, taken))
        self.wake()

    def answered(self, channel: StrictChannel, request: StrictParser, status: int) -> None:
        seconds = time.monotonic() - request.arrived_s
        self._note(request.command, request.path, status, seconds, channel.addr, request.id)

    def wake(self) -> None:
        """Wake the HTTP server's reading thread from its poll. Any thread may call it."""
        if self._woken:
            return
        self._woken = True
        with self._wake_lock:
            if not self._closed:
                self.trigger.pull_trigger()

    def pull_trigger(self) -> None:
        """Wake the HTTP server's poll loop, as waitress wants after each request.

        Do nothing when called in the reading thread, which runs that loop and so is awake.
        """
        if threading.get_ident() != self.reader:
            super().pull_trigger()

    def due_in_s(self) -> float:
        """Return for how many seconds the poll loop may wait for input before a queued HTTP request is to be served."""
        if self.short or self.health:
            return 0.0
        # Whole milliseconds, as a poll takes them: it must not end too soon, and again and again.
        return max(0.0, math.ceil((self._long_from_s - time.monotonic()) * 1000) / 1000)

    def end_turns(self) -> None:
        """Make ``wake``, which wakes the reading thread from its poll, do nothing from now on.

        Called when the HTTP server ends, before the pipe by which ``wake`` does that is closed.
        """
        with self._wake_lock:
            self._closed = True
        while self._secured:
            self._secured.popleft()[0].close()

    def end_turn(self) -> None:
        """Resume the HTTP requests that were put aside and can go on; serve queued short requests, and one with a long answer.

        Called at the end of each turn of the HTTP server's poll loop.
        """
        self._woken = False
        while self._secured:
            secured, address = self._secured.popleft()
            channel = self.channel_class(self, secured, address, self.adj, map=self._map)
            if secured.early:
                # No poll tells of what came behind the handshake.
                channel.handle_read()
        while self._taken:
            channel, taken = self._taken.popleft()
            channel.let_go(taken)
        while self._resumed:
            channel = self._resumed.popleft()
            channel.resumes = True
            if channel.line is not None and channel.requests:
                channel.line.append(channel)
            elif channel.requests:
                self._place(channel)
        began_s, worked_s = time.monotonic(), time.thread_time()
        now_s = began_s
        until_s = now_s + SERVING_S
        is_long = bool(self.long or self.watches) and now_s >= self._long_from_s
        if is_long:
            # The two in turns: neither waits for a row of the others.
            self._lines.rotate()
            line = self._lines[0] or self._lines[1]
        else:
            line = self.long
        for queue, most in ((self.health, len(self.health)), (self.short, len(self.short)), (line, is_long)):
            for _ in range(most):
                channel = queue.popleft()
                try:
                    channel.service()
                except Exception:
                    # One broken connection must not end the service for all.
                    logger.exception("a request stumbled")
                    channel.handle_close()
                now_s = time.monotonic()
                if now_s >= until_s:
                    break
        if is_long and (self.long or self.watches):
            kept_s = now_s - began_s - (time.thread_time() - worked_s)
            self._long_from_s = now_s + min(max(_GIVEN_WAY_S_MIN, _GIVEN_WAY * kept_s), _GIVEN_WAY_S_MAX)
