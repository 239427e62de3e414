"""Rules of leaving taken away: what a node's disk says of its own wish to go, and what comes of that at the next start."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.node.leaving import Leaving
from cacheflow.raft.log import departure


def found_again_after_leaving(patch: pytest.MonkeyPatch) -> None:
    """Forget which cluster a node had left: a founder that comes back empty founds again, as its command says."""
    patch.setattr(Leaving, "came_from", ())


def keep_the_log_of_the_member_that_left(patch: pytest.MonkeyPatch) -> None:
    """Let a node come back as another member with the log of the one before."""
    patch.setattr(departure, "empty", lambda disk, directory: None)


def leave_without_a_note_of_it(patch: pytest.MonkeyPatch) -> None:
    """Ask for the removal without a word on the disk: a node that is killed then takes itself for removed by others."""

    async def note(self: Any, wish: departure.Departure) -> None:
        pass

    patch.setattr(Leaving, "_note", note)


def never_forget_a_departure(patch: pytest.MonkeyPatch) -> None:
    """Keep what the disk says of a departure when the node is a member again."""

    async def keep(self: Any) -> None:
        pass

    patch.setattr(Leaving, "keep", keep)


def come_back_under_the_same_incarnation(patch: pytest.MonkeyPatch) -> None:
    """Let who had left start as the member that it was: the cluster has removed that one."""
    patch.setattr(departure, "has_left", lambda disk, directory, incarnation: False)
