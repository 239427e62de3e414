"""Reads corpus.txt: seeds that once showed a bug."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Old:
    """A run of the corpus. kinds: those of its faults; None: the seed chooses."""

    seed: int
    nodes: int
    seconds: float
    kinds: dict[str, float] | None
    every_s: float | None
    what: str

    @classmethod
    def parse(cls, line: str) -> Old:
        """Return the run that a line of the file names."""
        seed, nodes, seconds, faults, every_s, what = line.split(maxsplit=5)
        return cls(
            int(seed),
            int(nodes),
            float(seconds),
            None if faults == "-" else dict.fromkeys(faults.split(","), 1.0),
            None if every_s == "-" else float(every_s),
            what,
        )


def corpus() -> list[Old]:
    """Return all runs of the corpus."""
    lines = Path(__file__).with_name("corpus.txt").read_text().splitlines()
    return [Old.parse(line) for line in lines if line and not line.startswith("#")]
