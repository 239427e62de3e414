"""MULTI, and commands of several steps: read memory, propose what follows from it, again if that has changed.

Whatever takes place does so in one entry of the log, under the condition that every key that was looked at is still at
the version that was seen.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cacheflow.contract import Entry, Outcome
from cacheflow.contract import WireStore as Store
from cacheflow.errors import ReplicationError
from cacheflow.machine import commands as c
from cacheflow.machine.commands import Command, Result
from cacheflow.machine.decisions import DECIDE, after
from cacheflow.wire.resp_arguments import key_of
from cacheflow.wire.resp_replies import NULL_ARRAY, CommandError, error, failure
from cacheflow.wire.resp_spec import Arguments, Finish, Plan, Spec
from cacheflow.wire.resp_strings import ANSWER_BYTES_MAX, failed

if TYPE_CHECKING:
    from cacheflow.wire.resp_session import RespSession

ATTEMPTS_MAX: Final = 100
# As many as one entry takes.
COMMANDS_MAX: Final = 10_000

Queue = list[tuple[Spec, Arguments]]
# Key -> version at its WATCH, 0: absent, None: its turn has not come.
Watched = dict[str, "int | None"]
End = Callable[[bytes], None]


class Overlay:
    """Memory as earlier commands of a transaction will leave it, and what was seen of it. conditions: key -> version."""

    def __init__(self, store: Store) -> None:
        self.conditions: dict[str, int] = {}
        self._store = store
        self._left: dict[str, Entry | None] = {}

    def find(self, key: str, *, count: bool = True) -> Entry | None:
        if key in self._left:
            return self._left[key]
        entry = self._store.lookup(key, count=False)
        self.conditions.setdefault(key, 0 if entry is None else entry[3])
        return entry

    def expect(self, commands: Sequence[Command]) -> None:
        """These will take place."""
        now_ms = self._store.now_ms()
        for command in commands:
            entry = self.find(command[1])
            decision = DECIDE[command[0]](entry, list(command), now_ms, math.inf)
            if isinstance(decision, tuple):
                self._left[command[1]] = after(decision, entry)


def run_steps(connection: RespSession, spec: Spec, arguments: Arguments, end: End) -> None:
    """One command that looks before it writes."""
    planner = spec.plan
    assert planner is not None

    def prepare() -> tuple[dict[str, int], Plan]:
        overlay = Overlay(connection.store)
        try:
            return overlay.conditions, planner(connection, overlay.find, arguments)
        except CommandError as wrong:
            # Also a refusal rests on what was seen.
            return overlay.conditions, ([], functools.partial(_said, wrong.reply))

    _attempt(connection, prepare, {}, end, ATTEMPTS_MAX)


def _said(reply: bytes, results: Sequence[Result]) -> bytes:
    return reply


def execute(connection: RespSession, queue: Queue, watched: Watched) -> None:
    """EXEC."""
    if not watched and not any(spec.plan for spec, _ in queue):
        connection.read(functools.partial(_read_all, connection, queue))
    elif not watched and not any(spec.steps for spec, _ in queue):
        commands, finish = _prepare(connection, queue, None)
        connection.write(c.guarded([], commands), lambda result: _settled(result, finish))
    else:
        steps = any(spec.steps for spec, _ in queue)

        def prepare() -> tuple[dict[str, int], Plan]:
            overlay = Overlay(connection.store)
            plan = _prepare(connection, queue, overlay if steps else None)
            return overlay.conditions, plan

        connection.exclusive(
            lambda end: connection.guarded(
                lambda: _attempt(connection, prepare, {k: v or 0 for k, v in watched.items()}, end, ATTEMPTS_MAX), end
            )()
        )


def _attempt(
    connection: RespSession,
    prepare: Callable[[], tuple[dict[str, int], Plan]],
    watched: dict[str, int],
    end: End,
    left: int,
) -> None:
    seen, (commands, finish) = prepare()
    conditions = [*watched.items(), *seen.items()]
    if not conditions:
        # Nothing was looked at: the arguments alone were wrong.
        end(finish([]))
        return

    def settle(outcome: Outcome) -> None:
        if isinstance(outcome, ReplicationError):
            end(failure(outcome))
            return
        result = outcome[0]
        if result[0] != c.PRECONDITION:
            end(_settled(result, finish))
        elif result[1] < len(watched):
            end(NULL_ARRAY[connection.protocol])
        elif left > 1:
            _attempt(connection, prepare, watched, end, left - 1)
        else:
            end(error("TRYAGAIN not committed: others changed the same keys again and again"))

    def done(outcome: Outcome) -> Callable[[], None]:
        return connection.guarded(functools.partial(settle, outcome), end)

    connection.store.submit([c.guarded(conditions, commands)], done)


def _settled(result: Result, finish: Finish) -> bytes:
    return finish(result[1]) if result[0] == c.OK else failed(result)


def _read_all(connection: RespSession, queue: Queue) -> bytes:
    """A transaction that changes nothing: memory at one moment."""
    find = connection.store.lookup
    replies = []
    for spec, arguments in queue:
        try:
            if spec.read is not None:
                replies.append(spec.read(connection, find, arguments))
            else:
                assert spec.local is not None
                replies.append(spec.local(connection, arguments))
        except CommandError as wrong:
            replies.append(wrong.reply)
    return _bounded(replies)


def _bounded(replies: list[bytes]) -> bytes:
    """An array of at most ANSWER_BYTES_MAX: what comes behind that is an error in its place."""
    size = 0
    for position, reply in enumerate(replies):
        size += len(reply)
        if size > ANSWER_BYTES_MAX:
            replies[position] = error(f"ERR the answers are larger than {ANSWER_BYTES_MAX} bytes")
            size -= len(reply)
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def _prepare(connection: RespSession, queue: Queue, overlay: Overlay | None) -> Plan:
    """The commands of all that is queued, and their answers together."""
    commands: list[Command] = []
    parts: list[tuple[int, int, Finish]] = []
    find = connection.store.lookup if overlay is None else overlay.find
    for spec, arguments in queue:
        try:
            if spec.plan is not None:
                own, finish = spec.plan(connection, find, arguments)
            elif spec.read is not None:
                keys = [key_of(raw) for raw in spec.keys_in(arguments)]
                own, finish = (
                    [c.get(key) for key in keys],
                    functools.partial(_read_found, connection, spec, arguments, keys),
                )
            else:
                own, finish = [], functools.partial(_local, connection, spec, arguments)
        except CommandError as wrong:
            own, finish = [], functools.partial(_said, wrong.reply)
        if overlay is not None:
            overlay.expect(own)
        parts.append((len(commands), len(commands) + len(own), finish))
        commands.extend(own)
    if len(commands) > COMMANDS_MAX:
        raise CommandError(f"ERR a transaction changes and reads at most {COMMANDS_MAX} keys")

    def finish_all(results: Sequence[Result]) -> bytes:
        return _bounded([finish(results[start:end]) for start, end, finish in parts])

    return commands, finish_all


def _local(connection: RespSession, spec: Spec, arguments: Arguments, results: Sequence[Result]) -> bytes:
    assert spec.local is not None
    try:
        return spec.local(connection, arguments)
    except CommandError as wrong:
        return wrong.reply


def _read_found(
    connection: RespSession, spec: Spec, arguments: Arguments, keys: list[str], results: Sequence[Result]
) -> bytes:
    """A read of what the entry of the log found."""
    assert spec.read is not None
    entries: dict[str, Entry | None] = {
        key: (result[1], result[2], result[3], result[4], result[5]) if result[0] == c.OK else None
        for key, result in zip(keys, results, strict=True)
    }

    def find(key: str, *, count: bool = True) -> Entry | None:
        return entries[key]

    try:
        return spec.read(connection, find, arguments)
    except CommandError as wrong:
        return wrong.reply
