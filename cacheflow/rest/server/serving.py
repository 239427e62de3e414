"""HttpServer: waitress with settings for a cache, in a thread of its own.

waitress reads requests whole in one thread and hands them to a pool. So a slow client costs a descriptor, never a
thread, until its request is complete. Short requests are served by the reading thread itself (reading_thread.py).
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from cacheflow.errors import HTTPS_ONLY, ConfigError
from cacheflow.net.unfinished import Unfinished
from cacheflow.net.unsent import LOOK_EVERY_S, Unsent, bound_unsent
from cacheflow.rest.problems import PROBLEM_TYPE, problem_bytes
from cacheflow.rest.server.doors import Doors
from cacheflow.rest.server.files import Uploads
from cacheflow.rest.server.lanes import TwoLanes
from cacheflow.rest.server.reading_thread import Note, ReadingServer, Secure
from cacheflow.rest.server.sockets import Sockets

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger("cacheflow.rest")

# The most HTTP connections: each costs a descriptor and some kilobytes. waitress' 100 is used up by one busy client pool,
# and by a hundred idle connections of anybody.
CONNECTIONS_MAX = 4096
# Descriptors left for the journal, the snapshots, the peers and the wire ports, and for temporary files, to which bodies
# over 512 KiB go.
_DESCRIPTORS_KEPT = 256
_QUEUE_WARNING_INTERVAL_S = 60.0
# More waiting requests than this are worth a warning: a few wait whenever a burst comes in.
DEPTH_WORTH_A_LINE = 100
_LOOP_INTERVAL_S = 1
# The whole answer to a client that speaks plain HTTP where HTTPS is spoken.
_TLS_ONLY_BODY = problem_bytes(HTTPS_ONLY, "Bad Request", 400, "this port speaks HTTPS only: ask for https://")
TLS_ONLY = (
    f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(_TLS_ONLY_BODY)}\r\nConnection: close\r\n"
    f"{PROBLEM_TYPE[0]}: {PROBLEM_TYPE[1]}\r\n\r\n"
).encode() + _TLS_ONLY_BODY
# Seconds for which a server that stops still answers idle clients, which may have sent before they could know.
_GRACE_S = 0.2


class HttpServer:
    """The HTTP server of one WSGI application. Raises ConfigError when it cannot listen.

    port: 0 lets the system choose; the attribute ``port`` is the real one.  threads: requests served at the same time.
    body_bytes_max: a request with a larger body is refused before the application sees it.
    request_deadline_s: seconds that a request may take to arrive, and that a client may leave an answer untaken.
    refusal_headers: returns headers for answers to requests that are refused before the application sees them.
    turn_away: given a method and a path, returns the whole response that refuses the request, or None to serve it.
    taken_over_max: the most connections that the application takes over, beside the ``connections_max`` that are served here.
    doors: says which browsers' requests are let in.
    unsent, unfinished: the memory budgets, shared by all fronts, of answers not taken yet and of requests not complete yet.
    at_once: given a path and a body's length, returns whether the request is short and never blocks: it gets no thread then.
    secure: shakes hands with a client in another thread, where clients speak TLS; None for plain HTTP.
    uploads: which requests' bodies are written into files; None: no bodies are.
    note: is told of each answer, as ``Note`` says.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        *,
        threads: int = 40,
        body_bytes_max: int = 16 * 1024 * 1024,
        request_deadline_s: float = 30.0,
        connections_max: int = CONNECTIONS_MAX,
        taken_over_max: int = 0,
        refusal_headers: Callable[[], list[tuple[str, str]]] = list,
        turn_away: Callable[[str, str], bytes | None] = lambda *_: None,
        at_once: Callable[[str, int], bool] = lambda *_: False,
        doors: Doors | None = None,
        unsent: Unsent | None = None,
        unfinished: Unfinished | None = None,
        secure: Secure | None = None,
        uploads: Uploads | None = None,
        note: Note = lambda *_: None,
    ) -> None:
        sockets = _listen(host, port)
        self.host = host
        self.port: int = sockets[0].getsockname()[1]
        settings = Adjustments(
            sockets=sockets,
            threads=threads,
            connection_limit=_connections_within_limits(connections_max, taken_over_max),
            # Seconds of nothing at all on a connection. Longer than the pauses of client pools, which keep theirs
            # for a minute or less, so that it is rarely the server who closes on a request under way.
            channel_timeout=120,
            # Seconds between two looks at the deadlines of requests.
            cleanup_interval=1,
            # A key of 1 KiB takes 3 KiB when percent-encoded; the rest is for cookies and proxies. Default: 256 KiB.
            max_request_header_size=16 * 1024,
            # waitress refuses a body of exactly this many bytes.
            max_request_body_size=body_bytes_max + 1,
            # Read the next request only when the last is answered: pipelining must not pile up work.
            channel_request_lookahead=0,
            # One turn of the loop for 64 KiB of body instead of 8.
            recv_bytes=64 * 1024,
            # A client needs no name of the server, and must see no traceback.
            ident=None,
            url_scheme="http" if secure is None else "https",
            expose_tracebacks=False,
            # Clients that leave are everyday life.
            log_socket_errors=False,
            # Nothing here reads X-Forwarded-*; removing them would cost every request.
            clear_untrusted_proxy_headers=False,
            # send_bytes stays at its 1: an answer is one write (see OneWriteTask), sent by the thread that made it.
        )
        # The parser of a request is handed these settings alone.
        self._settings = settings
        settings.doors = doors or Doors()
        settings.uploads = uploads
        self._unsent = Unsent() if unsent is None else unsent
        self._unfinished = Unfinished() if unfinished is None else unfinished
        self._sockets = Sockets()
        self._dispatcher = ThreadedTaskDispatcher()
        self._dispatcher.queue = TwoLanes()
        self._dispatcher.queue_logger = _QueueWarning()
        self._servers = [
            ReadingServer(
                app,
                self._sockets,
                False,
                listening,
                dispatcher=self._dispatcher,
                adj=settings,
                sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
                bind_socket=False,
                deadline_s=request_deadline_s,
                refusal_headers=refusal_headers,
                turn_away=turn_away,
                at_once=at_once,
                unsent=self._unsent,
                unfinished=self._unfinished,
                secure=secure,
                note=note,
            )
            for listening in sockets
        ]
        self._threads = threads
        self._draining_until_s: float | None = None  # written by stop()
        self._stop_lock = threading.Lock()  # has one of its callers begin the end
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def limit_bodies(self, bytes_max: int) -> None:
        """Refuse requests from now on whose bodies have more than ``bytes_max`` bytes. Any thread may call it."""
        # waitress refuses a body of exactly this many bytes.
        self._settings.max_request_body_size = bytes_max + 1

    def start(self) -> None:
        """Start the HTTP server's threads and accept connections."""
        self._dispatcher.set_thread_count(self._threads)
        for server in self._servers:
            server.accept_connections()
        self._thread.start()

    def stop(self, drain_s: float = 10.0) -> None:
        """Stop the HTTP server: accept no more connections, let running requests end within ``drain_s`` seconds, and close.

        Returns when all is closed. Another call may shorten the time that running requests have.
        """
        until_s = time.monotonic() + drain_s
        with self._stop_lock:
            if self._draining_until_s is not None:
                self._draining_until_s = min(self._draining_until_s, until_s)
            else:
                self._draining_until_s = until_s
                if self._thread.ident is None:
                    self._close_all()
                else:
                    self._servers[0].pull_trigger()
                self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> HttpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        for server in self._servers:
            server.reader = threading.get_ident()
        while self._draining_until_s is None:
            self._turn(_LOOP_INTERVAL_S)
        for server in self._servers:
            # Only the socket: the object still does the housekeeping, and its trigger wakes the loop.
            server.accepting = False
            server.draining = True
            server.del_channel()
            server.socket.close()
        # A request that a client sent before it could know is still answered.
        closing_s = time.monotonic() + _GRACE_S
        while self._channels() and time.monotonic() < self._draining_until_s:
            for channel in self._channels():
                if channel.idle and time.monotonic() > closing_s:
                    channel.will_close = True
            for server in self._servers:
                server.maintenance(time.time())
            self._turn(0.05)
        self._close()

    def _turn(self, timeout_s: float) -> None:
        try:
            if self._unsent.bytes > self._unsent.bytes_max or self._unfinished.crowded:
                timeout_s = min(timeout_s, LOOK_EVERY_S)
            for server in self._servers:
                if server.short or server.health or server.long or server.watches:
                    timeout_s = min(timeout_s, server.due_in_s())
            self._sockets.poll(timeout_s)
            for server in self._servers:
                server.end_turn()
                if self._unsent.bytes > self._unsent.bytes_max or self._unfinished.crowded:
                    server.end_overdue()
        except Exception:
            # One broken connection must not end the service for all.
            logger.exception("the HTTP loop stumbled")

    def _channels(self) -> list[Any]:
        return [channel for server in self._servers for channel in server.active_channels.values()]

    def _close_all(self) -> None:
        wasyncore.close_all(self._sockets)
        self._sockets.close()

    def _close(self) -> None:
        for server in self._servers:
            server.end_turns()
        self._woken.wait()  # stop() writes to the trigger, whose descriptor must still be ours then
        unfinished = self._channels()
        if unfinished:
            logger.warning("%d HTTP connections were cut: their requests did not end in time", len(unfinished))
        for channel in unfinished:
            channel.handle_close()
        self._dispatcher.shutdown(cancel_pending=True, timeout=1)
        if self._dispatcher.threads:
            # They still hold the trigger's descriptor and will write to its number, whoever has it then.
            return
        self._close_all()


