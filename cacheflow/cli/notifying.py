"""What a node's process tells systemd, by the protocol of sd_notify(3), where the unit is of the type ``notify``.

1. READY=1 once the node is ready, as ``/readyz`` means it: so ``systemctl restart`` returns when the next node's turn has come.
2. STATUS= says what the node still waits for; ``systemctl status`` shows it.
3. WATCHDOG=1 only while the node's event loop answers and ``/livez`` passes: a loop that stands still is restarted.
4. STOPPING=1 when the node begins to end.
5. The environment is hostile until it is checked, and a message that cannot be sent ends nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final, Protocol

logger = logging.getLogger(__name__)

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PROCESS: Final = "WATCHDOG_PID"
# The most bytes of a socket's path: Linux has 108, with the 0 behind them.
PATH_BYTES_MAX: Final = 107
# The most characters of a status that is told: a line for people.
STATUS_MAX: Final = 200


class Node(Protocol):
    """Interface: the node about which a notifier tells systemd."""

    # Checks: (name, whether it passed, detail for people).
    def liveness(self) -> Sequence[tuple[str, bool, str]]: ...
    def readiness(self) -> Sequence[tuple[str, bool, str]]: ...
    def on_loop(self, call: Callable[[], None]) -> None: ...


class Notifier:
    """Tells systemd whether ``node`` is ready, and why not. Used by the main thread alone.

    address: that of the socket on which systemd listens; None: systemd is told nothing.
    watched: whether systemd wants signs of life.
    """

    def __init__(self, node: Node, address: str | None, *, watched: bool = False) -> None:
        self._node = node
        self._address = address
        self._watched = watched
        self._is_ready = False
        self._status = ""
        # Whether the event loop has come by since it was asked.
        self._answered = False

    @classmethod
    def of(cls, node: Node, environment: MutableMapping[str, str]) -> Notifier:
        """Return the notifier that systemd's variables in ``environment`` ask for.

        The variables are removed from ``environment``, because child processes are not to use them.
        """
        path = environment.pop(SOCKET, "")
        usec, process = environment.pop(WATCHDOG, ""), environment.pop(WATCHDOG_PROCESS, "")
        if not path:
            return cls(node, None)
        if not path.startswith(("/", "@")) or "\0" in path or len(os.fsencode(path)) > PATH_BYTES_MAX:
            logger.warning("systemd is told nothing: %s is neither a path nor an abstract socket: %.80r", SOCKET, path)
            return cls(node, None)
        # For another process, the shell that has started this one, say.
        is_meant = process in ("", str(os.getpid()))
        return cls(node, "\0" + path[1:] if path[0] == "@" else path, watched=is_meant and _is_time(usec))

    def look(self) -> None:
        """Tell systemd if the node has become ready or its status has changed, and give a sign of life. Never raises.

        Called about once a second.
        """
        if self._address is None:
            return
        try:
            self._look()
        except Exception:  # the node is more than what systemd knows of it
            logger.exception("systemd was not told how this node is")

    def _look(self) -> None:
        failed = [f"{name}: {detail}" for name, passed, detail in self._node.readiness() if not passed]
        status = _line(f"not ready: {failed[0]}" if failed else "ready")
        if not (failed or self._is_ready):
            self._is_ready = self._send(f"READY=1\nSTATUS={status}")
            self._status = status if self._is_ready else ""
        elif status != self._status and self._send(f"STATUS={status}"):
            self._status = status
        if self._watched:
            self._give_sign()

    def stopping(self) -> None:
        """Tell systemd that the node begins to end."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _give_sign(self) -> None:
        if self._answered and all(passed for _, passed, _ in self._node.liveness()):
            self._send("WATCHDOG=1")
        self._answered = False
        self._node.on_loop(self._note_answer)

    def _note_answer(self) -> None:
        self._answered = True

    def _send(self, message: str) -> bool:
        """Send ``message`` to systemd; return whether systemd's socket has taken the message."""
        if self._address is None:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), self._address)
            return True
        return False


def _is_time(text: str) -> bool:
    """Return whether ``text`` is a number of microseconds above 0, as systemd writes one into an environment variable."""
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) > 0


def _line(text: str) -> str:
    """Return ``text`` as one line, short enough for systemd's status: a line's end in it would begin another message."""
    return "".join(char if char.isprintable() else " " for char in text)[:STATUS_MAX]
