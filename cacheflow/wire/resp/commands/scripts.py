"""The commands on scripts: EVAL and its kin, and SCRIPT. How a script takes place: ``scripting/running.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

from cacheflow.wire.connection import End
from cacheflow.wire.optimistic import Condition
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, database_in, integer_of
from cacheflow.wire.resp.commands.strings import ANSWER_BYTES_MAX
from cacheflow.wire.resp.replies import OK, ONE, ZERO, CommandError, array, bulk, error
from cacheflow.wire.resp.scripting.caller import KEYS_MAX, Caller
from cacheflow.wire.resp.scripting.catalogue import Script, script_of
from cacheflow.wire.resp.scripting.runner import Expired
from cacheflow.wire.resp.scripting.running import Call, Render, ScriptRun
from cacheflow.wire.resp.scripting.sandbox import MISSING, GivenUp, Sandbox, is_available
from cacheflow.wire.resp.session import Arguments, Control, Local, Queue, RespSession, Spec, wrong_arity
from cacheflow.wire.streams import Reply, size_of, whole

NO_SCRIPT: Final = "NOSCRIPT No matching script. Please use EVAL."
NOT_BUSY: Final = "NOTBUSY No scripts in execution right now."
TOO_MANY_KEYS: Final = f"ERR scripts of one request name at most {KEYS_MAX} keys"
NOT_READ_ONLY: Final = "ERR Can not execute a script with write flag using *_ro command."


def _given(connection: RespSession, text: bytes) -> Script:
    script = script_of(text)
    connection.service.scripts.catalogue.keep(script)
    return script


def _known(connection: RespSession, sha: bytes) -> Script:
    script = connection.service.scripts.catalogue.find(sha)
    if script is None:
        raise CommandError(NO_SCRIPT)
    return script


def _call_of(connection: RespSession, arguments: Arguments) -> Call:
    """Return the call (script, keys, arguments) that a client's EVAL, or a command like it such as EVALSHA, asks for.

    Raises CommandError for a wrong request.
    """
    if not is_available():
        raise CommandError(MISSING)
    name = arguments[0].lower()
    count = integer_of(arguments[2], NOT_AN_INTEGER)
    if count > len(arguments) - 3:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    if count > KEYS_MAX:
        raise CommandError(TOO_MANY_KEYS)
    script = (_known if name.startswith(b"evalsha") else _given)(connection, arguments[1])
    writes = not name.endswith(b"_ro")
    if not writes and script.flags is not None and not script.only_reads:
        raise CommandError(NOT_READ_ONLY)
    given = arguments[3:]
    return Call(script, given[:count], given[count:], writes and not script.only_reads, database_in(arguments))


def evaluate(connection: RespSession, arguments: Arguments) -> None:
    """Answer a request for EVAL, EVALSHA, EVAL_RO or EVALSHA_RO: run the script whose text or SHA-1 the request brings."""
    call = _call_of(connection, arguments)

    def work(caller: Caller, sandbox: Sandbox, expired: Expired) -> Render:
        reply = call.run(caller, sandbox, connection.null, expired)
        return lambda: reply

    run = ScriptRun(connection, work, call.places, writes=call.writes, notes=connection.compares)
    connection.behind_barrier(run.begin)


def run_transaction(
    connection: RespSession,
    queue: Queue,
    fixed: Sequence[Condition],
    notes: bool,
    gather: Callable[[list[Reply]], Reply],
) -> ScriptRun:
    """Return an object that runs a transaction with scripts, all in the scripts' thread, and gives the answer to EXEC.

    queue: the commands since MULTI.  fixed: the conditions that WATCH has set.
    notes: whether the client's tracking notes what is read.
    gather: makes EXEC's reply of the commands' replies. Raises CommandError if the scripts name too many keys.
    """
    steps: list[Call | bytes | None] = []
    for spec, arguments in queue:
        try:
            steps.append(_call_of(connection, arguments) if spec.script else None)
        except CommandError as wrong:
            steps.append(wrong.reply)
    keys = [place for step in steps if isinstance(step, Call) for place in step.places]
    if len(keys) > KEYS_MAX:
        raise CommandError(TOO_MANY_KEYS)
    null, protocol = connection.null, connection.protocol
    # What the connection answers by itself is about its own state, and others': that is the event loop's.
    local = [
        (place, functools.partial(_whole, spec.local, connection, arguments))
        for place, (spec, arguments) in enumerate(queue)
        if spec.local is not None
    ]

    def work(caller: Caller, sandbox: Sandbox, expired: Expired) -> Render:
        replies: list[Reply] = []
        size = 0
        for step, (spec, arguments) in zip(steps, queue, strict=True):
            if expired():
                raise GivenUp("its time is over")
            if isinstance(step, Call):
                replies.append(step.run(caller, sandbox, null, expired))
            elif spec.local is not None:
                replies.append(b"")
            elif step is None:
                caller.writes = True
                replies.append(caller.answer(spec, arguments, protocol))
            else:
                replies.append(step)
            # Not first when all is gathered: ten thousand replies of a megabyte would fill the memory until then.
            size += size_of(replies[-1])
            if size > ANSWER_BYTES_MAX:
                size -= size_of(replies[-1])
                replies[-1] = error(f"ERR the answers are larger than {ANSWER_BYTES_MAX} bytes")
        if not local:
            reply = gather(replies)
            return lambda: reply

        def completed() -> Reply:
            for place, answer in local:
                replies[place] = connection.said(answer)
            return gather(replies)

        return completed

    lost = connection.null_array
    return ScriptRun(connection, work, keys, writes=True, notes=notes, fixed=fixed, lost=lost)


def _whole(answer: Local, connection: RespSession, arguments: Arguments) -> bytes:
    return whole(answer(connection, arguments))


# SCRIPT ---------------------------------------------------------------------------------------------------------------


def _load(connection: RespSession, arguments: Arguments) -> None:
    if not is_available():
        raise CommandError(MISSING)
    script = script_of(arguments[2])

    def begin(end: End) -> None:
        def compiled(sandbox: Sandbox, expired: Expired) -> bytes:
            return sandbox.check(script.source, script.sha)

        def done(outcome: bytes | CommandError) -> None:
            connection.contained(end, told, outcome)

        def told(outcome: bytes | CommandError) -> None:
            if isinstance(outcome, CommandError):
                end(outcome.reply)
            elif outcome:
                end(error(b"ERR Error compiling script (new function): " + outcome))
            else:
                connection.service.scripts.catalogue.keep(script)
                end(bulk(script.sha))

        connection.service.scripts.runner.start(compiled, done)

    connection.exclusive(begin)


def _exists(connection: RespSession, arguments: Arguments) -> None:
    knows = connection.service.scripts.catalogue.knows
    connection.in_turn(lambda: array([ONE if knows(sha) else ZERO for sha in arguments[2:]]))


def _flush(connection: RespSession, arguments: Arguments) -> None:
    if len(arguments) > 3 or (len(arguments) == 3 and arguments[2].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)

    def answer() -> bytes:
        connection.service.scripts.catalogue.clear()
        return OK

    connection.in_turn(answer)


def _kill(connection: RespSession, arguments: Arguments) -> None:
    def answer() -> bytes:
        if not connection.service.scripts.runner.kill():
            raise CommandError(NOT_BUSY)
        return OK

    connection.in_turn(answer)


_SCRIPT: Final[dict[bytes, tuple[int, Control]]] = {
    b"EXISTS": (-3, _exists),
    b"FLUSH": (-2, _flush),
    b"KILL": (2, _kill),
    b"LOAD": (3, _load),
}


def script(connection: RespSession, arguments: Arguments) -> None:
    arity, answer = _SCRIPT.get(arguments[1].upper(), (0, None))
    if answer is None:
        raise CommandError(b"ERR unknown subcommand '%b'. Try SCRIPT HELP." % arguments[1][:128])
    if len(arguments) != arity if arity > 0 else len(arguments) < -arity:
        raise CommandError(wrong_arity(f"script|{arguments[1].decode().lower()}"))
    answer(connection, arguments)


# A script may write, whatever it does: who may only read has the commands that end with ``_ro``.
_spec = functools.partial(Spec, group="scripting", flags=("write", "noscript", "stale"))
_script = functools.partial(_spec, control=evaluate, script=True, keys=(3, -1, 1), counted=2)
_read = functools.partial(_script, flags=("readonly", "noscript", "stale"))

SPECS: Final = (
    _script("eval", -3, "Runs a Lua script."),
    _script("evalsha", -3, "Runs a Lua script by its digest."),
    _read("eval_ro", -3, "Runs a Lua script that only reads."),
    _read("evalsha_ro", -3, "Runs a Lua script that only reads, by its digest."),
    _spec("script", -2, "Keeps scripts by their digests, and ends one.", control=script),
)
