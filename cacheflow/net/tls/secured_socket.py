"""SecuredSocket: a connected socket and its TLS session, with the calls of a non-blocking socket for plaintext.

The HTTP server's reading thread and its workers use it as the socket that it stands for: hands are shaken already, so no call
waits, and none is long.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
from typing import Any, Final

from cacheflow.net.tls.session import RECORD_BYTES, Session
from cacheflow.net.tls.trust import told

# Bytes that are read from the socket at once: four records.
_RECEIVE_BYTES: Final = 64 * 1024


class SecuredSocket:
    """A non-blocking socket whose bytes travel encrypted. Any thread may use it.

    ``recv`` raises BlockingIOError until a whole TLS record has come, and ``send`` while the system does not take a record;
    ``send`` must then be called again with the same bytes, or more. ``recv`` returns all that has come, so that a poll of the
    socket misses no input, except what came right behind the handshake (``early`` tells of that).
    """

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self._socket = sock
        self._session = session
        # OpenSSL's objects are for one thread at a time.
        self._lock = threading.Lock()
        # Of the record that the system has taken in part: what is left of it, and the length of its plaintext.
        self._unsent = b""
        self._unsent_plain = 0

    @property
    def early(self) -> bool:
        """True if the other side has sent something right behind its TLS handshake that ``recv`` has not returned yet."""
        return bool(self._session.early) or self._session.ended

    def recv(self, size: int) -> bytes:
        """Return plaintext received on this socket, perhaps more than ``size`` bytes; b"" if the other side sends no more."""
        with self._lock:
            session = self._session
            plain, session.early = session.early, b""
            if plain:
                self._show_end()
                return plain
            if session.ended:
                return b""
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                return b""
            try:
                plain = session.decrypt(data)
            except ssl.SSLError as error:
                raise ConnectionResetError(errno.ECONNRESET, told(error)) from None
            if session.has_output:
                # Answers to key updates, which are few, go before the next record, and behind one that is on its way.
                self._unsent += session.output()
            if plain or session.ended:
                self._show_end()
                return plain
            raise BlockingIOError(errno.EWOULDBLOCK, "a part of a record")

    def _show_end(self) -> None:
        """Make this socket readable for whoever polls it, if the other side has said in TLS that it sends no more.

        Otherwise the poll might wait forever: the other side's message may have come together with the last plaintext, so that
        nothing is left to read.
        """
        if self._session.ended:
            with contextlib.suppress(OSError):  # it is over for the system, too
                self._socket.shutdown(socket.SHUT_RD)

    def send(self, data: bytes | memoryview) -> int:
        """Send as much of ``data`` as the system takes, as TLS records, and return how many bytes of ``data`` were sent."""
        # All at once: waitress copies megabytes for each call, which a call for each record would make seven times as dear.
        view, sent = memoryview(data), 0
        if not view:
            return 0
        with self._lock:
            while True:
                if not self._unsent_plain:
                    piece = view[sent : sent + RECORD_BYTES]
                    try:
                        self._unsent += self._session.encrypt(piece)
                    except ssl.SSLError as error:
                        raise ConnectionResetError(errno.ECONNRESET, told(error)) from None
                    self._unsent_plain = len(piece)
                try:
                    self._flush()
                except BlockingIOError:
                    if sent:
                        return sent
                    raise
                sent += self._unsent_plain
                self._unsent_plain = 0
                if sent >= len(view):
                    return sent

    def _flush(self) -> None:
        """Send the waiting encrypted bytes of this socket. Raises BlockingIOError if the system does not take all."""
        self._unsent = self._unsent[self._socket.send(self._unsent) :]
        if self._unsent:
            raise BlockingIOError(errno.EWOULDBLOCK, "a part of a record has left")

    def shutdown(self, how: int) -> None:
        """Tell the other side (if the system takes that now) that this side sends no more, and shut down the socket."""
        with self._lock, contextlib.suppress(OSError):
            self._unsent += self._session.farewell()
            self._flush()
        self._socket.shutdown(how)

    def close(self) -> None:
        """Tell the other side (if the system takes that now) that this side sends no more, and close the socket."""
        with self._lock, contextlib.suppress(OSError):
            self._unsent += self._session.farewell()
            self._flush()
        self._socket.close()

    def release(self) -> tuple[socket.socket, Session]:
        """Return the plain socket and the TLS session of this encrypted socket; both belong to the caller from now on.

        Raises OSError if the system does not take the bytes that TLS itself still has to send.
        """
        with self._lock:
            self._flush()
            return self._socket, self._session

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(False)

    def getsockopt(self, *arguments: Any) -> Any:
        return self._socket.getsockopt(*arguments)

    def getpeername(self) -> Any:
        return self._socket.getpeername()
