"""CacheFlow for asyncio: the same verbs as coroutines.

    from cacheflow.aio import AsyncReplicatedStore, AsyncCacheClient, open_cache

The names are loaded when they are first used: a client does not pay for the server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheflow.aio.store import AsyncReplicatedStore
    from cacheflow.client.client import AsyncCacheClient
    from cacheflow.opening.asynchronous import open_cache

__all__ = ["AsyncCacheClient", "AsyncReplicatedStore", "open_cache"]

_HOMES = {
    "AsyncCacheClient": "client.client",
    "AsyncReplicatedStore": "aio.store",
    "open_cache": "opening.asynchronous",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cacheflow.{_HOMES[name]}"), name)
