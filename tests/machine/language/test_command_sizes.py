"""What a command counts for on its way: blocks are cut by it, and one over a frame's limit could never be sent."""

from __future__ import annotations

import pytest

from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command

LARGE = b"x" * 100_000
SET = c.set_("k", LARGE, 0)

LONG, WIDE = "k" * 1024, "€" * 341

COMMANDS: list[Command] = [
    SET,
    *(
        c.set_(key, b"v", 0, meta, c.TTL_MS_MAX, c.IF_VERSION, 2**62)
        for key in ("k", LONG, WIDE)
        for meta in (7, "t" * 255)
    ),
    c.append(LONG, LARGE),
    c.batch([SET, SET, c.get(LONG)]),
    c.batch([SET], atomic=True),
    c.guarded([(LONG, 2**62, 2**62), (WIDE, 0, 0)], [SET, c.append("k", LARGE)]),
    c.idempotent("o" * 256, c.batch([SET, SET])),
    c.idempotent("once", SET, 2**60),
    c.open_scope("n" * 16),
    c.scoped(2**60, "n" * 16, 2**60, 2**60, c.batch([SET, SET])),
    *(command for key in ("k", LONG, WIDE) for command in (c.get(key), c.delete(key, 2**62), c.delete_prefix(key))),
    c.incr(LONG, -(2**62), -(2**62), c.TTL_MS_MAX),
    c.count(LONG, -(2**64 - 1), 2**64 - 1, c.TTL_MS_MAX),
    c.touch(LONG, c.TTL_MS_MAX),
    c.expire(LONG, c.TTL_MS_MAX, c.IF_SET | c.IF_LATER),
    c.set_fields(LONG, 3, [b"f" * 300, LARGE] * 20, 2**20),
    c.set_fields("k", 3, [b"", b"1"] * 300, 2**20),
    c.remove_fields(WIDE, 4, [b"f" * 70_000] * 3),
    c.count_field(LONG, LARGE, -(2**62), 2**20),
    c.configure(
        {"policy": "lru", "max_items": 2**62, "max_bytes": 2**62, "replicas": 8, "max_value_bytes": 2**26},
        version=2**62,
        by="\U0001f600" * 64,
    ),
    c.open_session("m" * 63, "i" * 16, 2**40, "n" * 16),
    c.noop(),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_more_than_it_counts_for(command: Command) -> None:
    packed = len(c.encode_block(0, 0, 0, [command])) - len(c.encode_block(0, 0, 0, []))
    assert packed == c.packed_bytes(command)
    assert packed <= c.size_of(command) <= packed + 256 + 3 * 1024


def test_a_usual_command_counts_for_little_more_than_it_takes() -> None:
    batch = c.batch([c.set_(f"user:{number}", b"x" * 100, 0) for number in range(500)])
    assert c.size_of(batch) < 1.5 * c.packed_bytes(batch)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**62])
def test_the_session_of_a_block_is_read_without_unpacking_it(number: int) -> None:
    assert c.session_of(c.encode_block(number, 1, 1, [c.noop()])) == number


@pytest.mark.parametrize("block", [b"", b"\x94", b"\x94\xcd", b"\x94\xc1", b"\x94\xa1x", b"\xff" * 20])
def test_bytes_that_are_no_block_have_some_session_and_raise_nothing(block: bytes) -> None:
    assert c.session_of(block) >= 0
