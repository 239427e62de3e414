"""A plugin for pytest: aiocache's suite, with CacheFlow's cache in the place of RedisCache."""

from __future__ import annotations

import os
from typing import Any

import aiocache

from cacheflow.integrations.aiocache import CacheFlowCache

URL = os.environ["CONFORMANCE_URL"]


class RedisCache(CacheFlowCache):
    """CacheFlow's cache with the node that is tested as the default."""

    NAME = "redis"

    def __init__(self, **options: Any) -> None:
        super().__init__(URL, **options)


aiocache.AIOCACHE_CACHES["redis"] = RedisCache
aiocache.Cache.REDIS = RedisCache
