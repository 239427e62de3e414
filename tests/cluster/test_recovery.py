"""A majority is lost, or every address changes: ``cacheflow recover`` makes a new cluster of what is left on the disks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.load import Load
from cluster.processes import ROOT, NodeProcess, Nodes, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.machine.language.commands import RECOVERY_RAISE

WRITES_WITHIN_S = 10.0


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Nodes]:
    """Three whole nodes of the test's own."""
    with Nodes(3, tmp_path) as nodes:
        yield nodes.start()


def recover(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``cacheflow recover`` as an operator without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "cacheflow", "recover", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def recovered(*arguments: object) -> Any:
    """Run ``cacheflow recover``, which must succeed; return what it says."""
    ended = recover(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def says_replaced(node: NodeProcess, old: str, new: str) -> bool:
    answer = node.try_get("/readyz")
    said = f"[-]member failed: it was a member of cluster {old}, which cluster {new} has replaced in a recovery"
    return answer.status == 503 and said.encode() in answer.body


def first_write(node: NodeProcess) -> float:
    """Return how many seconds after it has started, which takes its time on a busy machine, ``node`` answers a write."""
    wait_for(lambda: node.try_get("/livez").status, "the process is there")
    began = time.monotonic()

    def is_answered() -> bool:
        return node.is_ready() and node.put("first", "after the recovery").status in (200, 201)

    wait_for(is_answered, "a write is answered")
    return time.monotonic() - began


def test_what_one_of_three_has_goes_on_and_the_lost_ones_stay_out_when_they_come_back(three: Nodes) -> None:
    survivor, dead = three[2], [three[0], three[1]]
    tags = {}
    for number in range(50):
        tags[f"k{number}"] = three.leader().put(f"k{number}", number).headers["etag"]
    three.wait_level()
    in_use = recover(survivor.data_dir, "--show")
    assert in_use.returncode == 2 and "is in use by process" in in_use.stderr
    old_id = survivor.status()["cluster_id"]
    for node in three.all:
        node.kill()

    shown = recovered(*(node.data_dir for node in three.all), "--show")
    assert [row["node_id"] for row in shown["nodes"]] == ["node-1", "node-2", "node-3"]
    assert {row["cluster_id"] for row in shown["nodes"]} == {old_id} and shown["latest"]
    assert {len(row["members"]) for row in shown["nodes"]} == {3}
    asks = recover(survivor.data_dir, "--force-new-cluster")
    assert asks.returncode == 2 and "give --yes" in asks.stderr
    made = recovered(survivor.data_dir, "--force-new-cluster", "--yes")
    new_id = made["cluster_id"]
    assert made["replaced"] == [old_id] and [row["id"] for row in made["members"]] == ["node-3"]
    survivor.start()
    assert first_write(survivor) <= WRITES_WITHIN_S
    assert survivor.status()["cluster_id"] == new_id
    for number in range(50):
        answer = survivor.ask("GET", f"/cache/k{number}")
        assert answer.body["value"] == number
        assert answer.body["version"] > RECOVERY_RAISE and answer.headers["etag"] != tags[f"k{number}"]
        condition = {"If-Match": tags[f"k{number}"]}
        assert survivor.ask("PUT", f"/cache/k{number}", {"value": "stale"}, condition).status == 412

    # Both of the lost ones come back: they are a majority of a cluster that is no more.
    for node in dead:
        node.seeds = []
        node.start()
    wait_for(lambda: all(says_replaced(node, old_id, new_id) for node in dead), "they know that they are out")
    for node in dead:
        assert node.try_get("/livez").status == 200
        assert node.put("k1", "old").status == 503 and node.ask("GET", "/cache/k1").status == 503
        assert f"belongs to cluster {new_id}, which has replaced this node's" in node.output()
        node.kill()
        said = len(node.output())
        node.start()
        assert node.wait() == 2
        *_, line = node.output()[said:].splitlines()
        assert (
            f"{node.node_id} was a member of cluster {old_id}, which cluster {new_id} has replaced in a recovery"
            in line
        )
        assert f"remove {node.data_dir} and start again with --seed" in line
    assert f"cluster '{old_id}' was replaced by '{new_id}', in a recovery" in survivor.output()

    # The new cluster serves on, and grows.
    fresh = [three.add(), three.add()]
    three.all = [survivor, *fresh]
    for node in fresh:
        node.seeds = [survivor.url]
    with Load([survivor], clients=1, name="grow") as load:
        three.start()
        load.wait_progress(20)
    assert load.refused() == []
    load.check(fresh[0])
    three.wait_level()
    assert survivor.members().keys() == {"node-3", "node-4", "node-5"}
    assert fresh[0].value("k7") == 7 and fresh[1].status()["cluster_id"] == new_id
    # One of them can be lost now.
    three.leader().kill()
    wait_for(lambda: three.others()[0].put("again", 1).status in (200, 201), "the others go on")


def test_three_that_have_all_moved_go_on_with_everything_that_was_acknowledged(three: Nodes, tmp_path: Path) -> None:
    old_id = three[0].status()["cluster_id"]
    with Load(three.all, clients=2, name="moved") as load:
        load.wait_progress(50)
        for node in three.all:
            node.kill()
    for node in three.all:
        node.port, node.raft_port = free_ports(2)
        node.seeds, node.bootstraps = [], False
    peers = tmp_path / "peers.json"
    peers.write_text(json.dumps([{"id": node.node_id, "raft_address": node.raft_address} for node in three.all]))
    made = [recovered(node.data_dir, "--force-new-cluster", "--peers", peers, "--yes") for node in three.all]
    # The same once more changes nothing.
    made.append(recovered(three[0].data_dir, "--force-new-cluster", "--peers", peers, "--yes"))
    (new_id,) = {each["cluster_id"] for each in made}
    for node in three.all:
        node.start()
    assert first_write(three[0]) <= WRITES_WITHIN_S
    three.wait_whole()
    load.check(three[1])
    three.wait_level()
    for node in three.all:
        assert node.status()["cluster_id"] == new_id != old_id
        assert {row["raft_address"] for row in node.members().values()} == {each.raft_address for each in three.all}
    again = [recover(node.data_dir, "--show") for node in three.all]
    assert all("is in use by process" in each.stderr for each in again)


def test_a_file_of_members_that_does_not_fit_is_refused_and_nothing_is_written(three: Nodes, tmp_path: Path) -> None:
    node = three[0]
    for each in three.all:
        each.kill()
    peers = tmp_path / "peers.json"
    for text, said in (
        ("{", "is no JSON"),
        ("[]", "is a list of"),
        ('[{"id": "node-9", "raft_address": "127.0.0.1:1"}]', "node-9 is no member by this disk"),
        ('[{"id": "node-1", "address": "127.0.0.1:1"}]', "node node-1: "),
        ('[{"id": "node-1", "raft_address": "127.0.0.1:1", "non_voter": false}]', "and nothing else"),
        ('[{"id": "node-2", "raft_address": "127.0.0.1:1"}]', "does not name this node, node-1"),
        ('[{"id": "node-1", "raft_address": "127.0.0.1:1", "voter": false}]', "names nobody who votes"),
    ):
        peers.write_text(text)
        ended = recover(node.data_dir, "--force-new-cluster", "--peers", peers, "--yes")
        assert ended.returncode == 2 and said in ended.stderr, (text, ended.stderr)
        assert len(ended.stderr.splitlines()) == 1
    assert not (node.data_dir / "recovery").exists()
    node.start()
    three[1].start()
    wait_for(lambda: node.is_ready(), "the old cluster goes on")
