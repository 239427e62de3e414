"""Restored items: an item as a backup holds it and as the command RESTORE_ITEMS carries it, and the checks of both.

An item is ``[key, data, kind, meta, expires_at_ms]``. It has no version: a restored item gets a new one.
"""

from __future__ import annotations

from typing import Any, Final

from cacheflow.machine.language.commands import FIELDS_BYTES_MAX
from cacheflow.machine.language.fields import is_well_formed
from cacheflow.machine.state.entries import (
    KEY_BYTES_MAX,
    KIND_MAX,
    KIND_SET,
    KIND_VALUE_MAX,
    META_CHARS_MAX,
    key_bytes,
)

# The latest expiry that is believed: beyond the highest time stamp and the longest TTL together (machine.py, commands.py).
EXPIRES_AT_MS_MAX: Final = 2 * 10**15


def problem_of(item: Any) -> str:
    """Return why ``item`` is not well-formed as an item of a backup, as text for people; "" if it is well-formed.

    The text has no Python repr in it: it may become part of a kept result, which must be equal on all nodes.
    """
    if type(item) is not list or len(item) != 5:
        return "an item is a list of five"
    key, data, kind, meta, expires_at_ms = item
    try:
        if type(key) is not str or not 0 < key_bytes(key) <= KEY_BYTES_MAX:
            return f"a key is a text of 1 to {KEY_BYTES_MAX} bytes"
    except UnicodeEncodeError:
        return "a key has a lone surrogate"
    if type(data) is not bytes:
        return "a value is not bytes"
    if type(kind) is not int or not 0 <= kind <= KIND_MAX:
        return "a value's kind is unknown"
    if kind > KIND_VALUE_MAX and not (len(data) <= FIELDS_BYTES_MAX and is_well_formed(data, kind == KIND_SET)):
        return "a hash or set is none"
    if meta is not None and type(meta) is not int and (type(meta) is not str or len(meta) > META_CHARS_MAX):
        return "a value's metadata is neither a number nor a short text"
    if type(expires_at_ms) is not int or not 0 <= expires_at_ms <= EXPIRES_AT_MS_MAX:
        return "an expiry is no time"
    return ""
