"""Texts into and out of commands, in processes of their own: there is no other way to have another locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.http_node import FakeNode

ROOT = Path(__file__).parents[2]
# In each Python decodes arguments, and encodes output, in another way.
TERMINALS = {
    "utf-8": {"PYTHONUTF8": "1"},
    "latin-1": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "C": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
}
KEY = "\u00fc\u2603\U0001f600"


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


def run(node: FakeNode, terminal: str, *arguments: str | bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [os.fsencode(each) for each in (sys.executable, "-m", "cacheflow", *arguments)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "CACHEFLOW_URL": node.url, **TERMINALS[terminal]},
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("terminal", TERMINALS)
def test_any_key_is_written_read_and_shown_in_any_terminal(node: FakeNode, terminal: str) -> None:
    typed = KEY.encode()
    assert run(node, terminal, "set", typed, "v")[0] == 0
    assert list(node.state.entries) == [KEY]
    assert run(node, terminal, "get", typed)[:2] == (0, b"v\n")
    assert json.loads(run(node, terminal, "get", typed, "--json")[1])["key"] == KEY
    assert json.loads(run(node, terminal, "keys", "--json")[1]) == [KEY]
    code, shown, _ = run(node, terminal, "keys")
    assert code == 0
    if terminal == "latin-1":
        assert shown == b"\xfc\\u2603\\U0001f600\n"
    assert run(node, terminal, "get", "\u2603".encode())[0] == 1
    assert run(node, terminal, "\u2603".encode())[0] == 2
    assert run(node, terminal, "--host", "\u2603".encode())[0] == 2


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize(
    "arguments",
    [("get", b"k\xff"), ("set", b"k\xff", "v"), ("delete", b"k\xff"), ("incr", b"k\xff"), ("keys", b"k\xff")],
    ids=lambda arguments: arguments[0],
)
def test_a_key_that_is_no_utf_8_is_a_usage_error(
    node: FakeNode, terminal: str, arguments: tuple[str | bytes, ...]
) -> None:
    code, _, err = run(node, terminal, *arguments)
    assert code == 2
    assert b"is not UTF-8" in err
    assert not node.state.entries


def test_a_value_may_be_any_bytes(node: FakeNode) -> None:
    assert run(node, "utf-8", "set", "k", b"\xff\xfe", "--type", "bytes")[0] == 0
    assert node.state.entries["k"].value == b"\xff\xfe"
    assert run(node, "utf-8", "set", "k", b"\xff\xfe")[0] == 2


def test_a_path_may_begin_with_the_user_s_home(node: FakeNode, tmp_path: Path) -> None:
    for flag in ("--api-token-file", "--trace"):
        code, _, err = run(node, "utf-8", "bench", "--ops", "1", flag, "~nobody-of-that-name/x")
        assert code == 2 and b"does not know" in err
        assert run(node, "utf-8", "bench", "--ops", "1", flag, "")[0] == 2
    assert run(node, "utf-8", "get", "k", "--url", "")[0] == 2
