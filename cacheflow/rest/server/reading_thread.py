"""What waitress' reading thread does by itself, and how requests are put aside.

A hand-over to a thread costs more than most requests here: two thread switches each way, in an interpreter that runs one
thread at a time anyway. So the thread that reads requests also

1. serves the short ones (``at_once``), unless the connection has not taken its last answer yet;
2. goes on with requests that were put aside (see suspending.py), all those of a turn after one wake-up;
3. turns away what could only be refused (``turn_away``), for a twentieth of what a refusal by the application costs.

It never waits for a client: what does not fit into a socket is left to the poll loop.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from cacheflow.rest.server.strict_http import OneWriteTask, StrictChannel, StrictServer
from cacheflow.rest.server.suspending import SUSPENDS, Suspended

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("cacheflow.rest")

_RESUMED: Final = "cacheflow.resumed"


class ReadingChannel(StrictChannel):
    """One client's connection, whose requests may be put aside."""

    _task: Any = None
    # True if the next ``service`` goes on with the request that was put aside.
    resumes = False

    def task_class(self, channel: StrictChannel, request: Any) -> Any:
        """Return the task of a request. waitress asks whenever it begins with one, and when it goes on with one."""
        if not self.resumes:
            self._task = OneWriteTask(channel, request)
        self.resumes = False
        return self._task

    def service(self) -> None:
        try:
            super().service()
        except Suspended as suspended:
            suspended.begin(self._resume)

    def _resume(self, application: WSGIApplication) -> Callable[[], None]:
        self._task.environ[_RESUMED] = application
        return self.server.resume(self)  # type: ignore[no-any-return]

    def answer_at_once(self, answer: bytes) -> None:
        """Send a whole answer to the request that just came in. Called with requests_lock held."""
        request = self.requests.pop(0)
        self.write_soon(answer)
        if request.connection_close:
            self.close_when_flushed = True
        request.close()

    def _flush_outbufs_below_high_watermark(self) -> None:
        # This waits until the client has taken what is there: any thread may, but for the reading thread, which has to send it.
        if threading.get_ident() != self.server.reader:
            super()._flush_outbufs_below_high_watermark()


class ReadingServer(StrictServer):
    """One listening socket, whose reading thread serves short requests itself.

    turn_away: given a method, a whole answer, or None.  at_once: given path and body bytes, whether a request is short work
    that never blocks.
    """

    channel_class = ReadingChannel

    def __init__(
        self,
        application: WSGIApplication,
        *args: Any,
        turn_away: Callable[[str], bytes | None],
        at_once: Callable[[str, int], bool],
        **kwargs: Any,
    ) -> None:
        self._turn_away = turn_away
        self._at_once = at_once
        # The identifier of the reading thread.
        self.reader: int | None = None
        # Short requests that came in and are served at the end of this turn of the poll loop, or of the next.
        self.short: deque[ReadingChannel] = deque()
        self._resumed: deque[ReadingChannel] = deque()
        self._woken = False
        self._closed = False
        self._wake_lock = threading.Lock()  # guards the trigger's descriptor against its end

        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ[SUSPENDS] = True
            return environ.pop(_RESUMED, application)(environ, start_response)  # type: ignore[no-any-return]

        super().__init__(serve, *args, **kwargs)

    def add_task(self, channel: ReadingChannel) -> None:
        """Serve the channel's next request: refuse it at once, or leave it to the reading thread or to a thread of the pool."""
        request = channel.requests[0]
        if request.error is None and not self.draining:
            answer = self._turn_away(request.command)
            if answer is not None:
                channel.answer_at_once(answer)
                return
        self._place(channel)

    def _place(self, channel: ReadingChannel) -> None:
        request = channel.requests[0]
        body_bytes = len(request.body_rcv) if request.body_rcv is not None else 0
        if (
            threading.get_ident() == self.reader
            and not channel.total_outbufs_len
            and (request.error is not None or self._at_once(request.path, body_bytes))
        ):
            self.short.append(channel)
        else:
            super().add_task(channel)

    def resume(self, channel: ReadingChannel) -> Callable[[], None]:
        """Go on with a request that was put aside, after the call that this returns. Any thread."""
        self._resumed.append(channel)
        return self.wake

    def wake(self) -> None:
        """Wake the reading thread. Any thread."""
        if self._woken:
            return
        self._woken = True
        with self._wake_lock:
            if not self._closed:
                self.trigger.pull_trigger()

    def pull_trigger(self) -> None:
        """Wake the poll loop, as waitress does after each request; in the reading thread it is awake."""
        if threading.get_ident() != self.reader:
            super().pull_trigger()

    def end_turns(self) -> None:
        """Let no request that was put aside wake the reading thread any more."""
        with self._wake_lock:
            self._closed = True

    def end_turn(self) -> None:
        """Serve what this turn of the poll loop has brought: answers first, for they make room."""
        self._woken = False
        while self._resumed:
            channel = self._resumed.popleft()
            channel.resumes = True
            if channel.requests:
                self._place(channel)
        for _ in range(len(self.short)):
            channel = self.short.popleft()
            try:
                channel.service()
            except Exception:
                # One broken connection must not end the service for all.
                logger.exception("a request stumbled")
                channel.handle_close()
