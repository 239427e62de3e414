"""A node whose disk is full leads no more and says so, the others go on; with room again it comes back by itself."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.connection import Connection
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
        # Refused until another leads; then the others take it over.
        through = victim.put("through it", 1).status
        assert through in (201, 503)
        survivors = nodes.others(victim)
        wait_for(lambda: survivors[0].leader_id() in {node.node_id for node in survivors}, "another leads")
        assert survivors[0].value("through it") == (1 if through == 201 else None)
        for node in survivors:
            assert node.put(f"after on {node.node_id}", 1).status == 201
            for done in range(1, number + 1):
                assert node.value(f"large-{done}") is not None, "nothing acknowledged is missing"
        assert victim.own_value("before") == "it filled up", "it goes on serving what it has"
        assert "Traceback" not in victim.output()

        # With room again it comes back by itself.
        (small_disk / "filler").unlink()
        nodes.wait_whole()
        nodes.wait_level()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets another process's limits be set")
def test_a_leader_without_a_file_handle_for_its_journal_waits_and_comes_back(folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        nodes.start()
        victim = nodes.leader()
        other = nodes.others(victim)[0]
        assert victim.process is not None
        pid = victim.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Made before: a new connection takes a handle, too.
        with victim.connect() as connection:
            assert connection.request("GET", "/readyz").status == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))
            for number in range(20):
                assert other.put(f"large-{number}", "x" * 1_000_000).status == 201, "the others take over"
            answer = wait_for(lambda: not_ready(connection), "it says so")
            assert b"[-]disk failed" in answer and b"Too many open files" in answer
            assert connection.request("GET", "/livez").status == 200, "it needs no restart"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        nodes.wait_whole()
        assert nodes.leader() is not victim
        nodes.wait_level()


def not_ready(connection: Connection) -> bytes:
    """Return what ``/readyz`` says is wrong; empty when nothing is."""
    answer = connection.request("GET", "/readyz")
    return bytes(answer.body) if answer.status == 503 else b""
