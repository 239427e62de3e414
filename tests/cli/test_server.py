"""The composition root as one process: from its start to a clean end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import NodeProcess, wait_for
from fakes.embedded import Waiting


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(1, tmp_path)
    node.start()
    wait_for(lambda: not node.alive or node.is_ready())
    yield node
    if node.alive:
        node.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_what_was_written_stays(node: NodeProcess, number: signal.Signals) -> None:
    assert node.put("k", "v").status == 201
    node.signal(number)
    assert node.wait() == 0
    assert "Traceback" not in node.output()
    node.start()
    wait_for(node.is_ready)
    assert node.value("k") == "v"


def test_requests_under_way_are_answered_before_it_ends(node: NodeProcess) -> None:
    large = "x" * 900_000
    with node.connect() as connection:
        assert connection.request("GET", "/livez").status == 200
        writes = [Waiting(lambda number=number: node.put(f"k{number}", large)) for number in range(8)]  # type: ignore[misc]
        wait_for(lambda: node.try_get("/metrics?format=json").body["sets_total"] > 0)
        node.signal(signal.SIGTERM)
        for write in writes:
            error = write.end()
            # Who came after the door was closed was refused there; nobody was let in and then dropped.
            assert write.result.status == 201 if error is None else isinstance(error, ConnectionError), error
        assert sum(write.result is not None for write in writes) >= 1
    assert node.wait() == 0


def test_a_second_signal_changes_nothing(node: NodeProcess) -> None:
    node.signal(signal.SIGTERM)
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_every_answer_names_where_it_comes_from(node: NodeProcess) -> None:
    answer = node.put("k", "v")
    assert answer.headers["x-served-by"] == "node-1"
    assert int(answer.headers["x-raft-index"]) > 0 and int(answer.headers["x-raft-term"]) > 0
    assert node.try_get("/readyz").headers["x-served-by"] == "node-1"
    assert node.members()["node-1"]["address"] == node.address
