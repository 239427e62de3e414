"""Between nodes on narrow links a large entry takes its time, and costs nobody the leadership."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cluster.partitions import Network
from cluster.processes import NodeProcess, Nodes
from cluster.proxied import ProxyNetwork, missing

# 20 Mbit/s: seven megabytes take longer than the longest election timeout, on each of the two ways that they may have to go.
BYTES_PER_S = 2_500_000
LARGE_BYTES = 7_000_000
# What a small write waits for at most: the large entry in front of it on both ways, and some time to spare.
SMALL_S = 2 * LARGE_BYTES / BYTES_PER_S + 3.0


@pytest.fixture
def network() -> Iterator[Network]:
    if missing():
        pytest.skip(missing())
    with closing(ProxyNetwork(BYTES_PER_S)) as made:
        yield made


class Writer(threading.Thread):
    """Writes a small value through a node again and again. taken_s: how long each write took."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__()
        self.node = node
        self.taken_s: list[float] = []
        self.statuses: set[int] = set()
        self.goes_on = True

    def run(self) -> None:
        while self.goes_on:
            began_s = time.monotonic()
            self.statuses.add(self.node.put(f"small {self.node.node_id}", 1).status)
            self.taken_s.append(time.monotonic() - began_s)
            time.sleep(0.02)


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_large_write_is_answered_and_the_leader_stays(network: Network, folder: Path, through: str) -> None:
    flags = ["--request-timeout", "60", "--max-value-bytes", str(LARGE_BYTES + 1000)]
    with Nodes(3, folder, flags, network.place) as nodes:
        for node in nodes.all:
            network.attach(node.node_id, node.raft_port)
        nodes.start()
        leader = nodes.leader()
        follower, other = nodes.others(leader)
        term = leader.status()["term"]
        writers = [Writer(leader), Writer(other)]
        for writer in writers:
            writer.start()
        try:
            with (leader if through == "leader" else follower).connect(90.0) as connection:
                answer = connection.request("PUT", "/cache/large", {"value": "x" * LARGE_BYTES})
        finally:
            for writer in writers:
                writer.goes_on = False
                writer.join()
        assert answer.status == 201
        assert nodes.leader() is leader and leader.status()["term"] == term
        for writer in writers:
            assert writer.statuses <= {200, 201} and max(writer.taken_s) < SMALL_S, writer.taken_s
        nodes.wait_level()
