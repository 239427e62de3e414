"""Checks of arguments: each returns what it was given, or raises InvalidRequest whose message says what is wanted.

Pure, and the same for every class and front: what one refuses all refuse, before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from cacheflow import values
from cacheflow.errors import InvalidRequest, ValueTooLarge
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import INT64_MAX, INT64_MIN, Command

# The longest TTL, ten years: longer than any cache should remember, and safely inside the machine's milliseconds.
TTL_S_MAX: Final = 10 * 365 * 86400
CONSISTENCY_LEVELS: Final = ("local", "bounded", "linearizable")
# Keys in a page, and the most that a caller may ask for: with keys of 1 KiB that is an answer of 10 MiB.
KEYS_PAGE: Final = 1000
KEYS_MAX: Final = 10_000

# HTTP takes blanks around a header's value away: a key with some would be another one there.
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_CONTENT_TYPE: Final = re.compile(r"[\x20-\x7e]{1,255}")


def shown(value: Any) -> str:
    """Return ``value`` as short text for an error message."""
    try:
        text = repr(value)
    except Exception:  # an integer of too many digits, a list nested too deep, a class whose repr raises
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def positive_seconds(value: Any, name: str = "ttl") -> float:
    """Return ``value`` as a float if it is a number of seconds above 0 and no bool.

    Raises InvalidRequest for any other value; the message calls the value ``name``.
    """
    if type(value) not in (float, int) or not 0 < value <= TTL_S_MAX:
        raise InvalidRequest(f"{name} is a number of seconds above 0 and at most {TTL_S_MAX}, not {shown(value)}")
    return float(value)


def ttl_to_ms(ttl_s: float | None) -> int:
    """Return the whole milliseconds, at least 1, of ``ttl_s``, a TTL in seconds; TTL_NONE if ``ttl_s`` is None.

    Raises InvalidRequest if ``ttl_s`` is not a positive number."""
    return commands.TTL_NONE if ttl_s is None else max(1, round(positive_seconds(ttl_s) * 1000))


def int64(value: Any, name: str) -> int:
    """Return ``value`` if it is a 64-bit integer.

    Raises InvalidRequest for any other value; the message calls the value ``name``.
    """
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise InvalidRequest(f"{name} is a 64-bit integer, not {shown(value)}")
    return value


def check_version(value: Any, name: str = "version") -> int:
    """Return ``value`` if it can be an entry's version, a positive integer.

    Raises InvalidRequest for any other value; the message calls the value ``name``.
    """
    if type(value) is not int or not 1 <= value <= INT64_MAX:
        raise InvalidRequest(f"{name} is a positive integer, not {shown(value)}")
    return value


def check_idempotency_key(key: Any) -> str:
    """Return ``key`` if it can be an Idempotency-Key header: 1 to 256 printable ASCII characters.

    Raises InvalidRequest.
    """
    if not isinstance(key, str) or not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest("an idempotency key is 1 to 256 printable ASCII characters, without blanks around")
    return key


def flag(value: Any, name: str) -> bool:
    """Return ``value`` if it is a bool; else raise InvalidRequest, whose message calls the value ``name``.

    The text "false", for one, is true for Python and false over HTTP, so only a bool is accepted.
    """
    if type(value) is not bool:
        raise InvalidRequest(f"{name} is true or false, not {shown(value)}")
    return value


def text(value: Any, name: str) -> str:
    """Return ``value`` if it is a str that UTF-8 can encode; else raise InvalidRequest, whose message calls it ``name``."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is a str, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} has a lone surrogate") from None
    return value


def check_node_id(node_id: Any) -> str:
    """Return ``node_id`` if it can be the id of a member: a str that is not empty. Raises InvalidRequest."""
    if not text(node_id, "a node id"):
        raise InvalidRequest("the node id is empty")
    return str(node_id)


def each_of(several: Any, what: str) -> Iterator[Any]:
    """Return an iterator over ``several``, a caller's argument that must be a list or another iterable of items.

    Raises InvalidRequest if it is not iterable, and for a str or bytes, whose single letters nobody means.
    what: what the items are, such as "keys", for the error's message.
    """
    if not isinstance(several, (str, bytes, bytearray)):
        try:
            return iter(several)
        except TypeError:
            pass
    raise InvalidRequest(f"{what} are needed, such as a list of them, not {shown(several)}")


