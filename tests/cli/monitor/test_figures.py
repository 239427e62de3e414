"""Figures as people read them."""

from __future__ import annotations

import pytest

from cacheflow.cli.monitor import figures


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0, "0"), (7.46, "7.5"), (99.94, "99.9"), (99.96, "100"), (999, "999"), (999.6, "1k"), (12_345, "12.3k")),
        *((-3, "-3"), (-12_345, "-12.3k"), (1 << 63, "9.2E"), (None, "-")),
    ],
)
def test_a_count(value: float | None, shown: str) -> None:
    assert figures.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1 GiB"),
        (1 << 63, "8 EiB"),
        (None, "-"),
    ],
)
def test_a_size(value: float | None, shown: str) -> None:
    assert figures.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1, "0s"),
        (0.9, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (7_199, "119m"),
        (7_200, "2h"),
        (200_000, "2d"),
        (None, "-"),
    ],
)
def test_an_age(value: float | None, shown: str) -> None:
    assert figures.age(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0µs"),
        (35e-6, "35µs"),
        (0.0007, "700µs"),
        (0.0015, "1.5ms"),
        (0.0123, "12ms"),
        (1.5, "1.5s"),
        (None, "-"),
    ],
)
def test_a_duration(value: float | None, shown: str) -> None:
    assert figures.duration(value) == shown


def test_a_share() -> None:
    assert [figures.share(value) for value in (None, 0.0, 0.971, 1.0)] == ["-", "0.0%", "97.1%", "100.0%"]
