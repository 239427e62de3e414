"""open_cache against three real nodes: found from one, and used when that one is killed."""

from __future__ import annotations

import time
from typing import Any

from cluster.processes import Nodes

from cacheflow import open_cache


def test_a_client_of_one_node_finds_the_others_and_survives_it(frameworks: Nodes) -> None:
    nodes = frameworks.all
    cache: Any
    with open_cache(nodes[0].url, serializer="pickle", key_prefix="found", timeout=20) as cache:
        cache["k"] = (1, 2)
        deadline = time.monotonic() + 10
        while len(cache.cache.urls) < len(nodes):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert set(cache.cache.urls) == {node.url for node in nodes}
        nodes[0].kill()
        cache["k"] = (3, 4)
        assert cache["k"] == (3, 4) and cache.incr("n", initial=0) == 1
