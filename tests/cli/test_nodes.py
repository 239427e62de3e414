"""``cacheflow nodes``, in this process; the nodes only pretend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.cli import main


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    with FakeNode() as node:
        monkeypatch.setenv("CACHEFLOW_URL", node.url)
        node.nodes = [
            row("a", role="leader", voter=True, address=node.url, lag=0, last_seen=0.0),
            row("b-1", voter=True, lag=3, last_seen=12.4, change={"what": "leaves", "since": None, "due": None}),
            row("b-2", status="down", voter=False, change={"what": "replacement", "since": 3.0, "due": 42.2}),
            row("watcher", voter=False, observer=True),
        ]
        yield node


def row(node_id: str, **fields: Any) -> dict[str, Any]:
    shown = {"id": node_id, "address": "127.0.0.1:1", "status": "up", "role": "follower", "raft_address": None}
    return {**shown, "level": 1, "build": "0.1.0", **fields}


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_the_members_are_a_table_with_what_is_under_way(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "nodes")
    head, *rows = out.splitlines()
    assert code == 0
    assert head.split() == ["id", "address", "role", "status", "lag", "seen", "level", "build", "change"]
    assert rows[0].split() == ["a", node.url, "leader", "up", "0", "0", "s", "ago", "1", "0.1.0"]
    assert rows[1].split()[2:] == ["voter", "up", "3", "12", "s", "ago", "1", "0.1.0", "leaves"]
    # Fewer vote than are to.
    assert rows[2].split()[2:] == ["learner", "down", "never", "1", "0.1.0", "replacement", "in", "42", "s"]
    assert rows[3].split()[2] == "observer"
    for each in node.nodes[2:]:
        each["voter"] = True
    node.nodes.append(row("late", voter=False))
    assert run(capfd, "nodes")[1].splitlines()[5].split()[2] == "spare"


def test_the_members_are_json_for_programs(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    members = json.loads(run(capfd, "nodes", "--json")[1])
    assert [(member["id"], member["lag"]) for member in members][:2] == [("a", 0), ("b-1", 3)]


def test_how_far_the_others_are_is_asked_of_the_leader(capfd: pytest.CaptureFixture[str]) -> None:
    state = FakeState()
    with FakeNode(state, "a") as leader, FakeNode(state, "b") as other:
        rows = [row("a", role="leader", voter=True, address=leader.url), row("b", voter=True, address=other.url)]
        other.nodes = rows
        leader.nodes = [{**each, "lag": number} for number, each in enumerate(rows)]
        members = json.loads(run(capfd, "nodes", "--json", "--url", other.url)[1])
        assert [member["lag"] for member in members] == [0, 1]
        leader.stop()
        members = json.loads(run(capfd, "nodes", "--json", "--url", other.url)[1])
        assert [member["lag"] for member in members] == [None, None]


def test_a_member_is_removed_by_the_beginning_of_its_id(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "nodes", "remove", "wat") == (0, "watcher is removed\n", "")
    code, out, err = run(capfd, "nodes", "remove", "wat")
    assert (code, out) == (1, "") and "no member is called 'wat', nor begins so; there are a, b-1, b-2" in err
    code, _, err = run(capfd, "nodes", "remove", "b")
    assert code == 2 and "'b' may be b-1 or b-2" in err
    assert run(capfd, "nodes", "remove", "b-2", "--json") == (0, '{"id": "b-2", "status": "removed"}\n', "")
    node.nodes = node.nodes[:1]
    code, _, err = run(capfd, "nodes", "remove", "a")
    assert code == 1 and "is the only node that votes" in err


def test_votes_are_given_and_taken_as_often_as_one_likes(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run(capfd, "nodes", "promote", "b-2") == (0, "b-2 is a voter\n", "")
    assert node.nodes[2]["voter"] is True
    assert run(capfd, "nodes", "demote", "b-2") == (0, "b-2 is no voter\n", "")
    assert json.loads(run(capfd, "nodes", "demote", "b-2", "--json")[1])["voter"] is False


def test_leadership_is_handed_over(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "nodes", "transfer", "b-1") == (0, "b-1 leads\n", "")
    assert run(capfd, "nodes", "transfer", "--json") == (0, '{"leader": "b"}\n', "")


def test_options_stand_behind_the_command(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "nodes", "--url", node.url, "remove", "a")
    assert code == 2 and "give the options behind the command: cacheflow nodes remove ID" in err


def test_nobody_answers(capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["nodes"], ["nodes", "remove", "a"], ["nodes", "transfer"]):
        assert run(capfd, *command, "--url", "http://127.0.0.1:1", "--timeout", "0.5")[0] == 3
