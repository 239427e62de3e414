"""Every command of README and docs is run as written, on a fresh copy of the checkout; long ones are only parsed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from documented import reading
from documented.reading import DRILL, LONG, PYTHON, ROOT, ROOTS_DRILL, RUN, Block
from documented.running import CannotRun, Failed, Machine, new_machine

from cacheflow.cli import settings
from cacheflow.cli.main import commands
from scripts.bench.run import ROWS

DOCUMENTS = reading.documents()
BLOCKS = [block for document in DOCUMENTS for block in reading.blocks_of(document)]
# Pages for users, beside the papers that README names.
SITE_PAGES = ("docs/howto/", "docs/usecases/", "docs/tutorial.md", "docs/migrating.md")
# What stands in these needs a framework: the environment of the tests has them all.
FRAMEWORK_PAGES = ("docs/howto/", "docs/usecases/")
SHELL = [block for block in BLOCKS if block.kind in (RUN, LONG)]
DRILLS = {
    document: [block for block in BLOCKS if block.document == document and block.kind in (DRILL, ROOTS_DRILL)]
    for document in sorted({block.document for block in BLOCKS if block.kind == DRILL})
}


def named(blocks: list[Block]) -> list[object]:
    return [pytest.param(block, id=block.name) for block in blocks]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        with new_machine(tmp_path_factory.mktemp("new-machine")) as machine:
            yield machine
    except CannotRun as reason:
        pytest.skip(str(reason))


def servers_of(block: Block) -> Block | None:
    """The servers that a reader has running who has come to this block: those of the last block that starts some.

    Pages of the site that start none go on from README's quickstart, as the tutorial has left it.
    """
    before = [other for other in BLOCKS if other.document == block.document and other.line <= block.line]
    own = next((other for other in reversed(before) if other.serves), None)
    if own is None and block.document.startswith(SITE_PAGES):
        return next(other for other in BLOCKS if other.serves)
    return own


def python_of(block: Block, machine: Machine) -> list[str]:
    """The Python that runs a block: a new machine's; for a framework's page that of the tests, on the machine's checkout."""
    if block.document.startswith(FRAMEWORK_PAGES):
        return ["env", f"PYTHONPATH={machine.folder}", sys.executable]
    return [".venv/bin/python"]


@pytest.mark.parametrize("block", named(BLOCKS))
def test_a_block_says_what_it_is(block: Block) -> None:
    """So that none escapes: a command without a mark would not be run."""
    assert block.kind in reading.KINDS, f"{block.name}: give it a fence of {', '.join(reading.KINDS)}\n{block.text}"


@pytest.mark.parametrize("block", named([*SHELL, *(block for blocks in DRILLS.values() for block in blocks)]))
def test_a_block_of_commands_is_understood_by_bash(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", named(SHELL))
def test_a_block_of_commands_has_one_a_line(block: Block) -> None:
    assert block.commands and "<<" not in block.text, "one command a line is what this test can read"


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.kind in (RUN, PYTHON)]))
def test_a_documented_command_works_as_written(block: Block, machine: Machine) -> None:
    if block.kind == RUN:
        if missing := machine.missing(block):
            pytest.skip(f"{missing} is not installed")
    if servers := servers_of(block):
        machine.serve(servers)
    if block.kind == PYTHON:
        machine.run([*python_of(block, machine), "-"], text=block.text)
    elif block.serves:
        assert all(map(reading.is_server, block.commands)), "other commands of a block with servers would not be run"
    else:
        # pip needs its index, which is not in the network of the others.
        machine.run(["bash", "-e", "-c", block.text], isolated="pip install" not in block.text)


def may_mount(folder: Path) -> bool:
    """Whether this user may mount a small file system, as for the drill of a full disk."""
    place = folder / "mounted"
    place.mkdir()
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode:
            return False
    except FileNotFoundError:
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


