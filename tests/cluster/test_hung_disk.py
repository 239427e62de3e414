"""A disk that hangs: flushes do not return, and nothing fails. The others go on, and the node comes back by itself."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.disk_shim import SOURCE, hold_of, let_it_hang
from cluster.load import Load
from cluster.processes import NodeProcess, Nodes, wait_for

from scripts.bench.clock_shim import build_shim

# Seconds from the moment at which one disk of three hangs until every client of the others is answered again.
RESUMED_WITHIN_S = 3.0
FILE_SYSTEM_MIB = 64


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that lets a process's disk hang."""
    try:
        return build_shim(tmp_path_factory.mktemp("disk"), SOURCE)
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def nodes(shim: str, folder: Path) -> Iterator[Nodes]:
    """Three nodes, of which each has a disk that ``hang`` stops."""
    with Nodes(3, folder) as nodes:
        for node in nodes.all:
            let_it_hang(node, shim)
        yield nodes.start()


def disk_check(node: NodeProcess) -> str:
    """Return what ``/readyz`` says of the node's disk; empty when it is ready or does not answer."""
    answer = node.try_get("/readyz")
    lines = [] if answer.status != 503 else answer.body.decode().splitlines()
    return next((line for line in lines if line.startswith("[-]disk failed")), "")


def check_one_hung_disk(
    nodes: Nodes, victim: NodeProcess, hang: Callable[[], object], go_on: Callable[[], object]
) -> None:
    """Let one node's disk hang under load through the others, and go on again."""
    led = victim is nodes.leader()
    others = nodes.others(victim)
    with Load(others, name="hung") as load:
        load.wait_progress(10)
        hung_at = time.monotonic()
        hang()
        load.wait_progress(5)
        assert time.monotonic() - hung_at < RESUMED_WITHIN_S
        said = wait_for(lambda: disk_check(victim), "the node says that its disk hangs")
        assert "has not answered for" in said
        assert victim.try_get("/livez").status == 200, "a restart would not help"
        told = victim.try_get("/metrics?format=json").body
        assert told["disk_hung"] == 1 and told["disk_wait_seconds"] > 0
        assert victim.put("through it", 1).status == 503, "its own clients are told at once to go elsewhere"
        assert nodes.leader() in others
        load.wait_progress(10)
        go_on()
        wait_for(lambda: nodes.is_whole(), "the node is back")
        load.wait_progress(5)
    assert load.refused() == [], "clients of the others saw a pause"
    assert victim.output().count("the disk has not answered") == 1
    assert led == ("leader in term" in victim.output())
    for node in nodes.all:
        load.check(node)
    nodes.wait_level()


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_writes_go_on_beside_a_hung_disk_and_its_node_comes_back(nodes: Nodes, leads: bool) -> None:
    victim = nodes.leader() if leads else nodes.others(nodes.leader())[0]
    check_one_hung_disk(nodes, victim, hold_of(victim).touch, hold_of(victim).unlink)


def test_where_all_disks_hang_nobody_is_deposed_and_nothing_is_refused(nodes: Nodes) -> None:
    leader = nodes.leader()
    term = leader.status()["term"]
    # At rest: an entry under way might be on two of the disks by now, and the third would rightly be behind.
    for node in nodes.all:
        hold_of(node).touch()
    with Load(nodes.all, clients=1, name="all") as load:
        for node in nodes.all:
            wait_for(lambda node=node: disk_check(node), f"{node.node_id} says that its disk hangs")  # type: ignore[misc]
        for node in nodes.all:
            hold_of(node).unlink()
        load.wait_progress(5)
    assert load.refused() == []
    assert nodes.leader() is leader
    assert leader.status()["term"] == term
    nodes.wait_whole()


def test_sigterm_ends_a_node_whose_disk_hangs(nodes: Nodes) -> None:
    leader = nodes.leader()
    survivors = nodes.others(leader)
    hold_of(leader).touch()
    leader.signal(signal.SIGTERM)
    wait_for(lambda: survivors[0].leader_id() in [node.node_id for node in survivors], "another leads")
    assert leader.wait(20) == 1, "it does not claim that all is written"
    assert "ends without its last flush" in leader.output()
    assert survivors[0].put("after", 1).status == 201
    hold_of(leader).unlink()
    leader.start()
    nodes.wait_whole()


def test_a_kernel_without_durable_writes_is_told_once_and_works(nodes: Nodes) -> None:
    node = nodes[2]
    node.kill()
    node.environment["DISK_SHIM_PLAIN"] = "1"
    node.start()
    nodes.wait_whole()
    nodes[0].kill()
    wait_for(lambda: node.leader_id() in (node.node_id, nodes[1].node_id), "the two left have a leader")
    for number in range(5):
        assert node.put(f"key-{number}", number).status == 201, "two of three, so it was flushed here"
    assert node.output().count("does not know durable writes") == 1


def run(*command: str) -> str:
    """Run a system's command and return what it prints; skip the test where it may not."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only root may freeze a file system of its own, where there are loop devices: {error}")


@pytest.fixture
def frozen_place(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be frozen."""
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(FILE_SYSTEM_MIB << 20)
    run("mkfs.ext4", "-q", "-F", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    yield place
    # It is thawed by then, unless the test has failed.
    subprocess.run(["fsfreeze", "--unfreeze", str(place)], capture_output=True)
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_writes_go_on_beside_a_frozen_file_system(frozen_place: Path, folder: Path) -> None:
    with Nodes(3, folder) as nodes:
        victim = nodes[0]
        victim.data_dir = frozen_place / "data"
        nodes.start()
        assert nodes.leader() is victim
        freeze = ["fsfreeze", "--freeze", str(frozen_place)]
        thaw = ["fsfreeze", "--unfreeze", str(frozen_place)]
        try:
            check_one_hung_disk(
                nodes,
                victim,
                lambda: subprocess.run(freeze, check=True),
                lambda: subprocess.run(thaw, check=True),
            )
        finally:
            subprocess.run(thaw, capture_output=True)
