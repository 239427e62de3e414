"""Whether a message is what message_types.py says: which fields it has, and of which types."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints

from fakes.newer_build import GREETING

from cacheflow.node import channels
from cacheflow.raft.message_types import MESSAGES


def _rule_of(shape: type) -> tuple[set[str], dict[str, Any]]:
    """(fields that must be there, type of each field). The class itself does not know: its annotations are texts."""
    hints = get_type_hints(shape, include_extras=True)
    return {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}, get_type_hints(shape)


class Greeting(TypedDict):
    """The message that only the newer build of a simulation has. level: in force where it is sent."""

    type: str
    level: int


_RULES = {kind: _rule_of(shape) for kind, shape in {**MESSAGES, **channels.MESSAGES, GREETING: Greeting}.items()}


def wrong_fields(message: Mapping[str, Any]) -> str:
    """What is wrong with a message; "" when nothing is."""
    rule = _RULES.get(message["type"])
    if rule is None:
        return f"a message of unknown type {message['type']!r}"
    required, types = rule
    if not required <= message.keys() <= types.keys():
        return f"{message['type']}: the fields are {sorted(message)}"
    for name, value in message.items():
        if not _is(value, types[name]):
            return f"{message['type']}: {name} = {value!r} is no {types[name]}"
    return ""


def _is(value: Any, wanted: Any) -> bool:
    if wanted in (int, bool, str, bytes):
        return type(value) is wanted
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if wanted is type(None):
        return value is None
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_is(value, each) for each in arguments)
    if origin is list:
        return isinstance(value, list) and all(_is(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(k, arguments[0]) and _is(v, arguments[1]) for k, v in value.items())
    return isinstance(value, tuple) and all(map(_is, value, arguments))
