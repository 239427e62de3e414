"""Values: the kinds of values, and the conversion between Python objects and their bytes.

A value is *text*, *bytes* or *json* (canonical), or what Redis' clients alone make: a *hash* or a *set* (``fields.py``).
It is kept as bytes beside its kind so that every front (HTTP, wire protocols, Python) reads what another wrote. This module
alone knows how Python objects become that and back.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from cacheflow.errors import InvalidRequest
from cacheflow.machine.language.fields import parts_of, with_fields

# The kinds of values, as the log and snapshots hold them.
TEXT: Final = 0
BYTES: Final = 1
JSON: Final = 2
HASH: Final = 3
SET: Final = 4
# The last of these that is one value: a hash and a set have fields, and are no strings to Redis' and memcached's clients.
VALUE_MAX: Final = JSON
# How HTTP calls them.
NAMES: Final = {HASH: "hash", SET: "set"}

KEY_BYTES_MAX: Final = 1024
# The deepest nesting of a JSON value: deeper than any honest document, far below the interpreter's recursion limit.
JSON_DEPTH_MAX: Final = 64
# The repr of an object that has none of its own ends in its address, which another object has later.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+>")
# The items of a JSON value, in all its containers together: some seconds of work at most, and far more than a cache should hold.
JSON_PARTS_MAX: Final = 4_000_000


def check_key(key: object) -> str:
    """Return ``key`` if it can name an entry: 1 to 1024 bytes of UTF-8 without control characters.

    Raises InvalidRequest if it cannot.
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


def hashkey(*args: Any, **kwargs: Any) -> str:
    """Return the cache key for a call of a function that ``cachetools.cached(cache, key=cacheflow.hashkey)`` decorates.

    Two functions never share a key. Raises TypeError for an argument without a repr of its own, and when anything but
    cachetools calls this function (use ``key_of(function)`` there).
    """
    # cachetools gives a key function the arguments alone; the object that calls it knows the function.
    caller = sys._getframe(1).f_locals.get("self")
    if getattr(caller, "cache_key", None) is not hashkey:
        raise TypeError("hashkey is for cachetools.cached alone; call cacheflow.key_of(function)(arguments)")
    return key_of(caller.__wrapped__)(*args, **kwargs)  # type: ignore[union-attr]


def key_of(function: Callable[..., Any] | str) -> Callable[..., str]:
    """Return a function that makes the cache key of a call of ``function``, the same key as ``hashkey`` makes.

    function: decorated or not; or a name of your own, for ``cachetools.cachedmethod``, lambdas and inner functions.

    A key is made of the function's module and name, and the reprs of the arguments, so it is the same in every process if
    these are. Two calls share a key when the types, values and names of their arguments are the same.
    """
    if isinstance(function, str):
        name = function
    else:
        bare = inspect.unwrap(function)
        place = getattr(bare, "__qualname__", "")
        if not place or "<" in place:
            # Two lambdas, or two closures of one factory, have one name.
            raise TypeError(f"{bare!r} has no name of its own: use key=cacheflow.key_of('a name of your own')")
        name = f"{bare.__module__}.{place}"

    def key(*args: Any, **kwargs: Any) -> str:
        text = repr((name, args, sorted(kwargs.items())))
        for value in (*args, *kwargs.values()):
            if not isinstance(value, (str, bytes)) and _ADDRESS.search(repr(value)):
                raise TypeError(
                    f"an argument of {name} has no repr of its own, so no two calls have one key: {value!r}"
                )
        return f"call:{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"

    return key


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON text of a value: sorted keys, no blanks, UTF-8.

    Raises InvalidRequest for what would come back as something else (NaN, infinities, tuples, keys that are no text), for lone
    surrogates, foreign types and nesting over 64 levels.
    """
    check_containers(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the value has a lone surrogate, which UTF-8 cannot hold") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the value is not JSON: {error}") from None


def check_containers(value: Any) -> None:
    """Raise InvalidRequest if ``value`` has a container that JSON would change, over 64 levels, or over 4 million parts.

    Does not recurse, so that no nesting of ``value`` is too deep for the check.
    """
    level = [value]
    parts = 0
    for _ in range(JSON_DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
                for key in item:
                    if not isinstance(key, str):
                        raise InvalidRequest(f"a JSON object has texts as keys: {key!r:.50} would come back as one")
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, tuple):
                raise InvalidRequest("a tuple would come back as a list: give a list")
        if not deeper:
            return
        parts += len(deeper)
        if parts > JSON_PARTS_MAX:
            # A list that holds itself twice doubles with each level.
            raise InvalidRequest(f"the value has more than {JSON_PARTS_MAX} parts")
        level = deeper
    if any(isinstance(item, (dict, list, tuple)) for item in level):
        raise InvalidRequest(f"the value is nested deeper than {JSON_DEPTH_MAX} levels")


def encode(value: Any) -> tuple[int, bytes]:
    """Return (kind, bytes) by which the cache stores a Python value: str is text, bytes are bytes, anything else is JSON.

    Raises InvalidRequest.
    """
    if isinstance(value, str):
        try:
            return TEXT, value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest("the value has a lone surrogate, which UTF-8 cannot hold") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, bytes(value)
    return JSON, canonical_json(value)


def kind_of(data: bytes) -> int:
    """Return the kind of ``data``, a value that a Redis or memcached client stores: TEXT if it is UTF-8, else BYTES."""
    if data.isascii():
        return TEXT
    try:
        data.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT


def decode(kind: int, data: bytes) -> Any:
    """Return the Python value that the cache has stored as the bytes ``data`` of the kind ``kind``.

    A hash is a dict and a set is a set, of str, and of bytes where a field or value is not UTF-8.
    """
    if kind == TEXT:
        return data.decode()
    if kind == BYTES:
        return data
    if kind == JSON:
        return json.loads(data)
    parts = [part.decode() if kind_of(part) == TEXT else part for part in parts_of(data)]
    return {*parts[::2]} if kind == SET else dict(zip(parts[::2], parts[1::2], strict=True))


def json_of_fields(kind: int, data: bytes) -> tuple[Any, bool]:
    """Return (a hash as a dict, or a set as a list, as JSON can hold it; whether the texts in it are in base64).

    All texts are in base64 if any field or value is not UTF-8.  kind: HASH or SET.  data: the bytes of the stored value.
    """
    parts = parts_of(data)
    is_text = all(kind_of(part) == TEXT for part in parts)
    texts = [part.decode() if is_text else b64encode(part).decode() for part in parts]
    if kind == SET:
        return texts[::2], not is_text
    return dict(zip(texts[::2], texts[1::2], strict=True)), not is_text


def fields_of_json(value: Any, is_base64: bool) -> tuple[int, bytes]:
    """Return (kind, bytes), as the cache stores them, of a hash or set, from the dict or list ``value`` of JSON texts.

    is_base64: whether the texts are in base64.
    """
    pairs = value.items() if isinstance(value, dict) else [(member, "") for member in value]
    texts = [text for pair in pairs for text in pair]
    parts = [b64decode(text) if is_base64 else text.encode() for text in texts]
    return HASH if isinstance(value, dict) else SET, with_fields(b"", parts)[0]
