"""``cacheflow status`` and ``top`` at real nodes, one of which dies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cluster.load import Load
from cluster.processes import Nodes, wait_for

from cacheflow.cli import main


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    assert err == ""
    return code, out


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in document["nodes"]}


def test_what_is_shown_is_what_is(trio: Nodes, capfd: pytest.CaptureFixture[str]) -> None:
    code, out = run(capfd, "status", "--json", "--timeout", "20", "--url", trio[0].url)
    document = json.loads(out)
    leader = trio.leader()
    assert (code, document["healthy"], document["leader"]) == (0, True, leader.node_id)
    assert set(rows(document)) == {node.node_id for node in trio.all}
    for row in rows(document).values():
        assert (row["status"], row["ready"], row["level"]) == ("up", True, document["level"])
        assert row["lag"] < 100 and row["memory_bytes"] > 1 << 20 and 0 <= row["since_s"] < 86_400

    with Load(trio.all, clients=1, name="top") as load:
        load.wait_progress(5)
        code, out = run(capfd, "top", "--once", "--json", "--timeout", "20", "--url", trio[0].url)
    document = json.loads(out)
    assert code == 0 and document["totals"]["writes_per_s"] > 0
    for row in rows(document).values():
        assert row["rates"]["writes_per_s"] > 0 and row["rates"]["flush_p99_s"] > 0 and row["rates"]["loop_p99_s"] > 0
        # At least what is shown here was asked for.
        assert row["rates"]["fronts"]["http"]["requests_per_s"] > 0 and row["rates"]["fronts"]["http"]["p99_s"] > 0


def test_a_node_that_has_died_is_exit_code_1(trio: Nodes, capfd: pytest.CaptureFixture[str]) -> None:
    dead = trio.others(trio.leader())[0]
    alive = trio.others(dead)[0]
    dead.kill()

    def is_down() -> bool:
        code, out = run(capfd, "status", "--json", "--timeout", "20", "--url", alive.url)
        row = rows(json.loads(out))[dead.node_id]
        assert code == 1 and row["why"] == "Connection refused" and row["items"] is row["ready"] is None
        return bool(row["status"] == "down" and row["since_s"] > 0)

    wait_for(is_down, "the others know it")
    code, out = run(capfd, "status", "--timeout", "20", "--url", alive.url)
    assert code == 1 and f"problem: {dead.node_id} is down: Connection refused\n" in out
