"""That the table of messages in the documents is the one that the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

from cacheflow.raft.message_types import MESSAGES

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"


def rows() -> dict[str, str]:
    """The fields' cell of each message."""
    cells = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {cell[0].removeprefix("| ").strip("`"): cell[3] for cell in cells}


def test_every_message_stands_in_the_table_and_no_other() -> None:
    assert list(rows()) == list(MESSAGES)


def test_every_field_is_told() -> None:
    for kind, told in rows().items():
        fields = set(get_type_hints(MESSAGES[kind])) - {"type"}
        named = set(re.findall(r"`(\w+)`", told)) if told != "the same" else fields
        assert named == fields, kind
