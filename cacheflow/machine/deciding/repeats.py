"""Commands that a client may send again, through whichever node: they take place once.

What is known of a command is its result, that it took place, or that it has not. When none of that is certain any more it is
FORGOTTEN: nothing is done now, and nothing will be.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final

import msgpack

from cacheflow.machine.deciding.plans import Malformed
from cacheflow.machine.image import State
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.answers import Owner, fingerprint
from cacheflow.machine.state.idempotency import CLIENT_KEY_CHARS_MAX
from cacheflow.machine.state.settings import is_name, is_whole

# The commands that may be inside one of these; a dictionary for ``known_at``, which leaves out what an entry's level lacks.
REPEATABLE_OPS: Final = dict.fromkeys(
    (
        *(c.SET, c.DELETE, c.INCR, c.TOUCH, c.APPEND, c.COUNT, c.EXPIRE),
        *(c.BATCH, c.GUARDED, c.DELETE_PREFIX, c.CONFIGURE),
    )
)

# The statuses of a command that has done nothing and may do something when it comes again.
_NOT_DONE: Final = (c.MALFORMED, c.TOO_MANY)

Run = Callable[[Any], Result]


def idempotent(state: State, run: Run, repeatable: Container[int], command: list[Any]) -> Result:
    """Run the command inside an IDEMPOTENT command, unless its client's idempotency key was used before; return the result.

    A used key gives the kept result; one that may have been used and is not kept any more gives FORGOTTEN.
    repeatable: the kinds of command that may be inside, at the feature level of the log entry.
    """
    _, client_key, first_index, inner = command
    if type(client_key) is not str or not 0 < len(client_key) <= CLIENT_KEY_CHARS_MAX:
        raise Malformed(f"an idempotency key is a text of 1 to {CLIENT_KEY_CHARS_MAX} characters")
    if not is_whole(first_index, 0):
        raise Malformed("the first entry in which a command may be is an index of the log")
    command_print = _print_of(inner, repeatable)
    kept = state.idempotency.kept.get(client_key)
    if kept is not None:
        return _kept_result(state, (0, client_key), kept[2:], command_print)
    if 0 < first_index <= state.idempotency.reaches_index:
        return [c.FORGOTTEN]
    result = run(inner)
    if result[0] not in _NOT_DONE:
        # The index of the entry that is being applied.
        index = state.applied_index + 1
        state.idempotency.keep(client_key, command_print, result, state.contents.now_ms, index)
    return result


def scoped(state: State, run: Run, repeatable: Container[int], command: list[Any]) -> Result:
    """Run the command inside a SCOPED command, which is a write that a client has numbered in its scope; return the result.

    A number that was used before gives the kept result, and the command is not run; a number that may have been used and is
    not kept any more gives FORGOTTEN.
    """
    _, scope_id, nonce, number, lowest, inner = command
    if not is_whole(scope_id, 1) or not is_name(nonce):
        raise Malformed("a scope is a number from 1 on and a short text")
    if not is_whole(number, 1) or not is_whole(lowest, 1, number):
        raise Malformed("a number in a scope is from 1 on, and the lowest unanswered one is not above it")
    command_print = _print_of(inner, repeatable)
    scopes = state.scopes
    scope = scopes.use(scope_id, nonce, state.contents.now_ms)
    if scope is None:
        return [c.FORGOTTEN]
    scopes.raise_floor(scope_id, scope, lowest)
    kept = scope.kept.get(number)
    if kept is not None:
        return _kept_result(state, (scope_id, number), kept, command_print)
    if number < scope.floor:
        return [c.FORGOTTEN]
    result = run(inner)
    if result[0] not in _NOT_DONE:
        scopes.keep(scope_id, scope, number, command_print, result)
    return result


def open_scope(state: State, command: list[Any]) -> Result:
    """Run a command that opens a scope; return OK with the id of the new scope."""
    _, nonce = command
    if not is_name(nonce):
        raise Malformed("a scope's nonce is a short text")
    return [c.OK, state.scopes.open(nonce, state.contents.now_ms)]


def _print_of(inner: Any, repeatable: Container[int]) -> bytes:
    if type(inner) is not list or type(inner[0]) is not int or inner[0] not in repeatable:
        raise Malformed("only writes, batches, DELETE_PREFIX and CONFIGURE can be sent again")
    return fingerprint(inner)


def _kept_result(state: State, owner: Owner, kept: tuple[bytes, bytes], command_print: bytes) -> Result:
    if kept[0] != command_print:
        return [c.KEY_REUSED]
    packed = state.answers.find(owner, kept[1])
    if not packed:
        return [c.NOT_KEPT]
    state.contents.read_bytes += len(packed)
    result: Result = msgpack.unpackb(packed)
    return result
