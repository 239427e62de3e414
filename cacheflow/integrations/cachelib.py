"""CacheFlowCache for cachelib, and so for Flask-Session: a cachelib cache whose values live in a CacheFlow cluster.

from cacheflow.integrations.cachelib import CacheFlowCache

cache = CacheFlowCache(["http://127.0.0.1:8080", "http://127.0.0.1:8081"], key_prefix="shop:")
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable
from typing import Any

from cachelib.base import BaseCache
from cachelib.serializers import BaseSerializer

from cacheflow.integrations.keys import storable
from cacheflow.opening.blocking import open_cache


class CacheFlowCache(BaseCache):
    """A cachelib cache in a CacheFlow cluster. Safe for concurrent use, also after a fork.

    urls: as ``cacheflow.open_cache`` takes them.  default_timeout: seconds, or a timedelta; 0 is for ever.
    key_prefix: put before every key as it is; a text, or a function that returns one.  serializer: ``pickle``, ``json`` or
    ``msgpack``; plain ints are stored as numbers in any case.  options: more options of ``open_cache``, such as ``token_file``.
    check_connection: raise RuntimeError at once if no node answers.
    When no node answers, every method raises ``cacheflow.ReplicationError`` after ``timeout`` seconds, as cachelib's RedisCache
    raises its client's error. ``clear`` removes the keys with this prefix alone; without a prefix it removes every key.
    """

    # A serializer of cachelib's own kind, set on the class or on the object, serializes instead of the one named to __init__.
    serializer: BaseSerializer | None = None

    def __init__(
        self,
        urls: str | Iterable[str],
        default_timeout: int | dt.timedelta = 300,
        key_prefix: str | Callable[[], str] | None = None,
        ignore_delete_many_errors: bool = True,
        check_connection: bool = False,
        *,
        serializer: str = "pickle",
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors=ignore_delete_many_errors)
        self.key_prefix = key_prefix or ""
        self._open = functools.partial(open_cache, urls if isinstance(urls, str) else list(urls), **options)
        self._named = serializer
        if check_connection:
            try:
                self.has("check-connection")
            except Exception as error:
                raise RuntimeError(f"no node of the CacheFlow cluster answers: {error}") from error

    @functools.cached_property
    def _serializing(self) -> Any:
        return self._open(serializer=self._named)

    @functools.cached_property
    def _plain(self) -> Any:
        return self._open(serializer=None)

    @property
    def _cache(self) -> Any:
        # cachelib's own serializer may be set at any time; then nothing is unpickled any more.
        return self._serializing if self.serializer is None else self._plain

    def _prefix(self) -> str:
        return self.key_prefix if isinstance(self.key_prefix, str) else self.key_prefix()

    def _key(self, key: str) -> str:
        return storable(key, self._prefix())

    def _ttl(self, timeout: int | dt.timedelta | None) -> int | None:
        # cachelib's 0 is for ever, which is no TTL at all.
        return self._normalize_timeout(timeout) or None

    def _dumped(self, value: Any) -> Any:
        return value if self.serializer is None or type(value) is int else self.serializer.dumps(value)

    def _loaded(self, value: Any) -> Any:
        return self.serializer.loads(value) if self.serializer is not None and isinstance(value, bytes) else value

    def get(self, key: str) -> Any:
        """Return the value under ``key``; None if the key is absent."""
        return self._loaded(self._cache.get(self._key(key)))

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values under ``keys``, in this order, None for each absent key, by one request."""
        places = [self._key(key) for key in keys]
        found = self._cache.get_many(dict.fromkeys(places))
        return [self._loaded(found.get(place)) for place in places]

    def set(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Write ``key = value``; return whether that took place: False if cachelib's serializer could not serialize it."""
        dumped = self._dumped(value)
        if dumped is None and self.serializer is not None:
            return False
        self._cache.set(self._key(key), dumped, ttl=self._ttl(timeout))
        return True

    def set_many(self, mapping: dict[str, Any], timeout: int | dt.timedelta | None = None) -> list[Any]:
        """Write the keys and values of ``mapping`` in one request; return the keys that were written."""
        dumped = {key: self._dumped(value) for key, value in mapping.items()}
        if self.serializer is not None:
            dumped = {key: value for key, value in dumped.items() if value is not None}
        if dumped:
            self._cache.set_many({self._key(key): value for key, value in dumped.items()}, ttl=self._ttl(timeout))
        return list(dumped)

    def add(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Write ``key = value`` with its timeout in one step if the key is absent; return whether the key was absent."""
        dumped = self._dumped(value)
        if dumped is None and self.serializer is not None:
            return False
        return bool(self._cache.add(self._key(key), dumped, ttl=self._ttl(timeout)))

    def delete(self, key: str) -> bool:
        """Remove ``key``; return whether it was present."""
        return bool(self._cache.delete(self._key(key)))

    def delete_many(self, *keys: str) -> list[Any]:
        """Remove ``keys`` in one request; return them all, for those that were absent count as removed."""
        if keys:
            self._cache.delete_many(dict.fromkeys(map(self._key, keys)))
        return list(keys)

    def has(self, key: str) -> bool:
        """Return whether ``key`` is present; its value is not sent."""
        return self._key(key) in self._cache

    def clear(self) -> bool:
        """Remove every key with this cache's prefix, or every key of the cluster if there is no prefix; return True."""
        prefix = self._prefix()
        if prefix:
            self._cache.delete_prefix(prefix)
        else:
            self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int:
        """Add ``delta`` to the number under ``key`` in one step; return the sum. The key's timeout stays.

        An absent key becomes ``delta``, with the default timeout. Raises ``cacheflow.NotAnInteger``.
        """
        return int(self._cache.incr(self._key(key), delta, initial=0, ttl=self._ttl(None)))

    def dec(self, key: str, delta: int = 1) -> int:
        """Subtract ``delta`` from the number under ``key`` in one step; return the result. The key's timeout stays.

        An absent key becomes ``-delta``. Raises ``cacheflow.NotAnInteger``.
        """
        return self.inc(key, -delta)
