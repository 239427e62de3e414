"""Nodes join, lose their memory and come back; strangers stay out. One cluster, with a secret, for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.load import Load
from cluster.processes import HOST, NodeProcess, Nodes, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.store import ReplicatedStore

SECRET = "a secret of this cluster"


def secret_file(folder: Path, secret: str) -> str:
    path = folder / secret.replace(" ", "-")
    path.write_text(secret)
    return str(path)


@pytest.fixture(scope="module")
def _growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("growing")
    with Nodes(2, folder, ["--cluster-secret-file", secret_file(folder, SECRET)]) as nodes:
        yield nodes


@pytest.fixture
def growing(_growing: Nodes) -> Nodes:
    """A cluster of two whole nodes; every test that needs more adds them."""
    return _growing.start()


def voters(node: NodeProcess) -> set[str]:
    return {node_id for node_id, row in node.members().items() if row["voter"]}


def grow_to(nodes: Nodes, size: int) -> None:
    while len(nodes.all) < size:
        nodes.add()
    nodes.start()


def test_a_third_node_gets_everything_and_a_vote_while_clients_write(growing: Nodes) -> None:
    growing[0].put("written before", "they came")
    with Load(growing.all, clients=1, name="join") as load:
        load.wait_progress(5)
        grow_to(growing, 3)
        wait_for(lambda: voters(growing[0]) == {"node-1", "node-2", "node-3"}, "the third votes")
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    assert growing[2].value("written before") == "they came"
    load.check(growing[2])
    growing.wait_level()


def test_a_node_whose_data_was_deleted_rejoins_under_its_id_and_is_worth_its_vote(growing: Nodes) -> None:
    grow_to(growing, 3)
    lost = growing.others(growing.leader())[0]
    lost.seeds = [node.url for node in growing.all if node is not lost]
    growing[0].put("kept by", "the others")
    lost.kill()
    shutil.rmtree(lost.data_dir)
    lost.start()
    growing.wait_whole()
    assert lost.value("kept by") == "the others"
    growing.wait_level()
    wait_for(lambda: lost.node_id in voters(growing.leader()), "it votes again")
    # With its help alone the leader goes on.
    third = growing.others(growing.leader(), lost)[0]
    third.kill()
    assert growing.leader().put("with the rejoined", 1).status == 201
    assert lost.value("with the rejoined") == 1


def test_a_fourth_node_is_seen_by_all_and_has_everything_but_no_vote(growing: Nodes) -> None:
    grow_to(growing, 3)
    growing[0].put("written before", "they came")
    if len(growing.all) == 3:
        growing.add(["--max-items", "7", "--eviction", "lfu"])
    growing.start()
    growing.wait_level()
    for node in growing.all:
        assert node.status()["configuration"] == growing[0].status()["configuration"], "the first node decided"
    assert growing[3].value("written before") == "they came"
    assert growing[3].put("through the fourth", 4).status == 201
    for node in growing.all:
        assert set(node.members()) == {"node-1", "node-2", "node-3", "node-4"}
        assert voters(node) == {"node-1", "node-2", "node-3"}
        assert node.value("through the fourth") == 4


def test_a_node_in_memory_rejoins_as_a_new_member_after_each_restart(growing: Nodes) -> None:
    forgetful = next((node for node in growing.all if node.node_id == "node-4"), None)
    if forgetful is None:
        grow_to(growing, 3)
        forgetful = growing.add()
    if forgetful.alive:
        forgetful.kill()
    forgetful.flags = [*growing.flags, "--persistence", "false"]
    shutil.rmtree(forgetful.data_dir, ignore_errors=True)
    growing.start()
    growing[0].put("remembered by", "those with disks")
    for _ in range(2):
        forgetful.kill()
        forgetful.start()
        growing.wait_whole()
        assert forgetful.value("remembered by") == "those with disks"
    assert not forgetful.data_dir.exists()
    assert "node-4" in growing[0].members()
    growing.wait_level()


def test_a_member_that_moved_is_found_at_its_new_address(growing: Nodes) -> None:
    moved = growing.others(growing.leader())[0]
    moved.kill()
    moved.port, moved.raft_port = free_ports(2)
    moved.start()
    wait_for(lambda: all(node.members()[moved.node_id]["address"] == moved.address for node in growing.others()))
    growing.wait_whole()
    assert moved.put("from", "the new address").status in (200, 201)
    growing.wait_level()


def test_an_id_that_lives_elsewhere_is_refused_and_its_owner_notices_nothing(growing: Nodes) -> None:
    impostor = NodeProcess(2, growing.folder, growing.flags, [growing[0].url])
    impostor.data_dir = growing.folder / "impostor"
    impostor.log = growing.folder / "impostor.log"
    try:
        impostor.start()
        wait_for(lambda: "409" in impostor.output(), "it is told why")
        body = {
            "id": "node-2",
            "address": impostor.address,
            "raft_address": f"{HOST}:{impostor.raft_port}",
        }
        answer = growing[0].ask("POST", "/nodes/register", body)
        assert (answer.status, growing[1].address in answer.body["detail"]) == (409, True), answer
        assert not impostor.is_ready()
        assert growing.is_whole()
        assert growing[0].members()["node-2"]["address"] == growing[1].address
    finally:
        impostor.kill()


def test_registering_a_member_again_changes_nothing(growing: Nodes) -> None:
    known = growing[1]
    body = {"id": known.node_id, "address": known.address, "raft_address": f"{HOST}:{known.raft_port}"}
    before = growing[0].members().keys()
    assert growing[0].ask("POST", "/nodes/register", body).status == 200
    assert growing[0].members().keys() == before


def test_an_address_where_no_node_answers_cannot_be_registered(growing: Nodes) -> None:
    nobody = NodeProcess(9, growing.folder)
    body = {"id": "node-9", "address": nobody.address, "raft_address": f"{HOST}:{nobody.raft_port}"}
    answer = growing[0].ask("POST", "/nodes/register", body)
    assert answer.status == 400
    assert "node-9" not in growing[0].members()


@pytest.mark.parametrize("secret", [None, "another secret, as long"])
def test_a_node_without_the_clusters_secret_stays_out(growing: Nodes, secret: str | None) -> None:
    flags = [] if secret is None else ["--cluster-secret-file", secret_file(growing.folder, secret)]
    stranger = NodeProcess(7, growing.folder, flags, [node.url for node in growing.all])
    stranger.log = growing.folder / f"stranger-{secret is None}.log"
    try:
        stranger.start()
        wait_for(lambda: "answers 400" in stranger.output(), "its registration is refused")
        assert not stranger.is_ready()
        assert all("node-7" not in node.members() for node in growing.others())
    finally:
        stranger.kill()


def test_a_copy_of_a_data_directory_takes_nothing_from_its_original(growing: Nodes, tmp_path: Path) -> None:
    grow_to(growing, 3)
    original = growing[2]
    copy = NodeProcess(3, tmp_path, original.flags, original.seeds)
    shutil.copytree(original.data_dir, copy.data_dir, ignore=shutil.ignore_patterns("lock"))
    copy.start()
    try:
        wait_for(lambda: f"lives at {original.raft_address}" in copy.output(), "the copy is told where the node lives")
        wait_for(lambda: "its data directory was copied" in growing[0].output(), "a member says it, too")
        assert not copy.is_ready()
        assert growing[0].members()["node-3"]["raft_address"] == original.raft_address
        assert original.is_ready() and original.put("beside a copy", "1").status in (200, 201)
    finally:
        copy.kill()
    growing.wait_level()


def test_an_embedded_node_without_http_joins_through_a_seed(growing: Nodes, tmp_path: Path) -> None:
    growing[0].put("seen from inside", "yes")
    with ReplicatedStore(
        node_id="inside",
        raft_address=f"{HOST}:0",
        seed=[growing[0].url],
        data_dir=str(tmp_path / "inside"),
        cluster_secret_file=secret_file(tmp_path, SECRET),
    ) as inside:
        assert inside.get("seen from inside", consistency="linearizable") == "yes"
        inside["written inside"] = 1
        assert growing[0].value("written inside") is not None
        growing[0].ask("DELETE", "/nodes/inside")
        wait_for(lambda: "inside" not in growing[0].members(), "it is no member any more")
