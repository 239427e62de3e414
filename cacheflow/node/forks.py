"""Forks: a process that is forked from one with nodes lets go of all of them, before its first own instruction.

A child has none of its parent's threads, but a copy of everything else: left alone, it would read a memory that never changes any
more, and hold the ports and the lock of the data directory.
"""

from __future__ import annotations

import logging
import os
from typing import Protocol
from weakref import WeakValueDictionary

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """What has a node in this process."""

    def leave_to_parent(self) -> None:
        """Let go of the node, in a process that was forked from the one that runs it."""


# All owners of this process by their id(); who is told here is not kept alive by it.
_owners: WeakValueDictionary[int, Owner] = WeakValueDictionary()


def tell(owner: Owner) -> None:
    """Have ``owner`` let go of its node in every process that is forked from this one."""
    _owners[id(owner)] = owner


def _after_fork() -> None:
    for owner in list(_owners.values()):
        try:
            owner.leave_to_parent()
        except Exception:  # the others must be let go of all the same
            logger.exception("a forked process could not let go of its parent's node")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
