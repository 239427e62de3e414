"""Sockets: the HTTP server's connections, and the poll that waits for them without a look at each of them.

waitress' own poll loop asks every connection in every turn what it wants to be told of. With 500 idle ones that takes longer than
most answers, in an interpreter that the node's loop waits for. Here the kernel keeps what each connection wants (epoll), and only
those are asked again whose wishes can have changed:

1. whoever was told something, or was served, in the last turn (``look_again``);
2. whoever a thread of the pool is serving now (``being_served``);
3. the listening sockets, which also look at everybody's deadlines, once a second;
4. all of them, when what many want has changed (``look_at_all``): by that look.
"""

from __future__ import annotations

import contextlib
import logging
import select
from collections import deque
from typing import Any, Final

from waitress import wasyncore

logger = logging.getLogger("cacheflow.rest")

# Without EPOLLPRI: nothing here reads a client's urgent byte, and the kernel would tell of it in every turn.
_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class Sockets(dict[int, Any]):
    """waitress' map of what it polls, by descriptor, which also tells the kernel what each of them waits for.

    Any thread may call ``look_again``, and threads of the pool change ``being_served``; all else is the reading thread's.
    """

    def __init__(self) -> None:
        super().__init__()
        # The connections of which a thread of the pool serves a request now.
        self.being_served: set[Any] = set()
        self._epoll = select.epoll()
        self._wanted: dict[int, int] = {}
        self._changed: deque[int] = deque()
        # The descriptors of what is asked in each turn.
        self._asked_always: set[int] = set()

    def __setitem__(self, descriptor: int, each: Any) -> None:
        super().__setitem__(descriptor, each)
        self._changed.append(descriptor)
        if hasattr(each, "maintenance"):
            self._asked_always.add(descriptor)

    def __delitem__(self, descriptor: int) -> None:
        super().__delitem__(descriptor)
        self._asked_always.discard(descriptor)
        self._forget(descriptor)

    def look_again(self, descriptor: int | None) -> None:
        """Ask the connection with ``descriptor`` what it waits for, before the next poll; None is that of one that has ended."""
        if descriptor is not None:
            self._changed.append(descriptor)

    def look_at_all(self) -> None:
        """Ask all connections what they wait for, before the next poll."""
        self._changed.extend(list(self))

    def poll(self, timeout_s: float) -> None:
        """Wait until one of the sockets has something to tell, for ``timeout_s`` seconds at most, and have it handle that."""
        # (A listening socket that is asked has looked at the deadlines of all.)
        for descriptor in list(self._asked_always):
            self._ask(descriptor)
        for served in list(self.being_served):
            self._ask(served._fileno)
        changed, asked = self._changed, set()
        while changed:
            asked.add(changed.popleft())
        for descriptor in asked:
            self._ask(descriptor)
        for descriptor, told in self._epoll.poll(timeout_s):
            each = self.get(descriptor)
            if each is not None:
                changed.append(descriptor)
                wasyncore.readwrite(each, told)

    def _ask(self, descriptor: int) -> None:
        each = self.get(descriptor)
        if each is None:
            return
        wanted = _READ if each.readable() else 0
        if each.writable() and not each.accepting:  # a listening socket is never writable
            wanted |= _WRITE
        before = self._wanted.get(descriptor, 0)
        if wanted == before or descriptor not in self:
            return
        if not wanted:
            self._forget(descriptor)
            return
        try:
            if before:
                self._epoll.modify(descriptor, wanted)
            else:
                self._epoll.register(descriptor, wanted)
        except OSError as error:  # no memory, or too many watched (fs.epoll.max_user_watches)
            if hasattr(each, "requests_lock"):
                logger.warning("a connection is closed, as the system does not watch it: %s", error)
                each.handle_close()
            else:
                # A listening socket, or the pipe that wakes the poll.
                self._changed.append(descriptor)
            return
        self._wanted[descriptor] = wanted

    def _forget(self, descriptor: int) -> None:
        """Have the kernel no longer watch the socket with ``descriptor``; do nothing if it does not."""
        if self._wanted.pop(descriptor, 0):
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the descriptor by which the kernel is asked; what it watched is not closed."""
        self._epoll.close()
