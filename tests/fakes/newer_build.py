"""A newer build than this one: it knows one feature level more, which brings one command and one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from cacheflow.machine.deciding.plans import Malformed
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.machine.machine import CacheMachine, OtherCommand
from cacheflow.values import TEXT

# The message that level 2 brings. Its receiver need not answer.
GREETING = "greeting"
# The command that level 2 brings: [LABEL, key] writes "level 2" under a key, and answers as SET does.
LABEL = 200
LABELLED = b"level 2"


def _label(machine: CacheMachine, command: list[Any]) -> Result:
    _, key = command
    if type(key) is not str or not 0 < len(key) <= 100:
        raise Malformed("a label's key is a short text")
    created = key not in machine.contents.raw
    return [c.OK, machine.contents.write(key, LABELLED, TEXT, None, 0), created, 0]


class NewerMachine(CacheMachine):
    """The machine of the newer build."""

    build_level: ClassVar[int] = 2
    command_levels: ClassVar[Mapping[int, int]] = {**CacheMachine.command_levels, LABEL: 2}
    other_commands: ClassVar[Mapping[int, OtherCommand]] = {**CacheMachine.other_commands, LABEL: _label}
