"""The command ``watch``: one change a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import NodeProcess, wait_for

from cacheflow.node import positions


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(1, tmp_path)
    node.start()
    wait_for(node.is_ready)
    yield node
    node.kill()


def watching(node: NodeProcess, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cacheflow", "watch", "--url", node.url, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_each_change_is_a_line_for_people_or_for_programs(node: NodeProcess) -> None:
    people, program = watching(node, "a"), watching(node, "a", "--json")
    with people, program:
        try:
            wait_for(lambda: node.try_get("/metrics?format=json").body["followers"] == 2)
            node.put("a1", "v")
            node.put("b1", "v")
            assert node.ask("DELETE", "/cache?prefix=a").status == 200
            assert people.stdout is not None and program.stdout is not None
            assert people.stdout.readline() == "set     a1  version 1\n"
            assert people.stdout.readline() == "delete  a*  version 3\n"
            first, second = (json.loads(program.stdout.readline()) for _ in range(2))
            assert first == {"what": "set", "key": "a1", "version": 1, "position": first["position"]}
            assert (second["what"], second["prefix"]) == ("delete", "a")
        finally:
            people.terminate()
            program.terminate()
    with watching(node, "--since", first["position"], "--json") as again:
        assert again.stdout is not None
        assert json.loads(again.stdout.readline())["key"] == "b1"
        again.terminate()
    with watching(node, "--since", "x" * 31) as wrong:
        assert wrong.wait(20) == 2
        assert wrong.stderr is not None and "since" in wrong.stderr.read()
    known = positions.parse(first["position"])
    elsewhere = positions.text_of(known.entry, known.seen, bytes(byte ^ 1 for byte in known.tag))
    with watching(node, "--since", elsewhere) as missed:
        assert missed.wait(20) == 1
        assert missed.stderr is not None and "list the keys anew" in missed.stderr.read()
