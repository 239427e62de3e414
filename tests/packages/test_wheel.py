"""The wheel: it has every file of the package, and a node that is installed from it alone serves."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented.running import NO_INDEX, CannotRun, own_network

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [ROOT / "scripts/packaging/wheel", dist],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={"PYTHON": sys.executable, "PATH": "/usr/local/bin:/usr/bin:/bin"} | pip_settings(),
    )
    if built.returncode and any(sign in built.stderr for sign in NO_INDEX):
        pytest.skip(f"pip does not reach its index: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


def pip_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; what the wheel needs is found in that of the tests, and nothing of ours."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
    assert "cacheflow" not in run(*pip, "check").replace("No broken", "")
    return folder / "bin"


def test_the_wheel_has_all_files_of_the_package_and_no_others(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("cacheflow-")}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cacheflow").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == ours
    assert any(name.endswith(".lua") for name in packed) and "cacheflow/py.typed" in packed


def test_the_wheel_says_what_it_is_and_needs(wheel: Path) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert wheel.name == f"cacheflow-{config['metadata']['version']}-py3-none-any.whl"
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    metadata = archive.read(name).decode()
    for line in config["options"]["install_requires"].split("\n"):
        if line and line[0] != "#":
            assert f"Requires-Dist: {line.partition('=')[0].rstrip('<>')}" in metadata
    for extra in config["options.extras_require"]:
        assert f"Provides-Extra: {extra}" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())


def test_what_the_wheel_needs_is_what_is_pinned_for_a_node() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    # A checkout's own nodes have the terminal's extra, too.
    wanted = config["options"]["install_requires"] + config["options.extras_require"]["terminal"]
    needed = re.findall(r"^([a-z-]+)[<>=]", wanted, re.MULTILINE)
    pins = (ROOT / "requirements.txt").read_text().partition("\n# What Flask and rich bring along")[0]
    assert needed == re.findall(r"^([a-z-]+)==", pins, re.MULTILINE)


@contextlib.contextmanager
def serving(command: list[str | Path], network: list[str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*network, *command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_an_installed_node_serves_sets_and_gets(installed: Path, tmp_path: Path) -> None:
    program = installed / "cacheflow"
    assert run(program, "--version", cwd=tmp_path).startswith("cacheflow, version ")
    where = run(installed / "python", "-c", "import cacheflow; print(cacheflow.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent), "not what stands in the checkout"
    try:
        networks = own_network()
        network = networks.__enter__()
    except CannotRun as reason:
        pytest.skip(str(reason))
    with contextlib.ExitStack() as stack:
        stack.push(networks)
        process = stack.enter_context(serving([program, "serve", "--bootstrap"], network, tmp_path))
        deadline = time.monotonic() + TIMEOUT_S
        while subprocess.run(
            [*network, program, "set", "greeting", "hello"], cwd=tmp_path, capture_output=True
        ).returncode:
            assert process.poll() is None and time.monotonic() < deadline
        assert run(*network, program, "get", "greeting", cwd=tmp_path) == "hello\n"
        process.terminate()
        out, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, out.decode()
