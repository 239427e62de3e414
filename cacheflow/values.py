"""Values: bytes and a kind.

A value is *text*, *bytes* or *json* (canonical), kept as bytes beside its kind so that every front (HTTP, wire
protocols, Python) reads what another wrote. This module alone knows how Python objects become that and back.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from hashlib import blake2b
from typing import Any, Final

from cacheflow.errors import InvalidRequest

# The kinds of values, as the log and snapshots hold them.
TEXT: Final = 0
BYTES: Final = 1
JSON: Final = 2

KEY_BYTES_MAX: Final = 1024
# The deepest nesting of a JSON value: deeper than any honest document, far below the interpreter's recursion limit.
JSON_DEPTH_MAX: Final = 64
# Items on one level of a JSON value from which it is looked at whether they are all different ones.
JSON_LEVEL_MAX: Final = 10_000


def check_key(key: object) -> str:
    """Return ``key`` if it may name an entry: 1 to 1024 bytes of UTF-8 without control characters.

    Raises InvalidRequest.
    """
    if not isinstance(key, str):
        raise InvalidRequest(f"a key is a str, not {type(key).__name__}")
    if not key:
        raise InvalidRequest("the key is empty")
    if len(key) > KEY_BYTES_MAX:
        raise InvalidRequest(f"the key is longer than {KEY_BYTES_MAX} bytes")
    if not key.isprintable():
        # isprintable() also refuses separators and format characters, which are allowed: look closer.
        for char in key:
            if char < " " or "\x7f" <= char <= "\x9f":
                raise InvalidRequest(f"the key has a control character (U+{ord(char):04X})")
    if not key.isascii():
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("the key has a lone surrogate") from None
        if size > KEY_BYTES_MAX:
            raise InvalidRequest(f"the key is longer than {KEY_BYTES_MAX} bytes")
    return key


def hashkey(*args: Hashable, **kwargs: Hashable) -> str:
    """Return the key of a call with these arguments, for ``cachetools.cached(cache, key=cacheflow.hashkey)``.

    It is made of their reprs, so it is the same in every process if these are. Two calls have one key when the types, values
    and names of their arguments are the same.
    """
    text = repr((args, sorted(kwargs.items())))
    return f"call:{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a JSON value: sorted keys, no blanks, UTF-8.

    Raises InvalidRequest for NaN, infinities, lone surrogates, foreign types and nesting over 64 levels.
    """
    check_depth(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the value has a lone surrogate, which UTF-8 cannot hold") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the value is not JSON: {error}") from None


def check_depth(value: Any) -> None:
    """Refuse containers nested deeper than 64 levels, without recursion. Raises InvalidRequest."""
    level = [value]
    for depth in range(JSON_DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, (list, tuple)):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
        if depth and len(deeper) > JSON_LEVEL_MAX:
            # Each container once: a list that holds itself twice would double each time.
            level = list({id(item): item for item in deeper if isinstance(item, (dict, list, tuple))}.values())
    if any(isinstance(item, (dict, list, tuple)) for item in level):
        raise InvalidRequest(f"the value is nested deeper than {JSON_DEPTH_MAX} levels")


def encode(value: Any) -> tuple[int, bytes]:
    """Return a Python value as (kind, bytes): str is text, bytes are bytes, anything else is JSON. Raises InvalidRequest."""
    if isinstance(value, str):
        try:
            return TEXT, value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest("the value has a lone surrogate, which UTF-8 cannot hold") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, bytes(value)
    return JSON, canonical_json(value)


def kind_of(data: bytes) -> int:
    """Return the kind under which a wire port keeps ``data``: TEXT for UTF-8, else BYTES."""
    if data.isascii():
        return TEXT
    try:
        data.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT


def decode(kind: int, data: bytes) -> Any:
    """Return the Python value that ``encode`` was given."""
    if kind == TEXT:
        return data.decode()
    if kind == BYTES:
        return data
    return json.loads(data)
