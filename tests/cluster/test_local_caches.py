"""Local caches and the death of their node: what a client has kept is forgotten with the connection."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from cluster.processes import Nodes, wait_for
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from cacheflow.cli.launcher import free_ports

AT_ONCE = Retry(NoBackoff(), 0)


def test_a_local_cache_ends_with_its_node_and_begins_anew(folder: Path) -> None:
    (port,) = free_ports(1)
    with Nodes(3, folder, []) as nodes:
        nodes.start()
        own = nodes.add(["--resp-port", str(port)]).start()
        wait_for(own.is_ready, "it serves")
        client = redis.Redis(port=port, protocol=3, retry=AT_ONCE, decode_responses=True, cache_config=CacheConfig())
        client.set("k", "1")
        assert client.get("k") == client.get("k") == "1"
        own.kill()
        # The answer of the cache is given up when the connection is seen to be gone.
        with pytest.raises(redis.ConnectionError):
            wait_for(lambda: client.get("k") != "1", "the connection is gone")
        nodes[1].put("k", "2")
        own.start()
        wait_for(own.is_ready, "it serves again")
        assert client.get("k") == "2"
