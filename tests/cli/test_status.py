"""``cacheflow status``, in this process; the nodes only pretend."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.cli import main


@pytest.fixture
def trio() -> Iterator[list[FakeNode]]:
    """Three nodes that know each other; the first one leads."""
    state = FakeState()
    with FakeNode(state, "a") as a, FakeNode(state, "b") as b, FakeNode(state, "c") as c:
        nodes = [a, b, c]
        rows = [row(node, role="leader" if node is a else "follower") for node in nodes]
        for node in nodes:
            node.nodes = rows
            node.told = {"cluster_id": "c1", "leader": "a", "role": "leader" if node is a else "follower"}
        yield nodes


def row(node: FakeNode, **told: Any) -> dict[str, Any]:
    shown = {"id": node.node_id, "address": node.url.removeprefix("http://"), "status": "up", "role": "follower"}
    return {**shown, "voter": True, "lag": 0, "last_seen": 0.0, "level": 1, "build": "0.1.0", **told}


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["status", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def test_one_node_is_named_and_all_are_shown(trio: list[FakeNode], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--url", trio[1].url)
    assert (code, err) == (0, "")
    assert out.startswith("leader a  nodes 3 of 3 up  term 1  ") and out.endswith("healthy\n")
    assert [line.split()[0] for line in out.splitlines()[3:7]] == ["node", "a", "b", "c"]
    assert "\x1b" not in out


def test_each_node_is_asked_once(trio: list[FakeNode], capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "--url", ",".join(node.url for node in trio))
    for node in trio:
        assert [path for _, path, _ in node.requests] == ["/cluster/status", "/metrics?format=json", "/readyz"]


def test_a_node_that_hangs_is_waited_for_only_so_long(trio: list[FakeNode], capfd: pytest.CaptureFixture[str]) -> None:
    trio[2].faults.extend(["hang"] * 3)
    began = time.monotonic()
    code, out, _ = run(capfd, "--url", trio[0].url, "--timeout", "0.3", "--json")
    assert time.monotonic() - began < 5
    document = json.loads(out)
    assert (code, document["healthy"]) == (1, False)
    assert [(each["id"], each["status"]) for each in document["nodes"]] == [
        ("a", "up"),
        ("b", "up"),
        ("c", "unreachable"),
    ]
    assert document["problems"] == ["c does not answer here, and a counts it as up: no answer in time"]


def test_no_leader_a_dead_node_and_one_that_is_not_ready_are_exit_code_1(
    trio: list[FakeNode], capfd: pytest.CaptureFixture[str]
) -> None:
    trio[1].raw["/readyz"] = 503, b"[+]loop ok\n[-]disk failed: it is full\nreadyz check failed\n"
    assert run(capfd, "--url", trio[0].url)[0] == 1
    trio[1].raw.clear()
    assert run(capfd, "--url", trio[0].url)[0] == 0
    trio[2].stop()
    code, out, _ = run(capfd, "--url", trio[0].url)
    assert code == 1 and "problem: c does not answer here" in out and "Connection refused" in out
    for node in trio[:2]:
        node.told["leader"] = None
    assert "problem: there is no leader\n" in run(capfd, "--url", trio[0].url)[1]


def test_no_node_answers_is_exit_code_3(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--url", "http://127.0.0.1:1")
    assert (code, out) == (3, "") and err == "cacheflow: no node answered: http://127.0.0.1:1: Connection refused\n"


def test_a_token_that_nobody_has_is_a_wrong_call(trio: list[FakeNode], capfd: pytest.CaptureFixture[str]) -> None:
    trio[0].faults.append((401, "Unauthorized"))
    code, _, err = run(capfd, "--url", trio[0].url)
    assert code == 2 and "Unauthorized" in err


def test_the_token_goes_to_every_node(trio: list[FakeNode], capfd: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef\n")
    assert run(capfd, "--url", trio[0].url, "--api-token-file", str(tmp_path / "token"))[0] == 0
    for node in trio:
        assert {headers["authorization"] for _, _, headers in node.requests} == {
            "Bearer 0123456789abcdef0123456789abcdef"
        }


def test_what_is_hostile_is_neither_shown_nor_interpreted(
    trio: list[FakeNode], capfd: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [
        row(trio[0], role="leader", build="\x1b]0;x\x07"),
        {"id": "[bold]\x1b[2J\n", "address": "\x9b31m"},
    ]
    rows += [{"id": None}, 7, {"id": "x" * 10_000, "lag": 1e308, "change": {"what": "\x1b[1m", "due": "x"}}]
    trio[0].nodes = [each for each in rows if isinstance(each, dict)]
    trio[0].told |= {
        "members": rows,
        "term": 10**30,
        "configuration": {"eviction": "\x1b[5m"},
        "restore": {"items": "x"},
    }
    for flags in ((), ("--json",)):
        code, out, err = run(capfd, "--url", trio[0].url, *flags)
        assert code == 1 and not err
        assert all(each.isprintable() or each == "\n" for each in out)
        assert "[bold]" in out


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/cluster/status", b"[" * 100_000, "not JSON"),
        ("/cluster/status", b"9" * 10_000, "not JSON"),
        ("/cluster/status", b"\xff\0", "not JSON"),
        ("/cluster/status", b'"x"', "is no CacheFlow node"),
        ("/metrics", b'{"a": 1' * 1000, "not JSON"),
        ("/metrics", b" " * (9 << 20), "larger than"),
        ("/readyz", b"x" * (9 << 20), "larger than"),
    ],
)
def test_an_answer_of_no_use_is_no_answer(
    trio: list[FakeNode], capfd: pytest.CaptureFixture[str], path: str, body: bytes, why: str
) -> None:
    trio[1].raw[path] = 200, body
    code, out, err = run(capfd, "--url", trio[0].url)
    assert (code, err) == (1, "") and why in out
    assert run(capfd, "--url", trio[1].url)[0] == 3


def test_a_node_that_lacks_metrics_is_shown_with_dashes(
    trio: list[FakeNode], capfd: pytest.CaptureFixture[str]
) -> None:
    trio[1].raw["/metrics"] = 404, b"{}"
    trio[2].metrics = {"items": "many", "bytes": None, "process_start_time_seconds": []}
    code, out, _ = run(capfd, "--url", trio[0].url)
    assert code == 0 and "note: b gives no metrics" in out
    assert [line.split()[-3:] for line in out.splitlines()[5:7]] == [["-", "-", "-"], ["-", "-", "-"]]
