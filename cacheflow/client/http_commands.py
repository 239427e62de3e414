"""Commands over HTTP: the request that runs a command, and the command's raw result from the answer.

No clock is shared with the node, so expiry times count from now: an ``expires_at_ms`` here is the milliseconds left, and
compares with the time 0.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from json.encoder import encode_basestring as json_string
from typing import Any, Final
from urllib.parse import quote, urlencode

from cacheflow import values
from cacheflow.client.exchange import Request
from cacheflow.errors import (
    CacheFlowError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    NotAnInteger,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.forms.form import Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.operations import value_members
from cacheflow.verbs import error_of

JSON_TYPE: Final = {"Content-Type": "application/json"}

_STATUS_OF: Final[dict[type[CacheFlowError], int]] = {
    KeyNotFound: commands.MISSING,
    PreconditionFailed: commands.PRECONDITION,
    NotAnInteger: commands.NOT_AN_INTEGER,
    ValueTooLarge: commands.TOO_LARGE,
    InvalidRequest: commands.MALFORMED,
    IdempotencyKeyReused: commands.KEY_REUSED,
}
_ERROR_OF: Final = {error.http_status: error for error in _STATUS_OF}
_OPERATION_OF: Final = {commands.ALWAYS: "set", commands.IF_ABSENT: "add", commands.IF_VERSION: "cas"}


def target_of(key: str) -> str:
    """Return the URL path of the cache entry ``key`` in the REST API. Raises InvalidRequest for an invalid key."""
    return "/cache/" + quote(values.check_key(key), safe="")


def query_of(**options: Any) -> str:
    """Return a URL's query string with those ``options`` that are neither None nor False; "" without any."""
    given = {name: _query_value(value) for name, value in options.items() if value is not None and value is not False}
    return "?" + urlencode(given) if given else ""


def _query_value(value: Any) -> Any:
    if value is True:
        return "true"
    # To the microsecond, because a float's 17 digits are more than a node takes.
    return max(round(value, 6), 1e-6) if isinstance(value, float) else value


def request_of(command: Command) -> Request:
    """Return the HTTP request by which a node runs ``command``; the caller adds the Idempotency-Key header."""
    op = command[0]
    if op == commands.SET:
        return _put(command)
    if op == commands.BATCH:
        _, atomic, batch = command
        body = '{"ops":[' + ",".join(map(_operation, batch)) + ('],"atomic":true}' if atomic else "]}")
        return Request("POST", "/cache/_batch", body.encode(), JSON_TYPE, write=True)
    if op == commands.DELETE:
        _, key, version = command
        return Request("DELETE", target_of(key), None, {"If-Match": f'"{version}"'} if version else {}, write=True)
    if op == commands.DELETE_PREFIX:
        return Request(
            "DELETE", "/cache" + query_of(prefix=command[1] or None, all=not command[1]), None, {}, write=True
        )
    path = "/incr" if op == commands.INCR else "/touch"
    return Request("POST", target_of(command[1]) + path, f"{{{_members(command)}}}".encode(), JSON_TYPE, write=True)


def request_to_read(keys: list[str], query: str, headers: Mapping[str, str]) -> Request:
    """Return the HTTP request that reads ``keys``, at most OPS_MAX, all as they are at one moment on the node that answers.

    query: the URL's query string, with the options of the read.
    """
    body = '{"ops":[' + ",".join([f'{{"op":"get","key":{json_string(key)}}}' for key in keys]) + "]}"
    return Request("POST", "/cache/_batch" + query, body.encode(), {**JSON_TYPE, **headers}, write=False)


def put_found(found: dict[str, Any], form: Form, keys: list[str], results: list[Mapping[str, Any]]) -> list[str]:
    """Add {key: value} of the present ``keys`` to ``found``; return the keys whose values were too large for one answer.

    results: a node's answer to each key's read. Raises the error for which any other failed read stands.
    """
    rest = []
    for key, result in zip(keys, results, strict=True):
        status = result["status"]
        if status == 200:
            value = value_of(result)
            if isinstance(value, bytes):
                value = form.made(value, values.BYTES, result.get("content_type"))
            found[form.own(key)] = value
        elif status == 413 and len(keys) > 1:
            rest.append(key)
        elif status != 404:
            raise error_of(form.own(key), result_of(commands.get(key), status, result))
    if rest and len(rest) == len(keys):
        raise CacheFlowError("a node answers none of the keys that it is asked for")
    return rest


def _put(command: Command) -> Request:
    _, key, data, kind, content_type, ttl_ms, when, version = command
    headers = {}
    if when == commands.IF_ABSENT:
        headers["If-None-Match"] = "*"
    elif when == commands.IF_VERSION:
        headers["If-Match"] = f'"{version}"'
    keep_ttl = ttl_ms == commands.TTL_KEEP
    if kind == values.BYTES:
        if content_type is not None:
            headers["Content-Type"] = content_type
        ttl = ttl_ms / 1000 if ttl_ms > 0 else None
        return Request("PUT", target_of(key) + query_of(keep_ttl=keep_ttl, ttl=ttl), data, headers, write=True)
    body = f"{{{value_members(data, kind, None)}{_ttl(ttl_ms)}}}"
    return Request("PUT", target_of(key) + query_of(keep_ttl=keep_ttl), body.encode(), headers | JSON_TYPE, write=True)


