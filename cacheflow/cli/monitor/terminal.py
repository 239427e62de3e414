"""The terminal: how wide it is, and lines on it in colours, by rich where that is installed. Elsewhere they are plain text."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from cacheflow.cli.monitor.tables import BAD, FAINT, GOOD, NOTED, PLAIN, TITLE, Line, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COLOURS: Final[Mapping[str, str]] = {
    PLAIN: "",
    GOOD: "green",
    BAD: "bold red",
    NOTED: "cyan",
    FAINT: "dim",
    TITLE: "dim",
}


def console() -> Console | None:
    """Return rich's console for stdout; None if rich is not installed, or if stdout is no terminal that shows colours."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, markup=False, emoji=False)


def width() -> int | None:
    """Return how many characters a line of stdout has; None if stdout is no terminal, where lines have no end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def rich_text(lines: Sequence[Line]) -> Text:
    """Return ``lines`` as rich's text, in colours. Nothing in them is read as markup."""
    from rich.text import Text

    pieces = [piece for number, line in enumerate(lines) for piece in ([("\n", PLAIN)] if number else []) + line]
    return Text.assemble(*((text, _COLOURS[style]) for text, style in pieces))


def show(lines: Sequence[Line]) -> None:
    """Print ``lines`` on stdout, in colours where it is a terminal and rich is installed."""
    on = console()
    if on is None:
        for line in lines:
            click.echo(plain(line))
    else:
        on.print(rich_text(lines), soft_wrap=True)
