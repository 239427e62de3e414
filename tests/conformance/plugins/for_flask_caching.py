"""A plugin for pytest: Flask-Caching's suite, with CacheFlow's cache in the place of SimpleCache, the suite's default.

Each SimpleCache is born empty, so each of these has a prefix of its own; and the suite's clock goes on by taking from every TTL.
"""

from __future__ import annotations

import os
import sys
import types
import uuid
from typing import Any

import flask_caching.backends as backends
import pytest

from cacheflow.integrations.flask_caching import CacheFlowCache

URLS = os.environ["CONFORMANCE_URLS"].split(",")
_made: list[SimpleCache] = []


class SimpleCache(CacheFlowCache):
    """CacheFlow's cache with the arguments by which the suite makes a SimpleCache."""

    def __init__(self, threshold: int = 500, **kwargs: Any) -> None:
        super().__init__(URLS, **{**kwargs, "key_prefix": uuid.uuid4().hex})
        _made.append(self)

    @classmethod
    def factory(cls, app: Any, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> SimpleCache:
        """Return a cache as Flask-Caching makes it from a configuration."""
        return cls(*args, **kwargs)


def _advance(clock: Any, seconds: float) -> None:
    """Let ``seconds`` pass for every cache made, as the suite's clock does for SimpleCache."""
    clock.now += seconds
    for cache in _made:
        for key in list(cache._plain.keys(cache._prefix())):
            item = cache._plain.get_item(key)
            if item is not None and item.ttl_s is not None:
                if item.ttl_s > seconds:
                    cache._plain.touch(key, item.ttl_s - seconds)
                else:
                    cache._plain.delete(key)


@pytest.fixture(scope="class")
def xprocess() -> None:
    """Nothing, where the suite would start servers of its own."""
    pytest.skip("the suite's own Redis and memcached are not what is tested here")


def pytest_collection_modifyitems() -> None:
    """Put our hand on the suite's clock, once its conftest is there."""
    sys.modules["conftest"]._Clock.advance = _advance
    _made.clear()


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    """Forget the caches of a test at its end."""
    yield
    _made.clear()


backends.SimpleCache = SimpleCache  # type: ignore[misc,assignment]
sys.modules["xprocess"] = types.ModuleType("xprocess")
sys.modules["xprocess"].ProcessStarter = object  # type: ignore[attr-defined]
