"""The rules of restores taken away: what is replaced, whose items count and how often, and which versions come back."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.machine.deciding import restores
from cacheflow.machine.image import State
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.contents import Contents
from cacheflow.node.assembly import LocalNode


def _change(patch: pytest.MonkeyPatch, opcode: int, changed: Any) -> None:
    """Have the machine carry out the command ``opcode`` by ``changed``."""
    patch.setattr(CacheMachine, "other_commands", {**CacheMachine.other_commands, opcode: changed})


def keep_what_was_there_at_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Begin a restore without removing anything."""

    def begin(machine: State, command: list[Any]) -> c.Result:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Contents, "condemn", lambda *_: 1)
            return restores.begin_restore(machine, command)

    _change(patch, c.RESTORE_BEGIN, begin)


def keep_the_revision_at_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Go on counting versions where the cluster was, whatever versions the backup's cluster has had."""
    patch.setattr(Contents, "raise_revision", lambda *_: None)


def take_items_of_any_restore(patch: pytest.MonkeyPatch) -> None:
    """Take items whichever restore they are of."""

    def items(machine: State, command: list[Any]) -> c.Result:
        if machine.restoring is not None:
            command = [command[0], machine.restoring.id, *command[2:]]
        return restores.restore_items(machine, command)

    _change(patch, c.RESTORE_ITEMS, items)


def take_items_as_often_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """Take the items of a restore wherever they belong in it."""

    def items(machine: State, command: list[Any]) -> c.Result:
        if machine.restoring is not None and machine.restoring.id == command[1]:
            command = [*command[:2], machine.restoring.done, command[3]]
        return restores.restore_items(machine, command)

    _change(patch, c.RESTORE_ITEMS, items)


def begin_a_restore_however_late(patch: pytest.MonkeyPatch) -> None:
    """Begin a restore whichever others have begun since it was sent."""

    def begin(machine: State, command: list[Any]) -> c.Result:
        after = "" if machine.restoring is None else machine.restoring.id
        return restores.begin_restore(machine, [*command[:2], after, *command[3:]])

    _change(patch, c.RESTORE_BEGIN, begin)


def forget_a_restore_at_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Load a snapshot without the restore that is under way."""
    restore = CacheMachine.restore.__func__  # type: ignore[attr-defined]

    def _restore(cls: Any, chunks: Any) -> Any:
        machine = restore(cls, chunks)
        machine.restoring = None
        machine.is_closed = False
        return machine

    patch.setattr(CacheMachine, "restore", classmethod(_restore))


def serve_clients_during_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Show clients the contents while a part of them is missing."""
    patch.setattr(LocalNode, "may_read", property(lambda self: self.is_serving and self.node.may_read))
