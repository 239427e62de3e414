"""The versions that writers were told: each once, and in an order that time allows."""

from __future__ import annotations

from math import inf


class Versions:
    """What was told of writes that took place. Seconds of the simulation."""

    def __init__(self) -> None:
        self._told: list[tuple[int, float, float]] = []

    def note(self, began: float, ended: float, version: int) -> None:
        """A write was answered."""
        self._told.append((version, began, ended))

    def check(self) -> str | None:
        """What is wrong; None when nothing is."""
        latest_began, before = -inf, 0
        for version, began, ended in sorted(self._told):
            if version == before:
                return f"{version} was told for two writes"
            if ended < latest_began:
                return f"{version} was told at {ended:.6f}, a lower one for a write that began at {latest_began:.6f}"
            latest_began, before = max(latest_began, began), version
        return None
