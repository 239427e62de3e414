"""Growing: what the commands under way may add to hashes and sets, so that an entry holds no more work than it should.

A command on a field costs what its hash is long at its place in the log. Many clients that fill one new hash find it empty when
they are asked what their commands cost, and all of these may be in one entry. So what this node has sent and is not answered yet
counts, whoever has asked for it. Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS, growth_of, work_of
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.machine.state.entries import Entry

# The commands that hold others, or are on fields: what they cost is looked at.
HEAVY: Final = {commands.BATCH, commands.GUARDED} | FIELD_DECISIONS.keys()

# Compared one by one: what stands there may be anything.
FIELD_OPS: Final = tuple(FIELD_DECISIONS)


def on_fields(commands_: Sequence[Command]) -> list[Command]:
    """Return those of ``commands_``, and of the commands in their batches, that are on fields of a hash or a set.

    Malformed ones are left out: the state machine refuses them, and nothing is known of what they cost.
    """
    found: list[Command] = []
    for command in [command for command in commands_ if command[0] in HEAVY]:
        if command[0] in FIELD_DECISIONS:
            found.append(command)
        elif command[0] in (commands.BATCH, commands.GUARDED):
            with contextlib.suppress(TypeError, LookupError):
                found += [inner for inner in command[2] if inner[0] in FIELD_OPS]
    return [command for command in found if _is_known(command)]


def _is_known(command: Command) -> bool:
    try:
        return type(command[1]) is str and work_of(None, command, growth_of(command)) >= 0
    except (TypeError, LookupError):
        return False


class Growing:
    """Counts by how many bytes this node's commands that were sent and have no result yet may make each hash or set longer.

    peek: returns the item of a key in this node's memory, None for an absent key.
    """

    def __init__(self, peek: Callable[[str], Entry | None]) -> None:
        self._peek = peek
        # {key: bytes}, of keys to which something is added.
        self.under_way: dict[str, int] = {}

    def work_of(self, commands_: Sequence[Command]) -> int:
        """Return the work of ``commands_``, all on fields of hashes and sets, if applied after the commands sent before.

        The earlier commands may make the hashes and sets longer. The unit is the work of a plain command.
        """
        work = 0
        added: dict[str, int] = {}
        for command in commands_:
            key = command[1]
            own = added.get(key, 0)
            work += work_of(self._peek(key), command, self.under_way.get(key, 0) + own)
            added[key] = own + growth_of(command)
        return work

    def sent(self, commands_: Sequence[Command]) -> None:
        """Note that ``commands_``, all on fields of hashes and sets, are sent; by some of them a hash or set may grow."""
        for command in commands_:
            if growth := growth_of(command):
                self.under_way[command[1]] = self.under_way.get(command[1], 0) + growth

    def ended(self, commands_: Sequence[Command]) -> None:
        """Note that ``commands_``, all on fields of hashes and sets and noted as sent, have their results or are given up."""
        for command in commands_:
            if growth := growth_of(command):
                left = self.under_way[command[1]] - growth
                if left:
                    self.under_way[command[1]] = left
                else:
                    del self.under_way[command[1]]
