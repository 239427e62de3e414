"""``cacheflow top`` on a terminal and elsewhere; the nodes only pretend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.http_node import FakeNode, FakeState
from fakes.terminal import ALTERNATE, BACK, CURSOR_SHOWN, Terminal

from cacheflow.cli import main
from cacheflow.cli.monitor.tables import wide

FAST = ("--every", "0.1", "--timeout", "2")


class Counting(FakeNode):
    """A node whose counters go up by what ``reads`` says with every look."""

    def __init__(self, state: FakeState, node_id: str) -> None:
        super().__init__(state, node_id)
        self.hits = 0
        self.reads = 10
        self.raw = _Counted(self)


class _Counted(dict[str, tuple[int, bytes]]):
    def __init__(self, node: Counting) -> None:
        super().__init__()
        self.node = node

    def get(self, path: str, default: Any = None) -> Any:
        if path == "/metrics" and path not in self:
            self.node.hits += self.node.reads
            counted = dict.fromkeys(("misses_total", "sets_total", "deletes_total"), 0)
            return 200, json.dumps({**counted, "hits_total": self.node.hits, "items": 7}).encode()
        return super().get(path, default)


@pytest.fixture
def trio() -> Iterator[list[Counting]]:
    """Three nodes that know each other; the first one leads."""
    state = FakeState()
    nodes = [Counting(state, node_id) for node_id in "abc"]
    with nodes[0], nodes[1], nodes[2]:
        lead(nodes, nodes[0])
        yield nodes


def lead(nodes: list[Counting], leader: Counting, term: int = 1) -> None:
    """Let ``leader`` lead, and let all know it."""
    rows = [
        {"id": node.node_id, "address": node.url, "role": "leader" if node is leader else "follower", "voter": True}
        | {"status": "up", "lag": 0, "last_seen": 0.0, "level": 1, "build": "0.1.0"}
        for node in nodes
    ]
    for node in nodes:
        role = "leader" if node is leader else "follower"
        node.nodes = rows
        node.told = {"cluster_id": "c1", "leader": leader.node_id, "role": role, "term": term}


def row(terminal: Terminal, node_id: str) -> list[str]:
    """Return the cells of a node's row in the latest picture; none if it is not shown."""
    return next((line.split() for line in terminal.frame() if line.startswith(f"{node_id} ")), [])


@pytest.mark.parametrize(("columns", "lines"), [(40, 12), (80, 24), (132, 43), (300, 80)])
def test_the_picture_fits_a_terminal_of_any_size(trio: list[Counting], columns: int, lines: int) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url], columns, lines) as terminal:
        terminal.wait(lambda: len(row(terminal, "c")) > 3, "all nodes are shown")
        frame = terminal.frame()
        assert max(map(wide, frame)) <= columns and len(frame) == lines
        assert frame[0].startswith("leader a  nodes 3 of 3 up") and frame[-1].startswith("q to end")
        [title] = [line for line in frame if line.startswith("node")]
        assert ("reads/s" in title, "expired/s" in title) == (True, columns >= 132)
        assert row(terminal, "a")[:3] == ["a", "leader", "up"]


def test_it_is_drawn_anew_when_the_terminal_gets_another_size(trio: list[Counting]) -> None:
    with Terminal(["top", "--every", "3600", "--url", trio[0].url], 200, 20) as terminal:
        terminal.wait(lambda: any("unsent" in line for line in terminal.frame()), "it is wide")
        terminal.resize(40, 8)
        terminal.wait(
            lambda: len(terminal.frame()) == 8 and not any("unsent" in line for line in terminal.frame()), "narrow"
        )
        assert max(map(wide, terminal.frame())) <= 40
        terminal.resize(40, 4)
        terminal.wait(lambda: len(terminal.frame()) == 4, "it is low")
        assert "lines more" in terminal.frame()[-1]


@pytest.mark.parametrize("ends", ["q", "Q", "\x03", "\x1c", signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_whatever_ends_it_the_terminal_is_as_before(trio: list[Counting], ends: Any) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url]) as terminal:
        terminal.wait(lambda: row(terminal, "c"), "it is shown")
        assert terminal.settings() != terminal.before
        if isinstance(ends, signal.Signals):
            terminal.send(ends)
        else:
            terminal.type(ends)
        assert terminal.end() == 0
        assert terminal.settings() == terminal.before
        assert terminal.output.count(ALTERNATE) == 1
        _, _, behind = terminal.output.partition(BACK)
        assert CURSOR_SHOWN in terminal.output and "Traceback" not in behind and behind.strip("\x1b[?25h") == ""


def test_p_holds_what_is_shown_and_other_keys_do_nothing(trio: list[Counting]) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url], 120) as terminal:
        terminal.wait(lambda: row(terminal, "c"), "it is shown")
        # F1, whose last letter is no key, an arrow, a letter; all at once.
        terminal.type("\x1bOP\x1b[Axp")
        terminal.wait(lambda: terminal.frame()[-1].startswith("held"), "it is held")
        trio[1].told["term"] = trio[0].told["term"] = 77
        terminal.resize(121, 24)
        shown = len(terminal.output)
        terminal.wait(lambda: len(terminal.output) > shown, "it is drawn anew")
        assert "term 1 " in f"{terminal.frame()[0]} "
        terminal.type("p")
        terminal.wait(lambda: "term 77" in terminal.frame()[0], "it goes on")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_ctrl_z_does_not_leave_the_shell_a_terminal_that_it_cannot_use(trio: list[Counting]) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url]) as terminal:
        terminal.wait(lambda: row(terminal, "c"), "it is shown")
        assert terminal.ignores(signal.SIGTSTP)


