"""Checks of a request's query parameters and JSON fields. Each raises InvalidRequest that names the parameter.

The limits of keys, values and TTLs are checked in verbs.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cacheflow.arguments import positive_seconds, shown
from cacheflow.errors import InvalidRequest
from cacheflow.rest.request.paths import Query
from cacheflow.values import check_key

# Numbers of bounded length: float() and int() also take "nan", "1_0" and any number of digits.
_DECIMAL = re.compile(r"[0-9]{1,17}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
# The latest moment that a request may name: later than any, and less than the milliseconds that some clients count in.
MOMENT_S_MAX: Final = 10**12
_DIGITS = re.compile(r"[0-9]{1,19}")


def flag(query: Query, name: str) -> bool:
    """Return the query parameter ``name`` as a bool: ``?name``, ``=true`` and ``=1`` are True.

    An absent parameter, ``=false`` and ``=0`` are False. Raises InvalidRequest for anything else.
    """
    text = query.get(name)
    if text is None or text in ("false", "0"):
        return False
    if text in ("", "true", "1"):
        return True
    raise InvalidRequest(f"{name} is true or false, not {shown(text)}")


def integer(query: Query, name: str, lowest: int, highest: int) -> int | None:
    """Return the query parameter ``name`` as a whole number from ``lowest`` to ``highest``, or None when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not lowest <= int(text) <= highest:
        raise InvalidRequest(f"{name} is a whole number from {lowest} to {highest}, not {shown(text)}")
    return int(text)


def seconds(query: Query, name: str) -> float | None:
    """Return the query parameter ``name`` as a number of seconds above 0, or None when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text):
        raise InvalidRequest(f"{name} is seconds above 0, not {shown(text)}")
    return positive_seconds(float(text), name)


def moment(query: Query, name: str) -> float | None:
    """Return the query parameter ``name`` as a moment, in seconds since 1970, or None when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text) or float(text) > MOMENT_S_MAX:
        raise InvalidRequest(f"{name} is a moment in seconds since 1970, at most {MOMENT_S_MAX}, not {shown(text)}")
    return float(text)


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return the field ``name`` of a JSON object, which must be a string of 1 to 1024 characters."""
    value = fields.get(name)
    if type(value) is not str or not value or len(value) > 1024:
        raise InvalidRequest(f'"{name}" is needed: a string of 1 to 1024 characters')
    return value


def prefix(query: Query) -> str | None:
    """Return the query parameter ``prefix``, which must be the beginning of a valid key; None when it is absent."""
    text = query.get("prefix")
    return check_key(text) if text else text
