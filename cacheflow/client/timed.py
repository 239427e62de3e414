"""TimedConnection: http.client's connection, on which nothing outlasts a deadline: no look-up of a name, no slow answer.

1. A timeout of a socket bounds one wait; an answer that comes byte by byte is many. So each wait is as long as what is left.
2. The system's look-up of a name has no timeout: it is done in a thread that is left to itself when nobody can wait any more.
3. Several addresses of a name share the time, so that one which answers nothing leaves some to the next.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from typing import Any, Final

# Seconds to connect: a host that is switched off answers nothing at all; one on the network answers in a fraction of this.
CONNECT_TIMEOUT_S_MAX: Final = 2.0

# (family, kind, protocol, canonical name, address), as getaddrinfo returns it.
Place = tuple[Any, ...]


def left_s(deadline: float) -> float:
    """Return the seconds until ``deadline``, at least 0.001: a timeout of 0 would make the socket non-blocking."""
    return max(deadline - time.monotonic(), 0.001)


class Host:
    """The host name and port of a node. Safe for concurrent use, also after a fork.

    context: the TLS context; None for plain HTTP. Callers that look the name up at the same time share one thread for that.
    """

    def __init__(self, name: str, port: int, context: ssl.SSLContext | None) -> None:
        self.name = name
        self.port = port
        self.context = context
        # The look-up that is under way, and the process that waits for it: after a fork nobody ends the parent's.
        self._under_way: tuple[int, Future[list[Place]]] | None = None

    def places(self, deadline: float) -> list[Place]:
        """Return the host's addresses, as ``socket.getaddrinfo`` does, until ``deadline``. Raises OSError or UnicodeError."""
        try:
            # An address needs no looking up.
            return socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        under_way, pid = self._under_way, os.getpid()
        if under_way is None or under_way[0] != pid:
            under_way = self._under_way = pid, Future()
            looker = threading.Thread(target=self._look_up, args=under_way[1:], name="cacheflow-names", daemon=True)
            try:
                looker.start()
            except RuntimeError:  # the system has no thread left, or the interpreter ends
                self._look_up(under_way[1])
            except BaseException:  # Ctrl-C: nobody may wait for what has perhaps not begun
                self._under_way = None
                raise
        try:
            return under_way[1].result(left_s(deadline))
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"the name {self.name} was not found in time") from None

    def _look_up(self, found: Future[list[Place]]) -> None:
        try:
            places = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)
        except BaseException as error:
            # Whoever waits is told, whatever it is.
            self._under_way = None
            found.set_exception(error)
        else:
            self._under_way = None
            found.set_result(places)


class _Arriving(io.RawIOBase):
    """A file object that reads the bytes of one HTTP answer from ``sock``; after ``deadline`` reading raises TimeoutError."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        # Whoever closes the socket ends the connection only when this file is closed too.
        self._file = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._file.close()


class _Readable:
    """Stands for a socket whose answer must be read by a deadline; has ``makefile``, which is all that http.client calls."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Arriving(self._sock, self._deadline))


class TimedConnection(http.client.HTTPConnection):
    """An HTTP connection to ``host``. deadline: the time by which the next request must be sent and answered."""

    def __init__(self, host: Host) -> None:
        # The port that the header Host leaves out.
        self.default_port = http.client.HTTP_PORT if host.context is None else http.client.HTTPS_PORT
        super().__init__(host.name, host.port)
        self._at = host
        self.deadline = 0.0

    def connect(self) -> None:
        """Open this HTTP connection before its deadline. Raises OSError, UnicodeError."""
        places = self._at.places(self.deadline)
        until = min(self.deadline, time.monotonic() + CONNECT_TIMEOUT_S_MAX)
        for number, place in enumerate(places):
            try:
                sock = _connected(place, left_s(until) / (len(places) - number))
                break
            except OSError:
                if number == len(places) - 1:
                    raise
        else:
            raise OSError(f"the name {self._at.name} has no address")
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._at.context is not None:
            # A handshake's timeout is for all of it.
            sock.settimeout(min(left_s(self.deadline), CONNECT_TIMEOUT_S_MAX))
            self.sock = self._at.context.wrap_socket(sock, server_hostname=self._at.name)

    def send(self, data: Any) -> None:
        """Send all of ``data`` over this open connection before its deadline. Raises OSError."""
        # A timeout of sendall is for all that it sends.
        self.sock.settimeout(left_s(self.deadline))
        super().send(data)

    # A method, which the connection does not hold: in a cycle with it, it would keep the socket of a client that nobody closes.
    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *arguments: Any, **named: Any
    ) -> http.client.HTTPResponse:
        """Return an HTTPResponse that reads the last request's answer from ``sock``, until this connection's ``deadline``."""
        return http.client.HTTPResponse(_Readable(sock, self.deadline), *arguments, **named)  # type: ignore[arg-type]


def _connected(place: Place, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, address = place
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout_s)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
