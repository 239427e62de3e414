"""The repository's own checks, as the tests' interpreter has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TREES = ("cacheflow", "tests", "scripts")


def check(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", *TREES, "docs")


def test_the_code_is_formatted() -> None:
    check("ruff", "format", "--check", *TREES, "docs")


def test_mypy_finds_nothing() -> None:
    check("mypy", *TREES)
