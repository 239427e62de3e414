"""Request headers that change what a request means: conditions, Accept, Idempotency-Key.

Conditions by RFC 9110, section 13. An entity tag is a version in quotes.

- ``If-Match`` compares strongly: a weak tag, or one that is no version, never matches (412). ``*`` means that the
  key exists. Of a list any version may match.
- ``If-None-Match`` with a read compares weakly and answers 304. With PUT only ``*`` makes sense here (the key is
  absent); with other tags, or beside If-Match, the request is refused (400) rather than half understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cacheflow.errors import InvalidRequest
from cacheflow.machine.language.commands import INT64_MAX
from cacheflow.verbs import check_idempotency_key, shown

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)')
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_QUALITY = re.compile(r"[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*", re.IGNORECASE)
# The most versions in one header: each costs a comparison only, but nobody needs more.
_TAGS_MAX = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """The state in which a key must be for a write. versions: any of these; None: no matter which."""

    absent: bool = False
    present: bool = False
    versions: tuple[int, ...] | None = None


UNCONDITIONAL = Condition()


def write_condition(environ: Mapping[str, Any]) -> Condition:
    """Return the condition that If-Match and If-None-Match set for a write. Raises InvalidRequest."""
    match = environ.get("HTTP_IF_MATCH")
    none_match = environ.get("HTTP_IF_NONE_MATCH")
    if match is None and none_match is None:
        return UNCONDITIONAL
    if match is not None and none_match is not None:
        raise InvalidRequest("If-Match and If-None-Match exclude each other")
    if none_match is not None:
        if none_match.strip() != "*":
            raise InvalidRequest(f"a write takes If-None-Match only as *, not {shown(none_match)}")
        return Condition(absent=True)
    assert match is not None
    if match.strip() == "*":
        return Condition(present=True)
    found = {int(tag) for weak, tag in parse_tags(match, "If-Match") if not weak and _VERSION.fullmatch(tag)}
    return Condition(present=True, versions=tuple(sorted(version for version in found if version <= INT64_MAX)))


def read_condition(environ: Mapping[str, Any], version: int) -> int | None:
    """Return the status that ends a read of an entry at ``version`` early: 304, 412 or None. Raises InvalidRequest."""
    match = environ.get("HTTP_IF_MATCH")
    if match is not None and match.strip() != "*":
        tags = parse_tags(match, "If-Match")
        if (False, str(version)) not in tags:
            return 412
    none_match = environ.get("HTTP_IF_NONE_MATCH")
    if none_match is None:
        return None
    if none_match.strip() == "*":
        return 304
    wanted = str(version)
    return 304 if any(tag == wanted for _, tag in parse_tags(none_match, "If-None-Match")) else None


def parse_tags(text: str, header: str) -> list[tuple[bool, str]]:
    """Return the entity tags in a header as (weak, what the quotes hold). Raises InvalidRequest."""
    tags: list[tuple[bool, str]] = []
    at = 0
    while at < len(text):
        found = _TAG.match(text, at)
        if found is None or len(tags) == _TAGS_MAX:
            raise InvalidRequest(f'{header} is * or versions in quotes, such as "7", not {shown(text)}')
        tags.append((found[1] is not None, found[2]))
        at = found.end()
    if not tags:
        raise InvalidRequest(f"{header} is empty")
    return tags


def idempotency_key(environ: Mapping[str, Any]) -> str | None:
    """Return the Idempotency-Key or None. Raises InvalidRequest unless it is 1 to 256 printable ASCII characters."""
    key: str | None = environ.get("HTTP_IDEMPOTENCY_KEY")
    return None if key is None else check_idempotency_key(key)


def prefers_raw(accept: str | None, raw_type: str) -> bool:
    """Return whether a client would rather have the bytes (of type ``raw_type``) than our JSON; a tie is for JSON.

    An Accept that names neither counts as wanting the bytes: it asks for something that is not JSON.
    """
    if not accept or accept in ("*/*", "application/json"):
        return False
    json_quality = media_quality(accept, "application/json")
    if json_quality == 0:
        return True
    return media_quality(accept, raw_type.partition(";")[0].strip().lower()) > json_quality


def media_quality(accept: str, media_type: str) -> float:
    """Return how much an Accept header wants ``media_type``, 0 to 1: its most exact range counts (RFC 9110, 12.5.1)."""
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    best_exactness, quality = len(ranges), 0.0
    for part in accept.split(","):
        name, *parameters = part.split(";")
        name = name.strip().lower()
        if name in ranges and ranges.index(name) < best_exactness:
            best_exactness, quality = ranges.index(name), 1.0
            for parameter in parameters:
                found = _QUALITY.fullmatch(parameter)
                if found:
                    quality = min(float(found[1]), 1.0)
    return quality
