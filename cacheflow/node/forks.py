"""Forks: a process that is forked from one with nodes lets go of all of them, before its first own instruction.

A child has none of its parent's threads, but a copy of everything else: left alone, it would read a memory that never changes any
more, and hold the ports and the lock of the data directory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

logger = logging.getLogger(__name__)

T = TypeVar("T")

# All owners of nodes in this process by their id(), each with what lets go of its node. Who is told here is not kept alive by it.
_owners: dict[int, tuple[ref[Any], Callable[[Any], None]]] = {}


def tell(owner: T, let_go: Callable[[T], None]) -> None:
    """Have the function ``let_go`` called in every process that is forked from this one, with the object ``owner``.

    owner: an object that owns a node, which goes on in this process alone.
    """
    number = id(owner)
    _owners[number] = ref(owner, lambda _: _owners.pop(number, None)), let_go


def _after_fork() -> None:
    for known, let_go in list(_owners.values()):
        owner = known()
        try:
            if owner is not None:
                let_go(owner)
        except Exception:  # the others must be let go of all the same
            logger.exception("a forked process could not let go of its parent's node")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
