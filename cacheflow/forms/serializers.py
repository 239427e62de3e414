"""Serializers by name: a Python value to the bytes that the cache stores, and back.

    json      what JSON holds, kept as text and JSON as without a serializer; bytes are refused
    msgpack   None, bool, int, float, str, bytes, list, dict
    pickle    any object that pickle takes. Whoever writes into the cluster runs code in whoever reads it (docs/security.md)

1. What is read is what was set, or it is refused when it is set: a serializer makes no list of a tuple.
2. Bytes are taken back only under the content type of the serializer itself: nothing else is ever unpickled.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack

from cacheflow.arguments import shown
from cacheflow.errors import InvalidRequest, UnreadableValue

# Read by every Python that this package runs on; the highest one would not be.
PICKLE_PROTOCOL: Final = 5


class Serializer(NamedTuple):
    """A serializer: one way to store Python values as bytes.

    content_type: the type under which the bytes are stored; None if this serializer makes no bytes.
    """

    name: str
    content_type: str | None
    dumps: Callable[[Any], Any]
    loads: Callable[[bytes], Any]

    def stored(self, value: Any) -> Any:
        """Return what the cache stores for the Python ``value``. Raises InvalidRequest if this serializer cannot hold it."""
        try:
            return self.dumps(value)
        except InvalidRequest:
            raise
        except Exception as error:  # an object's own __reduce__ may raise anything
            raise InvalidRequest(f"serializer {self.name} cannot hold the value: {shown_error(error)}") from error

    def read(self, data: bytes) -> Any:
        """Return the Python value that this serializer has stored as the bytes ``data``. Raises UnreadableValue."""
        try:
            return self.loads(data)
        except Exception as error:  # what is not what this serializer wrote may raise anything
            raise UnreadableValue(
                f"the value is marked as {self.content_type} and cannot be read as that: {shown_error(error)}"
            ) from error


def shown_error(error: Exception) -> str:
    """Return the text of ``error`` on one line and shortened, to stand in the message of another error."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of the object's own, whose __str__ raises
        text = ""
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _json(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidRequest("serializer json cannot hold bytes: use msgpack, pickle or no serializer")
    return value


def _packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, strict_types=True)
    return packed


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False)


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, PICKLE_PROTOCOL)


SERIALIZERS: Final = {
    each.name: each
    for each in (
        Serializer("json", None, _json, bytes),
        Serializer("msgpack", "application/x-cacheflow-msgpack", _packed, _unpacked),
        Serializer("pickle", "application/x-cacheflow-pickle", _pickled, pickle.loads),
    )
}


def serializer_named(name: Any) -> Serializer | None:
    """Return the serializer called ``name``; None if ``name`` is None. Raises InvalidRequest if no serializer has that name."""
    if name is None:
        return None
    found = SERIALIZERS.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidRequest(f"serializer is one of {', '.join(SERIALIZERS)}, or None, not {shown(name)}")
    return found
