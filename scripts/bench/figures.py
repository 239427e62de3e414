"""The file of what was measured: the newest whole run of each row, with the tree it ran on, the date and the machine.

The tables of README and docs are made from it (tables.py). Only run.py and compare.py write it: a figure without a run
that printed it is none.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cacheflow"
FILE = Path(__file__).with_name("figures.json")
# What a record is of: a row of run.py, or a comparison with a peer.
KINDS = ("rows", "peers")
# Of the hash: as many digits as name a tree beyond doubt and fit into a sentence.
DIGITS = 12

Record = dict[str, Any]
# By kind and name.
Figures = dict[str, dict[str, Record]]


def tree_hash(package: Path = PACKAGE) -> str:
    """The hash of every file of the package by its path and contents; not of what Python or an editor leaves there."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        parts = path.relative_to(package).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            contents = path.read_bytes()
            # With lengths, so that nothing moves from one file to the next unseen.
            digest.update(f"{'/'.join(parts)}\0{len(contents)}\0".encode() + contents)
    return digest.hexdigest()[:DIGITS]


def read(file: Path | None = None) -> Figures:
    """All records; file: another one than FILE."""
    kept = json.loads((file or FILE).read_text())
    return {kind: kept.get(kind, {}) for kind in KINDS}


def keep(kind: str, name: str, found: Record, *, tree: str, machine: str) -> None:
    """Write ``found`` (must, measured, passed, figures) in the place of the last run of the same name."""
    kept = read() if FILE.exists() else {kind: {} for kind in KINDS}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    kept[kind][name] = {**found, "cacheflow": tree, "date": today, "machine": machine}
    ordered = {kind: dict(sorted(kept[kind].items())) for kind in KINDS}
    FILE.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n")


def older(figures: Figures, tree: str) -> list[tuple[str, Record]]:
    """The name and record of each run that was on another tree, the oldest first."""
    found = [(name, record) for kind in KINDS for name, record in figures[kind].items() if record["cacheflow"] != tree]
    return sorted(found, key=lambda each: (each[1]["date"], each[0]))
