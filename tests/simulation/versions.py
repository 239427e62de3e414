"""The versions that writers were told, each of which must come once and in an order that time allows."""

from __future__ import annotations

from math import inf


class Versions:
    """The versions of the writes that took place, with their times in seconds of the simulation."""

    def __init__(self) -> None:
        self._told: list[tuple[int, float, float]] = []

    def note(self, began: float, ended: float, version: int) -> None:
        """Note the version of a write that was answered."""
        self._told.append((version, began, ended))

    def check(self) -> str | None:
        """Return what is wrong with the versions; None when nothing is."""
        latest_began, before = -inf, 0
        for version, began, ended in sorted(self._told):
            if version == before:
                return f"{version} was told for two writes"
            if ended < latest_began:
                return f"{version} was told at {ended:.6f}, a lower one for a write that began at {latest_began:.6f}"
            latest_began, before = max(latest_began, began), version
        return None
