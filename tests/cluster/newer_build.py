"""A node of the newer build as a process of its own: this one, and what ``fakes/newer_build.py`` adds to it.

A write below ``label/`` is the command of level 2 once that is in force, and an ordinary one before.
"""

from __future__ import annotations

import os
import sys
from typing import Any

if __name__ == "__main__":
    # The snapshot helper, in an isolated interpreter: it is told where its node finds modules.
    sys.path += sys.argv[1].split(os.pathsep)

from fakes.newer_build import LABEL, NewerMachine

from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.snapshots import helper, helper_process
from cacheflow.store import ReplicatedStore

PREFIX = "label/"
# As ``processes.PROGRAM``, for the newer build.
PROGRAM = """
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
sys.path[:0] = ["tests"]
from cluster.newer_build import become_newer
become_newer()
from cacheflow.cli.main import main
sys.exit(main())
"""


def become_newer() -> None:
    """Turn the CacheFlow in this process into the newer build."""
    for name in ("build_level", "command_levels", "other_commands"):
        setattr(CacheMachine, name, getattr(NewerMachine, name))
    helper_process._RUN_HELPER = __file__  # type: ignore[misc]
    submit = ReplicatedStore.submit

    def _submit(self: Any, commands_: list[Any], done: Any, work: int = 0, **named: Any) -> None:
        if self._local is not None and self._local.level >= NewerMachine.build_level:
            commands_ = [_labelled(command) for command in commands_]
        submit(self, commands_, done, work, **named)

    ReplicatedStore.submit = _submit  # type: ignore[method-assign]


def _labelled(command: Any) -> Any:
    inner = command[-1] if command[0] in (commands.IDEMPOTENT, commands.SCOPED) else command
    return (LABEL, inner[1]) if inner[0] == commands.SET and inner[1].startswith(PREFIX) else command


if __name__ == "__main__":
    become_newer()
    sys.exit(helper.main(sys.argv[2:]))
