"""What the documents show: their blocks of code, and what in their sentences is a command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

RUN, LONG, PYTHON, TEXT = "sh", "sh long", "python", "text"
# The blocks of a drill follow one upon the other, behind the first one of their page, which says what its words mean.
DRILL, ROOTS_DRILL = "sh drill", "sh drill root"
KINDS: Final = (RUN, LONG, PYTHON, TEXT, DRILL, ROOTS_DRILL)
# The kind of a block without a fence: there is no place to say what it is.
INDENTED: Final = "indented"

# These run until Ctrl-C, unless they are only asked for help.
_SERVES: Final = re.compile(r"scripts/(quickstart|launch_cluster\.py)|cacheflow (serve|cluster|demo .*--keep)\b")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_INLINE: Final = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PROGRAMS: Final = (
    "cacheflow",
    "python",
    "python3",
    "pip",
    "pip3",
    "curl",
    "redis-cli",
    "bash",
    "source",
    "git",
    "apt",
)


@dataclass(frozen=True)
class Block:
    """One block of code. document: its path in the checkout.  line: of its first line.  kind: what its fence says."""

    document: str
    line: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        """Where the block stands."""
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; one a line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]

    @property
    def serves(self) -> bool:
        """Whether its commands run until Ctrl-C."""
        return self.kind == RUN and any(map(is_server, self.commands))


def is_server(words: list[str]) -> bool:
    """Whether a command runs until Ctrl-C."""
    return "--help" not in words and _SERVES.search(" ".join(words)) is not None


def documents() -> list[Path]:
    """README and what stands in docs; not the changelog, which tells of what was."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(document: Path) -> list[Block]:
    """The blocks of a document, in order."""
    return list(_blocks(document.relative_to(ROOT).as_posix(), document.read_text()))


def blocks_in(name: str, text: str) -> list[Block]:
    """The blocks of a document that is only text."""
    return list(_blocks(name, text))


def _blocks(name: str, text: str) -> Iterator[Block]:
    fence = ""
    kind = ""
    first = 0
    lines: list[str] = []
    blank = True
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.fullmatch(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2].strip():
                yield Block(name, first, kind, "\n".join(lines) + "\n")
                fence = ""
            else:
                lines.append(line)
        elif found:
            fence, kind, first, lines = found[1], found[2].strip(), number + 1, []
        elif blank and line.strip() and line.startswith(("    ", "\t")):
            yield Block(name, number, INDENTED, line)
        blank = not line.strip()
    if fence:
        yield Block(name, first, "fence without an end", "\n".join(lines))


def inline_code(text: str) -> list[str]:
    """What stands between backticks in the sentences of a document."""
    prose: list[str] = []
    fence = ""
    for line in text.splitlines():
        found = _FENCE.fullmatch(line)
        if fence:
            fence = "" if found and found[1].startswith(fence) else fence
        elif found:
            fence = found[1]
        else:
            prose.append(line)
    paragraphs = "\n".join(prose).split("\n\n")
    return [code for paragraph in paragraphs for code in _INLINE.findall(paragraph.replace("\n", " "))]


def is_command(code: str) -> bool:
    """Whether inline code is a command that somebody might type: a program of ours or of the list, and arguments."""
    program, _, arguments = code.removeprefix("$ ").strip().partition(" ")
    return bool(arguments) and (program in _PROGRAMS or program.startswith(("./", "scripts/", ".venv/", "../")))
