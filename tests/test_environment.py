"""How scripts/environment.sh makes an environment, with a Python whose venv and pip only pretend."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60
TOOLS = ("bash", "cat", "cp", "dirname", "mkdir", "mv", "rm", "env")

# Notes each installation in the checkout's `installed`, the project's with its folder. `cacheflow` prints its arguments.
PYTHON = """#!{bash}
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip --version") ;;
    "-m pip install "*"-r /dev/stdin")
        echo "begun" >>installed
        while IFS= read -r line; do case "$line" in *==*) echo "$line" ;; esac; done >>installed
        {real} -c 'import time; time.sleep(0.2)'
        ;;
    "-m pip install "*)
        echo "project" >>installed
        echo '#!{bash}' >"${{0%/*}}/cacheflow" && echo 'printf "%s|" "$PWD" "$@"' >>"${{0%/*}}/cacheflow"
        {real} -c 'import os, sys; os.chmod(sys.argv[1], 0o755)' "${{0%/*}}/cacheflow"
        ;;
    *) exec {real} "$@" ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder that holds all programs there are: bash, some of coreutils and the pretended Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    python = folder / "python3"
    python.write_text(PYTHON.format(bash=shutil.which("bash"), real=sys.executable))
    python.chmod(0o755)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / "scripts").mkdir(parents=True)
    for name in ("environment.sh", "quickstart", "launch_cluster.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    (folder / "requirements.txt").write_text("a-node==1\n# Tests (and more)\na-linter==2\n")
    (folder / "setup.cfg").write_text("[metadata]\n")
    (folder / "pyproject.toml").write_text("[tool]\n")
    return folder


def start(checkout: Path, tools: Path, *command: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [shutil.which("bash") or "bash", "-c", 'exec "$@"', "bash", *command],
        cwd=cwd or checkout,
        # Should the real pip be started after all, it finds nothing.
        env={"PATH": str(tools), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(checkout: Path, tools: Path, *command: str, cwd: Path | None = None) -> tuple[int, str, str]:
    with start(checkout, tools, *command, cwd=cwd) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def prepare(checkout: Path, tools: Path, folder: str = ".venv") -> tuple[int, str, str]:
    return run(
        checkout,
        tools,
        "bash",
        "-c",
        f'set -eu; . scripts/environment.sh; prepare_environment {folder}; echo "$python"',
    )


def installed(checkout: Path) -> list[str]:
    """What has been installed since the last call."""
    noted = checkout / "installed"
    lines = noted.read_text().split() if noted.exists() else []
    noted.unlink(missing_ok=True)
    return lines


def test_a_node_s_environment_has_the_project_and_not_what_tests_need(checkout: Path, tools: Path) -> None:
    code, out, err = prepare(checkout, tools)
    assert (code, out) == (0, f"{checkout}/.venv/bin/python\n"), err
    assert installed(checkout) == ["begun", "a-node==1", "project"]
    assert prepare(checkout, tools, ".venv-test")[0] == 0
    assert installed(checkout) == ["begun", "a-node==1", "a-linter==2", "project"]


def test_the_second_start_installs_nothing_and_says_nothing(checkout: Path, tools: Path) -> None:
    prepare(checkout, tools)
    installed(checkout)
    code, _, err = prepare(checkout, tools)
    assert (code, err, installed(checkout)) == (0, "", [])


@pytest.mark.parametrize("name", ["requirements.txt", "setup.cfg", "pyproject.toml"])
def test_what_an_environment_was_made_from_has_changed(checkout: Path, tools: Path, name: str) -> None:
    prepare(checkout, tools)
    installed(checkout)
    (checkout / name).write_text("a-node==3\n")
    (checkout / ".venv" / "here before").touch()
    assert prepare(checkout, tools)[0] == 0
    assert installed(checkout)[-1] == "project"
    assert (checkout / ".venv" / "here before").exists()


def test_an_environment_that_was_moved_with_its_checkout_is_made_anew(checkout: Path, tools: Path) -> None:
    prepare(checkout, tools)
    installed(checkout)
    (checkout / ".venv" / "of the old place").touch()
    moved = checkout.rename(checkout.with_name("moved"))
    assert prepare(moved, tools)[1] == f"{moved}/.venv/bin/python\n"
    assert installed(moved) == ["begun", "a-node==1", "project"]
    assert not (moved / ".venv" / "of the old place").exists()


def test_an_interrupted_installation_is_done_again(checkout: Path, tools: Path) -> None:
    prepare(checkout, tools)
    installed(checkout)
    (checkout / ".venv" / "stamp").unlink()
    assert prepare(checkout, tools)[0] == 0
    assert installed(checkout) == ["begun", "a-node==1", "project"]


def test_of_scripts_that_start_at_once_one_installs_and_the_others_wait(checkout: Path, tools: Path) -> None:
    command = ("bash", "-c", "set -eu; . scripts/environment.sh; prepare_environment .venv; .venv/bin/cacheflow ok")
    processes = [start(checkout, tools, *command) for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0 and "|ok|" in out, err
    assert installed(checkout) == ["begun", "a-node==1", "project"]


def test_the_launcher_prepares_and_hands_its_arguments_on(checkout: Path, tools: Path, tmp_path: Path) -> None:
    script = str(checkout / "scripts" / "launch_cluster.py")
    command = ("env", f"PYTHON={tools}/python3", script, "--nodes", "3", "--data-dir", "my data")
    code, out, err = run(checkout, tools, *command, cwd=tmp_path)
    # The data are under the folder it was called from, or where it is told.
    assert (code, out) == (0, f"{tmp_path}|cluster|--nodes|3|--data-dir|my data|"), err


def test_the_quickstart_runs_what_it_has_installed(checkout: Path, tools: Path) -> None:
    code, out, err = run(checkout, tools, "scripts/quickstart", "--base-port", "9000")
    assert (code, out) == (0, f"{checkout}|cluster|--nodes|3|--data-dir|data|--tour|--base-port|9000|"), err


@pytest.mark.parametrize("script", ["quickstart", "launch_cluster.py"])
def test_an_old_python_is_told_in_one_line(checkout: Path, tools: Path, script: str) -> None:
    old = tools / "python3"
    old.unlink()
    # Asked for its version it says no, but it starts the launcher.
    old.write_text(f'#!{shutil.which("bash")}\n[ "$1" = -c ] && exit 1\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    code, out, err = run(checkout, tools, "env", f"PYTHON={old}", f"scripts/{script}")
    assert (code, out) == (2, "")
    assert err.startswith(f"{script}: needs Python 3.11 or later") and err.count("\n") == 1


def test_the_launcher_without_bash_says_so(checkout: Path, tools: Path) -> None:
    (tools / "bash").unlink()
    code, out, err = run(checkout, tools, sys.executable, "scripts/launch_cluster.py", "--nodes", "3")
    assert (code, out) == (2, "")
    assert err.startswith("launch_cluster.py: needs bash") and err.count("\n") == 1


def test_every_pin_has_the_hashes_of_its_files() -> None:
    # pip takes nothing without a hash as soon as one thing has one.
    blocks = re.split(r"\n(?=[^ #])", (ROOT / "requirements.txt").read_text())
    pins = [block for block in blocks if "==" in block.partition("\n")[0]]
    assert len(pins) > 20
    for pin in pins:
        first, *hashes = [line for line in pin.splitlines() if not line.startswith("#")]
        assert first.endswith(" \\") and hashes, pin
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), pin
