"""What is cut off is cut off, silently and one way if so told; over both kinds of network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cluster import namespaces
from cluster.partitions import Network, isolated
from cluster.processes import NodeProcess, Nodes, wait_for
from cluster.proxied import ProxyNetwork, missing


@pytest.fixture(params=["proxy", "namespaces"])
def network(request: pytest.FixtureRequest, folder: Path) -> Iterator[Network]:
    in_namespaces = request.param == "namespaces"
    why_not = namespaces.missing() if in_namespaces else missing()
    if why_not:
        pytest.skip(why_not)
    made: Network = namespaces.NamespaceNetwork(folder) if in_namespaces else ProxyNetwork()
    with closing(made):
        yield made


def test_a_leader_that_is_cut_off_or_not_heard_is_replaced_and_finds_back(network: Network, folder: Path) -> None:
    with Nodes(3, folder, ["--request-timeout", "1"], network.place) as nodes:
        names = [node.node_id for node in nodes.all]
        for node in nodes.all:
            network.attach(node.node_id, node.raft_port)
        nodes.start()

        leader = nodes.leader()
        network.cut(isolated(leader.node_id, names))
        assert leader.put("alone", 1).status == 504, "it was sent and nobody heard it"
        replaced(nodes, leader)
        assert leader.ask("GET", "/cache/k?consistency=bounded&max_staleness=0.5").status == 503
        network.cut(set())
        nodes.wait_whole()
        # It hears before it is heard: its own connections wait until TCP, or their limit, tries again.
        written = f"/cache/without%20{leader.node_id}?consistency=linearizable"
        wait_for(lambda: leader.try_get(written).status == 200, "it reads what was written without it")

        # It hears that the others are there and cannot say a word.
        leader = nodes.leader()
        network.cut({(leader.node_id, name) for name in names if name != leader.node_id})
        replaced(nodes, leader)
        network.cut(set())
        nodes.wait_whole()
        nodes.wait_level()


def replaced(nodes: Nodes, leader: NodeProcess) -> None:
    """Wait until the others have another leader than the one cut off, and take writes."""
    others = nodes.others(leader)
    names = {node.node_id for node in others}
    wait_for(lambda: all(node.leader_id() in names for node in others), "the others have a leader of their own")
    for node in others:
        wait_for(lambda node=node: node.put(f"without {leader.node_id}", 1).status in (200, 201))  # type: ignore[misc]
