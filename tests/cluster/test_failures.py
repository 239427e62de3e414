"""Processes die, stop and come back under load. Clients never send anything twice; nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time

from cluster.load import Load
from cluster.processes import Nodes, path_of, wait_for


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


def test_a_dead_node_is_shown_as_down_within_two_seconds_and_the_living_never_are(trio: Nodes) -> None:
    for victim in (trio.leader(), trio.others(trio.leader())[0]):
        survivors = trio.others(victim)
        victim.kill()
        killed_at = time.monotonic()

        def shows_down(node_id: str = victim.node_id, survivors: list[object] = survivors) -> bool:  # type: ignore[assignment]
            rows = [node.members() for node in survivors]  # type: ignore[attr-defined]
            for node in survivors:
                for seen in rows:
                    assert seen[node.node_id]["status"] == "up", (node.node_id, seen)  # type: ignore[attr-defined]
            return all(seen[node_id]["status"] == "down" for seen in rows)

        wait_for(shows_down, f"{victim.node_id} is down")
        assert time.monotonic() - killed_at < 2.0
        # It stays so, also while a new leader takes over.
        wait_for(lambda: trio.leader() in survivors and shows_down())  # noqa: B023 - called at once
        victim.start()
        trio.wait_whole()


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
        wait_for(lambda node=node: node.value("short") is None)  # type: ignore[misc]
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
        finally:
            leader.signal(signal.SIGCONT)
        trio.wait_whole()
        load.wait_progress(10)
    assert load.refused(leader) == []
    assert trio.leader() in survivors
    assert len({node.status()["term"] for node in trio.all}) == 1
    for node in trio.all:
        load.check(node)
    trio.wait_level()


def test_without_a_majority_writes_wait_and_end_honestly_while_reads_go_on(trio: Nodes) -> None:
    leader = trio.leader()
    survivor = trio.others(leader)[0]
    survivor.put("read me", "anyway")
    for node in trio.others(survivor):
        node.kill()
    wait_for(lambda: not survivor.is_ready(), "the survivor says that there is no leader")
    assert survivor.value("read me") == "anyway"
    assert survivor.try_get("/livez").status == 200
    bounded = survivor.ask("GET", path_of("read me", "?consistency=bounded&max_staleness=0.001"))
    assert (bounded.status, "retry-after" in bounded.headers) == (503, True)
    assert {row["status"] for row in survivor.members().values()} == {"up", "down"}
