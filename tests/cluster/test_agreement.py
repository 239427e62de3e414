"""Three processes behave as one cache: what one node is told, all nodes know, and they never differ."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cluster.connection import path_of
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for

BATCHES = 15
BATCH_OPS = 100


def test_what_is_written_on_one_node_is_read_on_all(trio: Nodes) -> None:
    for number, node in enumerate(trio.all):
        assert node.put(f"from/{node.node_id}", {"number": number}).status in (200, 201)
        assert node.own_value(f"from/{node.node_id}") == {"number": number}, "one reads what one wrote"
        for other in trio.all:
            wait_for(lambda node=node, other=other: other.own_value(f"from/{node.node_id}") is not None)  # type: ignore[misc]
            assert other.own_value(f"from/{node.node_id}") == {"number": number}


def test_a_linearizable_read_on_any_node_finds_what_another_has_just_acknowledged(trio: Nodes) -> None:
    for number in range(20):
        for node in trio.all:
            assert node.put("latest", [node.node_id, number]).status in (200, 201)
            assert all(other.value("latest") == [node.node_id, number] for other in trio.others(node))


def test_a_version_is_the_same_on_every_node_and_guards_a_write_anywhere(trio: Nodes) -> None:
    first, second, third = trio.all
    version = first.put("versioned", "a").body["version"]
    answer = second.ask("PUT", path_of("versioned"), {"value": "b"}, {"If-Match": f'"{version}"'})
    assert answer.status == 200
    refused = third.ask("PUT", path_of("versioned"), {"value": "c"}, {"If-Match": f'"{version}"'})
    assert refused.status == 412
    assert third.own_value("versioned") == "b", "the refusal came after the write was visible there"


def test_one_of_many_creators_wins(trio: Nodes) -> None:
    answers: list[int] = []

    def create(node: NodeProcess) -> None:
        answers.append(node.ask("PUT", path_of("lock"), {"value": node.node_id}, {"If-None-Match": "*"}).status)

    threads = [threading.Thread(target=create, args=(node,)) for node in trio.all * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [412] * 11


def mixed(seed: int) -> list[dict[str, Any]]:
    """Return a batch of operations on a few thousand keys: more than the nodes may hold, some of them short-lived."""
    chosen = random.Random(seed)
    ops: list[dict[str, Any]] = []
    for _ in range(BATCH_OPS):
        key = f"mixed/{chosen.randrange(4000)}"
        kind = chosen.choice(["set", "set", "set", "set", "get", "delete", "incr", "touch", "add"])
        op: dict[str, Any] = {"op": kind, "key": key}
        if kind in ("set", "add"):
            op |= {"value": chosen.choice(["text", 7, [1, 2]])}
        if kind == "incr":
            op = {"op": kind, "key": f"count/{chosen.randrange(50)}", "initial": 0}
        if kind == "touch" or (kind == "set" and chosen.random() < 0.5):
            op["ttl"] = chosen.choice([0.05, 0.3, 60])
        ops.append(op)
    return ops


def test_thousands_of_mixed_operations_through_all_nodes_leave_equal_digests(trio: Nodes) -> None:
    failed: list[Any] = []

    def work(number: int, node: NodeProcess) -> None:
        with node.connect() as connection:
            for step in range(BATCHES):
                answer = connection.request("POST", "/cache/_batch", {"ops": mixed(1000 * number + step)})
                if answer.status != 200:
                    failed.append(answer)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(trio.all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    index = trio.wait_level()
    digests = {node.digest(f"?index={at}") for node in trio.all for at in (index, index - 20)}
    assert len(digests) == 2, "equal at an equal index, also at an earlier one"
    wait_for(lambda: len({node.digest("?full") for node in trio.all}) == 1, "the whole contents are equal")
    measured = trio[0].try_get("/metrics?format=json").body
    assert measured["evicted_total"] > 0, "the run was long enough to evict"
    wait_for(lambda: trio[0].try_get("/metrics?format=json").body["expired_total"] > 0)


def test_leadership_goes_where_it_is_asked_to_while_clients_write(trio: Nodes) -> None:
    with Load(trio.all, clients=1, name="transfer") as load:
        for _ in range(3):
            load.wait_progress(5)
            leader = trio.leader()
            heir = trio.others(leader)[0]
            asked = trio.others(leader, heir)[0]
            answer = asked.ask("POST", "/cluster/leader", {"id": heir.node_id})
            assert (answer.status, answer.body.get("leader")) == (200, heir.node_id)
            wait_for(lambda heir=heir: {node.leader_id() for node in trio.all} == {heir.node_id})  # type: ignore[misc]
        load.wait_progress(5)
    assert (load.refused(), load.cuts()) == ([], 0)
    for node in trio.all:
        load.check(node)


@pytest.mark.parametrize("on_leader", [True, False])
def test_leadership_cannot_go_to_a_stranger(trio: Nodes, on_leader: bool) -> None:
    leader = trio.leader()
    asked = leader if on_leader else trio.others(leader)[0]
    answer = asked.ask("POST", "/cluster/leader", {"id": "nobody"})
    assert answer.status == 400, answer
    assert trio.leader() is leader


def test_a_cluster_at_rest_writes_nothing(trio: Nodes) -> None:
    trio.wait_level()

    def files() -> dict[Path, tuple[int, int]]:
        found = [path for node in trio.all for path in node.data_dir.iterdir()]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    def rests() -> bool:
        """Return whether nothing is written for a second: ten heartbeats, and longer than clocks are noted apart."""
        before, began_at = files(), time.monotonic()
        wait_for(lambda: time.monotonic() - began_at > 1.2)
        return files() == before

    wait_for(rests, "it comes to rest")
