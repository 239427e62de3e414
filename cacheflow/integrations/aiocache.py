"""CacheFlowCache: aiocache's cache in a cluster, with its serializers, plugins and locks.

    from aiocache import Cache
    from cacheflow.integrations.aiocache import CacheFlowCache

    cache = CacheFlowCache(["http://127.0.0.1:8080", "http://127.0.0.1:8081"], namespace="app", ttl=60)
    cache = Cache.from_url("cacheflow://127.0.0.1:8080/?namespace=app")

1. What a serializer gives, text or bytes, is kept as it is and comes back so.
2. The locks' own steps are decided by the log: of all processes one adds a ``RedLock``'s key, and only who holds it removes it;
   an ``OptimisticLock`` writes at the version that it has seen, or not at all. Who comes later waits, by aiocache's own rule, for
   a holder in the same process, and passes one in another process.
3. No node answers: an error is raised after ``timeout``, as by aiocache's Redis cache; aiocache's decorators log the error and
   call the function.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from aiocache import AIOCACHE_CACHES
from aiocache.base import BaseCache, _ensure_key
from aiocache.serializers import JsonSerializer

from cacheflow import values
from cacheflow.errors import NotAnInteger, PreconditionFailed
from cacheflow.opening.asynchronous import open_cache


class CacheFlowCache(BaseCache):  # type: ignore[misc]
    """aiocache's cache over a cluster of CacheFlow; values are serialized as JSON unless told otherwise.

    urls: what ``cacheflow.aio.open_cache`` takes; without it the node ``endpoint``:``port`` with the token ``password``, as
    ``Cache.from_url`` gives them.  token, token_file, ca, discover: passed to ``open_cache``.
    serializer, plugins, namespace, key_builder, timeout, ttl: as for every cache of aiocache; TTLs may have fractions.
    """

    NAME = "cacheflow"

    def __init__(
        self,
        urls: str | Iterable[str] | None = None,
        *,
        endpoint: str = "127.0.0.1",
        port: int | str = 8080,
        password: str | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        discover: bool = True,
        serializer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(serializer=serializer or JsonSerializer(), **options)
        self._adding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        host = f"[{endpoint}]" if ":" in endpoint else endpoint
        given: dict[str, Any] = {"token": token or password, "token_file": token_file, "ca": ca}
        if self.timeout:
            given["timeout"] = self.timeout
        self.client = open_cache(
            f"cacheflow://{host}:{port}" if urls is None else urls,
            discover=discover,
            **{name: value for name, value in given.items() if value is not None},
        )

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, str]:
        """Return {}, when aiocache asks for options in the path of a cache's URL: CacheFlow takes none in that place."""
        return {}

    def _build_key(self, key: Any, namespace: str | None = None) -> str:
        space = self.namespace if namespace is None else namespace
        return f"{space}:{_ensure_key(key)}" if space else str(_ensure_key(key))

    async def _get(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        return _read(await self.client.get(key), encoding)

    async def _gets(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> int | None:
        """Return the version of ``key``, by which aiocache's OptimisticLock sees a change; None if the key is absent."""
        item = await self.client.get_item(key, consistency="linearizable")
        return None if item is None else item.version

    async def _multi_get(self, keys: list[str], encoding: str | None = "utf-8", _conn: Any = None) -> list[Any]:
        found = await self.client.get_many(keys)
        return [_read(found.get(key), encoding) for key in keys]

    async def _set(
        self, key: str, value: Any, ttl: float | None = None, _cas_token: int | None = None, _conn: Any = None
    ) -> bool:
        try:
            await self.client.set(key, _written(value), ttl=ttl or None, only_if_version=_cas_token)
        except PreconditionFailed:
            return False
        return True

    async def _multi_set(self, pairs: list[tuple[str, Any]], ttl: float | None = None, _conn: Any = None) -> bool:
        await self.client.set_many({key: _written(value) for key, value in pairs}, ttl=ttl or None)
        return True

    async def _add(self, key: str, value: Any, ttl: float | None = None, _conn: Any = None) -> bool:
        # One after the other in this process: the answers to two come in any order, and who is told first that a RedLock is taken
        # would find no holder to wait for.
        async with self._adding.setdefault(key, asyncio.Lock()):
            added = await self.client.add(key, _written(value), ttl=ttl or None)
        if not added:
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return await self.client.get_item(key, peek=True) is not None

    async def _increment(self, key: str, delta: int, _conn: Any = None) -> int:
        try:
            return int(await self.client.incr(key, delta, initial=0))
        except NotAnInteger as error:
            raise TypeError("Value is not an integer") from error

    async def _expire(self, key: str, ttl: float, _conn: Any = None) -> bool:
        return bool(await self.client.touch(key, ttl or None))

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return int(await self.client.delete(key))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        """Remove the keys of ``namespace``, or else of this cache's namespace; without either, every key of the cluster."""
        space = self.namespace if namespace is None else namespace
        if space:
            await self.client.delete_prefix(f"{space}:")
        else:
            await self.client.clear()
        return True

    async def _raw(
        self, command: str, *args: Any, encoding: str | None = None, _conn: Any = None, **kwargs: Any
    ) -> Any:
        """Call the method named ``command`` of CacheFlow's own client, without this cache's namespace and serializer."""
        return await getattr(self.client, command)(*args, **kwargs)

    async def _redlock_release(self, key: str, value: str) -> int:
        item = await self.client.get_item(key, consistency="linearizable")
        if item is None or item.value != value:
            return 0
        try:
            await self.client.delete(key, only_if_version=item.version)
        except PreconditionFailed:
            return 0
        return 1

    async def _close(self, *args: Any, _conn: Any = None, **kwargs: Any) -> None:
        await self.client.close()


def _written(value: Any) -> Any:
    """Return ``value``, made by a serializer, if it is str, bytes or an int, which the cluster gives back unchanged.

    Raises TypeError for any other value.
    """
    if isinstance(value, (str, bytes)) or type(value) is int:
        return value
    raise TypeError(f"a serializer for CacheFlow gives str or bytes, not {type(value).__name__}")


def _read(value: Any, encoding: str | None) -> Any:
    """Return ``value``, read from the cluster, in the form that a serializer reads: bytes as they are, all else as text.

    Without an ``encoding`` everything becomes bytes. None stays None.
    """
    if value is None or isinstance(value, bytes):
        return value
    _, data = values.encode(value)
    return data if encoding is None else data.decode(encoding)


AIOCACHE_CACHES[CacheFlowCache.NAME] = CacheFlowCache
