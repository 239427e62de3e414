"""How a Dockerfile is read."""

from __future__ import annotations

import pytest
from packages.dockerfile import stages_of


def test_stages_instructions_options_and_continued_lines() -> None:
    first, second = stages_of(
        'FROM a AS one\nRUN x \\\n  # why\n  && y\nFROM b\nCOPY --from=one /p q /r/\nCMD ["c", "d"]\nENV A=b c\n'
    )
    assert (first.image, first.name) == ("a", "one")
    assert first.last("RUN").shell == "x && y" and first.last("RUN").cache == ""
    copy = second.last("COPY")
    assert (copy.options, copy.words) == ({"from": "one"}, ["/p", "q", "/r/"])
    assert second.last("CMD").command == ["c", "d"]


def test_a_cache_is_no_part_of_the_command() -> None:
    (stage,) = stages_of("FROM a\nRUN --mount=type=cache,target=/c x --y\n")
    assert (stage.last("RUN").cache, stage.last("RUN").shell) == ("/c", "x --y")


def test_an_unknown_instruction_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="ADD"):
        stages_of("FROM a\nADD x y\n")
