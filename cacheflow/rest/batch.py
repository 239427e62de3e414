"""Batches: JSON operations to commands, raw results to JSON text.

This is the path for throughput: one request, one log entry, up to 10,000 operations. So each operation costs one
dictionary look-up, a tuple and a formatted string; what is wrong with one is found out only when one is wrong.

    set     key, value  [ttl | keep_ttl, encoding, content_type]   200 replaced, 201 created
    add     key, value  [ttl, encoding, content_type]              201, 412 when the key exists
    cas     key, value, version  [ttl | keep_ttl, encoding, ...]   200, 412 at another version
    get     key                                                    200, 404
    delete  key  [version]                                         200, 404, 412
    incr    key  [delta, initial, ttl]                             200, 404, 409
    touch   key, ttl                                               200, 404

``"encoding": "base64"`` marks a value of bytes, in both directions; ``content_type`` goes with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection
from json.encoder import encode_basestring as json_string
from typing import Any, Final

from cacheflow import values
from cacheflow.errors import InvalidRequest, PreconditionFailed, ValueTooLarge
from cacheflow.machine import commands
from cacheflow.machine.commands import Command, Result
from cacheflow.outcomes import error_of, ttl_to_ms
from cacheflow.rest import checks
from cacheflow.rest.answers import value_members
from cacheflow.rest.problems import problem_of_command

OPS_MAX: Final = 10_000
# Ten thousand reads of one large value are a small request: without a cap, gigabytes of answer.
ANSWER_CHARS_MAX: Final = 64 * 1024 * 1024

Operation = dict[str, Any]

_SET_FIELDS = frozenset({"op", "key", "value", "ttl", "keep_ttl", "encoding", "content_type"})
_ADD_FIELDS = _SET_FIELDS - {"keep_ttl"}
_CAS_FIELDS = _SET_FIELDS | {"version"}
_check_key = values.check_key
_TEXT = values.TEXT
_SET = commands.SET
_OK = commands.OK


class BatchParser:
    """Operations to commands. Stateless, so one serves all threads. value_bytes_max: a larger value is refused."""

    def __init__(self, value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._parse_of: dict[str, Callable[[Operation], Command]] = {
            "set": self._set,
            "get": self._get,
            "delete": self._delete,
            "incr": self._incr,
            "touch": self._touch,
            "cas": self._cas,
            "add": self._add,
        }

    def parse(self, ops: Any) -> list[Command]:
        """Commands in the operations' order. Raises InvalidRequest, or Problem with the index of the bad one."""
        if type(ops) is not list or not ops:
            raise InvalidRequest('"ops" is needed: a list of operations')
        if len(ops) > OPS_MAX:
            raise InvalidRequest(f"a batch has at most {OPS_MAX} operations, not {len(ops)}")
        parsed: list[Command] = []
        append, parse_of = parsed.append, self._parse_of
        try:
            for op in ops:
                append(parse_of[op["op"]](op))
        except InvalidRequest as error:
            raise problem_of_command(error, len(parsed)) from None
        except (KeyError, TypeError) as error:
            why = self._explain(ops[len(parsed)], error)
            raise problem_of_command(InvalidRequest(why), len(parsed)) from None
        return parsed

    def _explain(self, op: Any, error: Exception) -> str:
        if type(op) is not dict:
            return "an operation is a JSON object"
        if "op" not in op:
            return '"op" is missing'
        name = op["op"]
        if type(name) is not str or name not in self._parse_of:
            return f"unknown op {checks.shown(name)}; known are {', '.join(self._parse_of)}"
        if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
            return f'"{error.args[0]}" is missing'
        raise error

    def _set(self, op: Operation) -> Command:
        value = op["value"]
        if len(op) == 3 and type(value) is str and value.isascii() and len(value) <= self._value_bytes_max:
            return (_SET, _check_key(op["key"]), value.encode(), _TEXT, None, 0, 0, 0)
        return self._write(op, _SET_FIELDS, commands.ALWAYS, 0)

    def _add(self, op: Operation) -> Command:
        return self._write(op, _ADD_FIELDS, commands.IF_ABSENT, 0)

    def _cas(self, op: Operation) -> Command:
        return self._write(op, _CAS_FIELDS, commands.IF_VERSION, _version(op["version"]))

    def _write(self, op: Operation, known: Collection[str], when: int, version: int) -> Command:
        checks.known_fields(op, known)
        key, value = _check_key(op["key"]), op["value"]
        meta = None
        if "encoding" in op or "content_type" in op:
            value, meta = _decoded_bytes(op)
        kind, data = values.encode(value)
        if len(data) > self._value_bytes_max:
            raise ValueTooLarge(f"the value has {len(data)} bytes; the most is {self._value_bytes_max}")
        return commands.set_(key, data, kind, meta, _ttl_ms_of(op), when, version)

    def _get(self, op: Operation) -> Command:
        if len(op) != 2:
            checks.known_fields(op, ("op", "key"))
        return commands.get(_check_key(op["key"]))

    def _delete(self, op: Operation) -> Command:
        if len(op) == 2:
            return commands.delete(_check_key(op["key"]))
        checks.known_fields(op, ("op", "key", "version"))
        return commands.delete(_check_key(op["key"]), _version(op["version"]))

    def _incr(self, op: Operation) -> Command:
        checks.known_fields(op, ("op", "key", "delta", "initial", "ttl"))
        initial = op.get("initial")
        return commands.incr(
            _check_key(op["key"]),
            checks.int64(op.get("delta", 1), "delta"),
            None if initial is None else checks.int64(initial, "initial"),
            ttl_to_ms(checks.ttl_or_none(op.get("ttl"))),
        )

    def _touch(self, op: Operation) -> Command:
        checks.known_fields(op, ("op", "key", "ttl"))
        return commands.touch(_check_key(op["key"]), ttl_to_ms(checks.ttl_or_none(op["ttl"])))


