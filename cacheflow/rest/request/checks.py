"""Checks of how a request spells things: query parameters and JSON fields. All raise InvalidRequest naming the culprit.

What a verb takes at all is checked in verbs.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cacheflow.errors import InvalidRequest
from cacheflow.rest.request.paths import Query
from cacheflow.values import check_key
from cacheflow.verbs import positive_seconds, shown

# Numbers of bounded length: float() and int() also take "nan", "1_0" and any number of digits.
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,3})?")
_DIGITS = re.compile(r"[0-9]{1,19}")


def flag(query: Query, name: str) -> bool:
    """Return a yes-or-no parameter: ``?name``, ``?name=true`` and ``?name=1`` are yes; absent, ``false`` and ``0`` no."""
    text = query.get(name)
    if text is None or text in ("false", "0"):
        return False
    if text in ("", "true", "1"):
        return True
    raise InvalidRequest(f"{name} is true or false, not {shown(text)}")


def integer(query: Query, name: str, lowest: int, highest: int) -> int | None:
    """Return ``?name=`` as a whole number within bounds, or None when absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not lowest <= int(text) <= highest:
        raise InvalidRequest(f"{name} is a whole number from {lowest} to {highest}, not {shown(text)}")
    return int(text)


def seconds(query: Query, name: str) -> float | None:
    """Return ``?name=`` as seconds above 0, or None when absent."""
    text = query.get(name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text):
        raise InvalidRequest(f"{name} is seconds above 0, not {shown(text)}")
    return positive_seconds(float(text), name)


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return a JSON field that must be a string of 1 to 1024 characters."""
    value = fields.get(name)
    if type(value) is not str or not value or len(value) > 1024:
        raise InvalidRequest(f'"{name}" is needed: a string of 1 to 1024 characters')
    return value


def prefix(query: Query) -> str | None:
    """Return ``?prefix=``, which must be able to begin a key; None when absent."""
    text = query.get("prefix")
    return check_key(text) if text else text
