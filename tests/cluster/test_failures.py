"""Processes die, stop and come back under load. Clients never send anything twice; nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from cluster.connection import path_of
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for


def test_a_leader_killed_under_load_costs_a_pause_and_nothing_else(trio: Nodes) -> None:
    with Load(trio.all, name="kill") as load:
        for _ in range(2):
            load.wait_progress(10)
            leader = trio.leader()
            leader.kill()
            load.wait_progress(15, but=leader)
            assert (load.refused(leader), load.cuts(leader)) == ([], 0), "requests through survivors wait, none fails"
            leader.start()
            trio.wait_whole()
            load.wait_progress(5)
            for writer in load.writers:
                writer.cuts = 0
    for node in trio.all:
        load.check(node)
    trio.wait_level()


def only_shows_as_down(dead: NodeProcess, survivors: list[NodeProcess]) -> bool:
    """Return whether every survivor shows the dead node as down; fails when one shows a living node so."""
    seen = [node.members() for node in survivors]
    for node in survivors:
        assert {rows[node.node_id]["status"] for rows in seen} == {"up"}, (node.node_id, seen)
    return all(rows[dead.node_id]["status"] == "down" for rows in seen)


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_a_dead_node_is_shown_as_down_within_two_seconds_and_the_living_never_are(trio: Nodes, leads: bool) -> None:
    victim = trio.leader() if leads else trio.others(trio.leader())[0]
    survivors = trio.others(victim)
    victim.kill()
    killed_at = time.monotonic()
    wait_for(lambda: only_shows_as_down(victim, survivors), f"{victim.node_id} is down")
    assert time.monotonic() - killed_at < 2.0
    # It stays so, also while a new leader takes over.
    wait_for(lambda: only_shows_as_down(victim, survivors) and trio.leader() in survivors)
    assert only_shows_as_down(victim, survivors)


def test_all_nodes_killed_at_once_under_load_come_back_with_everything_and_the_right_ttls(trio: Nodes) -> None:
    with Load(trio.all, name="blackout") as load:
        load.wait_progress(10)
        written_at = time.monotonic()
        assert trio[0].put("short", "lived", ttl=4).status == 201
        assert trio[1].put("long", "lived", ttl=600).status == 201
        assert trio[2].put("for ever", "lived").status == 201
        for node in trio.all:
            node.signal(signal.SIGKILL)
        for node in trio.all:
            node.wait()
        for node in trio.all:
            node.start()
        trio.wait_whole()
        load.wait_progress(5)
    for node in trio.all:
        load.check(node)
        left = node.ask("GET", path_of("long")).body["ttl"]
        assert abs(600 - (time.monotonic() - written_at) - left) < 1.0, (node.node_id, left)
        assert node.value("for ever") == "lived"
    for node in trio.all:
        wait_for(lambda node=node: node.own_value("short") is None)  # type: ignore[misc]
    assert 3.8 < time.monotonic() - written_at < 12, "it ended neither early nor late"
    trio.wait_level()


def test_sigterm_on_the_leader_hands_leadership_over_and_no_client_sees_an_error(trio: Nodes) -> None:
    leader = trio.leader()
    survivors = trio.others(leader)
    with Load(trio.all, name="term") as load:
        load.wait_progress(10)
        term = leader.status()["term"]
        leader.signal(signal.SIGTERM)
        assert leader.wait() == 0
        load.wait_progress(10, but=leader)
    assert load.refused() == [], "not even through the node that stopped"
    assert load.cuts(leader) == 0
    assert "Traceback" not in leader.output()
    heir = trio.leader()
    assert heir in survivors
    assert heir.status()["term"] <= term + 2, "one hand-over, no series of elections"
    for node in survivors:
        load.check(node)


def test_a_leader_that_stood_still_is_replaced_and_follows_when_it_wakes(trio: Nodes) -> None:
    leader = trio.leader()
    survivors = trio.others(leader)
    with Load(trio.all, clients=1, name="pause") as load:
        load.wait_progress(10)
        leader.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: survivors[0].leader_id() not in (None, leader.node_id), "another leads")
            load.wait_progress(20, but=leader)
            stopped_at = time.monotonic()
            # The peers' connections must notice nothing, or everything: long enough for both.
            wait_for(lambda: time.monotonic() - stopped_at > 3, "three seconds passed")
            assert survivors[0].put("while it stood still", 1).status in (200, 201)
        finally:
            leader.signal(signal.SIGCONT)
        assert leader.value("while it stood still") == 1, "it knows that it does not lead"
        trio.wait_whole()
        load.wait_progress(10)
    assert load.refused(leader) == []
    assert trio.leader() in survivors
    assert len({node.status()["term"] for node in trio.all}) == 1
    for node in trio.all:
        load.check(node)
    trio.wait_level()


def test_without_a_majority_reads_go_on_and_writes_say_whether_they_may_have_happened(folder: Path) -> None:
    with Nodes(3, folder, ["--request-timeout", "1"]) as nodes:
        nodes.start()
        leader = nodes.leader()
        followers = nodes.others(leader)
        assert leader.put("read me", "anyway").status == 201
        for node in followers:
            node.kill()
        # It leads for two more seconds: this one is sent, and nobody can tell what became of it.
        assert leader.put("sent", 1).status == 504
        wait_for(lambda: leader.status()["leader"] is None, "it has noticed that it is alone")
        refused = leader.put("unsent", 1)
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert leader.own_value("read me") == "anyway"
        bounded = leader.ask("GET", path_of("read me", "?consistency=bounded&max_staleness=0.1"))
        assert (bounded.status, "retry-after" in bounded.headers) == (503, True)
        assert leader.ask("GET", path_of("read me", "?consistency=linearizable")).status == 503
        assert leader.try_get("/livez").status == 200
        assert only_shows_as_down(followers[0], [leader]) and only_shows_as_down(followers[1], [leader])
        followers[0].start()
        nodes.wait_whole()
        assert leader.value("unsent") is None, "refused is refused"
        assert leader.put("unsent", 2).status == 201
