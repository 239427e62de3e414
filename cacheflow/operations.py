"""The operations of a batch: from mappings to commands, and from raw results to mappings.

    set     key, value  [ttl | keep_ttl, encoding, content_type]   200 replaced, 201 created
    add     key, value  [ttl, encoding, content_type]              201, 412 when the key exists
    cas     key, value, version  [ttl | keep_ttl, encoding, ...]   200, 412 at another version
    get     key                                                    200, 404
    delete  key  [version]                                         200, 404, 412 at another version, or absent with one
    incr    key  [delta, initial, ttl]                             200, 404, 409
    touch   key, ttl                                               200, 404

In JSON ``"encoding": "base64"`` marks a value of bytes, in both directions; ``content_type`` goes with bytes.

Over HTTP a batch of nothing but get is a read and no log entry (``rest/routes/cache.py``).

This is the path for throughput: up to 1,000 operations in one log entry. So each operation costs one dictionary look-up
and a tuple; a second look finds the reason only when one is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from json.encoder import encode_basestring as json_string
from typing import Any, Final

from cacheflow import values
from cacheflow.arguments import check_content_type, check_size, check_version, each_of, flag, known_fields, shown
from cacheflow.errors import InvalidRequest, PreconditionFailed, ValueTooLarge
from cacheflow.forms.form import PLAIN, Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.verbs import OPS_MAX, Steps, checked, delete_command, error_of, incr_command, once, touch_command, write

Operation = Mapping[str, Any]

# Operations between two calls that let a node's event loop have the interpreter.
STEP_OPS: Final = 64
_SET_FIELDS = frozenset({"op", "key", "value", "ttl", "keep_ttl", "encoding", "content_type"})
_ADD_FIELDS = _SET_FIELDS - {"keep_ttl"}
_CAS_FIELDS = _SET_FIELDS | {"version"}
_check_key = values.check_key
_SET, _TEXT = commands.SET, values.TEXT


def batch(
    form: Form, ops: Iterable[Operation], *, atomic: bool = False, idempotency_key: str | None = None
) -> Steps[list[dict[str, Any]]]:
    """Run the operations ``ops`` in one log entry, with ``atomic`` all or none; return one result for each.

    A batch of over 66 MiB becomes several log entries; with ``atomic`` or an idempotency_key it raises ValueTooLarge.
    ops: ``{"op": "set", "key": "k", "value": any, "ttl": 5}``, or get, delete, incr, touch, cas, add.  A result has the
    ``status`` that HTTP would answer, the key, its version, and what the operation found.
    Raises InvalidRequest; with ``atomic`` the error of the operation that failed; and the errors of the method ``set``.
    """
    parsed: list[Command] = []
    wanted = _formed(form, each_of(ops, "operations"))
    try:
        parse_into(parsed, wanted, commands.TTL_MS_MAX)
    except InvalidRequest as error:
        raise type(error)(f"ops[{len(parsed)}]: {error}") from None
    flag(atomic, "atomic")
    result, _ = yield once(commands.batch(parsed, atomic), idempotency_key)
    if result[0] == commands.ABORTED:
        _, index, failed = result[:3]
        failure = error_of("", failed)
        failure.args = (f"ops[{index}]: {failure}",)
        raise failure
    return [result_of(form, command, each) for command, each in zip(parsed, checked("", result)[1], strict=True)]


def _formed(form: Form, ops: Iterable[Operation]) -> list[Any]:
    if form is PLAIN:
        return list(ops)
    formed: list[Any] = []
    try:
        for op in ops:
            formed.append(form.operation(op))
    except InvalidRequest as error:
        raise type(error)(f"ops[{len(formed)}]: {error}") from None
    return formed


def parse_into(
    parsed: list[Command], ops: Any, value_bytes_max: int, give_way: Callable[[], object] = lambda: None
) -> None:
    """Append the command of each operation in ``ops``, the parsed JSON of a batch, to the list ``parsed``.

    Raises InvalidRequest at the first wrong operation; ``parsed`` then holds the commands of those before it.
    value_bytes_max: the most bytes of a value.  give_way: a function that is called every STEP_OPS operations.
    """
    if type(ops) is not list or not ops:
        raise InvalidRequest('"ops" is needed: a list of operations')
    if len(ops) > OPS_MAX:
        raise InvalidRequest(f"a batch has at most {OPS_MAX} operations, not {len(ops)}")
    append, parse_of = parsed.append, _PARSE
    try:
        for start in range(0, len(ops), STEP_OPS):
            for op in ops[start : start + STEP_OPS]:
                value = op.get("value")
                if len(op) == 3 and op["op"] == "set" and type(value) is str and value.isascii():
                    if len(value) > value_bytes_max:
                        raise ValueTooLarge(f"the value has {len(value)} bytes; at most {value_bytes_max} are taken")
                    append((_SET, _check_key(op["key"]), value.encode(), _TEXT, None, 0, 0, 0))
                    continue
                command = parse_of[op["op"]](op)
                if command[0] == _SET:
                    check_size(command, value_bytes_max)
                append(command)
            give_way()
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(_explained(ops[len(parsed)], error)) from None


def _explained(op: Any, error: Exception) -> str:
    if not isinstance(op, Mapping):
        return "an operation is a JSON object"
    if "op" not in op:
        return '"op" is missing'
    name = op["op"]
    if type(name) is not str or name not in _PARSE:
        return f"unknown op {shown(name)}; known are {', '.join(_PARSE)}"
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return f'"{error.args[0]}" is missing'
    raise error


def _write(op: Operation, known: Collection[str], when: int, version: int) -> Command:
    known_fields(op, known)
    key, value = _check_key(op["key"]), op["value"]
    content_type = None
    if "encoding" in op or "content_type" in op:
        value, content_type = _bytes_of(op)
    return write(key, value, op.get("ttl"), op.get("keep_ttl", False), content_type, when, version)


def _bytes_of(op: Operation) -> tuple[bytes, str | None]:
    content_type = op.get("content_type")
    if "encoding" not in op and isinstance(op["value"], (bytes, bytearray, memoryview)):
        value = bytes(op["value"])
    elif op.get("encoding") != "base64":
        raise InvalidRequest('"encoding" is "base64", and "content_type" goes with it')
    else:
        try:
            value = base64.b64decode(op["value"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidRequest("the value is not base64") from None
    if content_type is not None:
        check_content_type(content_type, value)
    return value, content_type


def _get(op: Operation) -> Command:
    if len(op) != 2:
        known_fields(op, ("op", "key"))
    return commands.get(_check_key(op["key"]))


def _delete(op: Operation) -> Command:
    if len(op) == 2:
        return commands.delete(_check_key(op["key"]))
    known_fields(op, ("op", "key", "version"))
    return delete_command(op["key"], check_version(op["version"]))


def _incr(op: Operation) -> Command:
    known_fields(op, ("op", "key", "delta", "initial", "ttl"))
    return incr_command(op["key"], op.get("delta", 1), op.get("initial"), op.get("ttl"))


def _touch(op: Operation) -> Command:
    known_fields(op, ("op", "key", "ttl"))
    return touch_command(op["key"], op["ttl"])


_PARSE: Final[dict[str, Callable[[Operation], Command]]] = {
    "set": lambda op: _write(op, _SET_FIELDS, commands.ALWAYS, 0),
    "get": _get,
    "delete": _delete,
    "incr": _incr,
    "touch": _touch,
    "cas": lambda op: _write(op, _CAS_FIELDS, commands.IF_VERSION, check_version(op["version"])),
    "add": lambda op: _write(op, _ADD_FIELDS, commands.IF_ABSENT, 0),
}


def result_of(form: Form, command: Command, result: Result) -> dict[str, Any]:
    """Return ``result``, the state machine's answer to ``command``, as a dictionary for Python, with the value decoded."""
    answer: dict[str, Any] = {"status": 200, "key": form.own(command[1])}
    if result[0] != commands.OK:
        error = error_of("", result)
        answer |= {"status": error.http_status, "detail": str(error)}
        return answer | ({"version": error.version} if isinstance(error, PreconditionFailed) else {})
    op = command[0]
    if op == commands.GET:
        _, data, kind, meta, version, _ = result
        answer |= {"value": form.made(data, kind, meta), "version": version}
        told = kind == values.BYTES and isinstance(meta, str) and not form.makes(kind, meta)
        return answer | ({"content_type": meta} if told else {})
    if op == _SET and result[2]:
        answer["status"] = 201
    if op == commands.INCR:
        answer["value"] = result[2]
    if op == commands.DELETE:
        answer["deleted"] = True
    return answer | {"version": result[1]}


def value_members(data: bytes, kind: int, meta: str | int | None) -> str:
    """Return the JSON members that show a value, as text: ``"value"``, and for bytes ``"encoding"`` and ``"content_type"``.

    A value of the kind JSON is stored as JSON text, which is put in unchanged. A hash or set has ``"type"``, and ``"encoding"``
    where its texts are base64.
    """
    if kind == values.TEXT:
        return '"value":' + json_string(data.decode())
    if kind == values.JSON:
        return '"value":' + data.decode()
    if kind > values.VALUE_MAX:
        shown, is_base64 = values.json_of_fields(kind, data)
        text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        return f'"value":{text},"type":"{values.NAMES[kind]}"' + (',"encoding":"base64"' if is_base64 else "")
    members = f'"value":"{base64.b64encode(data).decode()}","encoding":"base64"'
    return f'{members},"content_type":{json_string(meta)}' if isinstance(meta, str) else members
