"""A plugin for pytest: dogpile.cache's suite, with CacheFlow's back end in the place of the one for Redis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dogpile.cache import register_backend

from cacheflow.integrations.dogpile import CacheFlowBackend

URLS = os.environ["CONFORMANCE_URLS"].split(",")


class Backend(CacheFlowBackend):
    """CacheFlow's back end with the arguments by which the suite makes one for Redis."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__({**arguments, "urls": URLS})


register_backend("dogpile.cache.redis", __name__, "Backend")  # type: ignore[no-untyped-call]
