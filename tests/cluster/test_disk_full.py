"""A node whose disk is full leads no more and says so, the others go on; with room again it comes back by itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import Nodes, wait_for

SIZE_MIB = 80


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(place)], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("only root may mount a small file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_leader_whose_disk_is_full_steps_down_and_says_so_while_the_others_go_on(
    small_disk: Path, folder: Path
) -> None:
    with Nodes(3, folder) as nodes:
        nodes[0].data_dir = small_disk / "node-1"
        nodes.start()
        victim = nodes[0]
        assert nodes.leader() is victim
        victim.put("before", "it filled up")
        with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()
        number = 0
        # The journal has space reserved; these values use it up.
        while victim.try_get("/readyz").status == 200:
            number += 1
            assert number < 100
            assert nodes[1].put(f"large-{number}", "x" * 1_000_000).status == 201, "the others take over"
        answer = victim.try_get("/readyz")
        assert answer.status == 503 and b"[-]disk failed" in answer.body and b"No space left" in answer.body
        assert victim.try_get("/livez").status == 200, "a restart would not help"
        assert victim.put("through it", 1).status == 503
        survivors = nodes.others(victim)
        wait_for(lambda: survivors[0].leader_id() in {node.node_id for node in survivors}, "another leads")
        for node in survivors:
            assert node.put(f"after on {node.node_id}", 1).status == 201
            for done in range(1, number + 1):
                assert node.value(f"large-{done}") is not None, "nothing acknowledged is missing"
        assert victim.value("before") == "it filled up", "it goes on serving what it has"
        assert "Traceback" not in victim.output()

        # With room again it comes back by itself.
        (small_disk / "filler").unlink()
        nodes.wait_whole()
        nodes.wait_level()
