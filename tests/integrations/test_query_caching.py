"""The example of cached database queries, in short: it says itself whether it has shown what it promises."""

from __future__ import annotations

import pytest

from scripts.examples import query_caching


def test_a_query_is_asked_once_while_a_node_dies(capsys: pytest.CaptureFixture[str]) -> None:
    code = query_caching.main(["--threads", "30", "--query-seconds", "0.2", "--seconds", "1.5"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "30 threads through 3 nodes: 1 query" in told