class _QueueWarning:
    """A replacement for waitress' queue logger, which would write a line for every HTTP request that waits for a thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until_s = float("-inf")

    def warning(self, _: str, depth: int) -> None:
        """Log that ``depth`` HTTP requests wait for a thread, if these are many and the last such line is at least a minute old.

        Called with the lock of waitress' dispatcher held.
        """
        now_s = self._clock()
        if now_s >= self._quiet_until_s and depth > DEPTH_WORTH_A_LINE:
            self._quiet_until_s = now_s + _QUEUE_WARNING_INTERVAL_S
            logger.warning("all HTTP threads are busy: %d requests wait (said once a minute)", depth)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets, one for each address of ``host``, all on ``port`` (0: on one free port).

    Raises ConfigError when that is not possible.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"host = {host!r}: cannot be resolved ({error.strerror}); give an address") from None
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            # The socket listens at once: two sockets may be bound to one port as long as neither listens.
            listening = socket.create_server((address[0], port, *address[2:]), family=family, backlog=1024)
        except OSError as error:
            refused = error
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # a name such as localhost may have an IPv6 address that this machine does not
            break
        bound_unsent(listening)
        sockets.append(listening)
        port = listening.getsockname()[1]
    else:
        if sockets:
            return sockets
    for listening in sockets:
        listening.close()
    raise ConfigError(_cannot_listen(host, port, refused))


def _cannot_listen(host: str, port: int, error: OSError | None) -> str:
    reason = error.errno if error is not None else None
    if reason == errno.EADDRINUSE:
        return f"port = {port}: another process listens on {host}:{port}; stop it or give another --port"
    if reason == errno.EACCES:
        return f"port = {port}: this user may not listen on ports below 1024; give another --port"
    if reason in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"host = {host!r}: no address of this machine; give one of its own as --host, or 0.0.0.0 for all"
    return f"host = {host!r}, port = {port}: cannot listen ({os.strerror(reason) if reason else 'no address'})"


def _connections_within_limits(wanted: int, taken_over: int) -> int:
    """Return how many connections, ``wanted`` at most, this process has file descriptors for.

    Raise the process's own limit of descriptors as far as the system allows, so that there are some for connections that the
    application has taken over, too, ``taken_over`` at most. With more connections than descriptors no file could be opened.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + taken_over + _DESCRIPTORS_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(16, min(wanted, soft - _DESCRIPTORS_KEPT))
