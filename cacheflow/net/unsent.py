"""Unsent: the bytes of answers that clients have not taken yet, of all fronts together, and who is ended for them.

A client that asks and does not read costs what it has asked for. So each front tells how much of each connection's answers is
unsent, and asks now and then whom to end: nobody as long as all of it stays within a limit, and else who has taken nothing for
longest. A client that takes its answers, however slowly, is ended only after all those that take none.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

# Unsent bytes of all connections from which on those that take nothing are ended.
UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024
# Seconds that a client may take nothing when there are more than that, and when there are more than half as many again.
GRACE_S: Final = 5.0
GRACE_FAR_OVER_S: Final = 0.1
# Seconds between two looks of a front at its connections while some have unsent bytes.
LOOK_EVERY_S: Final = 0.25
# Bytes that the kernel takes of an answer and has not sent yet. By itself it takes four megabytes, which cost a millisecond of
# copying and no client gains by; what was sent and is not acknowledged is not bounded by this, so that no line gets slower.
KERNEL_BYTES_MAX: Final = 128 * 1024


def bound_unsent(listening: socket.socket) -> None:
    """Limit the bytes that the kernel keeps unsent for each client that is accepted on the socket ``listening``."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not every system has it
    if option is not None:
        # Accepted sockets inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, option, KERNEL_BYTES_MAX)


class Counted(Protocol):
    """Interface: an object with bytes that clients have not taken: one client's connection, or the subscribers of a node.

    unsent_bytes: how many bytes these are; only the budget (class Unsent) sets it.
    """

    unsent_bytes: int


class Holder(Counted, Protocol):
    """Interface: a client's connection that may have unsent bytes.

    taken_s: when the client last took some bytes, or when the first of the unsent bytes began to wait.
    """

    taken_s: float


H = TypeVar("H", bound=Holder)


class Unsent:
    """The budget of unsent bytes: answers that a node's clients have asked for and not taken. Any thread may use it."""

    def __init__(self, bytes_max: int = UNSENT_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.ended = 0
        self._lock = threading.Lock()  # guards the sum

    def tell(self, holder: Counted, unsent_bytes: int) -> None:
        """Note that ``holder``, a client's connection or the subscribers of a node, has ``unsent_bytes`` unsent bytes now."""
        with self._lock:
            self.bytes += unsent_bytes - holder.unsent_bytes
            holder.unsent_bytes = unsent_bytes

    def overdue(self, holders: Iterable[H], now_s: float) -> list[H]:
        """Return those of ``holders``, connections of one server, that are to be ended now, because too many bytes are unsent.

        These are as many as it takes to come below the limit, first those whose clients have taken nothing for longest.
        The caller tries once more to send to each before it ends the connection, and counts those that it ends in ``ended``.
        """
        over = self.bytes - self.bytes_max
        if over <= 0:
            return []
        grace_s = GRACE_S if over <= self.bytes_max // 2 else GRACE_FAR_OVER_S
        chosen: list[H] = []
        late = [holder for holder in holders if holder.unsent_bytes and now_s - holder.taken_s >= grace_s]
        for holder in sorted(late, key=lambda holder: holder.taken_s):
            chosen.append(holder)
            over -= holder.unsent_bytes
            if over <= 0:
                break
        return chosen
