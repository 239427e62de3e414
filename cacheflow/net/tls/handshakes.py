"""Handshakes: the thread in which all TLS handshakes of a node take place.

A handshake takes a fraction of a millisecond of work and some round trips, and 500 clients that come back at once would hold the
node's loop for as long as an election takes. So

1. whoever accepts a socket or has connected one hands it in here, and gets it back with a finished session;
2. a half-open connection has DEADLINE_S, and HANDSHAKE_BYTES_MAX to say; of those of one door there are HALF_OPEN_MAX at most
   (fewer where there are few descriptors), and the oldest makes room, for an honest one needs milliseconds; as many may wait
   for the thread, and who comes then is turned away: a flood may be accepted faster than hands are shaken;
3. the first byte tells TLS from everything else: nothing is kept for a connection before that byte has come;
4. what fails ends that connection, and is counted and now and then logged.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cacheflow.net.tls.certificates import LOOK_EVERY_S, Certificates
from cacheflow.net.tls.secured_socket import SecuredSocket
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.trust import told

logger = logging.getLogger(__name__)

# Seconds from a connection's first moment until hands are shaken.
DEADLINE_S: Final = 10.0
# Half-open connections of one door: as many as may wait to be accepted, because they may all be honest ones that come at once.
HALF_OPEN_MAX: Final = 1024
# Half-open connections of all ports together may take one in so many of the descriptors that this process may have.
DESCRIPTORS_FOR_ONE: Final = 4
# Bytes that one side of a handshake may send: certificates have a few kilobytes.
HANDSHAKE_BYTES_MAX: Final = 64 * 1024
# The first byte of every TLS connection (RFC 8446, 5.1: a record of a handshake). No protocol of this project begins with it.
TLS_BEGINS: Final = b"\x16"
_RECEIVE_BYTES: Final = 16 * 1024
# The alert "internal error" (RFC 8446, 6.2), fatal, by which a handshake is ended that was never begun. A connection that ends
# without a word of TLS looks like one to a port that speaks none.
_NOT_NOW: Final = b"\x15\x03\x03\x00\x02\x02\x50"
# Seconds between two lines in the log about connections that failed at one door.
_COMPLAINTS_EVERY_S: Final = 30.0

# Called in the thread of the handshakes, with a socket that is the callee's now, and its session; None for a plain connection.
Done = Callable[[socket.socket, Session | None], None]
# Called in the thread of the handshakes, with why there is no session, and whether the other side has said anything.
Failed = Callable[[Exception, bool], None]


class NotTls(ConnectionError):
    """Raised where a client speaks no TLS at a port that speaks nothing else."""


class Door:
    """A port of this node at which connections begin with TLS, and the counts of its handshakes.

    name: the port's name in metrics and in the log.  context: returns the TLS context for a connection that begins now.
    refusal: what a client is told that speaks no TLS; None if a plain connection may stay.
    Any thread may read the counts. Only the thread that makes the handshakes writes them, except ``turned_away``: how many
    connections were ended at once, because too many waited. The thread that accepts connections writes that count.
    """

    def __init__(self, name: str, context: Callable[[], ssl.SSLContext], refusal: bytes | None) -> None:
        self.name = name
        self.context = context
        self.refusal = refusal
        # Handshakes that were done and that failed, and connections that spoke no TLS.
        self.done = 0
        self.failed = 0
        self.plain = 0
        # The number of connections ended at once, because too many wait for the thread.
        self.turned_away = 0
        # The half-open connections, in the order in which they came.
        self.half_open: dict[_Half, None] = {}
        self.quiet_until_s = 0.0
        self.unsaid = 0


class _Half:
    """The state of one connection, of a client or another node, whose TLS handshake is under way."""

    __slots__ = ("done", "door", "failed", "finished", "received", "session", "sock", "unsent", "until_s")

    def __init__(
        self,
        sock: socket.socket,
        door: Door,
        session: Session | None,
        done: Done,
        failed: Failed | None,
        until_s: float,
    ) -> None:
        self.sock = sock
        self.door = door
        self.session = session
        self.done = done
        self.failed = failed
        self.until_s = until_s
        # The bytes that have come, and those that the socket has not taken yet.
        self.received = 0
        self.unsent = b""
        # True once hands are shaken and only ``unsent`` is left to do.
        self.finished = False


class Handshakes:
    """The TLS handshakes of all connections of a node, in a thread of their own, which runs between ``start`` and ``stop``.

    Any thread may call ``take`` and ``dial``, which begin a handshake.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        deadline_s: float = DEADLINE_S,
        half_open_max: int = HALF_OPEN_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.certificates = certificates
        self._deadline_s = deadline_s
        self._half_open_max = half_open_max
        # The most half-open connections of all doors together, and the most that may wait for the thread.
        self._all_half_open_max = 4 * half_open_max
        self._clock = clock
        self._doors: dict[str, Door] = {}
        # The connections that this node has opened itself are no strangers'.
        self._dialed = Door("dialed", lambda: certificates.in_force.clients, None)
        self._new: deque[_Half] = deque()
        self._lock = threading.Lock()  # guards the waking socket against its end
        self._wake: socket.socket | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None

    def door(self, name: str, refusal: bytes | None, *, peers: bool = False) -> Door:
        """Return the door (the port at which connections begin with TLS) with that ``name``; a new door if there is none yet.

        refusal: what a client is told that speaks no TLS; None if such a client may stay.
        peers: True for the port of other nodes, which show a certificate of their own.
        """
        certificates = self.certificates

        def of_peers() -> ssl.SSLContext:
            listening = certificates.in_force.listening
            assert listening is not None, "there is no such door without a CA"
            return listening

        context = of_peers if peers else lambda: certificates.in_force.clients
        return self._doors.setdefault(name, Door(name, context, refusal))

    # Life.

    def start(self) -> None:
        """Start the thread that makes TLS handshakes."""
        woken, self._wake = socket.socketpair()
        for end in (woken, self._wake):
            end.setblocking(False)
        self._stopping = False
        # Descriptors are for the connections whose hands are shaken, first of all.
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            self._all_half_open_max = max(soft // DESCRIPTORS_FOR_ONE, 16)
        self._selector = selectors.DefaultSelector()
        self._selector.register(woken, selectors.EVENT_READ)
        arguments = (self._selector, woken)
        self._thread = threading.Thread(target=self._run, args=arguments, name="cacheflow-tls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread that makes TLS handshakes; connections whose handshake is under way are closed."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._poke()
        thread.join()
        with self._lock:
            if self._wake is not None:
                self._wake.close()
                self._wake = None
        self._selector = None

    def descriptors(self) -> list[int]:
        """Return the file descriptors that the TLS handshakes use, and that a process forked from this one must not keep."""
        selector, wake = self._selector, self._wake
        if selector is None or wake is None:
            return []
        own = [selector.fileno()] if hasattr(selector, "fileno") else []
        return [*own, wake.fileno(), *list(selector.get_map() or ())]

    def metrics(self) -> dict[str, float]:
        """Return the counts of TLS handshakes and the days until the certificate ends, by metric name. Any thread may call it."""
        found: dict[str, float] = {"tls_certificate_days_left": self.certificates.days_left}
        for door in list(self._doors.values()):
            label = f'{{port="{door.name}"}}'
            found |= {
                f"tls_handshakes_open{label}": len(door.half_open),
                f"tls_handshakes_total{label}": door.done,
                f"tls_handshakes_failed_total{label}": door.failed + door.turned_away,
                f"tls_plain_connections_total{label}": door.plain,
            }
        return found

    # Connections.

    def take(self, door: Door, sock: socket.socket, done: Done) -> None:
        """Make the TLS handshake with the client of a socket that the port ``door`` has just accepted.

        After that call ``done`` with the socket and its TLS session. Returns at once: another thread does the work.
        """
        sock.setblocking(False)
        if len(self._new) >= self._all_half_open_max:
            door.turned_away += 1
            _say_not_now(sock)
            sock.close()
            return
        self._add(_Half(sock, door, None, done, None, self._clock() + self._deadline_s))

    def secure(self, name: str, refusal: bytes) -> Callable[[socket.socket, Callable[[SecuredSocket], None]], None]:
        """Return a function that makes the TLS handshake on an accepted socket, in another thread.

        That function gets the socket and a second function, which it calls with the encrypted socket after the handshake.
        name: the port's name in metrics.  refusal: what a client is told that speaks no TLS.
        """
        door = self.door(name, refusal)

        def secure(sock: socket.socket, use: Callable[[SecuredSocket], None]) -> None:
            def done(shaken: socket.socket, session: Session | None) -> None:
                assert session is not None
                use(SecuredSocket(shaken, session))

            self.take(door, sock, done)

        return secure

    def dial(self, sock: socket.socket, host: str, done: Done, failed: Failed) -> None:
        """Make the TLS handshake, as the side that dialed, with the node called ``host``, in another thread.

        Calls the function ``done`` when the handshake has succeeded, or else the function ``failed``.
        """
        dialing = self.certificates.in_force.dialing
        assert dialing is not None, "nobody dials without a CA"
        session = Session(dialing, server_side=False, host=host)
        half = _Half(sock, self._dialed, session, done, failed, self._clock() + self._deadline_s)
        session.shake(b"")
        half.unsent = session.output()
        self._add(half)

    def _add(self, half: _Half) -> None:
        self._new.append(half)
        self._poke()

    def _poke(self) -> None:
        with self._lock:
            if self._wake is not None:
                # A full socket means that the thread is woken already; a closed one that it has seen the stop, and has ended.
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    self._wake.send(b"\0")

    # The thread.

    def _run(self, selector: selectors.BaseSelector, woken: socket.socket) -> None:
        look_s = self._clock() + LOOK_EVERY_S
        doors = self._doors
        while not self._stopping:
            until_s = min(
                [look_s, *(next(iter(door.half_open)).until_s for door in self._all_doors() if door.half_open)]
            )
            for key, _ in selector.select(max(until_s - self._clock(), 0.0)):
                if key.data is not None:
                    self._step(selector, key.data)
                else:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
            while self._new:
                self._begin(selector, self._new.popleft())
            now_s = self._clock()
            for door in self._all_doors():
                while door.half_open and (oldest := next(iter(door.half_open))).until_s <= now_s:
                    self._fail(selector, oldest, TimeoutError(f"no handshake within {self._deadline_s:g} s"))
            if now_s >= look_s:
                look_s = now_s + LOOK_EVERY_S
                self.certificates.look()
        for door in (*doors.values(), self._dialed):
            for half in list(door.half_open):
                self._fail(selector, half, ConnectionError("this node stops"), says=False)
        while self._new:
            half = self._new.popleft()
            half.sock.close()
            if half.failed is not None:
                _tell(half.failed, ConnectionError("this node stops"), False)
        selector.close()
        woken.close()

    def _all_doors(self) -> list[Door]:
        return [*self._doors.values(), self._dialed]

    def _begin(self, selector: selectors.BaseSelector, half: _Half) -> None:
        door = half.door
        doors = list(self._doors.values())
        if sum([len(each.half_open) for each in doors]) >= self._all_half_open_max:
            # The door at which most wait makes room: honest clients of the others need not.
            fullest = max(doors, key=lambda each: len(each.half_open))
            self._fail(selector, next(iter(fullest.half_open)), ConnectionError("too many handshakes are under way"))
        elif half.failed is None and len(door.half_open) >= self._half_open_max:
            oldest = next(iter(door.half_open))
            self._fail(selector, oldest, ConnectionError(f"more than {self._half_open_max} handshakes are under way"))
        door.half_open[half] = None
        try:
            selector.register(half.sock, selectors.EVENT_READ, half)
        except (OSError, ValueError, KeyError) as error:
            self._fail(selector, half, error)
            return
        # What is here already needs no further turn.
        self._step(selector, half)

    def _step(self, selector: selectors.BaseSelector, half: _Half) -> None:
        try:
            self._advance(selector, half)
        except (BlockingIOError, InterruptedError):
            pass
        except Exception as error:
            self._fail(selector, half, error)

    def _advance(self, selector: selectors.BaseSelector, half: _Half) -> None:
        sock = half.sock
        if half.unsent:
            self._send(selector, half)
        elif half.session is None:
            first = sock.recv(1, socket.MSG_PEEK)
            if not first:
                raise ConnectionError("it has left without a word")
            if first != TLS_BEGINS:
                self._plain(selector, half)
                return
            half.session = Session(half.door.context(), server_side=True)
        session = half.session
        assert session is not None
        if not half.finished:
            data = sock.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionError("it has left in the handshake")
            half.received += len(data)
            if half.received > HANDSHAKE_BYTES_MAX:
                raise ConnectionError(f"more than {HANDSHAKE_BYTES_MAX} bytes of a handshake")
            half.finished = session.shake(data)
            half.unsent = session.output()
            if half.unsent:
                self._send(selector, half)
        if half.finished and not half.unsent:
            half.door.done += 1
            self._hand_over(selector, half, session)

    def _send(self, selector: selectors.BaseSelector, half: _Half) -> None:
        """Send the waiting bytes of a TLS handshake. Raises BlockingIOError if the socket does not take all of them."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            half.unsent = half.unsent[half.sock.send(half.unsent) :]
        selector.modify(half.sock, selectors.EVENT_WRITE if half.unsent else selectors.EVENT_READ, half)
        if half.unsent:
            raise BlockingIOError

    def _plain(self, selector: selectors.BaseSelector, half: _Half) -> None:
        """Keep a connection that speaks no TLS, if its port allows that; otherwise send the port's refusal and close it."""
        door = half.door
        door.plain += 1
        if door.refusal is None:
            self._hand_over(selector, half, None)
            return
        with contextlib.suppress(OSError):
            # What has come is read, so that closing does not take the answer along.
            half.sock.recv(_RECEIVE_BYTES)
            half.sock.send(door.refusal)
            half.sock.shutdown(socket.SHUT_WR)
        self._fail(selector, half, NotTls("it speaks something else"))

    def _hand_over(self, selector: selectors.BaseSelector, half: _Half, session: Session | None) -> None:
        self._forget(selector, half)
        try:
            half.done(half.sock, session)
        except Exception as error:
            # Whoever wanted it has ended, such as a loop that is closed.
            logger.debug("a connection whose hands were shaken is not wanted any more: %s", error)
            half.sock.close()

    def _forget(self, selector: selectors.BaseSelector, half: _Half) -> None:
        half.door.half_open.pop(half, None)
        with contextlib.suppress(KeyError, ValueError, OSError):
            selector.unregister(half.sock)

    def _fail(self, selector: selectors.BaseSelector, half: _Half, error: Exception, says: bool = True) -> None:
        self._forget(selector, half)
        if half.session is not None and half.session.has_output:
            with contextlib.suppress(OSError):
                half.sock.send(half.session.output())  # the alert that says why
        where = _address(half.sock)
        half.sock.close()
        if half.failed is not None:
            _tell(half.failed, error, half.received > 0)
            return
        if type(error) is not NotTls:
            half.door.failed += 1
        if says:
            self._complain(half.door, where, error)

    def _complain(self, door: Door, where: str, error: Exception) -> None:
        now_s = self._clock()
        if now_s < door.quiet_until_s:
            door.unsaid += 1
            return
        more = f" (and {door.unsaid} more since the last line)" if door.unsaid else ""
        logger.warning("no TLS with %s on the %s port: %s%s", where, door.name, told(error), more)
        door.quiet_until_s, door.unsaid = now_s + _COMPLAINTS_EVERY_S, 0


def _say_not_now(sock: socket.socket) -> None:
    """Tell a client by a TLS alert that no handshake is made now, unless the client has left or speaks no TLS."""
    first = TLS_BEGINS
    with contextlib.suppress(OSError):
        with contextlib.suppress(BlockingIOError):
            # What has come is read, so that closing does not take the alert along.
            first = sock.recv(_RECEIVE_BYTES)[:1]
        if first == TLS_BEGINS:
            sock.send(_NOT_NOW)


def _tell(failed: Failed, error: Exception, heard: bool) -> None:
    try:
        failed(error, heard)
    except Exception as gone:
        # Whoever has dialed has ended, such as a loop that is closed.
        logger.debug("nobody waits for a handshake any more: %s", gone)


def _address(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "a client that has gone"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "a client"
