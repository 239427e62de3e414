"""The cluster that the frameworks' caches are tested against: three real nodes, the same for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.processes import Nodes


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
