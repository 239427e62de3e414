"""Batches over HTTP: from JSON operations to the machine's commands, and from their results to JSON text.

This is the path for throughput: each operation costs a formatted string here. The node's event loop would wait for the
interpreter until all of a batch is done, so the thread gives way between some operations.
"""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring as json_string
from typing import Any, Final

from cacheflow.contract import DATA, Entry
from cacheflow.errors import InvalidRequest, PreconditionFailed
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.net.slices import Breaks
from cacheflow.operations import STEP_OPS, parse_into, value_members
from cacheflow.rest.problems import problem_of_command
from cacheflow.verbs import error_of

# The most characters of an answer: ten thousand reads of one large value are a small request and would be gigabytes.
ANSWER_CHARS_MAX: Final = 64 * 1024 * 1024

_SET = commands.SET
_OK = commands.OK


def parse_batch(ops: Any, value_bytes_max: int) -> list[Command]:
    """Return the cache commands that ``ops``, the JSON operations of a batch, stand for.

    Raises InvalidRequest if ``ops`` is no valid list, or Problem with the index of the operation that is wrong.
    """
    parsed: list[Command] = []
    try:
        parse_into(parsed, ops, value_bytes_max, Breaks().give_way)
    except InvalidRequest as error:
        if type(ops) is not list or len(parsed) >= len(ops):
            raise
        raise problem_of_command(error, len(parsed)) from None
    return parsed


def result_of_reads(entries: list[Entry | None], atomic: bool) -> Result:
    """Return the result of a BATCH of GET commands that found ``entries``, which has None for each absent key.

    As in the state machine the results together have a limit of bytes: entries beyond it get the result TOO_LARGE.
    """
    room = ANSWER_CHARS_MAX
    results: list[Result] = []
    for position, entry in enumerate(entries):
        if entry is None:
            results.append([commands.MISSING])
            continue
        room -= len(entry[DATA])
        if room < 0 and results:
            too_large = [commands.TOO_LARGE, "the answer would be too large; read this key by itself"]
            if atomic:
                return [commands.ABORTED, position, too_large]
            results.append(too_large)
            continue
        results.append([_OK, *entry])
    return [_OK, results]


def render_results(batch: list[Command], results: list[Result]) -> bytes:
    """Return the JSON body that shows the results of a batch's commands.

    Raises Problem with the index of the operation that made an atomic batch fail.
    """
    if results and results[0][0] == commands.ABORTED:
        _, index, result = results[0][:3]
        raise problem_of_command(error_of("", result), index)
    room = ANSWER_CHARS_MAX
    parts: list[str] = []
    append, give_way = parts.append, Breaks().give_way
    for command, result in zip(batch, results, strict=True):
        if not len(parts) % STEP_OPS:
            give_way()
        if command[0] == _SET and result[0] == _OK:
            status = "201" if result[2] else "200"
            append(f'{{"status":{status},"key":{json_string(command[1])},"version":{result[1]}}}')
            continue
        part = _RENDER[command[0]](result) if result[0] == _OK else _failure(result)
        # A lone large value is answered whatever its size, as by a read: a batch may be about to remove it.
        if parts and len(part) > room:
            part = _failure([commands.TOO_LARGE, "the answer would be too large; read this key by itself"])
        room -= len(part)
        append(f'{{"status":{part[:3]},"key":{json_string(command[1])}{part[3:]}}}')
    return ('{"results":[' + ",".join(parts) + "]}").encode()


# The status of a result and, as JSON text, the members that stand behind "key".
_RENDER: Final[dict[int, Callable[[Result], str]]] = {
    commands.GET: lambda result: f'200,{value_members(*result[1:4])},"version":{result[4]}',
    commands.DELETE: lambda result: f'200,"deleted":true,"version":{result[1]}',
    commands.INCR: lambda result: f'200,"value":{result[2]},"version":{result[1]}',
    commands.TOUCH: lambda result: f'200,"version":{result[1]}',
}


def _failure(result: Result) -> str:
    error = error_of("", result)
    members = f'{error.http_status},"detail":{json_string(str(error))}'
    return f'{members},"version":{error.version}' if isinstance(error, PreconditionFailed) else members
