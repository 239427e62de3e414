"""An answer, or the list of what the answers of one URL depend on, as the bytes that a cluster keeps (msgpack), and back.

What is read is checked whole: anything but what ``packed`` makes counts as absent.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgpack

from cacheflow.integrations.http_caching import rules
from cacheflow.integrations.http_caching.rules import Fields, Lifetime

CONTENT_TYPE: Final = "application/x-cacheflow-http"
_ANSWER, _VARIANTS = 1, 2
# Bytes that end a field of an HTTP message: with one of them a name or value would become two.
_SPLITTING: Final = re.compile(rb"[\r\n\0]")


class Answer(NamedTuple):
    """An HTTP answer that is kept in the cluster. age_s: how old the answer was, by its Age field, when it was kept."""

    status: int
    fields: Fields
    body: bytes
    lifetime: Lifetime
    age_s: int

    @property
    def kept_s(self) -> int:
        """The seconds for which this answer is kept, fresh or stale."""
        return self.lifetime.fresh_s + self.lifetime.stale_s


class Variants(NamedTuple):
    """A list, kept in the cluster, of the request header fields (Vary) on which the answers of one URL depend.

    made: random bytes, which tell this list from earlier ones of the same URL.
    """

    names: list[str]
    made: bytes


def packed(record: Answer | Variants) -> bytes:
    """Return ``record``, an HTTP answer or the list of request fields on which answers depend, as bytes to be stored."""
    if isinstance(record, Variants):
        parts: list[Any] = [_VARIANTS, record.names, record.made]
    else:
        parts = [_ANSWER, record.status, record.fields, record.body, *record.lifetime, record.age_s]
    data: bytes = msgpack.packb(parts)
    return data


def unpacked(data: bytes) -> Answer | Variants | None:
    """Return the HTTP answer, or the list of request fields on which answers depend, in ``data``; None for other bytes."""
    try:
        parts = msgpack.unpackb(data, use_list=False)
    except ValueError:
        return None
    match parts:
        case (int(kind), tuple(names), bytes(made)) if kind == _VARIANTS:
            if 0 < len(names) <= rules.VARY_MAX and all(isinstance(name, str) for name in names):
                return Variants(list(names), made)
        case (
            int(kind),
            int(status),
            tuple(fields),
            bytes(body),
            int(fresh_s),
            int(stale_s),
            int(audience),
            int(age_s),
        ) if kind == _ANSWER:
            numbers = (fresh_s, stale_s, age_s)
            if (
                status in rules.KEPT
                and all(0 <= number <= rules.SECONDS_MAX for number in numbers)
                and rules.ANONYMOUS <= audience <= rules.EVERYBODY
                and all(_is_field(field) for field in fields)
            ):
                return Answer(
                    status, [(name, value) for name, value in fields], body, Lifetime(fresh_s, stale_s, audience), age_s
                )
    return None


def _is_field(field: Any) -> bool:
    return isinstance(field, tuple) and len(field) == 2 and all(map(_is_text, field))


def _is_text(part: Any) -> bool:
    return isinstance(part, bytes) and _SPLITTING.search(part) is None
