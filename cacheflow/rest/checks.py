"""Checks of what a request carries: query parameters and JSON fields. All raise InvalidRequest naming the culprit."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from cacheflow.errors import InvalidRequest
from cacheflow.machine.commands import INT64_MAX, INT64_MIN
from cacheflow.outcomes import TTL_S_MAX
from cacheflow.rest.paths import Query
from cacheflow.values import check_key

# Ten years, as ReplicatedStore takes them: longer than any cache should remember.
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,3})?")
_DIGITS = re.compile(r"[0-9]{1,19}")


def flag(query: Query, name: str) -> bool:
    """``?name``, ``?name=true`` and ``?name=1`` are yes; absent, ``false`` and ``0`` no."""
    text = query.get(name)
    if text is None or text in ("false", "0"):
        return False
    if text in ("", "true", "1"):
        return True
    raise InvalidRequest(f"{name} is true or false, not {shown(text)}")


def integer(query: Query, name: str, lowest: int, highest: int) -> int | None:
    """``?name=`` as a whole number within bounds, or None when absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not lowest <= int(text) <= highest:
        raise InvalidRequest(f"{name} is a whole number from {lowest} to {highest}, not {shown(text)}")
    return int(text)


def seconds(query: Query, name: str) -> float | None:
    """``?name=`` as seconds above 0, or None when absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text):
        raise InvalidRequest(f"{name} is seconds above 0, not {shown(text)}")
    return positive_seconds(float(text), name)


def positive_seconds(value: Any, name: str = "ttl") -> float:
    """A JSON number as seconds. true is no number, although Python says so."""
    if type(value) not in (float, int) or not 0 < value <= TTL_S_MAX:
        raise InvalidRequest(f"{name} is a number of seconds above 0 and at most {TTL_S_MAX}, not {shown(value)}")
    return float(value)


def ttl_or_none(value: Any) -> float | None:
    """A JSON ttl: seconds, or null for none."""
    return None if value is None else positive_seconds(value)


def int64(value: Any, name: str) -> int:
    """A JSON integer of 64 bits."""
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise InvalidRequest(f"{name} is a 64-bit integer, not {shown(value)}")
    return value


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """A JSON field that must be there and be a string with something in it."""
    value = fields.get(name)
    if type(value) is not str or not value or len(value) > 1024:
        raise InvalidRequest(f'"{name}" is needed: a string of 1 to 1024 characters')
    return value


def known_fields(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse fields that nobody reads: a misspelt ttl must not become a value that stays for ever."""
    unknown = [name for name in fields if name not in known]
    if unknown:
        listed = ", ".join(shown(name) for name in sorted(unknown)[:5])
        raise InvalidRequest(f"unknown field {listed}; known are {', '.join(sorted(known))}")


def prefix(query: Query) -> str | None:
    """``?prefix=``: what could begin a key, or None when absent."""
    text = query.get("prefix")
    return check_key(text) if text else text


def shown(value: Any) -> str:
    """``value`` for a message: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits to print
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
