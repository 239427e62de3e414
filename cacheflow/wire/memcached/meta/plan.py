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
    """What a meta command decided on by the present entry: writes, and the function that makes the reply of their results."""

    commands: Sequence[Command]
    reply: Callable[[list[Result]], bytes]


# A plan makes a step of the entry, None for an absent one; or a reply that needs no write.
Plan = Callable[[Entry | None], Step | bytes]


def carry_out(connection: MemcachedSession, key: str, plan: Plan, *, count: bool = False) -> None:
    """Answer a meta command: look ``key`` up, let ``plan`` decide on its entry, and write only if the entry is unchanged.

    If the entry has changed, look again. plan: returns the writes and the reply, from the entry (None: absent).
    count: looking the entry up counts as a use.
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
