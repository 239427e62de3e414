"""The bugs that the guards are for are still there: each program of docs/upstream shows its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "docs" / "upstream"
STAGE = REPORTS / "stage.py"
PROGRAMS = sorted(REPORTS.glob("[0-9]*.py"))
# The rows of the audit that are reported.
ROWS = ["01", "02", "03", "04", "05", "06", "07", "16", "17", "26", "31"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_reproduction_shows_its_bug(program: Path, tmp_path: Path) -> None:
    # The report's own command, where `python` is this one.
    written = re.search(r"`(python \S+)`", program.with_suffix(".md").read_text())
    assert written is not None
    for file in (program, STAGE):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        ["bash", "-c", written[1]],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "expected:" in done.stdout, done.stderr
    assert done.returncode == 0, (
        f"{program.name} does not show its bug with pysyncobj {version('pysyncobj')}: if a new version has mended it, "
        f"take the report away and see whether its guard can go.\n{done.stdout}{done.stderr}"
    )


def test_every_report_has_its_program_and_is_listed() -> None:
    assert [program.stem[:2] for program in PROGRAMS] == ROWS
    listed = (REPORTS / "README.md").read_text()
    for program in PROGRAMS:
        report = program.with_suffix(".md").read_text()
        assert "0.3.17" in report and f"python {program.name}" in report
        assert f"({program.stem}.md)" in listed
    assert len(list(REPORTS.glob("[0-9]*.md"))) == len(PROGRAMS)


def test_a_program_reaches_for_nothing_but_pysyncobj_the_standard_library_and_the_stage() -> None:
    for program in (*PROGRAMS, STAGE):
        imported = {
            line.split()[1].partition(".")[0]
            for line in program.read_text().splitlines()
            if line.startswith(("import ", "from "))
        }
        assert imported - {"pysyncobj", STAGE.stem} <= sys.stdlib_module_names
