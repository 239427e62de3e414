"""The optimistic loop: read memory, decide, write on condition that what was read still holds; otherwise start again.

1. The conditions are part of the command (GUARDED), so what is decided here holds at its place in the log, also when it
   is to write nothing: this node's memory may be behind, and its own word would not be enough to refuse a write.
2. There are at most ATTEMPTS_MAX attempts, each with the deadline of any write. Behind the last one nothing has taken
   place, and the client hears that it may send its request again.
3. An outcome that is not known ends the loop and is told as such: the next attempt might repeat what has taken place.
4. Only a condition that did not hold leads to another attempt. Whatever else the machine refuses, it would refuse again.
5. Nothing is attempted for a client that has gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cacheflow.contract import EXPIRES_AT_MS, VERSION, Entry, Outcome
from cacheflow.errors import NotCommitted, ReplicationError
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import Connection, End
from cacheflow.wire.streams import Reply

# Each failed attempt means that somebody else's write took place: so many in a row are a key that is always being written.
ATTEMPTS_MAX: Final = 100

# (key, version, expires_at_ms) that it must have; both numbers 0 say that it must be absent.
Condition = tuple[str, int, int]


def unchanged(key: str, entry: Entry | None) -> Condition:
    """Return the condition for writes that the entry of ``key`` has not changed since it was ``entry`` (None: absent)."""
    return (key, 0, 0) if entry is None else (key, entry[VERSION], entry[EXPIRES_AT_MS])


class Attempt(NamedTuple):
    """One attempt to answer a client's request: the commands that it needs, and what must still hold of keys when these run.

    conditions: (key, version, expiry) that must still hold.  commands: run in order if all conditions hold.
    reply: makes the reply to the client from the commands' results.  atomic: True if the commands take place all or none.
    work: how many further plain commands could run in the time that ``commands`` take.
    """

    conditions: Sequence[Condition]
    commands: Sequence[Command]
    reply: Callable[[list[Result]], Reply]
    atomic: bool = False
    work: int = 0


class Attempts:
    """The optimistic attempts to answer one request of the connection ``client``, until one succeeds. To be used once.

    decide: a function that reads this node's memory; it returns an Attempt, or the reply when nothing is to be written.
    refused: makes the reply from the state machine's result when it refuses the commands themselves.
    fixed: conditions from before the request (what WATCH has seen), which no new attempt can mend.
    lost: the reply when one of the ``fixed`` conditions fails.
    """

    def __init__(
        self,
        client: Connection,
        decide: Callable[[], Attempt | bytes],
        refused: Callable[[Result], bytes],
        fixed: Sequence[Condition] = (),
        lost: bytes = b"",
    ) -> None:
        self._client = client
        self._decide = decide
        self._refused = refused
        self._fixed = fixed
        self._lost = lost
        self._left = ATTEMPTS_MAX
        self._reply: Callable[[list[Result]], Reply]
        self._end: End

    def begin(self, end: End) -> None:
        """Make the first attempt to answer the client's request.

        end: the function that sends the reply; it is called once with the reply, now or after further attempts.
        """
        self._end = end
        self._attempt()

    def _attempt(self) -> None:
        self._propose(self._decide())

    def _propose(self, attempt: Attempt | bytes) -> None:
        if isinstance(attempt, bytes):
            self._end(attempt)
            return
        conditions, commands, self._reply, atomic, work = attempt
        conditions = [*self._fixed, *conditions]
        if conditions or commands:
            self._client.store.submit([c.guarded(conditions, commands, atomic=atomic)], self._done, work)
        else:
            # Nothing was looked at, so that nothing can have changed: the request alone was wrong.
            self._end(self._reply([]))

    def _done(self, outcome: Outcome) -> Callable[[], None]:
        return functools.partial(self._client.contained, self._end, self._settle, outcome)

    def _settle(self, outcome: Outcome) -> None:
        if isinstance(outcome, ReplicationError):
            self._end(self._client.failure(outcome))
            return
        result = outcome[0]
        if result[0] == c.OK:
            self._end(self._reply(result[1]))
        elif result[0] != c.PRECONDITION:
            self._end(self._refused(result))
        elif result[1] < len(self._fixed):
            self._end(self._lost)
        else:
            # Somebody was faster; by now this node knows what they wrote.
            self._attempt_again()

    def _attempt_again(self) -> None:
        self._left -= 1
        if self._left:
            self._attempt()
        else:
            self._end(self._client.failure(NotCommitted("others changed the same keys again and again")))
