"""Meta commands whose writes depend on the present entry: a plan reads memory, and optimistic.py carries it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cacheflow.contract import Entry
from cacheflow.errors import NotReady
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.memcached.fetch import not_ready
from cacheflow.wire.memcached.session import MemcachedSession
from cacheflow.wire.memcached.storage import failed
from cacheflow.wire.optimistic import Attempt, Attempts, unchanged


class Step(NamedTuple):
    """What a meta command of memcached's protocol has to do, given the present entry of its key.

    commands: the writes, to be replicated.  reply: a function that makes the reply to the client from their results.
    """

    commands: Sequence[Command]
    reply: Callable[[list[Result]], bytes]


# A plan makes a step of the entry, None for an absent one; or a reply that needs no write.
Plan = Callable[[Entry | None], Step | bytes]


def carry_out(connection: MemcachedSession, key: str, plan: Plan, *, count: bool = False) -> None:
    """Answer memcached's meta command for ``key``: look up the entry, let ``plan`` decide, and write if it is still the same.

    If the entry has changed meanwhile, begin again.
    plan: a function; given the entry (None: absent), it returns the writes and what makes the reply, or a reply only.
    count: True if looking up the entry counts as a use of the key.
    """
    counts = count

    def decide() -> Attempt | bytes:
        nonlocal counts
        try:
            entry = connection.store.lookup(key, count=counts)
        except NotReady as error:
            return not_ready(error)
        counts = False
        step = plan(entry)
        if isinstance(step, bytes):
            return step
        return Attempt([unchanged(key, entry)], step.commands, step.reply)

    connection.behind_barrier(Attempts(connection, decide, failed).begin)
