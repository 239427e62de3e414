"""open_cache for asyncio: the cache that a URL names, with coroutine methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cacheflow.client.client import AsyncCacheClient
from cacheflow.forms.form import PLAIN
from cacheflow.opening.formed import AsyncFormedCache
from cacheflow.opening.options import opening_of

if TYPE_CHECKING:
    from cacheflow.aio.store import AsyncReplicatedStore


def open_cache(url: str | Iterable[str], **options: Any) -> AsyncCacheClient | AsyncReplicatedStore | AsyncFormedCache:
    """Return the asyncio cache at ``url``. URL and options are those of ``cacheflow.open_cache``.

    A node in this process is started by ``async with``, as starting it takes a while.
    """
    form, client, node = opening_of(url, options)
    cache: AsyncCacheClient | AsyncReplicatedStore = (
        AsyncCacheClient(**client) if client is not None else _embedded(node or {})
    )
    return cache if form is PLAIN else AsyncFormedCache(cache, form)


def _embedded(settings: dict[str, Any]) -> AsyncReplicatedStore:
    # A client does not pay for the server.
    from cacheflow.aio.store import AsyncReplicatedStore

    return AsyncReplicatedStore(**settings)
