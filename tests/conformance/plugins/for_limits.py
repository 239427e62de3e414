"""A plugin for pytest: limits' suite, with CacheFlow's storages in the place of those for Redis.

The suite starts its servers by docker and empties them by their clients; here both are stand-ins.
"""

from __future__ import annotations

import os
from typing import Any

import limits.aio.storage
import limits.storage
import redis
from limits._storage_scheme import SCHEMES

from cacheflow import open_cache
from cacheflow.integrations.limits import AsyncCacheFlowStorage, CacheFlowStorage

pytest_plugins = ["without_docker"]
URI = "cacheflow://" + os.environ["CONFORMANCE_URLS"].replace("http://", "")


class RedisStorage(CacheFlowStorage):
    """CacheFlow's storage with the arguments by which the suite makes one for Redis."""

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(URI, **options)


class AsyncRedisStorage(AsyncCacheFlowStorage):
    """The same for asyncio; ``implementation`` is the suite's choice of a client library."""

    def __init__(self, uri: str, implementation: str = "", **options: Any) -> None:
        super().__init__(URI, **options)


class StrictRedis:
    """What the suite asks of a client of its own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._cache = open_cache(URI)

    def flushall(self) -> None:
        """Remove every key of the cluster."""
        self._cache.clear()

    def get(self, key: str) -> bytes:
        """Return the number under ``key`` as Redis shows it."""
        return str(self._cache.get(key)).encode()


SCHEMES["redis"] = RedisStorage
SCHEMES["async+redis"] = AsyncRedisStorage
limits.storage.RedisStorage = RedisStorage  # type: ignore[misc,assignment]
limits.aio.storage.RedisStorage = AsyncRedisStorage  # type: ignore[misc,assignment]
redis.StrictRedis = StrictRedis  # type: ignore[assignment]
