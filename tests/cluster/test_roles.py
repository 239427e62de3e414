"""Who votes: an observer never does and serves, a dead voter's vote goes to a spare, operators promote and demote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for

REPLACE_AFTER_S = 2


@pytest.fixture(scope="module")
def _five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(3, tmp_path_factory.mktemp("roles"), ["--replace-after", str(REPLACE_AFTER_S)]) as nodes:
        nodes.start()
        nodes.add(["--role", "observer"])
        nodes.start()
        nodes.add()
        yield nodes


@pytest.fixture
def five(_five: Nodes) -> Nodes:
    """Five nodes: three vote, node-4 observes and one of the others is a spare."""
    _five.start()
    wait_for(lambda: kinds(_five[0])["observer"] == {"node-4"}, "node-4 alone observes")
    wait_for(lambda: len(kinds(_five[0])["voter"]) == 3 and len(kinds(_five[0])["spare"]) == 1, "three of five vote")
    return _five


def kinds(node: NodeProcess) -> dict[str, set[str]]:
    """Return the ids of the members that vote, that observe and that may vote, as a node lists them."""
    found: dict[str, set[str]] = {"voter": set(), "observer": set(), "spare": set()}
    for node_id, row in node.members().items():
        found["voter" if row["voter"] else "observer" if row["observer"] else "spare"].add(node_id)
    return found


def node_of(nodes: Nodes, node_id: str) -> NodeProcess:
    return next(node for node in nodes.all if node.node_id == node_id)


def test_who_is_no_member_has_no_vote_to_give(five: Nodes) -> None:
    for change in ("promote", "demote"):
        for asked in five.all[:2]:
            assert asked.ask("POST", f"/nodes/nobody/{change}").status == 404


def test_a_dead_voter_gives_its_vote_to_the_spare_and_comes_back_as_one(five: Nodes) -> None:
    observer = node_of(five, "node-4")
    assert observer.put("through the", "observer").status == 201
    assert observer.value("through the") == "observer"
    (spare,) = kinds(observer)["spare"]
    leader = five.leader()
    dead = next(node for node in five.others(leader) if node.node_id in kinds(observer)["voter"])
    others = five.others(dead)
    with Load(others, clients=1, name="dead") as load:
        load.wait_progress(5)
        dead.kill()
        wait_for(
            lambda: (leader.members()[dead.node_id]["change"] or {}).get("what") == "replacement",
            "it is to be replaced",
        )
        wait_for(lambda: dead.node_id not in kinds(leader)["voter"], "it has given its vote back")
        wait_for(lambda: len(kinds(leader)["voter"]) == 3, "three vote again")
        assert spare in kinds(leader)["voter"] and kinds(leader)["observer"] == {"node-4"}
        load.wait_progress(5)
        dead.start()
        wait_for(dead.is_ready, "it is back")
        wait_for(lambda: kinds(dead)["spare"] == {dead.node_id}, "it comes back as a spare")
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    assert leader.leader_id() == leader.node_id
    load.check(dead)
    five.wait_level()


# The last: what it leaves has other observers.
def test_operators_demote_a_leader_and_promote_an_observer_through_any_node(five: Nodes) -> None:
    observer, leader = node_of(five, "node-4"), five.leader()
    voters = kinds(leader)["voter"]
    (spare,) = kinds(leader)["spare"]
    with Load(five.all, clients=1, name="roles") as load:
        load.wait_progress(5)
        refused = observer.ask("POST", "/nodes/node-4/promote")
        assert refused.status == 409 and "raise replicas, or demote another node" in refused.body["detail"], refused
        for asked in (observer, leader):
            demoted = asked.ask("POST", f"/nodes/{leader.node_id}/demote")
            assert demoted.status == 200, demoted
            row = demoted.body
            assert (row["id"], row["voter"], row["observer"], row["role"]) == (leader.node_id, False, True, "follower")
        wait_for(lambda: kinds(observer)["voter"] == {spare, *voters} - {leader.node_id}, "the spare has its vote")
        another = next(node_id for node_id in kinds(observer)["voter"] if node_id != five.leader().node_id)
        assert observer.ask("POST", f"/nodes/{another}/demote").status == 200
        for _ in range(2):
            promoted = observer.ask("POST", "/nodes/node-4/promote")
            assert (promoted.status, promoted.body["voter"], promoted.body["observer"]) == (200, True, False), promoted
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    for node in five.all:
        load.check(node)
    five.wait_level()
