"""The drills of docs/recovery.md, as they stand there, with real nodes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import PROGRAM, ROOT, wait_for
from documented import reading

from cacheflow.cli.launcher import free_ports
from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError


class Drill:
    """A folder in which the page's commands are run, on other ports than those of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        page = (ROOT / "docs" / "recovery.md").read_text()
        named = sorted(set(re.findall(r"\b[89]1[89]\d\b", page)) | {str(8181 + n) for n in range(2)} | {"9181", "9182"})
        self.ports = dict(zip(named, map(str, free_ports(len(named))), strict=True))
        blocks = reading.blocks_in("recovery.md", page)
        self.commands = [
            self.here(" ".join(words)) for block in blocks if block.kind == reading.LONG for words in block.commands
        ]
        (self.peers,) = [self.here(block.text) for block in blocks if block.kind == reading.TEXT]
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, text: str) -> str:
        return re.sub(r"\b[89]1[89]\d\b", lambda found: self.ports[found[0]], text)

    def serve(self, command: str) -> None:
        """Start a node in the background."""
        words = shlex.split(command)
        log = (self.folder / "log").open("ab")
        self.running[words[words.index("--node-id") + 1]] = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words[1:]],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )

    def run(self, command: str, said: str = "") -> str:
        """Run a command of the page to its end. said: what its user answers."""
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command.replace(".venv/bin/", "")), *(["--yes"] if said else [])],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def next_are(self, kind: str, count: int) -> list[str]:
        """Take the next ``count`` commands of the page, which must be of this kind."""
        taken, self.commands = self.commands[:count], self.commands[count:]
        assert all(f"cacheflow {kind} " in command for command in taken), taken
        return taken

    def client(self, *ports: str) -> CacheClient:
        return CacheClient([f"http://127.0.0.1:{self.ports[port]}" for port in ports], timeout_s=20, discover=False)

    def kill(self, *node_ids: str) -> None:
        for node_id in node_ids or list(self.running):
            process = self.running.pop(node_id)
            process.kill()
            process.wait()


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(tmp_path)
    yield drill
    drill.kill()


def test_the_drills_of_the_page_work_as_they_stand_there(drill: Drill) -> None:
    seed = f"--seed http://127.0.0.1:{drill.ports['8181']}"
    for number, more in ((1, "--bootstrap"), (2, seed), (3, seed)):
        ports = f"--port {drill.ports[f'818{number}']} --raft-port {drill.ports[f'918{number}']}"
        drill.serve(f"cacheflow serve --node-id n{number} {ports} --data-dir drill/n{number} {more}")
    with drill.client("8181", "8182", "8183") as client:
        wait_for(lambda: well(client, "before the loss", 3), "three nodes vote")
    drill.kill()

    show, show_json = drill.next_are("recover", 2)
    assert "the latest log is in drill/n" in drill.run(show)
    assert json.loads(drill.run(show_json))["latest"] == "drill/n3"
    (alone,) = drill.next_are("recover", 1)
    assert "takes the place of" in drill.run(alone, said="y")
    for command in drill.next_are("serve", 3):
        drill.serve(command)
    with drill.client("8183") as client:
        wait_for(lambda: well(client, "after the loss", 3), "three nodes vote again")
        assert client.get("before the loss") == "kept"
    drill.kill()

    (drill.folder / "peers.json").write_text(drill.peers)
    assert len(json.loads(drill.peers)) == 3
    told = {drill.run(command).splitlines()[0] for command in drill.next_are("recover", 3)}
    assert len(told) == 1, "one cluster"
    for command in drill.next_are("serve", 3):
        drill.serve(command)
    with drill.client("8194", "8195", "8193") as client:
        wait_for(lambda: well(client, "after the move", 3), "three nodes vote at their new addresses")
        assert client.get("before the loss") == client.get("after the loss") == "kept"
    assert drill.commands == []


def well(client: CacheClient, key: str, voters: int) -> bool:
    try:
        rows = client.nodes()
        return sum(row["voter"] and row["status"] == "up" for row in rows) == voters and bool(client.set(key, "kept"))
    except CacheFlowError:
        return False
