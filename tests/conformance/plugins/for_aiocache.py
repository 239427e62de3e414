"""A plugin for pytest: aiocache's suite, with CacheFlow's cache in the place of RedisCache."""

from __future__ import annotations

import os
from typing import Any

import aiocache

from cacheflow.integrations.aiocache import CacheFlowCache

URLS = os.environ["CONFORMANCE_URLS"].split(",")


class RedisCache(CacheFlowCache):
    """CacheFlow's cache with the nodes that are tested as the default."""

    NAME = "redis"

    def __init__(self, **options: Any) -> None:
        super().__init__(URLS, **options)


aiocache.AIOCACHE_CACHES["redis"] = RedisCache
aiocache.Cache.REDIS = RedisCache
