#!/usr/bin/env python3
"""Makes the tables of figures in README.md and docs/*.md from scripts/bench/figures.json.

    scripts/bench/tables.py            rewrite what stands between the markers
    scripts/bench/tables.py --check    say what differs, and end with 1 when something does
    scripts/bench/tables.py --stale    say which figures were not measured on today's cacheflow/

A table stands between the lines "<!-- figures: NAME -->" and "<!-- end of figures -->". What a row is called there and how
its figures are written stands beside what measures them: WHAT and shown() in scripts/bench/rows/ and more/.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import figures, run
from scripts.bench.figures import Figures, Record
from scripts.bench.harness import rounded
from scripts.bench.more import delays
from scripts.bench.peers import compare

BEGIN = "<!-- figures:"
BLOCK = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end of figures -->", re.DOTALL)
# Table -> the rows in it, in this order. Every row stands in one of them.
ROWS_OF = {
    "measured": (
        *(
            "durability",
            "kills",
            "failover",
            "resume",
            "replacement",
            "recovery",
            "freshness",
            "trace",
            "skew",
            "digests",
            "wire",
        ),
        *(
            "batch",
            "rest",
            "noleader",
            "overload",
            "embedded",
            "steady",
            "looppauses",
            "snapshot",
            "backup",
            "memory",
            "start",
            "idle",
            "django",
        ),
    ),
    "promises": ("cas", "counted", "scripts", "lfu", "idlerestart", "clearing", "expiring", "settings"),
    "costs": ("pauses", "flat", "calls", "tls", "holds", "slowclients", "watch"),
    "delays": ("delays",),
}
# What README shows of all that was measured: rows, and comparisons with a peer.
HEADLINES = ("durability", "failover", "embedded", "GET, leader / redis-server", "SET / etcd put, 64 connections")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when a table differs from the file")
    parser.add_argument("--stale", action="store_true", help="write nothing; which figures are of an older cacheflow/")
    options = parser.parse_args(arguments)
    kept = figures.read()
    if options.stale:
        print("\n".join(stale(kept, figures.tree_hash())))
        return 0
    differing = 0
    for page in pages():
        lines = differences(page, kept)
        differing += bool(lines)
        if options.check and lines:
            print("\n".join(lines))
        elif lines:
            page.write_text(rewritten(page.read_text(), kept))
            print(f"{page.name} rewritten")
    return 1 if options.check and differing else 0


def pages(root: Path = figures.ROOT) -> list[Path]:
    """The files that may have tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def differences(page: Path, kept: Figures) -> list[str]:
    """What stands in the page and what should, as lines of a diff."""
    text = page.read_text()
    made = rewritten(text, kept)
    return list(
        difflib.unified_diff(text.splitlines(), made.splitlines(), page.name, figures.FILE.name, lineterm="", n=0)
    )


def rewritten(text: str, kept: Figures) -> str:
    """``text`` with every table made anew. Raises ValueError for a marker without its end or with an unknown name."""

    def table(block: re.Match[str]) -> str:
        name = block[1]
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; tables are {', '.join(TABLES)}")
        return "\n".join([f"{BEGIN} {name} -->", "", *TABLES[name](kept), "", "<!-- end of figures -->"])

    made, found = BLOCK.subn(table, text)
    if found != text.count(BEGIN):
        raise ValueError("a table has no end, or its first line is not '<!-- figures: NAME -->'")
    return made


def stale(kept: Figures, tree: str) -> list[str]:
    """Lines that name what was measured on another tree, the oldest first."""
    older = figures.older(kept, tree)
    lines = [f"{name}: {record['date']}, cacheflow/ {record['cacheflow']}" for name, record in older]
    return [f"cacheflow/ is {tree} now; {len(older)} figures are older{':' if older else ''}", *lines]


def _of_rows(names: Sequence[str]) -> Callable[[Figures], list[str]]:
    def table(kept: Figures) -> list[str]:
        lines = ["| what | measured | row |", "|---|---|---|"]
        lines += [_line(name, kept["rows"].get(name)) for name in names]
        runs = {name: kept["rows"][name] for name in names if name in kept["rows"]}
        return [*lines, *(["", *_told(runs)] if runs else [])]

    return table


def _line(name: str, record: Record | None) -> str:
    row = run.module_of(name)
    if record is None:
        return f"| {row.WHAT} | not measured yet | {name} |"
    missed = "" if record["passed"] else f" **missed**, must: {record['must']}"
    return f"| {row.WHAT} | {row.shown(record['figures'])}{missed} | {name} |"


def _headlines(kept: Figures) -> list[str]:
    lines = ["| what | measured | row |", "|---|---|---|"]
    runs: dict[str, Record] = {}
    for name in HEADLINES:
        kind = "rows" if name in run.ROWS else "peers"
        record = kept[kind].get(name)
        if kind == "rows":
            lines.append(_line(name, record))
        elif record is None:
            lines.append(f"| {name} | not measured yet | peers |")
        else:
            ours, theirs, ratio = _compared(record)
            lines.append(f"| {name} | {ours} / {theirs}, ratio {ratio} | peers |")
        if record is not None:
            runs[name] = record
    return [*lines, *(["", *_told(runs)] if runs else [])]


def _peers(kept: Figures) -> list[str]:
    lines = ["| | CacheFlow | peer | ratio |", "|---|---|---|---|"]
    runs = {row.name: kept["peers"][row.name] for row in compare.rows() if row.name in kept["peers"]}
    lines += [f"| {name} | {' | '.join(_compared(record))} |" for name, record in runs.items()]
    repeats = sorted({record["figures"]["repeats"] for record in runs.values()})
    return [*lines, "", f"Medians of {' or '.join(map(str, repeats))} turns.", *_told(runs)]


def _compared(record: Record) -> list[str]:
    """What this project did, what the peer did, and the ratio."""
    found = record["figures"]
    missed = "" if record["passed"] else f" **missed**, must: {record['must']}"
    ours, theirs = (f"{rounded(found[who])}{found['unit']}" for who in ("ours", "theirs"))
    return [ours, theirs, f"{found['ratio']:.2f}{missed}"]


def _told(runs: dict[str, Record]) -> list[str]:
    """When, where and on which tree: one line for the newest runs, one for each others, which it names."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, record in runs.items():
        groups.setdefault((record["date"], record["cacheflow"], record["machine"]), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: (group[0][0], len(group[1])), reverse=True)
    lines: list[str] = []
    for (date, tree, machine), names in ordered:
        which = f"Measured earlier or elsewhere ({'; '.join(names)}):" if lines else "Measured"
        lines.append(f"{which} {date}, {machine}, `cacheflow/` {tree}.")
    return lines


def _delays(kept: Figures) -> list[str]:
    record = kept["rows"].get("delays")
    if record is None:
        return delays.table(None)
    missed = [] if record["passed"] else [f"**Missed**, must: {record['must']}.", ""]
    return [*delays.table(record["figures"]), "", *missed, *_told({"delays": record})]


TABLES: dict[str, Callable[[Figures], list[str]]] = {
    **{name: _of_rows(rows) for name, rows in ROWS_OF.items()},
    "delays": _delays,
    "peers": _peers,
    "headlines": _headlines,
}


if __name__ == "__main__":
    sys.exit(main())
