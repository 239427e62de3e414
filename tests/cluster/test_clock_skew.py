"""Wall clocks that differ by hours move no TTL, also when the node that told the time dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster.processes import Nodes, wait_for

from scripts.bench.clock_shim import build_shim, skewed_by

HOUR_S = 3600
TTL_S = 3.0


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that skews a process's wall clock."""
    try:
        return build_shim(tmp_path_factory.mktemp("skew"))
    except OSError as error:
        pytest.skip(str(error))


def test_two_hours_of_skew_and_a_dead_leader_move_no_ttl(shim: str, folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        # The founder's wall clock is the cluster's first time; the heirs' are two hours off, both ways.
        for node, hours in zip(nodes.all, (0, 2, -2), strict=True):
            node.environment = skewed_by(shim, hours * HOUR_S)
        nodes.start()
        dates = [time.mktime(time.strptime(node.output()[:19], "%Y-%m-%d %H:%M:%S")) for node in nodes.all]
        assert max(dates) - min(dates) > 3.9 * HOUR_S, "the clocks are skewed"

        # One change of leader by hand, before; one by death, while the TTL runs.
        assert nodes[0].ask("POST", "/cluster/leader", {"id": nodes[1].node_id}).status == 200
        assert nodes.leader() is nodes[1]
        written_at = time.monotonic()
        assert nodes[2].put("short", "lived", ttl=TTL_S).status == 201
        acknowledged_at = time.monotonic()
        assert nodes[2].put("long", "lived", ttl=HOUR_S).status == 201
        # Whoever was not waited for has it a moment later.
        wait_for(lambda: all(node.own_value("long") == "lived" for node in nodes.all), "every node has it")
        nodes[1].kill()
        ended: dict[str, float] = {}

        def has_ended() -> bool:
            for node in nodes.others():
                asked_at = time.monotonic()
                if node.node_id not in ended and node.own_value("short") is None:
                    assert time.monotonic() - written_at >= TTL_S - 0.05, f"too early on {node.node_id}"
                    ended[node.node_id] = asked_at
            return len(ended) == 2

        wait_for(has_ended, "it ends on every node")
        # The bound is wide for a busy machine, and nothing beside two hours.
        assert max(ended.values()) - acknowledged_at < TTL_S + 0.5, ended
        nodes[1].start()
        nodes.wait_whole()
        assert nodes[1].own_value("short") is None
        for node in nodes.all:
            left = node.ask("GET", "/cache/long").body["ttl"]
            assert abs(HOUR_S - (time.monotonic() - written_at) - left) < 1, (node.node_id, left)
        nodes.wait_level()
