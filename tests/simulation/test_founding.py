"""One cluster is founded, whatever the commands are and in whatever order they are given, and no second one later."""

from __future__ import annotations

from random import Random

import pytest
from simulation.cluster import COMMAND, PEERS, TEMPLATE, Cluster, Process, leader_of, patched
from simulation.runner import FOUNDED_WITHIN_S

from cacheflow.node.joining import LISTEN_S

SETTINGS = {"policy": "lru", "max_items": None, "max_bytes": None, "replicas": 2}


def cluster_ids(cluster: Cluster) -> set[str]:
    return {process.node.configurations.latest.cluster_id for process in cluster.processes}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("founding", [COMMAND, TEMPLATE, PEERS])
def test_nodes_found_one_cluster_and_an_emptied_one_joins_it(founding: str, seed: int) -> None:
    random = Random(seed)
    cluster = Cluster(seed, 3, settings=SETTINGS, founding=founding)
    with patched(cluster):
        for host in random.sample(cluster.hosts, 3):
            cluster.start(host)
            cluster.run(random.choice((0.0, 0.3, 2 * LISTEN_S)))
        assert cluster.run(FOUNDED_WITHIN_S, cluster.healthy)
        (founded,) = cluster_ids(cluster)
        for host in cluster.hosts:
            cluster.crash(host, power=random.random() < 0.5)
            host.empty(random)
            cluster.start(host)
            assert cluster.run(2 * LISTEN_S, cluster.healthy)
        assert cluster_ids(cluster) == {founded}


def test_a_founder_that_bootstraps_again_without_data_stops_serving_when_a_member_dials_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(1, 3, settings=SETTINGS)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(FOUNDED_WITHIN_S, cluster.healthy)
        (founded,) = cluster_ids(cluster)
        founder, others = cluster.hosts[0], cluster.hosts[1:]
        cluster.crash(founder, power=False)
        founder.empty(Random(77))
        founder.was_emptied = False
        # Two clusters are what happens here, until they meet.
        for check in ("_elected", "applied", "bounded_read"):
            monkeypatch.setattr(cluster.checks, check, lambda *_: None)
        cluster.start(founder)
        process = founder.process
        assert process is not None
        assert cluster.run(2.0, lambda: process.node.replica.stumbled is not None)
        assert not process.may_read and not process.takes_writes and not process.node.is_leader
        assert founded in str(process.node.replica.stumbled)
        assert cluster.run(2.0, lambda: all(works(host.process) for host in others))
        # What its own words say mends it.
        cluster.crash(founder, power=False)
        founder.empty(Random(78))
        cluster.start(founder)
        assert cluster.run(2 * LISTEN_S, cluster.healthy)
        assert cluster_ids(cluster) == {founded} and leader_of(cluster).host is not founder


def works(process: Process | None) -> bool:
    return process is not None and process.may_read and process.takes_writes and process.node.links.route is not None


def test_a_node_that_stood_still_while_it_listened_goes_on_listening() -> None:
    cluster = Cluster(1, 3, settings=SETTINGS, founding=COMMAND)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(FOUNDED_WITHIN_S, cluster.healthy)
        founder = cluster.hosts[0]
        cluster.crash(founder, power=False)
        founder.empty(Random(77))
        cluster.start(founder)
        process = founder.process
        assert process is not None
        cluster.run(0.001)
        process.loop.pause()
        cluster.run(2 * LISTEN_S)
        process.loop.resume()
        assert cluster.run(2 * LISTEN_S, cluster.healthy)
