"""Parsing of the arguments of RESP commands: keys, integers, floats, expiry times; with Redis' error messages."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from cacheflow import values
from cacheflow.errors import InvalidRequest
from cacheflow.machine.language.commands import INT64_MAX, INT64_MIN, TTL_MS_MAX
from cacheflow.machine.language.databases import DATABASES, PREFIXES
from cacheflow.wire.resp.replies import CommandError

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
_FLOAT = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?").fullmatch
_INFINITY = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE).fullmatch
_FLOAT_CHARS_MAX: Final = 256
# Keys that are checked together, at least.
_MANY: Final = 8
# The largest decimal exponent of a double: numbers that no double can hold are refused.
_EXPONENT_MAX: Final = 308

SYNTAX: Final = "ERR syntax error"
NOT_AN_INTEGER: Final = "ERR value is not an integer or out of range"
NOT_A_FLOAT: Final = "ERR value is not a valid float"
TOO_LONG: Final = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"


class PlacedKey(bytes):
    """The bytes of a key as the cache holds it for Redis clients: the prefix of a Redis database, then the client's key."""


class PlacedRequest(list[bytes]):
    """A list of the words of a RESP request about ``database``, a number above 0; its keys have that database's prefix."""

    __slots__ = ("database",)

    def __init__(self, words: list[bytes], database: int) -> None:
        super().__init__(words)
        self.database = database


def database_in(arguments: list[bytes]) -> int:
    """Return the number of the Redis database that a request with the words ``arguments`` is about."""
    return arguments.database if isinstance(arguments, PlacedRequest) else 0


def key_of(raw: bytes) -> str:
    """Return as text the cache's key for ``raw``, a key of a RESP request.

    If the key is of a database other than 0, the database's prefix has to be in ``raw`` already.
    Raises CommandError when ``raw`` is no valid key.
    """
    try:
        if type(raw) is PlacedKey:
            return raw.decode()
        return values.check_key(raw.decode())
    except UnicodeDecodeError:
        raise CommandError("ERR invalid key: it is not UTF-8") from None
    except InvalidRequest as wrong:
        raise CommandError(f"ERR invalid key: {wrong}") from None


def placed(raw: bytes, database: int) -> PlacedKey:
    """Return the client's key ``raw`` behind the prefix of ``database``, a number above 0.

    Raises CommandError when ``raw`` is no valid key.
    """
    return PlacedKey((PREFIXES[database] + key_of(raw)).encode())


def keys_of(raws: list[bytes]) -> list[str]:
    """Return the cache's keys for ``raws``, the keys in a RESP request. Raises CommandError when one is no valid key."""
    # Many are checked together, which costs a fourth: a line's end is in no key.
    if len(raws) >= _MANY and type(raws[0]) is not PlacedKey:
        joined = b"\n".join(raws)
        if joined.isascii():
            keys = joined.decode().split("\n")
            if len(keys) == len(raws) and "" not in keys and max(map(len, keys)) <= values.KEY_BYTES_MAX:
                if "".join(keys).isprintable():
                    return keys
    return [key_of(raw) for raw in raws]


def integer_of(raw: bytes, message: str = NOT_AN_INTEGER) -> int:
    """Return the 64-bit integer that the bytes ``raw`` spell (no plus sign, no leading zeros).

    Raises CommandError with the text ``message`` when they spell none.
    """
    if _INTEGER(raw) is None or not INT64_MIN <= (number := int(raw)) <= INT64_MAX:
        raise CommandError(message)
    return number


def database_named(raw: bytes) -> int:
    """Return the number of the Redis database that the bytes ``raw`` spell. Raises CommandError if no such database exists."""
    number = integer_of(raw)
    if not 0 <= number < DATABASES:
        raise CommandError("ERR DB index is out of range")
    return number


def float_of(raw: bytes) -> Decimal:
    """Return the number that the bytes ``raw`` spell as Redis writes floats, which may be an infinity.

    Raises CommandError when they spell no such number.
    """
    if _INFINITY(raw) is not None:
        return Decimal(raw.decode())
    if len(raw) > _FLOAT_CHARS_MAX or _FLOAT(raw) is None:
        raise CommandError(NOT_A_FLOAT)
    number = Decimal(raw.decode())
    if abs(number.adjusted()) > _EXPONENT_MAX and number:
        raise CommandError(NOT_A_FLOAT)
    return number


def lifetime_ms(raw: bytes, unit: bytes, command: str, wall_ms: int) -> int:
    """Return the TTL in ms that the number ``raw`` means behind the option ``unit`` (EX, PX, EXAT, PXAT) of a Redis command.

    The TTL is negative for a time in the past. Raises CommandError when ``raw`` is no valid time.
    command: the command's name, for that error.  wall_ms: this node's wall clock, from which EXAT and PXAT are counted.
    """
    number = integer_of(raw)
    if number <= 0 or (unit.startswith(b"EX") and number > INT64_MAX // 1000):
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    milliseconds = number * 1000 if unit.startswith(b"EX") else number
    if unit.endswith(b"AT"):
        # Nothing but a past end may be negative, and 0 means something else to the machine.
        milliseconds = milliseconds - wall_ms or -1
    if milliseconds > TTL_MS_MAX:
        # Never shortened: 3,170 years are refused, as Redis refuses what its clock cannot hold.
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    return milliseconds
