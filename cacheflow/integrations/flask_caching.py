"""CacheFlowCache for Flask-Caching: a cache of a Flask application, named in its configuration.

CACHE_TYPE = "cacheflow.integrations.flask_caching.CacheFlowCache"
CACHE_CACHEFLOW_URLS = ["http://127.0.0.1:8080", "http://127.0.0.1:8081"]
"""

from __future__ import annotations

from typing import Any

from flask_caching.backends.base import BaseCache

from cacheflow.errors import ConfigError
from cacheflow.integrations import cachelib


class CacheFlowCache(cachelib.CacheFlowCache, BaseCache):
    """A Flask-Caching cache in a cluster: ``cacheflow.integrations.cachelib.CacheFlowCache``, made from the app's configuration.

    CACHE_CACHEFLOW_URLS: the nodes.  CACHE_KEY_PREFIX, CACHE_DEFAULT_TIMEOUT and CACHE_SERIALIZER: as for every cache of
    Flask-Caching.  CACHE_OPTIONS: more options of the cachelib cache, such as ``serializer`` and ``token_file``.
    When no node answers, ``cacheflow.ReplicationError`` is raised; decorated functions and views then run uncached, unless the
    application is in debug mode, as Flask-Caching does with every back end.
    """

    @classmethod
    def factory(cls, app: Any, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> CacheFlowCache:
        """Return the cache that the configuration ``config`` of the Flask application ``app`` describes.

        args, kwargs: the configuration's CACHE_ARGS, and its CACHE_OPTIONS with the default timeout. Raises ConfigError without
        nodes.
        """
        urls = config.get("CACHE_CACHEFLOW_URLS")
        if not urls:
            raise ConfigError("CACHE_CACHEFLOW_URLS is not set: give the HTTP addresses of the cluster's nodes")
        return cls(urls, *args, **{"key_prefix": config.get("CACHE_KEY_PREFIX"), **kwargs})
