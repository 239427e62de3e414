"""The documentation as a site: built without the network, no dead link, nothing from another host, every page in the menu."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What the theme's footer links to, and does not load.
THEME = "https://www.mkdocs.org/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    config = str(ROOT / "docs/site/mkdocs.yml")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config]
    done = subprocess.run([*command, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_docs_is_built(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    # A folder's README is its index.
    assert {page.with_name("index.html") if page.stem == "README" else page for page in pages} <= built


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"((?:https?:)?//[^\"]+)", page.read_text())
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", style.read_text()), style


def test_each_command_and_name_has_its_place_in_the_reference(site: Path) -> None:
    from cacheflow import __all__ as names
    from cacheflow.cli.main import commands

    python = (site / "reference/python.html").read_text()
    assert not [name for name in names if f'id="{name.lower()}"' not in python]
    command_line = (site / "reference/command-line.html").read_text()
    assert not [name for name in commands.commands if f'id="{name}"' not in command_line]
    assert "PUT /cache/{key}" in (site / "reference/http.html").read_text()


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[gone](gone.md)")
    ours = (ROOT / "docs/site/mkdocs.yml").read_text()
    validation = ours[ours.index("validation:") : ours.index("\nnav:")]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "gone.md" in done.stdout + done.stderr
