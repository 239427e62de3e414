"""Form: what a cache does with keys and values between its caller and the cluster.

1. Pure, and the only place that knows of prefixes and serializers: the verbs ask it for every key and value.
2. A plain int stays a number under every serializer, so that counters count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cacheflow import values
from cacheflow.arguments import shown
from cacheflow.errors import InvalidRequest
from cacheflow.forms.serializers import Serializer, serializer_named
from cacheflow.machine.language.commands import INT64_MAX, INT64_MIN
from cacheflow.results import IncrResult, Item


class Form:
    """The prefix that all keys of one cache have in the cluster, and the serializer of its values; both are optional."""

    __slots__ = ("prefix", "serializer")

    def __init__(self, prefix: str = "", serializer: Serializer | None = None) -> None:
        self.prefix = prefix
        self.serializer = serializer

    def __repr__(self) -> str:
        return f"Form(prefix={self.prefix!r}, serializer={self.serializer and self.serializer.name!r})"

    def key(self, key: str) -> str:
        """Return ``key``, a key of this cache, with the prefix that this cache's keys have in the cluster.

        Raises InvalidRequest if the key is too long with that prefix; checks nothing if this cache has no prefix.
        """
        if not self.prefix:
            return key
        return self._whole(values.check_key(key))

    def under(self, prefix: str) -> str:
        """Return ``prefix``, a beginning of keys in this cache, as it is in the cluster: behind the cache's own key prefix."""
        return self._whole(prefix) if self.prefix else prefix

    def _whole(self, key: str) -> str:
        whole = self.prefix + key
        size = len(whole) if whole.isascii() else len(whole.encode())
        if size > values.KEY_BYTES_MAX:
            raise InvalidRequest(
                f"the key has {size} bytes with the cache's prefix {shown(self.prefix)}; at most {values.KEY_BYTES_MAX} are taken"
            )
        return whole

    def own(self, key: str) -> str:
        """Return ``key``, a key in the cluster that begins with this cache's prefix, without that prefix."""
        return key[len(self.prefix) :]

    def value(self, value: Any, content_type: str | None) -> tuple[Any, str | None]:
        """Return (what the cluster stores for the Python value ``value``, the content type of that). Raises InvalidRequest.

        content_type: None, or the type of a ``value`` of bytes, which are stored as they are.
        """
        serializer = self.serializer
        if serializer is None or content_type is not None:
            return value, content_type
        if type(value) in (int, IncrResult) and INT64_MIN <= value <= INT64_MAX:
            return int(value), None
        return serializer.stored(value), serializer.content_type

    def makes(self, kind: int, meta: object) -> bool:
        """Return whether a stored value of this ``kind`` and content type ``meta`` was made by this cache's serializer."""
        return (
            kind == values.BYTES
            and self.serializer is not None
            and meta is not None
            and meta == self.serializer.content_type
        )

    def made(self, data: bytes, kind: int, meta: object) -> Any:
        """Return the Python value stored as ``data``; what this cache's serializer has not made is decoded without serializer.

        kind, meta: the stored value's kind and content type. Raises UnreadableValue.
        """
        if self.serializer is not None and self.makes(kind, meta):
            return self.serializer.read(data)
        return values.decode(kind, data)

    def item(self, item: Item | None) -> Item | None:
        """Return ``item``, read from the cluster, with its key as this cache names it, and the Python value that was set.

        Returns None if ``item`` is None, for an absent key.
        """
        if item is None or self is PLAIN:
            return item
        return FormedItem(self.own(item.key), item.data, item.kind, item.meta, item.version, item.ttl_s, self)

    def operation(self, op: Any) -> Any:
        """Return ``op``, an operation of a batch on this cache, with the key and the value as the cluster stores them.

        An ``op`` that is no dictionary is returned unchanged.
        """
        if not isinstance(op, Mapping):
            return op
        changed = dict(op)
        if isinstance(op.get("key"), str):
            changed["key"] = self.key(op["key"])
        if self.serializer is not None and "value" in op and "encoding" not in op and "content_type" not in op:
            changed["value"], content_type = self.value(op["value"], None)
            if content_type is not None:
                changed["content_type"] = content_type
        return changed


@dataclass(frozen=True, slots=True)
class FormedItem(Item):
    """The item of one key, whose value a serializer, such as pickle, reads only when the application asks for that value."""

    form: Form = field(repr=False, compare=False)

    @property
    def value(self) -> Any:
        """The Python value of this item, as it was when somebody wrote it. Raises UnreadableValue."""
        return self.form.made(self.data, self.kind, self.meta)


PLAIN: Final = Form()


def form_of(serializer: Any = None, key_prefix: Any = None, version: Any = None) -> Form:
    """Return the form (key prefix and serializer) of a cache opened with the options serializer, key_prefix and version.

    Keys are stored as ``key_prefix:version:key``; a part that is None is left out. version: a whole number or a text.
    Raises InvalidRequest.
    """
    parts = []
    if key_prefix is not None and key_prefix != "":
        if not isinstance(key_prefix, str):
            raise InvalidRequest(f"key_prefix is a str, not {shown(key_prefix)}")
        parts.append(key_prefix)
    if version is not None:
        if type(version) not in (int, str) or version == "":
            raise InvalidRequest(f"version is a whole number or a text, not {shown(version)}")
        parts.append(str(version))
    prefix = "".join(f"{part}:" for part in parts)
    if prefix:
        values.check_key(prefix)
    found = serializer_named(serializer)
    return Form(prefix, found) if prefix or found else PLAIN
