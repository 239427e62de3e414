"""CacheFlowBackend: the back end of fastapi-cache2 in a cluster.

    from fastapi_cache import FastAPICache
    from cacheflow.integrations.fastapi_cache2 import CacheFlowBackend

    FastAPICache.init(CacheFlowBackend(["http://127.0.0.1:8080", "http://127.0.0.1:8081"]), prefix="app")

No node answers: an error is raised after ``timeout``, as by the Redis back end; the decorator logs it and calls the function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi_cache.types import Backend

from cacheflow.opening.asynchronous import open_cache


class CacheFlowBackend(Backend):
    """A back end of fastapi-cache2, which keeps the bytes made by that package's decorator in a cluster of CacheFlow.

    urls, options: what ``cacheflow.aio.open_cache`` takes, except ``serializer``, as the decorator has a coder.
    """

    def __init__(self, urls: str | Iterable[str], **options: Any) -> None:
        self.client = open_cache(urls, **options)

    async def get_with_ttl(self, key: str) -> tuple[int, bytes | None]:
        """Return (the TTL of ``key`` in whole seconds, the bytes under that key), as fastapi-cache2 wants them.

        As with Redis the seconds are -1 for a key without a TTL, and -2 with None for an absent key.
        """
        item = await self.client.get_item(key)
        if item is None:
            return -2, None
        return (-1 if item.ttl_s is None else int(item.ttl_s)), item.data

    async def get(self, key: str) -> bytes | None:
        """Return the bytes under ``key``; None if it is absent."""
        item = await self.client.get_item(key)
        return None if item is None else item.data

    async def set(self, key: str, value: bytes, expire: int | None = None) -> None:
        """Keep the bytes ``value`` under ``key`` for ``expire`` seconds; None or 0 keeps it until it is evicted."""
        await self.client.set(key, value, ttl=expire or None)

    async def clear(self, namespace: str | None = None, key: str | None = None) -> int:
        """Remove all keys of ``namespace``, or the one ``key``; return how many keys were removed."""
        if namespace:
            return int(await self.client.delete_prefix(f"{namespace}:"))
        return int(await self.client.delete(key)) if key else 0

    async def close(self) -> None:
        """Close this back end's idle connections to the nodes."""
        await self.client.close()
