"""SlowLog: the latest requests of a node that took long, as Redis' slow log keeps them; never a key and never a value.

An operator who finds a slow command here may be shown it on a screen or send it to somebody else: what clients store is not to
be read there. So of a key it has the length alone.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

# The newest slow requests that are kept, as many as Redis keeps.
KEPT: Final = 128


class SlowRequest(NamedTuple):
    """One slow request, or several of one kind that one client sent at once and that were answered together.

    number: counts slow requests from 1 on.  at_s: when it was answered, in seconds since 1970.
    front: http, resp or memcached.  command: the command's name, or the method and the route.
    outcome: ok, refused or error.  seconds: from its arrival until its answer was handed to the system.
    key_bytes: the length of the first key that it names; None if it names none.
    requests: how many requests these were.  client: the client's address, "" if several clients were answered together.
    request_id: the id that an HTTP answer names; "" for the other fronts, whose answers have no place for one.
    """

    number: int
    at_s: float
    front: str
    command: str
    outcome: str
    seconds: float
    key_bytes: int | None
    requests: int
    client: str
    request_id: str


class SlowLog:
    """The latest slow requests of a node, over all of its fronts, KEPT at most. Any thread may use it.

    slow_ms: a request that takes so many milliseconds or more is slow; 0: all are, negative: none is, as in Redis.
    from_s: the same in seconds, infinity for none: what hot paths compare with.  wall: returns seconds since 1970.
    """

    def __init__(self, slow_ms: float, wall: Callable[[], float] = time.time) -> None:
        self.set_slow_ms(slow_ms)
        self._wall = wall
        self._numbers = itertools.count(1)
        self._latest: deque[SlowRequest] = deque(maxlen=KEPT)

    def set_slow_ms(self, slow_ms: float) -> None:
        """Keep requests from now on that take ``slow_ms`` milliseconds or more; 0 keeps all, a negative number none."""
        self.slow_ms = slow_ms
        self.from_s = slow_ms / 1000 if slow_ms >= 0 else math.inf

    def note(
        self,
        front: str,
        command: str,
        outcome: str,
        seconds: float,
        key_bytes: int | None,
        requests: int = 1,
        client: str = "",
        request_id: str = "",
    ) -> None:
        """Keep a slow request, whose parts ``SlowRequest`` explains; forget the oldest one if there are KEPT already."""
        at_s = self._wall()
        number = next(self._numbers)
        self._latest.append(
            SlowRequest(number, at_s, front, command, outcome, seconds, key_bytes, requests, client, request_id)
        )

    def latest(self, count: int | None = None) -> list[SlowRequest]:
        """Return the ``count`` newest slow requests (None: all that are kept), the newest first."""
        return list(self._latest)[::-1][:count]

    def __len__(self) -> int:
        return len(self._latest)

    def clear(self) -> None:
        """Forget all slow requests; the numbers of later ones go on."""
        self._latest.clear()
