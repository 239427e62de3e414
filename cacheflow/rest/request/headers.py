"""Request headers that change what a request means: conditions, Accept, and what makes a write one that may be sent again.

Conditions by RFC 9110, section 13. An entity tag is a version in quotes.

- ``If-Match`` compares strongly: a weak tag, or one that is no version, never matches (412). ``*`` means that the
  key exists. Of a list any version may match.
- ``If-None-Match`` with a read compares weakly and answers 304. With PUT only ``*`` makes sense here (the key is
  absent); with other tags, or beside If-Match, the request is refused (400) rather than half understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cacheflow.arguments import check_idempotency_key, shown
from cacheflow.errors import InvalidRequest
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import INT64_MAX, Command

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)')
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_SCOPE = re.compile(
    r"([1-9][0-9]{0,18})-([0-9a-f]{16});[ \t]*number=([1-9][0-9]{0,18});[ \t]*lowest=([1-9][0-9]{0,18})"
)
_AGE = re.compile(r"[0-9]{1,15}")
_QUALITY = re.compile(r"[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*", re.IGNORECASE)
# The most versions in one header: each costs a comparison only, but nobody needs more.
_TAGS_MAX = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """The state that a key must have for a write to take place.

    absent: the key must not exist.  present: the key must exist.
    versions: the key's version must be one of these; None allows any version.
    """

    absent: bool = False
    present: bool = False
    versions: tuple[int, ...] | None = None


UNCONDITIONAL = Condition()


def write_condition(environ: Mapping[str, Any]) -> Condition:
    """Return the condition that the request's headers If-Match and If-None-Match set for its write.

    Raises InvalidRequest when they are malformed or exclude each other.
    """
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
    """Return the status, 304 or 412, if If-Match or If-None-Match of a read forbids sending an entry that has ``version``.

    Returns None when the entry is to be sent. Raises InvalidRequest for a malformed header.
    """
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
    """Return the entity tags in ``text``, the value of the HTTP header ``header``, as (True if weak, text inside the quotes).

    Raises InvalidRequest for a malformed value.
    """
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


def repeatable(environ: Mapping[str, Any], first_index: Callable[[int], int]) -> Command | None:
    """Return the first fields of the command that wraps a write so that it takes place once, however often it is sent.

    They come from the request's Idempotency-* headers; without such headers the function returns None.
    first_index: returns the index of the first log entry in which a command of that age, in ms, may be.
    Raises InvalidRequest, NotReady.
    """
    key = environ.get("HTTP_IDEMPOTENCY_KEY")
    scope = environ.get("HTTP_IDEMPOTENCY_SCOPE")
    age = environ.get("HTTP_IDEMPOTENCY_AGE")
    if key is None and scope is None and age is None:
        return None
    if (key is None) == (scope is None) or (scope is not None and age is not None):
        raise InvalidRequest(
            "a write takes an Idempotency-Key, with its Idempotency-Age or without, or an Idempotency-Scope"
        )
    if scope is not None:
        found = _SCOPE.fullmatch(scope)
        if found is None:
            raise InvalidRequest(f"Idempotency-Scope is SCOPE; number=N; lowest=M, not {shown(scope)}")
        numbers = [int(found[at]) for at in (1, 3, 4)]
        if max(numbers) > INT64_MAX or numbers[2] > numbers[1]:
            raise InvalidRequest("Idempotency-Scope: lowest is above number, or one of them above 64 bits")
        return commands.SCOPED, numbers[0], found[2], *numbers[1:]
    if age is None:
        return commands.IDEMPOTENT, check_idempotency_key(key), 0
    if not _AGE.fullmatch(age):
        raise InvalidRequest(f"Idempotency-Age is the milliseconds since the first try, not {shown(age)}")
    return commands.IDEMPOTENT, check_idempotency_key(key), first_index(int(age))


def scope_name(scope: int, nonce: str) -> str:
    """Return the text by which a client names its scope: the number ``scope``, and ``nonce``, a random text."""
    return f"{scope}-{nonce}"


def prefers_raw(accept: str | None, raw_type: str) -> bool:
    """True if the Accept header ``accept`` prefers a value's own bytes, of the media type ``raw_type``, to application/json.

    JSON wins a tie. A header that names neither type prefers the bytes: it asks for something that is not JSON.
    """
    if not accept or accept in ("*/*", "application/json"):
        return False
    json_quality = media_quality(accept, "application/json")
    if json_quality == 0:
        return True
    return media_quality(accept, raw_type.partition(";")[0].strip().lower()) > json_quality


def media_quality(accept: str, media_type: str) -> float:
    """Return the quality, 0 to 1, that the Accept header ``accept`` gives to ``media_type``.

    Of the header's ranges that match the type the most exact one counts (RFC 9110, 12.5.1).
    """
    return _quality(accept, (media_type, media_type.partition("/")[0] + "/*", "*/*"))


def takes_gzip(accept_encoding: str) -> bool:
    """True if the Accept-Encoding header ``accept_encoding`` says that the client understands gzip (RFC 9110, 12.5.3)."""
    return _quality(accept_encoding, ("gzip", "*")) > 0


def _quality(header: str, ranges: tuple[str, ...]) -> float:
    """Return the quality that ``header`` gives to the first one of ``ranges`` that it names; 0 if it names none of them."""
    best_exactness, quality = len(ranges), 0.0
    for part in header.split(","):
        name, *parameters = part.split(";")
        name = name.strip().lower()
        if name in ranges and ranges.index(name) < best_exactness:
            best_exactness, quality = ranges.index(name), 1.0
            for parameter in parameters:
                found = _QUALITY.fullmatch(parameter)
                if found:
                    quality = min(float(found[1]), 1.0)
    return quality
