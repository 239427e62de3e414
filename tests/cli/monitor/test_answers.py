"""What a node answers is checked before anything of it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.cli.monitor.answers import (
    MEMBERS_MAX,
    METRIC_NAME_MAX,
    METRICS_MAX,
    NUMBER_MAX,
    REASONS_MAX,
    TEXT_MAX,
    metrics_of,
    number,
    reasons_of,
    status_of,
    text,
    whole,
)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("node-1", "node-1"),
        ("Köln ☃", "Köln ☃"),
        ("[red]n[/]", "[red]n[/]"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\r\0", "a\\nb\\r\\x00"),
        ("a\x9b31m", "a\\x9b31m"),
        # They would turn the direction of what stands behind them.
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\ud800", "\\ud800"),
        ("x" * TEXT_MAX, "x" * TEXT_MAX),
        ("x" * (TEXT_MAX + 1), "x" * (TEXT_MAX - 1) + "…"),
        ("\0" * 100_000, ("\\x00" * TEXT_MAX)[: TEXT_MAX - 1] + "…"),
        *[("", None), (None, None), (7, None), (True, None), (["n"], None), ({"n": 1}, None)],
    ],
)
def test_a_text_has_only_what_a_terminal_may_show(told: Any, shown: str | None) -> None:
    assert text(told) == shown


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        *((good, good) for good in (0, -3, 1.5, NUMBER_MAX)),
        *[(True, None), ("7", None), (None, None), ([], None)],
        *[(float("nan"), None), (float("inf"), None), (NUMBER_MAX * 2, None), (10**4000, None), (1e300, None)],
    ],
)
def test_a_number_is_one_that_can_be_shown(told: Any, kept: float | None) -> None:
    assert number(told) == kept
    assert whole(told) == (None if kept is None else int(kept))


def test_a_status_of_which_most_is_missing_or_wrong_is_kept_as_far_as_it_goes() -> None:
    strangers: list[Any] = [None, [], "x", 7, {}, {"node_id": 7}, {"node_id": ""}]
    for wrong in strangers:
        assert status_of(wrong) is None
    found = status_of({"node_id": "a", "term": "x", "level": -1e400, "configuration": [], "members": {"a": 1}})
    assert found is not None
    status, members = found
    assert status["term"] is status["level"] is status["restore"] is status["settings"]["eviction"] is None
    assert members == []
    rows = [7, None, {}, {"id": 3}, {"id": "a", "lag": "x", "voter": 1, "change": 7, "status": ["up"]}, {"id": "a"}]
    found = status_of({"node_id": "a", "members": rows})
    assert found is not None
    [member] = found[1]
    assert member == {
        **dict.fromkeys(("address", "status", "role", "build", "lag", "level", "last_seen", "change")),
        "id": "a",
        "voter": False,
        "observer": False,
    }


def test_a_list_of_members_and_reasons_has_an_end() -> None:
    found = status_of({"node_id": "a", "members": [{"id": str(i)} for i in range(MEMBERS_MAX * 2)]})
    assert found is not None and len(found[1]) == MEMBERS_MAX and found[0]["left_out"] == MEMBERS_MAX
    assert len(reasons_of(b"[-]x failed: y\n" * 1000)) == REASONS_MAX


def test_reasons_are_the_checks_that_failed() -> None:
    body = b"[+]loop ok: runs\n[-]leader failed: is not known\n[-]disk failed: \x1b[2J\xff\nreadyz check failed\n"
    assert reasons_of(body) == ["leader failed: is not known", "disk failed: \\x1b[2J\N{REPLACEMENT CHARACTER}"]
    assert reasons_of(b"") == ["its health check fails and does not say why"]


def test_metrics_of_a_node_that_tells_of_too_many_or_of_huge_names_are_bounded() -> None:
    kept = "x" * METRIC_NAME_MAX
    assert metrics_of({"items": 3, kept: 1, f"{kept}x": 2, "request_seconds{" + "a" * 1_000_000: 3}) == {
        "items": 3,
        kept: 1,
    }
    assert list(metrics_of({f"m{number}": 0 for number in range(METRICS_MAX * 2)})) == [
        f"m{n}" for n in range(METRICS_MAX)
    ]
    strangers: list[Any] = [None, [], "x", 7]
    for wrong in strangers:
        assert metrics_of(wrong) == {}
