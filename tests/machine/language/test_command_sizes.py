"""What a command counts for on its way: blocks are cut by it, and one over a frame's limit could never be sent."""

from __future__ import annotations

import pytest

from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command

LARGE = b"x" * 100_000
SET = c.set_("k", LARGE, 0)

COMMANDS: list[Command] = [
    SET,
    c.append("k", LARGE),
    c.batch([SET, SET, c.get("k")]),
    c.batch([SET], atomic=True),
    c.guarded([("k", 1)], [SET, c.append("k", LARGE)]),
    c.idempotent("once", c.batch([SET, SET])),
    c.idempotent("once", SET),
    c.get("k"),
    c.incr("k", 1, 0),
    c.delete("k"),
    c.expire("k", 1000),
    c.delete_prefix(""),
    c.noop(),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_size_is_about_that_of_what_is_sent(command: Command) -> None:
    packed = len(c.encode_block(1, 1, 1, [command]))
    assert packed - 64 <= c.size_of(command) <= packed + 256
