"""MeasuredConnection: the part of a wire connection that counts its requests and measures how long their answers took.

1. A request is measured from the arrival of its last byte until its answer is handed to the transport.
2. The clock is read once when input comes and once when answers go, however many requests there are.
3. What a slow request was about is looked at only if it was slow.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar, Final

from cacheflow.measuring.histogram import BUCKETS
from cacheflow.measuring.request_times import OK, RequestTimes
from cacheflow.wire.promises import Call, Promise

# The first bytes of all FAILURES: most replies begin otherwise, which is seen without a call.
_FIRST_OF_FAILURES: Final = frozenset(b"-CES")
# The outcome of one request that did not fail.
_PLAIN: Final = ((OK, 1),)


class MeasuredConnection(asyncio.Protocol):
    """The base class of a client's connection: it has the places of the replies, and measures the requests that they answer.

    times: where answered requests are counted, with the time that their answers took.
    """

    # The beginnings of the replies to requests that failed; the first byte of each is one of _FIRST_OF_FAILURES.
    FAILURES: ClassVar[bytes | tuple[bytes, ...]]

    # See Connection.
    __slots__ = ("_answered", "_came_s", "_clock", "_output", "_output_bytes", "_promises", "_transport", "times")

    def __init__(self, times: RequestTimes) -> None:
        self.times = times
        self._clock = times.clock
        self._transport: asyncio.Transport
        self._promises: deque[Promise] = deque()
        self._output: list[bytes] = []
        self._output_bytes = 0
        # When the latest input came: the requests that are handled have come with it.
        self._came_s = 0.0
        # The requests whose answers are made and not yet handed to the transport, each with its answer's bytes.
        self._answered: list[tuple[Call, bytes]] = []

    # For subclasses ---------------------------------------------------------------------------------------------------

    def outcome(self, reply: bytes) -> str:
        """Return how a request has ended by ``reply``, the beginning of its answer: ok, refused, or error for the node's own."""
        raise NotImplementedError

    def outcomes(self, command: str, reply: bytes, count: int) -> list[tuple[str, int]]:
        """Return (outcome, number of requests) as ``reply``, the answer to ``count`` requests for ``command``, tells them."""
        return [(self.outcome(reply), count)]

    def key_bytes(self, command: str, about: Any) -> int | None:
        """Return the length of the first key of a request for ``command``; None if it names none.

        about: what the subclass has given to ``asked`` with the request.
        """
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The client's address, as ``host:port``; ``?:0`` where it has none."""
        return shown_address(self._transport.get_extra_info("peername"))

    def asked(self, command: str, about: Any, count: int = 1) -> None:
        """Measure the request that was just handled, of the name ``command``, when its answer is handed to the transport.

        about: what ``key_bytes`` is given to tell the length of the request's key, if it turns out to be slow.
        count: how many requests, all of this command, were handled and are answered together.
        """
        call = (command, self._came_s, count, about, None)
        if self._promises:
            self._promises[-1].call = call
        else:
            self._answered.append((call, self._output[-1] if self._output else b""))

    def note_slow(self, command: str, outcome: str, seconds: float, about: Any, count: int = 1) -> None:
        """Keep ``count`` requests of this client in the node's slow log; ``asked`` explains ``about``."""
        key_bytes = self.key_bytes(command, about)
        self.times.slow.note(self.times.front, command, outcome, seconds, key_bytes, count, self.address)

    # ------------------------------------------------------------------------------------------------------------------

    def _note_answered(self) -> None:
        """Count the requests whose answers were handed to the transport just now, and keep those of them that were slow."""
        now_s = self._clock()
        answered = self._answered
        if len(answered) == 1:
            ((command, came_s, number, about, said), reply) = answered[0]
            if number == 1:
                answered.clear()
                # Most often: without a call that is not needed, as each costs a write one part in a hundred.
                reply = reply if said is None else said
                times, seconds = self.times, now_s - came_s
                if reply and reply[0] in _FIRST_OF_FAILURES and reply.startswith(self.FAILURES):
                    outcome = self.outcome(reply)
                    times.note(command, outcome, seconds)
                else:
                    outcome = OK
                    # ``Histogram.note``, written out.
                    histogram = times.answered.get(command) or times.histogram(command)
                    bucket = int(seconds * 1e6).bit_length()
                    histogram.counts[bucket if bucket < BUCKETS else -1] += 1
                    histogram.sum_s += seconds
                if seconds >= times.slow.from_s:
                    self.note_slow(command, outcome, seconds, about)
                return
        # Requests of one command that came together are one row in the slow log: a pipeline must not push out all others.
        rows: dict[tuple[str, str, float], tuple[int, Any]] = {}
        for (command, came_s, number, about, said), reply in answered:
            reply = reply if said is None else said
            is_plain = number == 1 and not reply.startswith(self.FAILURES)
            for outcome, count in _PLAIN if is_plain else self.outcomes(command, reply, number):
                row = command, outcome, came_s
                before = rows.get(row)
                rows[row] = (count, about) if before is None else (before[0] + count, before[1])
        answered.clear()
        for (command, outcome, came_s), (count, about) in rows.items():
            seconds = now_s - came_s
            self.times.note(command, outcome, seconds, count)
            if seconds >= self.times.slow.from_s:
                self.note_slow(command, outcome, seconds, about, count)


def shown_address(address: Any) -> str:
    """Return a socket's ``address``, as the system tells it, as ``host:port`` for people; ``?:0`` for none."""
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?:0"
