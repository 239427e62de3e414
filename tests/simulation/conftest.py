"""What several tests of simulated clusters begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulation.cluster import Cluster, patched


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes that are ready."""
    cluster = Cluster(1, 3)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        yield cluster
