"""Listener: one listening port, for peers or for the clients of a wire protocol.

asyncio's own server, when descriptors run out, logs and sets a timer a hundred times for one failed accept, and
cannot be asked whether it listens. This one pauses, says so once, and goes on as soon as there are descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from cacheflow.errors import ConfigError
from cacheflow.net.unsent import bound_unsent

logger = logging.getLogger(__name__)

# Connections that may wait in the kernel to be accepted: with less, of 500 that come at once many would try again a second later.
_BACKLOG: Final = 1024
# The most connections that one turn of the loop accepts, and the seconds after which it accepts no more of them: half a
# millisecond's work, for which those wait who are served. Another thread that works may take the interpreter at each accept.
_ACCEPTED_AT_ONCE: Final = 16
_ACCEPTING_S: Final = 0.0005
# The pause between two tries to accept when there are no descriptors or no memory.
_PAUSE_S: Final = 0.1
# The errors of an accept for which there are no descriptors or no memory.
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """A listening TCP socket that gives each accepted connection an asyncio protocol, which ``factory`` makes.

    Not safe for concurrent use: the event loop owns it.
    name: the port's name in its option: ``raft`` for --raft-port.
    adopt: where it is given, a function that is called with each accepted socket instead of ``factory``, and serves the
    socket; raises OSError for a broken socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        name: str,
        adopt: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._name = name
        self._adopt = adopt
        self._socket: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._welcomes: set[asyncio.Task[None]] = set()

    @property
    def healthy(self) -> bool:
        """True while this listener accepts connections; False if it is not open or the process has no free descriptors."""
        return self._socket is not None and self._retry is None

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) to which the listener is bound, with the real port where the system was to choose one.

        Raises RuntimeError when the listener is not open.
        """
        if self._socket is None:
            raise RuntimeError("the listener is not open")
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def open(self, host: str, port: int) -> None:
        """Bind a socket to ``host`` and ``port`` and listen; port 0 lets the system choose a free port.

        Raises ConfigError, with advice for the user, when the socket cannot be bound.
        """
        sock: socket.socket | None = None
        try:
            # One address, IPv4 first: a name with two would get two ports when the system chooses.
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            # A restarted node gets its port back although old connections still linger in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            bound_unsent(sock)
            sock.listen(_BACKLOG)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise ConfigError(_advice(self._name, host, port, error)) from None
        self._socket = sock
        self._loop.add_reader(sock, self._accept)

    async def close(self) -> None:
        """Close the listening socket; connections that were accepted before stay open."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for task in list(self._welcomes):
            task.cancel()
        await asyncio.gather(*self._welcomes, return_exceptions=True)

    def _accept(self) -> None:
        assert self._socket is not None
        until_s = time.monotonic() + _ACCEPTING_S
        for accepted in range(_ACCEPTED_AT_ONCE):
            if accepted and time.monotonic() >= until_s:
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # that one connection died before it was accepted
            sock.setblocking(False)
            if self._adopt is not None:
                try:
                    self._adopt(sock)
                except OSError as error:
                    logger.debug("an accepted connection could not be used: %s", error)
                continue
            task = self._loop.create_task(self._welcome(sock))
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError as error:
            sock.close()
            logger.debug("an accepted connection could not be used: %s", error)
        except asyncio.CancelledError:
            sock.close()
            raise

    def _pause(self, error: OSError) -> None:
        # The kernel keeps reporting the waiting connection: without a pause this would take all of the CPU.
        assert self._socket is not None
        logger.error(
            "nobody can connect to the %s port for the moment: %s; raise the limit (ulimit -n)",
            self._name,
            error.strerror,
        )
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._accept)
            self._accept()


def _advice(name: str, host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{name} port {port} on {host} is taken: another node or program listens there; "
            f"stop it, or choose another port with --{name}-port"
        )
    if error.errno == errno.EACCES:
        return f"{name} port {port} on {host}: not allowed; choose a port above 1023 with --{name}-port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"host = {host!r}: not an address of this machine ({error.strerror}); choose another with --host"
    return f"{name} port {port} on {host}: cannot listen ({error.strerror or error})"
