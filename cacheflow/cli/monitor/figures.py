"""Figures as people read them: short, with a unit, and a dash for what nobody knows."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "-"
_THOUSANDS: Final = ("", "k", "M", "G", "T", "P", "E")
_KIBIS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def count(value: float | None) -> str:
    """Return a number of things, or of things a second: 0, 7.5, 999, 12.3k."""
    if value is None:
        return UNKNOWN
    return _scaled(value, 1000, _THOUSANDS, "")


def size(value: float | None) -> str:
    """Return a number of bytes: 0 B, 12.3 KiB, 4 GiB."""
    if value is None:
        return UNKNOWN
    return _scaled(value, 1024, _KIBIS, " ")


def _scaled(value: float, step: int, units: tuple[str, ...], gap: str) -> str:
    power = 0
    # A figure that would be rounded up to 1000 takes the next unit.
    while abs(value) >= step - 0.5 and power < len(units) - 1:
        value /= step
        power += 1
    digits = 1 if abs(value) < 99.95 else 0
    shown = f"{value:.{digits}f}"
    return f"{shown.removesuffix('.0')}{gap}{units[power]}"


def age(seconds: float | None) -> str:
    """Return how long ago something was, or has lasted: 0s, 59s, 12m, 5h, 3d."""
    if seconds is None:
        return UNKNOWN
    whole = int(max(seconds, 0.0))
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        # Two of a unit at least: 90 seconds are told more exactly than as a minute.
        if whole >= 2 * unit:
            return f"{whole // unit}{name}"
    return f"{whole}s"


def duration(seconds: float | None) -> str:
    """Return how long something took: 35µs, 0.7ms, 12ms, 1.5s."""
    if seconds is None:
        return UNKNOWN
    for unit, name in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 999.5 * unit:
            shown = seconds / unit
            return f"{shown:.{1 if shown < 9.95 else 0}f}{name}"
    return f"{seconds:.1f}s"


def share(value: float | None) -> str:
    """Return a share of something, 0 to 1, in percent: 97.1%."""
    return UNKNOWN if value is None else f"{value:.1%}"
