"""Nodes that leave at their end, with ``--leave``: they are out, and come back from the same directory as other members."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for

from cacheflow import ReplicatedStore
from cacheflow.cli.launcher import free_ports


@pytest.fixture(scope="module")
def _three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(3, tmp_path_factory.mktemp("three"), ["--leave"]) as nodes:
        yield nodes


@pytest.fixture
def three(_three: Nodes) -> Nodes:
    """Three voters that leave at SIGTERM."""
    return _three.start()


def end(node: NodeProcess) -> str:
    """End a node with SIGTERM, and return what it says meanwhile."""
    said = len(node.output())
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    return node.output()[said:]


def incarnation(node: NodeProcess) -> str:
    return (node.data_dir / "identity").read_text().partition('"incarnation": "')[2][:16]


def test_a_follower_leaves_while_clients_write_and_comes_back_as_another_member(three: Nodes) -> None:
    leaver = three.others(three.leader())[0]
    others, before = three.others(leaver), incarnation(leaver)
    with Load(others, clients=1, name="leave") as load:
        load.wait_progress(5)
        assert "this node has left its cluster" in end(leaver)
        wait_for(lambda: all(leaver.node_id not in node.members() for node in others), "it is out")
        load.wait_progress(5)
        leaver.start()
        three.wait_whole()
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    load.check(leaver)
    three.wait_level()
    assert incarnation(leaver) != before
    wait_for(lambda: sorted(file.name for file in leaver.data_dir.glob("*ed*")) == [], "no mark is left")
    wait_for(lambda: not (leaver.data_dir / "departure").exists(), "it is a member, and leaves no more")


def test_the_leader_hands_over_and_a_founder_that_comes_back_founds_nothing(three: Nodes) -> None:
    founder = three[0]
    assert not founder.seeds
    assert founder.ask("POST", "/cluster/leader", {"id": founder.node_id}).status == 200
    wait_for(lambda: three.leader() is founder, "the founder leads")
    cluster_id = founder.status()["cluster_id"]
    assert "this node has left its cluster" in end(founder)
    others = three.others()
    wait_for(lambda: {node.leader_id() for node in others} <= {node.node_id for node in others}, "another one leads")
    assert others[0].put("meanwhile", 1).status in (200, 201)

    founder.bootstraps = True
    founder.start()
    three.wait_whole()
    assert founder.status()["cluster_id"] == cluster_id and founder.value("meanwhile") == 1
    founder.bootstraps = False


def test_who_would_cost_the_majority_stays_a_member_says_so_and_ends(three: Nodes) -> None:
    down = three.others(three.leader())[0]
    down.kill()
    leaver = next(node for node in three.others() if node is not three.leader())
    before = incarnation(leaver)
    wait_for(lambda: leaver.members()[down.node_id]["status"] == "down", "it is seen to be down")
    said = end(leaver)
    assert "this node could not leave its cluster, and stops" in said and "which is no majority" in said
    for node in (down, leaver):
        node.start()
    three.wait_whole()
    assert incarnation(leaver) == before
    wait_for(lambda: not (leaver.data_dir / "departure").exists(), "it has forgotten that")
    # What it had wished for is over: an operator's removal is one.
    assert three.leader().ask("DELETE", f"/nodes/{leaver.node_id}").status == 204
    wait_for(lambda: leaver.try_get("/readyz").status == 503, "it knows")
    leaver.kill()
    leaver.start()
    assert leaver.wait() == 2 and "was removed from the cluster" in leaver.output()
    for file in leaver.data_dir.iterdir():
        file.unlink()
    leaver.seeds = [node.url for node in three.others()]
    leaver.start()
    three.wait_whole()


def test_no_leader_means_that_it_stays_and_ends_all_the_same(three: Nodes) -> None:
    followers = three.others(three.leader())
    for node in (three.leader(), followers[0]):
        node.kill()
    wait_for(lambda: followers[1].leader_id() is None, "there is no leader")
    assert "this node could not leave its cluster, and stops" in end(followers[1])
    three.start()


def test_the_last_of_a_cluster_keeps_its_data(tmp_path: Path) -> None:
    with Nodes(2, tmp_path, ["--leave"]) as two:
        two.start()
        assert two[0].put("k", "v").status == 201
        assert "this node has left its cluster" in end(two[0])
        assert "it is the only member" in end(two[1])
        two[1].start()
        two[0].start()
        two.wait_whole()
        assert two[0].value("k") == two[1].value("k") == "v"


def test_a_node_that_drains_is_not_ready_and_serves_until_a_second_signal(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Nodes(2, tmp_path, ["--drain", "60"]) as two:
        two[0].flags += ["--memcached-port", str(port)]
        two.start()
        assert two[0].ask("POST", "/cluster/leader", {"id": "node-1"}).status == 200
        wait_for(lambda: two.leader() is two[0], "it leads")
        two[0].signal(signal.SIGTERM)
        wait_for(lambda: two[0].try_get("/readyz").status == 503, "it is not ready")
        assert b"is about to stop" in two[0].try_get("/readyz").body
        assert two[0].try_get("/livez").status == 200
        wait_for(lambda: two[1].leader_id() == "node-2", "it has handed leadership over")
        assert two[0].put("k", "v").status == 201 and two[0].value("k") == "v"
        assert ask_memcached(port) == b"VALUE k 0 1\r\nv\r\nEND\r\n"
        two[0].signal(signal.SIGINT)
        assert two[0].wait(10.0) == 0


def test_a_drain_ends_by_itself(tmp_path: Path) -> None:
    node = NodeProcess(1, tmp_path, ["--drain", "1.5"])
    node.start()
    wait_for(node.is_ready)
    node.signal(signal.SIGTERM)
    wait_for(lambda: node.try_get("/readyz").status == 503)
    assert node.put("k", "v").status == 201
    assert node.wait(20.0) == 0


def test_an_embedded_store_leaves_when_it_is_closed_so(tmp_path: Path) -> None:
    ports = free_ports(2)
    settings: list[dict[str, Any]] = [
        {"node_id": name, "raft_address": f"127.0.0.1:{port}", "data_dir": tmp_path / name}
        for name, port in zip("ab", ports, strict=True)
    ]
    with ReplicatedStore(**settings[0], bootstrap=True) as first:
        first["k"] = "v"
        second = ReplicatedStore(**settings[1], peers=[f"127.0.0.1:{ports[0]}"])
        with second:
            wait_for(lambda: sum(row["voter"] for row in first.nodes()) == 2, "both vote")
            assert second.close(leave=True)
        assert [row["id"] for row in first.nodes()] == ["a"]
        # The next time it knows where its cluster is, whatever it is told.
        with ReplicatedStore(**settings[1], leave=True) as again:
            assert again["k"] == "v"
            wait_for(lambda: sum(row["voter"] for row in first.nodes()) == 2, "both vote")
        assert [row["id"] for row in first.nodes()] == ["a"]


def ask_memcached(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"get k\r\n")
        return connection.recv(4096)