def test_a_node_that_is_removed_is_asked_no_more(trio: list[Counting]) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url]) as terminal:
        terminal.wait(lambda: row(terminal, "c"), "it is shown")
        for node in trio:
            node.nodes = node.nodes[:2]
        terminal.wait(lambda: terminal.frame()[0].startswith("leader a  nodes 2 of 2 up"), "it is gone")
        asked = len(trio[2].requests)
        looks = len(trio[1].requests)
        terminal.wait(lambda: len(trio[1].requests) > looks + 9, "the others are asked on")
        # One look may have been under way.
        assert len(trio[2].requests) <= asked + 3


def test_a_new_leader_and_a_dead_node_are_shown(trio: list[Counting]) -> None:
    with Terminal(["top", *FAST, "--url", trio[1].url], 120) as terminal:
        terminal.wait(lambda: row(terminal, "a")[1:2] == ["leader"], "a leads")
        trio[0].stop()
        lead(trio, trio[2], term=2)
        terminal.wait(lambda: row(terminal, "c")[1:2] == ["leader"], "c leads")
        terminal.wait(lambda: row(terminal, "a")[1:3] == ["voter", "unreachable"], "a is gone")
        terminal.wait(lambda: row(terminal, "a")[3] != "-", "it is said since when")
        assert any(line.startswith("problem: a does not answer here") for line in terminal.frame())


def test_a_node_that_hangs_does_not_hold_up_the_others(trio: list[Counting]) -> None:
    trio[1].faults.extend(["hang"] * 100)
    with Terminal(["top", "--every", "0.1", "--timeout", "20", "--url", trio[0].url], 120) as terminal:
        terminal.wait(lambda: len(row(terminal, "c")) > 3 and row(terminal, "c")[5] != "-", "the others go on")
        assert row(terminal, "b")[2] == "unreachable"
        assert "problem: b does not answer here, and a counts it as up: has not answered yet" in terminal.frame()


def test_all_nodes_may_go_and_come_while_it_runs(trio: list[Counting]) -> None:
    with Terminal(["top", *FAST, "--url", trio[0].url], 120) as terminal:
        terminal.wait(lambda: row(terminal, "c"), "it is shown")
        for node in trio:
            node.stop()
        terminal.wait(lambda: any("no node answered" in line for line in terminal.frame()), "all are gone")
        assert terminal.frame()[0].startswith("leader none  nodes 0 of 3 up")
        terminal.type("q")
        assert terminal.end() == 0


def test_what_is_hostile_does_not_reach_the_terminal(trio: list[Counting]) -> None:
    odd = {
        "id": "[bold]x\x1b[2J\x9b5m",
        "address": "\x1b]0;title\x07",
        "status": "up",
        "role": "follower",
        "voter": True,
    }
    trio[0].told["members"] = [*trio[0].nodes, odd]
    with Terminal(["top", *FAST, "--url", trio[0].url], 200) as terminal:
        terminal.wait(lambda: row(terminal, "[bold]x\\x1b[2J\\x9b5m"), "it is shown with escapes")
        assert "\x1b[2J" not in terminal.output.partition(ALTERNATE)[2].partition("leader")[2]
        assert "\x1b]0" not in terminal.output and "\x9b" not in terminal.output


def test_without_rich_a_terminal_gets_plain_lines(trio: list[Counting], tmp_path: Any) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError\n")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    arguments = ["top", "--once", *FAST, "--url", trio[0].url]
    with Terminal(arguments, 60, environ={"PYTHONPATH": path}) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.output and max(map(wide, terminal.output.replace("\r", "").split("\n"))) <= 60


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["top", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def test_elsewhere_a_look_is_plain_lines(trio: list[Counting], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--once", *FAST, "--url", trio[0].url)
    assert (code, err) == (0, "") and "\x1b" not in out
    assert [line.split()[:3] for line in out.splitlines()[5:8]] == [
        ["a", "leader", "up"],
        ["b", "voter", "up"],
        ["c", "voter", "up"],
    ]


def test_elsewhere_it_goes_on_until_it_is_interrupted(trio: list[Counting]) -> None:
    command = [sys.executable, "-m", "cacheflow", "top", *FAST, "--url", trio[0].url]
    environ = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None and process.stderr is not None
        heads = [line for line in (process.stdout.readline() for _ in range(20)) if line.startswith(b"leader a")]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert (process.wait(), process.stderr.read()) == (0, b"")
    assert len(heads) >= 2 and b"\x1b" not in b"".join(heads) + rest


def test_a_look_as_json_is_one_line(trio: list[Counting], capfd: pytest.CaptureFixture[str]) -> None:
    trio[1].reads = 0
    code, out, _ = run(capfd, "--once", "--json", *FAST, "--url", trio[0].url)
    document = json.loads(out)
    assert code == 0 and out.count("\n") == 1 and document["leader"] == "a" and abs(document["at"] - time.time()) < 60
    steps = {each["id"]: each["rates"] for each in document["nodes"]}
    # By the node's own time: ten reads in each step, however long it was.
    assert steps["a"]["reads_per_s"] * steps["a"]["step_s"] == pytest.approx(10)
    assert (steps["b"]["reads_per_s"], steps["b"]["hit_ratio"], steps["a"]["hit_ratio"]) == (0.0, None, 1.0)
    assert document["totals"]["reads_per_s"] == pytest.approx(steps["a"]["reads_per_s"] + steps["c"]["reads_per_s"])


def test_nobody_answers_at_first_is_exit_code_3(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--url", "http://127.0.0.1:1")
    assert (code, out) == (3, "") and err.startswith("cacheflow: no node answered: ")


def test_a_time_between_two_looks_has_bounds(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--timeout", "nan")[0] == run(capfd, "--timeout", "-1")[0] == 2
    for every in ("0", "-1", "nan", "x", "1e9"):
        assert run(capfd, "--every", every)[0] == 2
