"""Real nodes found one cluster, and never a second one: with the commands of README, and with one command for all."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for
from cluster.test_membership import secret_file, voters

from cacheflow.cli.launcher import free_ports


def cluster_ids(nodes: Nodes) -> set[str]:
    return {node.status()["cluster_id"] for node in nodes.all}


def founded(nodes: Nodes) -> None:
    """Wait until all are members and vote: the disk of a voter may be lost then, and not before."""
    nodes.wait_whole()
    wait_for(lambda: len(voters(nodes[0])) == len(nodes.all), "all vote")


def first_write(node: NodeProcess) -> None:
    """Wait until a node takes a write; it must be a member of its old cluster by then."""

    def written() -> bool:
        try:
            return node.put("as soon as it can", "1").status in (200, 201)
        except OSError:
            return False

    wait_for(written, "it takes a write")
    assert len(node.members()) == 3 and node.value("written before") == "yes"


@pytest.mark.parametrize("persistence", ["true", "false"])
def test_a_founder_that_comes_back_without_data_by_the_same_command_joins_its_cluster(
    folder: Path, persistence: str
) -> None:
    with Nodes(3, folder, ["--persistence", persistence]) as nodes:
        nodes.start()
        founded(nodes)
        founder = nodes[0]
        founder.put("written before", "yes")
        before = cluster_ids(nodes)
        founder.kill()
        shutil.rmtree(founder.data_dir, ignore_errors=True)
        founder.start()
        assert "--bootstrap" not in founder.arguments() and "--seed" not in founder.arguments()
        with Load([nodes[1], nodes[2]], clients=1, name="founding") as load:
            first_write(founder)
            nodes.wait_whole()
            load.wait_progress(5)
        assert cluster_ids(nodes) == before


def test_a_node_that_names_nobody_says_what_it_waits_for_and_founds(folder: Path) -> None:
    with Nodes(1, folder) as nodes:
        alone = nodes[0]
        alone.bootstraps = False
        alone.start()
        wait_for(lambda: "listening for" in str(alone.try_get("/readyz").body), "readyz tells that it listens")
        nodes.start()
        assert "founded cluster" in alone.output()


@pytest.mark.parametrize("seed", range(2))
def test_nodes_with_one_command_found_one_cluster_in_whatever_order_they_start(folder: Path, seed: int) -> None:
    random = Random(seed)
    flags = ["--cluster-secret-file", secret_file(folder, "shared by all of them")]
    with Nodes(3, folder, flags) as nodes:
        urls = [node.url for node in nodes.all]
        for node in nodes.all:
            node.seeds = urls
            node.flags += ["--bootstrap-expect", "3"]
        first, *others = random.sample(nodes.all, 3)
        first.start()
        wait_for(lambda: "cannot be asked" in str(first.try_get("/readyz").body), "the first waits for the others")
        for node in others:
            node.start()
        founded(nodes)
        assert len(cluster_ids(nodes)) == 1
        emptied = random.choice(nodes.all)
        nodes[0].put("written before", "yes")
        emptied.kill()
        shutil.rmtree(emptied.data_dir)
        emptied.start()
        first_write(emptied)
        nodes.wait_whole()
        assert len(cluster_ids(nodes)) == 1


def test_a_template_founds_nothing_when_the_others_are_down(folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        urls = [node.url for node in nodes.all]
        for node in nodes.all:
            node.seeds = urls
            node.flags += ["--bootstrap-expect", "3"]
        nodes.start()
        founded(nodes)
        for node in nodes.all:
            node.kill()
        emptied = nodes[0]
        shutil.rmtree(emptied.data_dir)
        emptied.start()
        # One with data says so, and without a majority it cannot register anybody.
        nodes[1].start()
        wait_for(lambda: f"{nodes[1].url} answers 503" in str(emptied.try_get("/readyz").body), "it has asked")
        assert emptied.status()["cluster_id"] == ""
        nodes[2].start()
        nodes.wait_whole()
        assert len(cluster_ids(nodes)) == 1


def test_members_that_all_have_moved_meet_through_their_seeds(folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        nodes.start()
        founded(nodes)
        nodes[0].put("written before", "yes")
        for node in nodes.all:
            node.kill()
        for node, port in zip(nodes.all, free_ports(3), strict=True):
            # Their peers do not know it, and HTTP is where it was.
            node.raft_port = port
        nodes.start()
        wait_for(lambda: nodes[0].members()["node-3"]["raft_address"] == nodes[2].raft_address, "the table says so")
        assert nodes[2].value("written before") == "yes"
