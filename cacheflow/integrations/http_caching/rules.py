"""The rules of a shared HTTP cache: which answers are kept, for how long, for whom, and when 304 is the answer.

RFC 9111 is the cache, RFC 9110 the conditional request, RFC 5861 stale-while-revalidate. These rules are stricter: what has a
cookie to set, or asks for validation before each use (``no-cache``), is not kept at all; an answer to a request with
``Authorization`` is kept, and a kept one given to such a request, only if it says ``public``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

Fields: TypeAlias = list[tuple[bytes, bytes]]

# Statuses that may be kept when the answer says for how long; without that only 200 is.
KEPT: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
# Whom a kept answer is for: who shows neither cookie nor token (only the default has it kept); who shows no token; everybody.
ANONYMOUS, UNAUTHORIZED, EVERYBODY = range(3)
# A year: what says more means "for ever" (RFC 9111, 1.2.2 has 68 years, which no cache holds).
SECONDS_MAX: Final = 365 * 86400
# Names in a Vary: an answer that depends on more of the request is not kept.
VARY_MAX: Final = 16
# The readable part of a key: keys take 1,024 bytes, and an own prefix, a digest, a variant's and a lease's tail come to it.
READABLE_MAX: Final = 600
# What belongs to one connection alone (RFC 9110, 7.6.1), and what this cache says itself.
DROPPED: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"age", b"x-cache"),
    }
)
# What an answer 304 says of the one that it stands for (RFC 9110, 15.4.5).
TOLD_BY_304: Final = frozenset({b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"})
_DIRECTIVE: Final = re.compile(r'([^\s,="]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?')
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


class Lifetime(NamedTuple):
    """How long an HTTP answer is kept: fresh for ``fresh_s`` seconds, then stale for ``stale_s`` more.

    A stale answer is given to clients while a new one is fetched.  audience: whom the answer may be given to.
    """

    fresh_s: int
    stale_s: int
    audience: int


class Wish(NamedTuple):
    """What a request's Cache-Control asks of an HTTP cache.

    store: the answer may be kept.  max_age_s: the age in seconds of the oldest answer that the client takes; None for any.
    """

    store: bool
    max_age_s: int | None


def lowered(headers: Iterable[Iterable[bytes]]) -> Fields:
    """Return the header fields of an ASGI message with their names in lower case."""
    return [(bytes(name).lower(), bytes(value)) for name, value in headers]


def told(fields: Fields, name: bytes) -> str | None:
    """Return the values of the header field ``name`` as one text, joined by commas; None if the field is absent."""
    found = [value.decode("latin-1") for each, value in fields if each == name]
    return ", ".join(found) if found else None


def directives(fields: Fields) -> dict[str, str]:
    """Return the Cache-Control directives in the header ``fields``: {name in lower case: value or ""}.

    Of two directives with one name the first counts.
    """
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(told(fields, b"cache-control") or ""):
        found.setdefault(name.lower(), value.strip('"'))
    return found


def seconds(text: str) -> int:
    """Return the whole seconds in ``text``, a value of a Cache-Control directive or of Age, SECONDS_MAX at most.

    Returns 0 for a text that is no such number, so that the answer counts as stale.
    """
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text), SECONDS_MAX) if len(text) <= 10 else SECONDS_MAX


def wish_of(asked: Fields) -> Wish:
    """Return what a request with the header fields ``asked`` asks of an HTTP cache."""
    said = directives(asked)
    if "no-cache" in said:
        return Wish("no-store" not in said, -1)
    return Wish("no-store" not in said, seconds(said["max-age"]) if "max-age" in said else None)


def lifetime_of(asked: Fields, status: int, fields: Fields, default_s: int | None) -> Lifetime | None:
    """Return how long an HTTP answer may be kept, and for whom; None for an answer that must not be kept.

    asked, fields: the header fields of the request and of the answer.  default_s: lifetime of an answer 200 that names
    none, to a request without a cookie.
    """
    said = directives(fields)
    if status not in KEPT or {"no-store", "no-cache", "private"} & said.keys():
        return None
    if told(fields, b"set-cookie") is not None or varied_by(fields) is None:
        return None
    audience = EVERYBODY if "public" in said else UNAUTHORIZED
    if "s-maxage" in said:
        fresh_s = seconds(said["s-maxage"])
    elif "max-age" in said:
        fresh_s = seconds(said["max-age"])
    elif default_s and status == 200 and told(fields, b"expires") is None:
        fresh_s = default_s
        audience = EVERYBODY if audience == EVERYBODY else ANONYMOUS
    else:
        return None
    if not may_see(audience, asked):
        return None
    strict = {"must-revalidate", "proxy-revalidate"} & said.keys()
    stale_s = 0 if strict else seconds(said.get("stale-while-revalidate", ""))
    fresh_s = max(0, fresh_s - seconds(told(fields, b"age") or ""))
    return Lifetime(fresh_s, stale_s, audience) if fresh_s + stale_s > 0 else None


def may_see(audience: int, asked: Fields) -> bool:
    """Return whether a kept answer may be given to a request with the header fields ``asked``.

    audience: which requests the answer is for: all, those without Authorization, or those without that and without a cookie.
    """
    if audience < EVERYBODY and told(asked, b"authorization") is not None:
        return False
    return audience > ANONYMOUS or told(asked, b"cookie") is None


def varied_by(fields: Fields) -> list[str] | None:
    """Return the sorted names of the request fields that an answer depends on, by its Vary.

    Returns None if it depends on anything (``*``).
    """
    names = sorted({name.strip().lower() for name in (told(fields, b"vary") or "").split(",")} - {""})
    return None if "*" in names or len(names) > VARY_MAX else names


def tag_of(body: bytes) -> str:
    """Return an ETag for an HTTP answer's ``body``: weak, because a server in front of this cache may compress the body."""
    return f'W/"{blake2b(body, digest_size=16).hexdigest()}"'


def is_the_same(asked: Fields, fields: Fields) -> bool:
    """Return whether the client has the answer with the header ``fields`` already, by its request ``asked``.

    That is so if the request's If-None-Match names the answer's ETag, or is ``*``.
    """
    given, tag = told(asked, b"if-none-match"), told(fields, b"etag")
    if given is None or tag is None:
        return False
    return given.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(given)


def key_of(prefix: str, method: str, scheme: str, host: str, path: bytes, query: bytes) -> str:
    """Return the key in the cluster for the answer to a request.

    The key is the beginning of the request's URL, for people to read, and a hash of the whole URL.
    """
    url = f"{scheme}://{host}".encode("latin-1", "replace") + path + (b"?" + query if query else b"")
    readable = quote(url, safe="/:?&=%~,;@+$!*'()[]")[:READABLE_MAX]
    return f"{prefix}:{readable}#{_digest(method, scheme, host, path, query)}"


def variant_key(key: str, made: bytes, names: list[str], asked: Fields) -> str:
    """Return the key in the cluster for one variant of a URL's answer, by the request's values of the header fields ``names``.

    key: the key of the URL.  made: random bytes, new for each list of names: answers under earlier lists are not found.
    """
    values = (value for name in names for value in (name, told(asked, name.encode("latin-1", "replace")) or ""))
    return f"{key}+{_digest(made, *values)}"


def _digest(*parts: str | bytes) -> str:
    hashed = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.hexdigest()
