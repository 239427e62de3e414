"""Tables that fit the width of a terminal: columns of little importance are left out, long texts are cut.

A line is a list of pieces, (text, style). They are printed as they are where there are no colours, and coloured elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

# Styles: what a piece of text says, of which the colour follows.
PLAIN: Final = ""
GOOD: Final = "good"
BAD: Final = "bad"
NOTED: Final = "noted"
FAINT: Final = "faint"
TITLE: Final = "title"

Row = Mapping[str, Any]
Piece = tuple[str, str]
Line = list[Piece]
GAP: Final = "  "


class Column(NamedTuple):
    """One column of a table. show: makes the text of a row's cell.  importance: columns with the lowest are left out first.

    least: the fewest characters to which a long text may be cut; None if it must not be.  left: True to align to the left.
    style: makes the style of a row's cell.
    """

    title: str
    show: Callable[[Row], str]
    importance: int
    left: bool = False
    least: int | None = None
    style: Callable[[Row], str] = lambda row: PLAIN


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> list[Line]:
    """Return ``rows`` as the lines of a table, with a line of titles, that is at most ``width`` characters wide (None: any)."""
    cells = [[column.show(row) for row in rows] for column in columns]
    natural = [max(map(wide, [column.title, *texts])) for column, texts in zip(columns, cells, strict=True)]
    shown = _fitting(columns, natural, width)
    lines: list[Line] = [[]]
    _append(lines[0], [(columns[i].title, shown[i], columns[i].left, TITLE) for i in shown])
    for number, row in enumerate(rows):
        line: Line = []
        _append(line, [(cells[i][number], shown[i], columns[i].left, columns[i].style(row)) for i in shown])
        lines.append(line)
    return lines


def _fitting(columns: Sequence[Column], natural: Sequence[int], width: int | None) -> dict[int, int]:
    """Return {number of a column: its width} of the columns that are shown, in their order.

    natural: how wide each column is when nothing of it is cut. Whether something is known of it does not count: columns that
    came and went with the figures could not be read.
    """
    if width is None:
        return dict(enumerate(natural))
    least = [
        wanted if column.least is None else min(wanted, max(column.least, wide(column.title)))
        for column, wanted in zip(columns, natural, strict=True)
    ]
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(least[i] for i in kept) + len(GAP) * (len(kept) - 1) > width:
        kept.remove(min(kept, key=lambda i: (columns[i].importance, -i)))
    room = width - sum(least[i] for i in kept) - len(GAP) * (len(kept) - 1)
    widths = {}
    # What is left over goes to texts that were cut, to the most important ones first.
    for i in sorted(kept, key=lambda i: -columns[i].importance):
        more = min(max(room, 0), natural[i] - least[i])
        widths[i] = min(least[i] + more, width)
        room -= more
    return {i: widths[i] for i in kept}


def _append(line: Line, cells: Sequence[tuple[str, int, bool, str]]) -> None:
    """Append ``cells``, (text, width, aligned to the left, style), to ``line``; the last one gets no blanks behind it."""
    for number, (text, width, left, style) in enumerate(cells):
        shown = cut(text, width)
        blanks = " " * (width - wide(shown))
        line.append((GAP if number else "", PLAIN))
        line += [(shown, style), (blanks, PLAIN)] if left else [(blanks, PLAIN), (shown, style)]
    while line and not line[-1][0].strip():
        line.pop()


def plain(line: Line) -> str:
    """Return the text of ``line`` without its styles."""
    return "".join(text for text, _ in line)


def cut(text: str, width: int) -> str:
    """Return ``text``, or the beginning of it that is ``width`` characters wide, with a sign that it goes on."""
    if wide(text) <= width:
        return text
    shown, room = "", width - 1
    for each in text:
        room -= wide(each)
        if room < 0:
            break
        shown += each
    return f"{shown}…"[:width] if width > 0 else ""


def cut_line(line: Line, width: int) -> Line:
    """Return ``line``, or as much of it as is ``width`` characters wide."""
    found: Line = []
    for text, style in line:
        shown = cut(text, width)
        found.append((shown, style))
        width -= wide(shown)
        if shown != text:
            break
    return found


def wide(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
