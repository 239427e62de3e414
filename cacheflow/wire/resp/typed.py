"""The types of values as Redis' clients know them: string, hash and set; and the error for a command that is for another one."""

from __future__ import annotations

from typing import Final

from cacheflow import values
from cacheflow.contract import DATA, KIND, Entry
from cacheflow.wire.resp.replies import CommandError, error

WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
WRONG_TYPE_REPLY: Final = error(WRONG_TYPE)


def type_of(entry: Entry) -> str:
    """Return Redis' name, such as ``string``, for the type of the value in ``entry``, an entry of the cache."""
    kind = entry[KIND]
    return "string" if kind <= values.VALUE_MAX else "hash" if kind == values.HASH else "set"


def string_of(entry: Entry) -> bytes:
    """Return the value of the cache's ``entry``, a string. Raises CommandError for a hash and a set."""
    if entry[KIND] > values.VALUE_MAX:
        raise CommandError(WRONG_TYPE)
    return entry[DATA]


def fields_of(entry: Entry | None, kind: int) -> bytes:
    """Return the encoded hash or set in ``entry``, an entry of the cache; b"" for an absent entry.

    kind: values.HASH or values.SET. Raises CommandError for an entry of another kind.
    """
    if entry is None:
        return b""
    if entry[KIND] != kind:
        raise CommandError(WRONG_TYPE)
    return entry[DATA]
