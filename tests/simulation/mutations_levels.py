"""The rules of the feature level taken away: what a level has, who must know it, and who may go on at it."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.machine.machine import CacheMachine
from cacheflow.raft import guards
from cacheflow.raft.replica import Replica
from cacheflow.raft.snapshots import storage


def carry_out_what_is_above_the_entrys_level(patch: pytest.MonkeyPatch) -> None:
    """Let each build carry out whatever it knows, whichever level was in force where an entry was appended."""
    speak = CacheMachine._speak

    def _speak(self: Any, level: int) -> None:
        speak(self, self.build_level)
        self._spoken_level = level

    patch.setattr(CacheMachine, "_speak", _speak)


def raise_the_level_without_looking_at_all_members(patch: pytest.MonkeyPatch) -> None:
    """Let the level rise although a member has told that it knows less, or nothing."""
    patch.setattr(CacheMachine, "lacks_level", lambda self, level: None if self.members else "")


def apply_what_is_above_the_builds_level(patch: pytest.MonkeyPatch) -> None:
    """Let the older build append and apply the entries of a level that it does not know, as far as it understands them."""
    apply = CacheMachine.apply

    def _apply(self: Any, index: int, payload: bytes) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            if type(self) is CacheMachine:
                inner.setattr(CacheMachine, "build_level", 99)
            return apply(self, index, payload)

    patch.setattr(CacheMachine, "apply", _apply)
    patch.setattr(Replica, "outdated", lambda self, error: None)
    for module in (guards, storage):
        patch.setattr(module, "check_level", lambda command, index, build_level: None)