def _ttl_ms_of(op: Operation) -> int:
    keep = op.get("keep_ttl", False)
    if type(keep) is not bool:
        raise InvalidRequest("keep_ttl is true or false")
    if not keep:
        return ttl_to_ms(checks.ttl_or_none(op.get("ttl")))
    if op.get("ttl") is not None:
        raise InvalidRequest("ttl and keep_ttl exclude each other")
    return commands.TTL_KEEP


def _version(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= commands.INT64_MAX:
        raise InvalidRequest(f"version is a positive integer, not {checks.shown(value)}")
    return value


def _decoded_bytes(op: Operation) -> tuple[bytes, str | None]:
    content_type = op.get("content_type")
    if op.get("encoding") != "base64":
        raise InvalidRequest('"encoding" is "base64", and "content_type" goes with it')
    if content_type is not None and (type(content_type) is not str or not 1 <= len(content_type) <= 255):
        raise InvalidRequest("content_type is a string of 1 to 255 characters")
    try:
        return base64.b64decode(op["value"], validate=True), content_type
    except (binascii.Error, TypeError, ValueError):
        raise InvalidRequest("the value is not base64") from None


def render_results(batch: list[Command], results: list[Result]) -> bytes:
    """The answer's body. Raises Problem with the index of the operation that made an atomic batch fail."""
    if results and results[0][0] == commands.ABORTED:
        _, index, result = results[0][:3]
        raise problem_of_command(error_of("", result), index)
    room = ANSWER_CHARS_MAX
    parts: list[str] = []
    append = parts.append
    for command, result in zip(batch, results, strict=True):
        if command[0] == _SET and result[0] == _OK:
            status = "201" if result[2] else "200"
            append(f'{{"status":{status},"key":{json_string(command[1])},"version":{result[1]}}}')
            continue
        part = _RENDER[command[0]](result) if result[0] == _OK else _failure(result)
        if len(part) > room:
            part = _failure([commands.TOO_LARGE, "the answer would be too large; read this key by itself"])
        room -= len(part)
        append(f'{{"status":{part[:3]},"key":{json_string(command[1])}{part[3:]}}}')
    return ('{"results":[' + ",".join(parts) + "]}").encode()


# Each gives the status and the members behind "key".


def _got(result: Result) -> str:
    return f'200,{value_members(result[1], result[2], result[3])},"version":{result[4]}'


def _deleted(result: Result) -> str:
    return f'200,"deleted":true,"version":{result[1]}'


def _counted(result: Result) -> str:
    return f'200,"value":{result[2]},"version":{result[1]}'


def _touched(result: Result) -> str:
    return f'200,"version":{result[1]}'


_RENDER: Final[dict[int, Callable[[Result], str]]] = {
    commands.GET: _got,
    commands.DELETE: _deleted,
    commands.INCR: _counted,
    commands.TOUCH: _touched,
}


def _failure(result: Result) -> str:
    error = error_of("", result)
    members = f'{error.http_status},"detail":{json_string(str(error))}'
    return f'{members},"version":{error.version}' if isinstance(error, PreconditionFailed) else members
