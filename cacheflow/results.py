"""The results of reads and writes in Python: the same objects from an embedded store and from the HTTP client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from cacheflow import values


@dataclass(frozen=True, slots=True)
class Item:
    """The value, version and TTL of one key, as a read returns them.

    kind: values.TEXT, BYTES, JSON, HASH or SET.  meta: a Content-Type, memcached flags or None.  version: of the key.
    ttl_s: seconds left, None without a TTL.
    """

    key: str
    data: bytes
    kind: int
    meta: str | int | None
    version: int
    ttl_s: float | None

    @property
    def value(self) -> Any:
        """The value as a Python object: str, bytes, what its JSON stands for, a dict for a hash or a set."""
        return values.decode(self.kind, self.data)


@dataclass(frozen=True, slots=True)
class SetResult:
    """The result of a write that took place. version: the key's new one.

    created: the key was absent before.  ttl_s: seconds, None without a TTL.
    """

    version: int
    created: bool
    ttl_s: float | None


class IncrResult(int):
    """The number under a key after ``incr`` or ``decr``: an int with the key's version, and its TTL in seconds or None."""

    version: int
    ttl_s: float | None

    def __new__(cls, value: int, version: int, ttl_s: float | None) -> IncrResult:
        result = super().__new__(cls, value)
        result.version = version
        result.ttl_s = ttl_s
        return result


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The settings that all nodes of a cluster have. A limit of None is no limit.

    version: a number that grows with each change.  changed_by: the name of the user who made the last change, "" if unknown.
    changed_at: when that was, in seconds since 1970 by the cluster's time.
    """

    max_items: int | None
    max_bytes: int | None
    eviction: str
    replicas: int | None
    max_value_bytes: int
    version: int
    changed_by: str
    changed_at: float


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash, in hex, of a node's contents at an index of the log; equal on all nodes at an equal index."""

    index: int
    digest: str


@dataclass(frozen=True, slots=True)
class RaftPosition:
    """A node's position: its applied index, its term, its id, and its leader's id or None."""

    index: int
    term: int
    node_id: str
    leader_id: str | None


class Event(NamedTuple):
    """Something that has happened to a node or its cluster.

    number: grows by one with each event of a start of the node, from the ms of its wall clock at that start.
    at_s: seconds since 1970, by the node's wall clock.
    what: ``node``, ``leader``, ``member``, ``alarm``, ``settings``, ``level``, ``restore`` or ``contents``.
    text: a sentence for people.  about: the id of the node that it is about; None if it is about the cluster.
    """

    number: int
    at_s: float
    what: str
    text: str
    about: str | None


class Change(NamedTuple):
    """One change of the cache's contents, as a watch tells it.

    what: ``set``, ``touch`` (a key has another expiry; its version stays), ``delete``, ``expire`` or ``evict``.
    key: the key; None for a ``delete`` of all keys that begin with ``prefix``, which is None otherwise.
    version: the key's new version; of a removal, the version that no removed item has reached.
    ttl_s: seconds left when this was told, of ``set`` and ``touch``; None without a TTL.
    position: opaque; a watch that begins at this position goes on behind this change, on any node of the cluster.
    """

    what: str
    key: str | None
    prefix: str | None
    version: int
    ttl_s: float | None
    position: str
