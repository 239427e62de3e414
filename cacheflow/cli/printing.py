"""What the commands print: JSON for programs, tables for people, and a bar that shows how far a long command is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from cacheflow.cli import texts


def print_json(value: Any) -> None:
    """Print ``value`` as JSON in characters that every terminal can show."""
    click.echo(texts.json_text(value))


def cell(value: Any) -> str:
    """Return ``value`` as the text of a table's cell."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print ``rows`` as a table: columns as wide as their longest text, numbers aligned to the right."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    numeric = [all(isinstance(row.get(name), (int, float)) for row in rows) for name in names]
    for line in lines:
        cells = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


class Bar:
    """A progress bar on stderr, redrawn ten times a second; shows nothing if stderr is no terminal."""

    WIDTH = 40

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._done = 0
        self._next = 0.0
        self._shown = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        """Add ``count`` to the number of operations that the progress bar shows as done."""
        self._done += count
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + 0.1
            self._draw()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._draw()
            click.echo(err=True)

    def _draw(self) -> None:
        share = min(self._done / self._total, 1.0)
        filled = int(share * self.WIDTH)
        click.echo(f"\r[{'#' * filled}{'-' * (self.WIDTH - filled)}] {share:4.0%}", nl=False, err=True)
