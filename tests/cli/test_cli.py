"""The command line, in this process; nodes only pretend."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fakes import http_node
from fakes.http_node import FakeNode

from cacheflow.access.roles import Role
from cacheflow.access.users import Access
from cacheflow.cli import launcher, main
from cacheflow.config import NodeConfig
from cacheflow.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    with FakeNode() as node:
        monkeypatch.setenv("CACHEFLOW_URL", node.url)
        yield node


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """The configurations that ``serve`` was about to run."""
    configs: list[NodeConfig] = []
    fake = ModuleType("cacheflow.cli.server")

    def run(config: NodeConfig) -> int:
        configs.append(config)
        return 0

    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cacheflow.cli.server", fake)
    monkeypatch.setattr("cacheflow.cli.server", fake, raising=False)
    return configs


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_get_prints_text_bytes_and_json(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    node.state.write("t", "text", None)
    node.state.write("b", b"\x01bytes", None)
    node.state.write("j", {"b": 1, "a": [None]}, 5)
    assert run(capfd, "get", "t") == (0, "text\n", "")
    assert run(capfd, "get", "b") == (0, "\x01bytes", "")
    assert run(capfd, "get", "j") == (0, '{"a":[null],"b":1}\n', "")
    assert json.loads(run(capfd, "get", "j", "--json")[1]) == {"key": "j", "value": {"b": 1, "a": [None]}} | {
        "ttl": 5,
        "version": 3,
    }
    assert json.loads(run(capfd, "get", "b", "--json")[1])["encoding"] == "base64"


def test_a_missing_key_is_a_no(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "get", "k") == (1, "", "cacheflow: 'k' is absent\n")
    assert run(capfd, "delete", "k")[0] == 1
    assert run(capfd, "incr", "k")[0] == 1


def test_set_takes_types_and_conditions(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "set", "k", "v", "--ttl", "9.5") == (0, "created, version 1\n", "")
    assert run(capfd, "set", "k", "[1]", "--type", "json")[1] == "replaced, version 2\n"
    assert node.state.entries["k"].value == [1]
    assert run(capfd, "set", "k", "x", "--if-absent")[0] == 1
    assert run(capfd, "set", "k", "x", "--if-version", "1")[0] == 1
    assert run(capfd, "set", "k", "x", "--if-version", "2", "--type", "bytes")[0] == 0
    assert node.state.entries["k"].value == b"x"
    assert json.loads(run(capfd, "set", "k", "y", "--json")[1])["version"] == 4
    assert run(capfd, "set", "k", "{", "--type", "json")[0] == 2


def test_counters_take_negative_steps(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "incr", "n", "--initial", "10")[1] == "11\n"
    assert run(capfd, "incr", "n", "-5")[1] == "6\n"
    assert run(capfd, "incr", "n", "--json")[1] == '{"key": "n", "value": 7}\n'


def test_keys_and_delete(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    for key in ("a1", "a2", "b"):
        node.state.write(key, 1, None)
    assert run(capfd, "keys", "a")[1] == "a1\na2\n"
    assert run(capfd, "keys", "--json")[1] == '["a1", "a2", "b"]\n'
    assert run(capfd, "delete", "a1", "x") == (0, "1 deleted\n", "")


def test_the_level_is_shown_and_raised(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "level") == (0, "1\n", "")
    assert run(capfd, "level", "2", "--json") == (0, '{"level": 2}\n', "")
    assert run(capfd, "level", "3") == (1, "", "cacheflow: member b does not know it\n")


def test_a_flag_beats_the_variable_and_several_addresses_are_tried(
    node: FakeNode, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"http://127.0.0.1:{launcher.free_ports(1)[0]}"
    monkeypatch.setenv("CACHEFLOW_URL", dead)
    assert run(capfd, "keys", "--url", node.url)[0] == 0
    monkeypatch.setenv("CACHEFLOW_URL", f"{dead}, {node.url}")
    assert run(capfd, "keys")[0] == 0
    code, _, err = run(capfd, "keys", "--url", dead)
    assert (code, err.count("\n")) == (3, 1) and "no node answered" in err


def test_a_token_is_read_from_its_file(node: FakeNode, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    run(capfd, "keys", "--api-token-file", str(file))
    assert node.requests[-1][2]["authorization"] == "Bearer 0123456789abcdef"
    code, _, err = run(capfd, "keys", "--api-token-file", str(tmp_path / "absent"))
    assert code == 2 and "cannot be read" in err


def test_a_new_token_comes_with_its_line_for_the_file_of_users(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(capfd, "token", "web-1", "write")
    assert (code, err) == (0, "")
    token, line = [row.rpartition(":  ")[2] for row in out.splitlines()]
    code, out, _ = run(capfd, "token", "ops", "admin", "--json")
    told = json.loads(out)
    assert code == 0 and (told["name"], told["role"]) == ("ops", "admin") and told["token"] not in told["line"]
    users = tmp_path / "users"
    users.write_text(f"{line}\n{told['line']}\n")
    access = Access(None, users)
    for shown, name, role in ((token, "web-1", Role.WRITE), (told["token"], "ops", Role.ADMIN)):
        user = access.user_of(shown.encode())
        assert user is not None and (user.name, user.role) == (name, role)
    for wrong in (("default", "read"), ("a b", "read"), ("a", "nobody")):
        code, out, err = run(capfd, "token", *wrong)
        assert code == 2 and out == "" and err


def test_bench_prints_a_table_or_json(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "bench", "--ops", "50", "--clients", "2")
    assert (code, err) == (0, "")
    assert "p99_ms" in out and "reads" in out and "writes" in out
    found = json.loads(run(capfd, "bench", "--ops", "50", "--batch", "10", "--write-ratio", "1", "--json")[1])
    assert found["kinds"][0]["ops"] == 50


def test_bench_replays_a_trace(node: FakeNode, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "t.trace"
    file.write_bytes(struct.pack(">4I", 1, 2, 1, 1))
    assert "hit ratio 50.00% (2 of 4)" in run(capfd, "bench", "--trace", str(file))[1]
    assert json.loads(run(capfd, "bench", "--trace", str(file), "--ops", "2", "--json")[1])["hits"] == 2


def test_bench_tells_when_nobody_answers(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "bench", "--ops", "5", "--url", f"http://127.0.0.1:{launcher.free_ports(1)[0]}")
    assert code == 3 and "no node answered" in err


def test_bench_and_demo_start_nodes_of_their_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "COMMAND", (sys.executable, http_node.__file__))
    # Of other nodes: these are asked without TLS, and say so.
    monkeypatch.setenv("CACHEFLOW_CA", "ca.crt")
    code, out, _ = run(capfd, "bench", "--nodes", "2", "--ops", "10", "--write-ratio", "1", "--max-items", "5")
    assert code == 0 and "writes" in out
    code, out, _ = run(capfd, "demo")
    assert code == 0 and "3 nodes ready" in out and "a pause of" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("get", "k", "--colour"),
        ("nonsense",),
        ("get", ""),
        ("keys", "--url", "ftp://x"),
        ("bench", "--colour", "red"),
        ("bench", "--nodes", "1", "--url", "http://x"),
        ("bench", "--nodes", "1", "--ca", "ca.crt"),
        ("bench", "--ops", "0"),
        ("cluster", "--nodes", "0"),
        ("--port", "x"),
        ("serve", "--colour"),
    ],
)
def test_wrong_usage_is_2_and_no_traceback(
    node: FakeNode, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, _, err = run(capfd, *arguments)
    assert code == 2
    assert err and "Traceback" not in err


def test_serve_is_the_default_command(served: list[NodeConfig], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd)[0] == 0
    assert run(capfd, "--port", "1234", "--seed", "http://a", "--seed", "http://b")[0] == 0
    assert run(capfd, "serve", "--max-items", "none", "--persistence", "false", "--bootstrap")[0] == 0
    assert [config.port for config in served] == [8080, 1234, 8080]
    assert [config.bootstrap for config in served] == [False, False, True]
    assert served[1].seed == ("http://a", "http://b")
    assert (served[2].max_items, served[2].persistence) == (None, False)


def test_serve_reads_a_file_and_the_environment(
    served: list[NodeConfig], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("port = 1111\nmax-items = 5\n")
    monkeypatch.setenv("CACHEFLOW_PORT", "2222")
    run(capfd, "--config", str(file))
    assert (served[0].port, served[0].max_items) == (2222, 5)


@pytest.mark.parametrize(
    "failure",
    [ConfigError("data-dir = 'data': is locked by process 7"), OSError(98, "Address already in use")],
)
def test_a_node_that_cannot_start_says_why_in_one_line(
    served: list[NodeConfig],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    def fail(config: NodeConfig) -> int:
        raise failure

    monkeypatch.setattr("cacheflow.cli.server.run", fail)
    code, _, err = run(capfd, "serve")
    assert code == 2
    assert err.startswith("cacheflow: ") and err.count("\n") == 1


def test_a_taken_port_of_a_cluster_is_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run(capfd, "cluster", "--nodes", "1", "--base-port", port, "--data-dir", str(tmp_path))
    assert code == 2 and err.count("\n") == 1


def test_help_and_version_work(capfd: pytest.CaptureFixture[str]) -> None:
    assert "bench" in run(capfd, "--help")[1]
    assert "--max-items" in run(capfd, "serve", "--help")[1]
    assert run(capfd, "--version")[1].startswith("cacheflow, version ")


def test_the_program_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cacheflow", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and "--help" in done.stdout


def test_an_old_python_is_told_in_one_line() -> None:
    program = "cacheflow/__main__.py"
    script = f"import runpy, sys; sys.version_info = (3, 10, 1); runpy.run_path({program!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "needs Python 3.11 or later; this is 3.10" in done.stderr and done.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(node: FakeNode) -> None:
    for number in range(5000):
        node.state.write(f"key-{number:06}", 1, None)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "cacheflow", "keys"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize("url", ["", " ", "http://", "http://[::1", "http://a:x", "http://h:99999", "http://h?x"])
@pytest.mark.parametrize("command", [("get", "k"), ("bench", "--ops", "1")])
def test_an_address_that_is_none_is_wrong_usage(
    capfd: pytest.CaptureFixture[str], command: tuple[str, ...], url: str
) -> None:
    code, _, err = run(capfd, *command, "--url", url)
    assert code == 2 and "Traceback" not in err


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e300"])
def test_a_timeout_that_no_clock_can_count_is_wrong_usage(
    node: FakeNode, capfd: pytest.CaptureFixture[str], seconds: str
) -> None:
    assert run(capfd, "get", "k", "--timeout", seconds)[0] == 2
