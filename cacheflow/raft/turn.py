"""Turn: the present turn of the event loop, and calls that are made once, at its end.

A system call costs more than everything else that a node does for an entry, and with other threads in the process each
one may cost it the interpreter. So what one turn appends is one flush, and what it sends to a peer is one write; and
both leave at the end of that turn itself, not in another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

STUMBLED = "the end of a turn stumbled"


class Turn:
    """The present turn of the event loop, with the functions to call at the end of the turn.

    Not safe for concurrent use: the loop owns it.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], Any]) -> None:
        self.is_open = False
        self._call_soon = call_soon
        # The phases that follow the work of a turn, in this order: nodes advance and what they send is written to sockets;
        # work is handed to the disk's thread; clients are told what has changed; clients are answered, and other threads woken.
        # What is in the last two is called once, whoever asks for it.
        self._send: list[Callable[[], None]] = []
        self._flush: list[Callable[[], None]] = []
        self._tell: dict[Callable[[], None], None] = {}
        self._wake: dict[Callable[[], None], None] = {}

    def defer_send(self, call: Callable[[], None]) -> None:
        """Call the function ``call`` at the end of the event loop's present turn, before calls that hand work to threads.

        If no turn is under way, the loop calls it soon."""
        if self.is_open:
            self._send.append(call)
        else:
            self._call_soon(call)

    def defer_flush(self, call: Callable[[], None]) -> None:
        """Call the function ``call``, which hands work to another thread, at the end of the present turn, after all sending.

        That thread wants the interpreter next, and what this thread had still to send would wait.
        """
        if self.is_open:
            self._flush.append(call)
        else:
            self._call_soon(call)

    def defer_tell(self, call: Callable[[], None]) -> None:
        """Call the function ``call``, which tells clients what has changed, once, before the present turn answers any client.

        If no turn is under way, call it now.
        """
        if self.is_open:
            self._tell[call] = None
        else:
            call()

    def defer_wake(self, call: Callable[[], None]) -> None:
        """Call the function ``call``, which answers a client or wakes a thread, once, after all else of the present turn.

        If no turn is under way, call it now. Called earlier, it would let the woken thread take the interpreter from this one.
        """
        if self.is_open:
            self._wake[call] = None
        else:
            call()

    def run(self, work: Callable[[], None]) -> None:
        """Call the function ``work`` as a turn, then what it deferred to the turn's end; inside another turn, only call it."""
        if self.is_open:
            work()
            return
        self.is_open = True
        try:
            work()
        finally:
            while True:
                if self._send:
                    calls, self._send = self._send, []
                elif self._flush:
                    calls, self._flush = self._flush, []
                elif self._tell:
                    calls, self._tell = list(self._tell), {}
                else:
                    # What these ask for in turn is not a part of this turn.
                    self.is_open = False
                    if not self._wake:
                        break
                    calls, self._wake = list(self._wake), {}
                # One that raises is logged and keeps neither the others nor later turns from happening.
                for call in calls:
                    try:
                        call()
                    except Exception:
                        logger.exception(STUMBLED)
