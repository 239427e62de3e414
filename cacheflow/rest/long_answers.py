"""Long answers: a value of many bytes is not copied to be sent, and is made JSON in short steps.

Copies and single steps of a megabyte take a millisecond, during which no other thread has the interpreter. So the body of a long
answer is parts, the stored value itself among them. Before it is made it has its turn among all long answers (``IN_TURN`` in
request/waiting.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from json.encoder import encode_basestring as json_string
from typing import Final

from cacheflow import values
from cacheflow.operations import value_members
from cacheflow.rest.answers import Answer, Headers, seconds_json
from cacheflow.results import Item

# A value of so many bytes is not copied to be sent.
LONG_BYTES_MIN: Final = 64 * 1024
# Values of so many bytes are answered in turn: it takes longer than most requests, and much longer than to wait for the turn.
IN_TURN_BYTES_MIN: Final = 256 * 1024
# The bytes that JSON spells with a backslash. To look for them takes a fifth of the time of spelling, and seldom finds any.
_ESCAPED: Final = bytes(range(32)) + b'"\\'
# The characters, or bytes, that one step spells: a multiple of three, as base64 needs it.
_STEP: Final = 48 * 1024


class LongAnswer(Answer):
    """An HTTP answer with the status 200; its body is given as a list of byte strings, which are sent without a copy."""

    def __init__(self, parts: Sequence[bytes], headers: Headers) -> None:
        headers.append(("Content-Length", str(sum(map(len, parts)))))
        self._plain = parts, 200, headers


def long_json(item: Item) -> list[bytes]:
    """Return the JSON object that shows ``item``, an entry of the cache with a long value, as consecutive byte strings."""
    front, value, behind = _members(item)
    ttl = seconds_json(item.ttl_s)
    return [
        f'{{"key":{json_string(item.key)},{front}'.encode(),
        *value,
        f'{behind},"ttl":{ttl},"version":{item.version}}}'.encode(),
    ]


def _members(item: Item) -> tuple[str, list[bytes], str]:
    """Return the JSON members that show an item's value, in three parts that follow each other: (front, value, behind).

    value: a list of byte strings, the JSON of a long value, not joined because that would copy it; empty if ``front`` has all.
    front, behind: texts, the JSON before and after the long value.
    """
    data, kind = item.data, item.kind
    if kind == values.JSON:
        return '"value":', [data], ""
    if kind > values.VALUE_MAX:
        return value_members(data, kind, item.meta), [], ""
    # What stands around an empty value stands around a long one.
    front, _, behind = value_members(b"", kind, item.meta).partition('""')
    value = _spelled(data) if kind == values.TEXT else _base64(data)
    return f'{front}"', value, f'"{behind}'


def _spelled(data: bytes) -> list[bytes]:
    """Return the text ``data``, in UTF-8, as JSON spells it between quotation marks."""
    if not any(byte in data for byte in _ESCAPED):
        return [data]
    text = data.decode()
    return [json_string(text[start : start + _STEP])[1:-1].encode() for start in range(0, len(text), _STEP)]


def _base64(data: bytes) -> list[bytes]:
    return [base64.b64encode(data[start : start + _STEP]) for start in range(0, len(data), _STEP)]
