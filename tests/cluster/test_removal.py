"""Members leave: told to, while they are down, while clients write; and those who are out stay out until they are emptied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.client.client import CacheClient
from cacheflow.errors import MemberUnknown


@pytest.fixture(scope="module")
def _four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(4, tmp_path_factory.mktemp("four")) as nodes:
        yield nodes


@pytest.fixture
def four(_four: Nodes) -> Nodes:
    """Three voters and an observer, all of them members; who was removed has come back with an empty directory."""
    for node in _four.all:
        if not node.alive:
            if (node.data_dir / "removed").exists():
                come_back(_four, node)
            else:
                node.start()
    wait_for(lambda: all(node.is_ready() or says_removed(node) for node in _four.all), "all know where they stand")
    for node in _four.all:
        if says_removed(node):
            node.kill()
            come_back(_four, node)
    _four.start()
    wait_for(lambda: len(voters(_four.all)) == 3 and len(_four[0].members()) == 4, "three vote and one observes")
    return _four


def leader_of(nodes: list[NodeProcess]) -> NodeProcess:
    """Return the node of these that leads; one that was removed names nobody."""
    return wait_for(lambda: [node for node in nodes if node.leader_id() == node.node_id], "one of them leads")[0]


def voters(nodes: list[NodeProcess]) -> set[str]:
    return {node_id for node_id, row in leader_of(nodes).members().items() if row["voter"]}


def come_back(nodes: Nodes, node: NodeProcess) -> None:
    """Empty a node's directory and start it again, with the others as seeds."""
    shutil.rmtree(node.data_dir)
    node.seeds = [other.url for other in nodes.all if other is not node]
    node.start()


def remove(through: NodeProcess, node: NodeProcess) -> int:
    return through.ask("DELETE", f"/nodes/{node.node_id}").status


def says_removed(node: NodeProcess) -> bool:
    answer = node.try_get("/readyz")
    return answer.status == 503 and b"[-]member failed: it was removed from the cluster" in answer.body


def test_a_voter_leaves_while_clients_write_and_the_observer_takes_its_place(four: Nodes) -> None:
    removed = next(node for node in four.others(four.leader()) if node.node_id in voters(four.all))
    others = four.others(removed)
    asked = next(node for node in others if node is not four.leader())
    with Load(others, clients=1, name="leave") as load:
        load.wait_progress(5)
        assert remove(asked, removed) == 204
        wait_for(lambda: voters(others) == {node.node_id for node in others}, "the observer votes")
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    load.check(asked)
    for node in others:
        assert removed.node_id not in node.members()
        assert removed.node_id not in node.ask("GET", "/metrics").body.decode()
    assert remove(asked, removed) == 404

    wait_for(lambda: says_removed(removed), "it knows")
    assert removed.try_get("/livez").status == 200
    for answer in (removed.put("k", 1), removed.ask("GET", "/cache/k"), removed.ask("DELETE", "/nodes/node-1")):
        assert (answer.status, answer.body["title"]) == (503, "Not ready")
        assert "it was removed from the cluster" in answer.body["detail"]
    assert removed.output().count("takes no further part in the cluster: it was removed") == 1


def test_a_removed_node_does_not_start_again_until_its_directory_is_emptied(four: Nodes) -> None:
    removed = four.others(four.leader())[0]
    assert remove(four.leader(), removed) == 204
    wait_for(lambda: says_removed(removed), "it knows")
    removed.kill()
    said = len(removed.output())
    removed.start()
    assert removed.wait() == 2
    *_, line = removed.output()[said:].splitlines()
    assert f"{removed.node_id} was removed from the cluster at index" in line
    assert f"remove {removed.data_dir} and start again with --seed" in line

    come_back(four, removed)
    four.wait_whole()
    assert removed.put("after", "it came back").status in (200, 201)
    four.wait_level()


def test_a_leader_that_is_removed_hands_over_first(four: Nodes) -> None:
    removed = four.leader()
    others = four.others(removed)
    with Load(others, clients=1, name="depose") as load:
        load.wait_progress(5)
        assert remove(removed, removed) == 204
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    wait_for(lambda: says_removed(removed), "it knows")
    assert removed.node_id not in leader_of(others).members()
    load.check(others[0])


@pytest.mark.parametrize("moves", [False, True], ids=["same address", "new address"])
def test_a_node_that_was_removed_while_it_was_down_stays_out_when_it_comes_back(four: Nodes, moves: bool) -> None:
    removed = four.others(four.leader())[0]
    removed.kill()
    with CacheClient([node.url for node in four.others()], discover=False) as client:
        client.remove_node(removed.node_id)
        with pytest.raises(MemberUnknown):
            client.remove_node(removed.node_id)
    removed.seeds = [node.url for node in four.others()]
    if moves:
        removed.port, removed.raft_port = free_ports(2)
    removed.start()
    wait_for(lambda: says_removed(removed), "it learns it")
    assert all(removed.node_id not in node.members() for node in four.others(removed))


def test_what_would_leave_no_majority_is_refused_until_the_others_are_back(four: Nodes) -> None:
    leader = four.leader()
    down, up = [node for node in four.others(leader) if node.node_id in voters(four.all)]
    observer = next(node for node in four.all if node.node_id not in voters(four.all))
    observer.kill()
    down.kill()
    wait_for(lambda: leader.members()[down.node_id]["status"] == "down", "the leader knows")
    refused = leader.ask("DELETE", f"/nodes/{up.node_id}")
    assert (refused.status, refused.body["title"]) == (409, "Member conflict")
    assert "1 of 2 voters" in refused.body["detail"]
    assert remove(leader, observer) == 204, "an observer is always spared"
    assert remove(leader, down) == 204, "and so is who is down"
    assert voters([leader, up]) == {leader.node_id, up.node_id}
    assert up.put("with", "two").status in (200, 201)