def _ttl(ttl_ms: int) -> str:
    return f',"ttl":{ttl_ms / 1000!r}' if ttl_ms > 0 else ""


def _members(command: Command) -> str:
    """Return the JSON fields, without braces and key, of the request for ``command``, an INCR or TOUCH."""
    if command[0] == commands.TOUCH:
        return f'"ttl":{command[2] / 1000!r}' if command[2] else '"ttl":null'
    _, _, delta, initial, ttl_ms = command
    return f'"delta":{delta}' + ("" if initial is None else f',"initial":{initial}') + _ttl(ttl_ms)


def _operation(command: Command) -> str:
    """Return ``command``, one of a batch, as the JSON text of an operation in a batch request."""
    op, key = command[0], json_string(command[1])
    if op == commands.SET:
        _, _, data, kind, content_type, ttl_ms, when, version = command
        text = f'{{"op":"{_OPERATION_OF[when]}","key":{key},{value_members(data, kind, content_type)}{_ttl(ttl_ms)}'
        text += f',"version":{version}' if when == commands.IF_VERSION else ""
        return text + (',"keep_ttl":true}' if ttl_ms == commands.TTL_KEEP else "}")
    if op == commands.GET:
        return f'{{"op":"get","key":{key}}}'
    if op == commands.DELETE:
        return f'{{"op":"delete","key":{key}' + (f',"version":{command[2]}}}' if command[2] else "}")
    return f'{{"op":"{"incr" if op == commands.INCR else "touch"}","key":{key},{_members(command)}}}'


def result_of(command: Command, status: int, document: Mapping[str, Any]) -> Result:
    """Return the result that the state machine gave for ``command``, as told by a node's HTTP answer to it.

    status, document: HTTP status and JSON of that answer, or of the part of it that is for ``command``, if that is in a batch.
    """
    if status >= 300:
        return _failed(_STATUS_OF[_ERROR_OF.get(status, InvalidRequest)], str(document.get("detail", "")), document)
    op = command[0]
    if op == commands.BATCH:
        told = zip(command[2], document["results"], strict=True)
        return [commands.OK, [result_of(inner, each["status"], each) for inner, each in told]]
    if op == commands.SET:
        return [commands.OK, document["version"], status == 201, _left_ms(document)]
    if op == commands.INCR:
        return [commands.OK, document["version"], document["value"], _left_ms(document)]
    if op == commands.GET:
        kind, data = stored_of(document)
        return [commands.OK, data, kind, document.get("content_type"), document["version"], _left_ms(document)]
    if op == commands.DELETE_PREFIX:
        return [commands.OK, document["deleted"]]
    return [commands.OK, document.get("version", 0), _left_ms(document)]


def refusal_of(error: CacheFlowError, document: Mapping[str, Any], command: Command) -> Result:
    """Return the failed result that the state machine gave for ``command``, from ``error``, made of a node's HTTP answer.

    document: that answer's problem document (RFC 9457). Raises ``error`` if it did not come from the state machine.
    """
    status = _STATUS_OF.get(type(error))
    if status is None:
        raise error
    index = document.get("index")
    if command[0] == commands.BATCH and command[1] and isinstance(index, int):
        detail = str(error).removeprefix(f"ops[{index}]: ")
        return [commands.ABORTED, index, _failed(status, detail, document)]
    return _failed(status, str(error), document)


def _failed(status: int, detail: str, document: Mapping[str, Any]) -> Result:
    if status != commands.PRECONDITION:
        return [status, detail]
    version = document.get("version")
    return [status, version if isinstance(version, int) else 0]


def _left_ms(document: Mapping[str, Any]) -> float:
    ttl = document.get("ttl")
    # An entry at its very end must not pass for one that never expires.
    return 0 if ttl is None else max(ttl * 1000, 1)


def stored_of(document: Mapping[str, Any]) -> tuple[int, bytes]:
    """Return (kind, bytes) of the cache entry's value in ``document``, the JSON that a node shows of the entry."""
    value, is_base64 = document["value"], document.get("encoding") == "base64"
    if "type" in document:
        return values.fields_of_json(value, is_base64)
    return values.encode(base64.b64decode(value) if is_base64 else value)


def value_of(document: Mapping[str, Any]) -> Any:
    """Return the Python value of the cache entry in ``document``, the JSON that a node shows of the entry.

    A value that is shown in base64 becomes bytes.
    """
    if "type" in document:
        return values.decode(*stored_of(document))
    value = document["value"]
    return base64.b64decode(value) if document.get("encoding") == "base64" else value
