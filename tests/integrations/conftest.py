"""The cluster that the frameworks' caches are tested against: three real nodes, the same for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cluster.processes import DEADLINE_S, Nodes

from cacheflow import open_cache


@pytest.fixture(scope="session")
def _frameworks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    flags = ["--max-items", "20000", "--resp-port", "0", "--memcached-port", "0"]
    with Nodes(3, tmp_path_factory.mktemp("frameworks"), flags) as nodes:
        yield nodes


@pytest.fixture
def frameworks(_frameworks: Nodes) -> Nodes:
    """Three whole nodes with contents from other tests; a test may leave them killed, but not paused."""
    return _frameworks.start()


@pytest.fixture
def urls(frameworks: Nodes) -> list[str]:
    """The HTTP addresses of the three nodes; tests use keys or prefixes of their own."""
    return [node.url for node in frameworks.all]


@pytest.fixture
def heard(frameworks: Nodes) -> Callable[[], None]:
    """A function that waits until every living node has all that any has acknowledged.

    A read through another node than the one that has answered a write may come before that node's message, seldom.
    """

    def wait() -> None:
        for node in frameworks.all:
            if node.alive:
                with open_cache(node.url, discover=False, timeout=DEADLINE_S) as cache:
                    cache.get("heard", consistency="linearizable")

    return wait
