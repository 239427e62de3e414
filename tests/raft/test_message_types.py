"""That the table of messages in the documents is the one that the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.node import channels
from cacheflow.raft import message_types

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
# Those about the log, and those that are not.
MESSAGES = {**message_types.MESSAGES, **channels.MESSAGES}
LEVELS = {**message_types.LEVELS, **channels.LEVELS}


def rows(column: int = 3) -> dict[str, str]:
    """One cell of each message: by default that of its fields."""
    cells = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {cell[0].removeprefix("| ").strip("`"): cell[column] for cell in cells}


def test_every_message_stands_in_the_table_and_no_other() -> None:
    assert list(rows()) == list(MESSAGES)


def test_every_message_has_the_level_that_brought_it() -> None:
    assert {kind: int(cell.strip(" |")) for kind, cell in rows(4).items()} == LEVELS
    assert max(LEVELS.values()) <= BUILD_LEVEL


def test_every_field_is_told() -> None:
    for kind, told in rows().items():
        fields = set(get_type_hints(MESSAGES[kind])) - {"type"}
        named = set(re.findall(r"`(\w+)`", told)) if told != "the same" else fields
        assert named == fields, kind
