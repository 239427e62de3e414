"""Two builds as real processes: a rolling upgrade, back before the level is raised, and no way back afterwards."""

from __future__ import annotations

from pathlib import Path

from cluster.processes import NodeProcess, Nodes
from cluster.upgrades import NEWER, OLDER, Load, check_raised, raise_level, roll


def test_a_rolling_upgrade_and_back_fails_no_call_and_loses_nothing(folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        nodes.start()

        def too_early(node: NodeProcess) -> None:
            shown = node.members()
            assert shown[node.node_id]["level"] == (2 if node.program == NEWER else 1)
            if any(other.program == OLDER for other in nodes.all):
                status, detail = raise_level(node, 2)
                assert status == 409 and "has not told that its CacheFlow knows level 2" in detail
            assert node.status()["level"] == 1

        with Load(nodes) as load:
            for program in (NEWER, OLDER, NEWER):
                roll(nodes, program, too_early)
            check_raised(nodes)
        load.check()
        assert load.calls > 100
