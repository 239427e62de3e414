"""What keeps a node from starting is said in one line that tells what to do, with exit code 2."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import HOST, NodeProcess, wait_for


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(1, tmp_path)
    yield node
    if node.alive:
        node.kill()


def refusal(node: NodeProcess) -> str:
    """Start a node that must refuse; return the one line with which it ends."""
    before = len(node.output())
    assert node.start().wait() == 2, node.output()
    said = [line for line in node.output()[before:].splitlines() if " INFO " not in line]
    assert len(said) == 1, said
    assert said[0].startswith("cacheflow: ")
    return said[0]


def run_once(node: NodeProcess, keys: int = 20) -> None:
    """Let a node found a cluster, write keys, and end."""
    node.start()
    wait_for(lambda: not node.alive or node.is_ready(), "it is ready")
    for number in range(keys):
        assert node.put(f"key {number}", number).status == 201


@pytest.mark.parametrize("flag", ["--port", "--raft-port"])
def test_a_taken_port_is_named(node: NodeProcess, flag: str) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        if flag == "--port":
            node.port = port
        else:
            node.raft_port = port
        said = refusal(node)
    assert str(port) in said and flag in said, said


def test_a_data_directory_in_use_is_named_with_its_owner(node: NodeProcess) -> None:
    run_once(node, keys=1)
    assert node.process is not None
    second = NodeProcess(1, node.folder)
    second.log = node.folder / "second.log"
    said = refusal(second)
    assert str(node.data_dir) in said and str(node.process.pid) in said and "--data-dir" in said
    assert node.value("key 0") == 0, "the first goes on"


def test_a_data_directory_of_another_node_is_refused(node: NodeProcess) -> None:
    run_once(node, keys=1)
    node.kill()
    node.node_id = "somebody-else"
    assert "belongs to node node-1" in refusal(node)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--max-items", "0"], "max-items"),
        (["--max-bytes", "10"], "max-bytes"),
        (["--replicas", "99"], "replicas"),
        (["--request-timeout", "0"], "request-timeout"),
        (["--host", "0.0.0.0"], "--cluster-secret-file"),
        (["--eviction", "fifo"], "eviction"),
    ],
)
def test_a_setting_that_cannot_be_is_named(node: NodeProcess, flags: list[str], named: str) -> None:
    node.flags = flags
    assert named in refusal(node)
    assert not node.data_dir.exists(), "nothing was made"


def test_a_corrupt_journal_is_refused_by_name_with_the_way_back(node: NodeProcess) -> None:
    run_once(node)
    node.kill()
    (journal,) = node.data_dir.glob("journal-*.cfj")
    data = bytearray(journal.read_bytes())
    written = len(bytes(data).rstrip(b"\0"))
    data[written // 2] ^= 0x40
    journal.write_bytes(data)
    said = refusal(node)
    assert journal.name in said and "--seed" in said
    assert journal.read_bytes() == data, "the evidence stays as it was"


def test_a_journal_torn_at_its_end_by_a_crash_is_taken_up_to_there(node: NodeProcess) -> None:
    run_once(node)
    node.kill()
    (journal,) = node.data_dir.glob("journal-*.cfj")
    data = journal.read_bytes()
    written = len(data.rstrip(b"\0"))
    journal.write_bytes(data[: written - 3].ljust(len(data), b"\0"))
    run_once(node, keys=0)
    assert node.value("key 5") == 5


def test_a_lost_identity_is_refused(node: NodeProcess) -> None:
    run_once(node, keys=1)
    node.kill()
    (node.data_dir / "identity").unlink()
    said = refusal(node)
    assert "identity" in said and "--seed" in said
