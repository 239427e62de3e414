"""How the nodes of a cluster talk, as scripts that anyone reads: the ``.txt`` files beside this one.

Read them first: replication, an election, a follower that comes back, a snapshot, a change of the members, a diverged node.
``UPDATE_SCRIPTS=1 pytest tests/protocol`` writes into them what the nodes say now; read what has changed.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from protocol.scripting import Script, blocks

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_nodes_say_what_the_script_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    differing: list[str] = []
    with ExitStack() as stack:
        script = Script(monkeypatch, stack)
        for before, command, expected in blocks(path):
            said = script.run(command)
            written += [*before, command, "----", *said]
            if said != expected:
                differing.append("\n".join([command, "---- expected", *expected, "---- said", *said]))
    if os.environ.get("UPDATE_SCRIPTS"):
        path.write_text("\n".join(written) + "\n")
    else:
        assert not differing, "\n\n".join(differing)
