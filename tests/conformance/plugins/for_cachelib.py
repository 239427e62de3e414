"""A plugin for pytest: cachelib's suite, with CacheFlow's cache in the place of RedisCache."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import cachelib
import pytest

from cacheflow.integrations.cachelib import CacheFlowCache

URLS = os.environ["CONFORMANCE_URLS"].split(",")
# Nobody listens here; the suite names its Redis servers by ports: 1 is the one without a server.
NOBODY = "http://127.0.0.1:1"


class _Client:
    """What the suite asks of RedisCache's client."""

    def __init__(self, cache: CacheFlowCache) -> None:
        self._cache = cache

    def flushdb(self) -> None:
        """Remove every key of the cluster."""
        self._cache._cache.clear()


class RedisCache(CacheFlowCache):
    """CacheFlow's cache with the arguments by which the suite makes a RedisCache."""

    def __init__(
        self, *args: Any, port: int = 6360, socket_connect_timeout: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(NOBODY if port == 1 else URLS, *args, timeout=socket_connect_timeout, **kwargs)
        self._write_client = _Client(self)


@pytest.fixture(scope="class")
def xprocess() -> None:
    """Nothing, where the suite would start servers of its own."""


cachelib.RedisCache = RedisCache  # type: ignore[misc,assignment]
sys.modules["xprocess"] = types.ModuleType("xprocess")
sys.modules["xprocess"].ProcessStarter = object  # type: ignore[attr-defined]
