"""Sockets: the HTTP server's connections, and the poll that waits for them without a look at each of them.

waitress' own poll loop asks every connection in every turn what it wants to be told of. With 500 idle ones that takes longer than
most answers, in an interpreter that the node's loop waits for. Here the kernel keeps what each connection wants (epoll), and only
those are asked again whose wishes can have changed:

1. whoever was told something, or was served, in the last turn (``look_again``);
2. whoever a thread of the pool is serving now (``being_served``);
3. what is no connection: the listening sockets, and the pipe that wakes the poll;
4. all of them, when somebody has changed what many want (``look_at_all``): the look at their deadlines, once a second.
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
# What the kernel tells of every socket that it watches, unasked.
_BROKEN: Final = select.EPOLLHUP | select.EPOLLERR


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
        if not hasattr(each, "requests_lock"):
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
        for descriptor in [*self._asked_always, *[each._fileno for each in list(self.being_served)]]:
            self._ask(descriptor)
        # (A listening socket that is asked has looked at the deadlines of all.)
        for descriptor in {self._changed.popleft() for _ in range(len(self._changed))}:
            self._ask(descriptor)
        for descriptor, told in self._epoll.poll(timeout_s):
            each = self.get(descriptor)
            if each is None:
                continue
            self._changed.append(descriptor)
            # It may wait for something else since it was asked.
            wanted = _wishes(each)
            if wanted and (told := told & (wanted | _BROKEN)):
                wasyncore.readwrite(each, told)

    def _ask(self, descriptor: int) -> None:
        each = self.get(descriptor)
        if each is None:
            return
        wanted = _wishes(each)
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
            # What is no connection is asked again in the next turn.
            if descriptor not in self._asked_always:
                logger.warning("a connection is closed, as the system does not watch it: %s", error)
                each.handle_close()
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


def _wishes(each: Any) -> int:
    """Return the events that ``each``, a connection or a listening socket, waits for."""
    wanted = _READ if each.readable() else 0
    # A listening socket is never writable.
    return wanted | _WRITE if each.writable() and not each.accepting else wanted