@pytest.mark.parametrize("document", list(DRILLS))
def test_the_drills_of_a_page_go_as_they_stand_there(document: str, machine: Machine) -> None:
    """One after the other, each in a shell of its own that knows the words of the page's first block."""
    machine.stop()
    words, *drills = DRILLS[document]
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    # Whoever pastes them has no settings for curl: the waiting is in the drills.
    beginning = f"unset CURL_HOME\n{words.text}"
    try:
        for block in drills:
            if block.kind == ROOTS_DRILL and not may_mount(machine.logs):
                continue
            try:
                machine.run(["bash", "-e", "-c", beginning + block.text])
            except Failed as error:
                logs = [f"{log}:\n{log.read_text()[-2000:]}" for log in sorted(machine.folder.glob("drill/*.log"))]
                raise Failed(f"{block.name}\n{error}\n{''.join(logs)}") from None
    finally:
        for left in machine.folder.glob("drill/*.pid"):
            with contextlib.suppress(OSError, ValueError):
                # The number may be another process's by now.
                if b"drill/node.toml" in Path(f"/proc/{int(left.read_text())}/cmdline").read_bytes():
                    os.kill(int(left.read_text()), signal.SIGKILL)
        small = machine.folder / "drill/small"
        if small.is_mount():
            subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.kind == LONG]))
def test_a_long_command_names_what_there_is(block: Block, machine: Machine) -> None:
    for words in block.commands:
        program, *arguments = words
        assert os.access(machine.folder / program, os.X_OK), f"{program} is no program"
        command = python_of(block, machine) if program.endswith("/python") else [program]
        if program.endswith("/python"):
            assert (machine.folder / arguments[0]).is_file(), f"{arguments[0]} is no file"
            command.append(arguments.pop(0))
        elif program.endswith("/cacheflow"):
            command.append(arguments.pop(0))
            if command[-1] == "cert":
                command.append(arguments.pop(0))
        flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
        # Its help would be pytest's, after an installation of what tests need.
        if program.endswith("/test"):
            assert not flags
            continue
        known = machine.run([*command, "--help"])
        assert flags <= set(re.findall(r"--[a-z][\w-]*", known)), f"{' '.join(words)}\n{known}"
        if program.endswith("/soak"):
            assert re.search(rf"scripts/soak {arguments[0]}\s", known)
        if command[-1].endswith("bench/run.py"):
            assert {word for word in arguments if not word.startswith("-")} <= set(ROWS)


def test_the_tests_that_the_soak_names_are_there() -> None:
    named = re.findall(r"tests[/.][\w./*]+", (ROOT / "scripts/soak").read_text())
    assert named
    for name in named:
        assert any(list(ROOT.glob(each)) for each in (name, name.replace(".", "/"), f"{name.replace('.', '/')}.py")), (
            name
        )


def options_of(command: click.Command) -> Iterator[str]:
    """All options of a command and of those below it."""
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from options_of(below)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_a_command_in_a_sentence_stands_in_a_block_as_well(document: Path) -> None:
    shell = [*SHELL, *DRILLS.get(document.relative_to(ROOT).as_posix(), [])]
    shown = [" ".join(words) for block in shell for words in block.commands]
    flags = {setting.flag for setting in settings.SETTINGS} | set(options_of(commands))
    flags |= {word for block in SHELL for words in block.commands for word in words if word.startswith("--")}
    for code in reading.inline_code(document.read_text()):
        word = code.split()[0]
        if reading.is_command(code):
            # tests/upstream runs the program of each report.
            own = re.fullmatch(r"python (\S+\.py)", code)
            stands_beside = own is not None and (document.parent / own[1]).is_file()
            assert stands_beside or any(code in command for command in shown), code
        elif word.startswith("--"):
            assert word.partition("=")[0] in flags, code
        elif word.startswith(("scripts/", "./scripts/", "tests/", "docs/")):
            assert (ROOT / word).exists(), code


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```sh long\na\n```\n", LONG),
        ("```bash\na\n```\n", "bash"),
        ("```\na\n```\n", ""),
        ("words\n\n    ./scripts/test\n", reading.INDENTED),
        ("~~~python\na\n~~~\n", PYTHON),
        ("```sh\na\n", "fence without an end"),
    ],
)
def test_each_way_to_show_code_is_found(text: str, kind: str) -> None:
    assert [block.kind for block in reading.blocks_in("a document", text)] == [kind]


def test_commands_in_sentences_are_found() -> None:
    found = reading.inline_code("run `./scripts/test\n-k x`, not\n\n```sh\n`a b`\n```\n\nwith `x`")
    assert found == ["./scripts/test -k x", "x"]
    assert [code for code in found if reading.is_command(code)] == ["./scripts/test -k x"]
