"""The example of rate limits, in short: it says itself whether it has shown what it promises."""

from __future__ import annotations

import pytest

from scripts.examples import rate_limiting


def test_visitors_are_served_exactly_to_the_limit_while_a_node_dies(capsys: pytest.CaptureFixture[str]) -> None:
    code = rate_limiting.main(["--strategy", "moving-window", "--visitors", "4", "--limit", "30", "--seconds", "2"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "4 visitors were served 30 to 30 times each of 30" in told
