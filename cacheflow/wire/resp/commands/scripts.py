"""The commands on scripts: EVAL and its kin, and SCRIPT. How a script takes place: ``scripting/running.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from cacheflow.wire.connection import End
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.replies import OK, ONE, ZERO, CommandError, array, bulk, error
from cacheflow.wire.resp.scripting.catalogue import Script, script_of
from cacheflow.wire.resp.scripting.runner import Expired
from cacheflow.wire.resp.scripting.running import ScriptRun
from cacheflow.wire.resp.scripting.sandbox import MISSING, Sandbox, is_available
from cacheflow.wire.resp.session import Arguments, Control, RespSession, Spec, wrong_arity

NO_SCRIPT: Final = "NOSCRIPT No matching script. Please use EVAL."
NOT_BUSY: Final = "NOTBUSY No scripts in execution right now."
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


def _eval(find: Callable[[RespSession, bytes], Script], *, writes: bool) -> Control:
    def control(connection: RespSession, arguments: Arguments) -> None:
        if not is_available():
            raise CommandError(MISSING)
        count = integer_of(arguments[2], NOT_AN_INTEGER)
        if count > len(arguments) - 3:
            raise CommandError("ERR Number of keys can't be greater than number of args")
        if count < 0:
            raise CommandError("ERR Number of keys can't be negative")
        script = find(connection, arguments[1])
        if not writes and script.flags is not None and not script.only_reads:
            raise CommandError(NOT_READ_ONLY)
        keys, given = arguments[3 : 3 + count], arguments[3 + count :]
        run = ScriptRun(connection, script, keys, given, writes=writes and not script.only_reads)
        connection.behind_barrier(run.begin)

    return control


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


_spec = functools.partial(Spec, group="scripting", flags=("noscript", "stale"))
_read = functools.partial(Spec, group="scripting", flags=("readonly", "noscript", "stale"))

SPECS: Final = (
    _spec("eval", -3, "Runs a Lua script.", control=_eval(_given, writes=True)),
    _spec("evalsha", -3, "Runs a Lua script by its digest.", control=_eval(_known, writes=True)),
    _read("eval_ro", -3, "Runs a Lua script that only reads.", control=_eval(_given, writes=False)),
    _read("evalsha_ro", -3, "Runs a Lua script that only reads, by its digest.", control=_eval(_known, writes=False)),
    _spec("script", -2, "Keeps scripts by their digests, and ends one.", control=script),
)
