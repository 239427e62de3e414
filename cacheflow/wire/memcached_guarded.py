"""A request that depends on what is there: read the entry, decide, write if it is still that one, else again.

The condition is part of the command, so what is decided here holds at its place in the log, also when it is to do
nothing: this node's memory may be behind, and its own word would not be enough to refuse a write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from cacheflow.contract import Entry, Outcome
from cacheflow.errors import NotCommitted, NotReady, ReplicationError
from cacheflow.machine import commands
from cacheflow.machine.commands import Command, Result
from cacheflow.wire.memcached_fetch import not_ready

if TYPE_CHECKING:
    from cacheflow.wire.memcached import MemcachedConnection

ATTEMPTS_MAX: Final = 100


class Step(NamedTuple):
    """What is to be written, and the reply to its results."""

    commands: Sequence[Command]
    reply: Callable[[list[Result]], bytes]


# bytes: a reply that needs no write.
Plan = Callable[[Entry | None], Step | bytes]


def carry_out(connection: MemcachedConnection, key: str, plan: Plan, *, count: bool = False) -> None:
    """Reply as ``plan`` says. count: looking at the entry is a use."""
    connection.exclusive(lambda end: _Attempts(connection, key, plan, count, end).begin())


class _Attempts:
    def __init__(
        self, connection: MemcachedConnection, key: str, plan: Plan, count: bool, end: Callable[[bytes], None]
    ) -> None:
        self._connection = connection
        self._key = key
        self._plan = plan
        self._count = count
        self._end = end
        self._left = ATTEMPTS_MAX

    def begin(self) -> None:
        if self._connection.linearizable:
            self._connection.store.submit_barrier(self._passed)
        else:
            self._try()

    def _passed(self, outcome: Outcome) -> Callable[[], None]:
        if isinstance(outcome, ReplicationError):
            failure = self._connection.failure(outcome)
            return lambda: self._end(failure)
        return self._try

    def _try(self) -> None:
        try:
            entry = self._connection.store.lookup(self._key, count=self._count)
        except NotReady as error:
            self._end(not_ready(error))
            return
        self._count = False
        step = self._plan(entry)
        if isinstance(step, bytes):
            self._end(step)
            return
        condition = (self._key, 0 if entry is None else entry[3])
        self._reply = step.reply
        self._connection.store.submit([commands.guarded([condition], step.commands)], self._settled)

    def _settled(self, outcome: Outcome) -> Callable[[], None]:
        if isinstance(outcome, ReplicationError):
            answer = self._connection.failure(outcome)
        elif outcome[0][0] == commands.OK:
            answer = self._reply(outcome[0][1])
        else:
            # Somebody was faster; by now this node knows what they wrote.
            self._left -= 1
            if self._left:
                return self._try
            answer = self._connection.failure(NotCommitted("others change this key all the time"))
        return lambda: self._end(answer)