def check_read(consistency: str, max_staleness: float | None, peek: bool, strict: bool) -> None:
    """Check that the options of a read of a key have allowed values that can be combined. Raises InvalidRequest."""
    if not isinstance(consistency, str) or consistency not in CONSISTENCY_LEVELS:
        raise InvalidRequest(f"consistency is one of {', '.join(CONSISTENCY_LEVELS)}, not {shown(consistency)}")
    if max_staleness is not None:
        positive_seconds(max_staleness, "max_staleness")
    if (consistency == "bounded") != (max_staleness is not None):
        raise InvalidRequest("consistency bounded and max_staleness, in seconds, go together")
    flag(strict, "strict")
    if flag(peek, "peek") and strict:
        raise InvalidRequest("peek (count no use) and strict (count exactly) exclude each other")


def check_page(prefix: str, limit: int, cursor: str | None) -> None:
    """Raise InvalidRequest for a ``prefix``, ``limit`` or ``cursor`` that is not valid in a request for a page of keys."""
    if text(prefix, "prefix"):
        values.check_key(prefix)
    if cursor is not None:
        text(cursor, "cursor")
    if not 1 <= int64(limit, "limit") <= KEYS_MAX:
        raise InvalidRequest(f"limit is a whole number from 1 to {KEYS_MAX}, not {limit}")


def check_digest(index: int | None, full: bool) -> None:
    """Check the arguments of a request for a digest: ``index``, a log index or None, and ``full``, a bool.

    Raises InvalidRequest if one is wrong, or if there is an index and ``full`` is true."""
    flag(full, "full")
    if index is not None:
        if full:
            raise InvalidRequest("full hashes the contents as they are now: it has no index")
        if int64(index, "index") < 0:
            raise InvalidRequest(f"index is no entry of the log: {index}")


def check_size(command: Command, value_bytes_max: int, place: str = "") -> None:
    """Check that no value in ``command``, also inside a batch, has over ``value_bytes_max`` bytes. Raises ValueTooLarge.

    place: where in the request the value stands, as the beginning of the error's message.
    """
    op = command[0]
    if op == commands.SET:
        if len(command[2]) > value_bytes_max:
            raise ValueTooLarge(f"{place}the value has {len(command[2])} bytes; at most {value_bytes_max} are taken")
    elif op == commands.BATCH:
        for index, inner in enumerate(command[2]):
            check_size(inner, value_bytes_max, f"ops[{index}]: ")
    elif op == commands.IDEMPOTENT:
        check_size(command[3], value_bytes_max)


def known_fields(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Check that all ``fields`` of a JSON object or operation are ``known``, and that none but ``ttl`` and ``value`` is null.

    Raises InvalidRequest. So a misspelt ``ttl`` does not write a value without TTL, and null does not stand for a default.
    """
    unknown = [name for name in fields if name not in known]
    if unknown:
        listed = ", ".join(shown(name) for name in sorted(unknown, key=str)[:5])
        raise InvalidRequest(f"unknown field {listed}; known are {', '.join(sorted(known))}")
    if None in fields.values():
        empty = [name for name, value in fields.items() if value is None and name not in ("ttl", "value")]
        if empty:
            raise InvalidRequest(f"{shown(empty[0])} is null: leave it out, or give it a value")


def check_content_type(content_type: Any, value: Any) -> None:
    """Raise InvalidRequest unless ``value`` is bytes and ``content_type`` a valid Content-Type other than that of JSON."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidRequest("content_type goes with a value of bytes")
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequest("content_type is 1 to 255 printable ASCII characters")
    if content_type.partition(";")[0].strip().lower() == "application/json":
        raise InvalidRequest("bytes of the type application/json are a JSON value: give the value itself")


def check_watch(prefix: Any, since: Any) -> None:
    """Raise InvalidRequest unless both arguments of a watch are valid.

    prefix: how the watched keys begin.  since: the position to go on from, or None.
    """
    if not isinstance(prefix, str):
        raise InvalidRequest(f"prefix is a str, not {shown(prefix)}")
    if prefix:
        values.check_key(prefix)
    if since is not None and not (isinstance(since, str) and since.isascii() and since.isprintable() and since):
        raise InvalidRequest(f"since is a position that a watch has told, or None, not {shown(since)}")
