"""CacheFlow: a Raft-consistent, replicated key-value cache.

    from cacheflow import ReplicatedStore, CacheClient, open_cache

The names are loaded when they are first used: a client does not pay for the server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheflow.aio.store import AsyncReplicatedStore
    from cacheflow.client.client import AsyncCacheClient, CacheClient
    from cacheflow.config import NodeConfig
    from cacheflow.errors import (
        AnswerNotKept,
        CacheFlowError,
        ConfigError,
        IdempotencyKeyReused,
        InvalidRequest,
        KeyNotFound,
        MemberConflict,
        MemberUnknown,
        NoLeader,
        NotAnInteger,
        NotCommitted,
        NotReady,
        OutcomeForgotten,
        OutcomeUnknown,
        Overloaded,
        PreconditionFailed,
        ReplicationError,
        UnreadableValue,
        ValueTooLarge,
    )
    from cacheflow.opening.blocking import open_cache
    from cacheflow.results import IncrResult, Item, SetResult
    from cacheflow.store import ReplicatedStore
    from cacheflow.values import hashkey, key_of

__all__ = [
    "AnswerNotKept",
    "AsyncCacheClient",
    "AsyncReplicatedStore",
    "CacheClient",
    "CacheFlowError",
    "ConfigError",
    "IdempotencyKeyReused",
    "IncrResult",
    "InvalidRequest",
    "Item",
    "KeyNotFound",
    "MemberConflict",
    "MemberUnknown",
    "NoLeader",
    "NodeConfig",
    "NotAnInteger",
    "NotCommitted",
    "NotReady",
    "OutcomeForgotten",
    "OutcomeUnknown",
    "Overloaded",
    "PreconditionFailed",
    "ReplicatedStore",
    "ReplicationError",
    "SetResult",
    "UnreadableValue",
    "ValueTooLarge",
    "hashkey",
    "key_of",
    "open_cache",
]

# The module of each name that is not in errors.py.
_HOMES = {
    "AsyncCacheClient": "client.client",
    "AsyncReplicatedStore": "aio.store",
    "CacheClient": "client.client",
    "IncrResult": "results",
    "Item": "results",
    "NodeConfig": "config",
    "ReplicatedStore": "store",
    "SetResult": "results",
    "hashkey": "values",
    "key_of": "values",
    "open_cache": "opening.blocking",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cacheflow.{_HOMES.get(name, 'errors')}"), name)
