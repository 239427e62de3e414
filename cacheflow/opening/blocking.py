"""open_cache: the cache that a URL names, with blocking methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cacheflow.client.client import CacheClient
from cacheflow.forms.form import PLAIN
from cacheflow.opening.formed import FormedCache
from cacheflow.opening.options import opening_of

if TYPE_CHECKING:
    from cacheflow.store import ReplicatedStore


def open_cache(url: str | Iterable[str], **options: Any) -> CacheClient | ReplicatedStore | FormedCache:
    """Return the cache at ``url``: a client of nodes elsewhere, or a node in this process that is started and ready.

    url: ``cacheflow://host:port[,host:port]``, ``cacheflows://`` for TLS, ``cacheflow+embedded:///folder``, or one or several
    ``http://host:port``. The ports are those of HTTP.

    Options stand here or in the URL's query; what stands here counts:
    serializer: None (str, bytes and JSON), "json", "msgpack" or "pickle".  key_prefix, version: of all keys of this cache.
    timeout: seconds for a call, or each part of a long one.  token, token_file: the user's token, or a file with it.
    ca: a file with the CA of the nodes' certificates.
    discover: use also the nodes that the named ones list as members of the cluster; False behind a NAT.
    An embedded cache takes the settings of a NodeConfig besides.

    Use it as a context manager or close it. Raises InvalidRequest, ConfigError; NotReady for a node that finds no cluster.
    """
    form, client, node = opening_of(url, options)
    cache: CacheClient | ReplicatedStore = CacheClient(**client) if client is not None else _embedded(node or {})
    return cache if form is PLAIN else FormedCache(cache, form)


def _embedded(settings: dict[str, Any]) -> ReplicatedStore:
    # A client does not pay for the server.
    from cacheflow.store import ReplicatedStore

    return ReplicatedStore(**settings).__enter__()
