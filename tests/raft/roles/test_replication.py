"""What the leader knows of a follower."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.disk import FakeDisk, inline

from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.configuration import NOBODY, Configurations
from cacheflow.raft.peers import PROBE, REPLICATE, SNAPSHOT, Peers, Progress
from cacheflow.raft.roles.replication import Replicator

COMMITTED = 7
BACKLOG_MAX = 1000


@pytest.fixture
def replicator(sent: list[dict[str, Any]], backlog: list[int]) -> Replicator:
    """A leader with ten entries and one follower."""
    journal = Journal.open(FakeDisk(), Path("/data"), submit=inline)
    journal.setCurrentTerm(1, "n1")
    for index in range(1, 11):
        journal.add(b"entry", index, 1)

    def send(node_id: str, message: Any) -> bool:
        if message.get("entries") and backlog[0] > BACKLOG_MAX:
            return False
        sent.append(message)
        return True

    def message_for(header: dict[str, Any], _: Progress) -> Any:
        return header.copy()

    replicator = Replicator(
        journal,
        send=send,
        backlog=lambda node_id: backlog[0],
        header=lambda: {"commit_index": COMMITTED, "at": 1},
        message_for=message_for,
        leader=SimpleNamespace(commit_index=COMMITTED, voter_ids=["n2", "n3", "n4"]),
        peers=Peers("n1", Configurations(NOBODY, ()), SimpleNamespace()),  # type: ignore[arg-type]
    )
    replicator.begin({"n2": "one disk"})
    return replicator


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    """What the leader has sent."""
    return []


@pytest.fixture
def backlog() -> list[int]:
    """The bytes that wait for the follower; the link takes no entries above BACKLOG_MAX."""
    return [0]


def ack(match: int) -> dict[str, Any]:
    return {"ok": True, "match": match, "at": 1}


def test_who_has_what_the_log_begins_with_needs_no_snapshot(replicator: Replicator) -> None:
    progress = replicator._peers.progress["n2"]
    progress.need_snapshot()
    assert replicator.acknowledged("n2", ack(10)) == 10
    assert progress.state == REPLICATE


def test_who_waits_for_a_snapshot_and_acknowledges_is_not_answered(
    replicator: Replicator, sent: list[dict[str, Any]]
) -> None:
    progress = replicator._peers.progress["n2"]
    replicator.acknowledged("n2", ack(5))
    progress.probe_from(6)
    progress.verified(5, 1)
    replicator._journal.trim(7)
    progress.need_snapshot()
    replicator.acknowledged("n2", ack(5))
    replicator.push("n2")
    assert sent == [] and progress.state == SNAPSHOT
    progress.installed(7)
    assert (progress.state, progress.next_index) == (PROBE, 8)
    progress.verified(7, 7)
    replicator.push("n2")
    assert [entry[1] for entry in sent[0]["entries"]] == [8, 9, 10]


def entries_in(message: dict[str, Any]) -> list[int]:
    return [entry[1] for entry in message["entries"]]


def test_who_has_all_it_should_is_told_once_what_is_committed(
    replicator: Replicator, sent: list[dict[str, Any]]
) -> None:
    replicator.acknowledged("n2", ack(10))
    replicator.send_news()
    replicator.send_news()
    assert sent == [{"type": "commit", "term": 1, "index": COMMITTED, "index_term": 1}]


def test_entries_bring_the_commit_along_and_a_new_connection_may_have_lost_it(
    replicator: Replicator, sent: list[dict[str, Any]]
) -> None:
    replicator.acknowledged("n2", ack(5))
    replicator._peers.progress["n2"].probe_from(6)
    replicator._peers.progress["n2"].verified(5, 1)
    replicator.send_news()
    assert [entries_in(message) for message in sent] == [[6, 7, 8, 9, 10]]
    replicator.send_news()
    assert len(sent) == 1
    replicator.reconnected("n2")
    replicator.acknowledged("n2", ack(10))
    replicator.send_news()
    assert sent[1]["type"] == "commit"


def test_who_is_not_ahead_gets_what_is_committed_and_the_rest_when_there_is_a_hurry(
    replicator: Replicator, sent: list[dict[str, Any]]
) -> None:
    replicator.ahead = frozenset()
    replicator._peers.progress["n2"].probe_from(4)
    replicator._peers.progress["n2"].verified(3, 1)
    replicator.send_news()
    replicator.push("n2")
    replicator.replicate()
    replicator.hurry()
    assert [entries_in(message) for message in sent] == [[4, 5, 6, 7], [], [8, 9, 10]]


def test_the_voters_whose_answers_have_committed_an_entry_are_ahead_until_the_members_change(
    replicator: Replicator,
) -> None:
    members = {f"n{number}": "one disk" for number in range(2, 6)}
    replicator.set_followers(members)
    for node_id in ("n3", "n4", "n5"):
        replicator.acknowledged(node_id, ack(COMMITTED))
    replicator.choose_ahead(list(members))
    chosen = [replicator.ahead]
    replicator._journal.add(b"entry", 11, 1)
    replicator._leader.commit_index = 11
    for node_id in ("n3", "n4", "n5"):
        replicator.acknowledged(node_id, ack(11))
    replicator.choose_ahead(list(members))
    chosen.append(replicator.ahead)
    replicator.choose_ahead(["n2"])
    chosen.append(replicator.ahead)
    replicator.set_followers(members)
    chosen.append(replicator.ahead)
    quick = frozenset(("n3", "n4"))
    # The first entry was not sent to all of them.
    assert chosen == [None, quick, quick, None]


def test_those_who_answer_their_clients_hear_of_a_commit_last(
    replicator: Replicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def send(node_id: str, message: dict[str, Any]) -> bool:
        told.append(node_id)
        return True

    monkeypatch.setattr(replicator, "_send", send)
    replicator.set_followers(dict.fromkeys(("n2", "n3", "n4"), "one disk"))
    for node_id in replicator._peers.progress:
        replicator.acknowledged(node_id, ack(10))
    replicator.send_news({"", "n2"})
    assert told == ["n3", "n4", "n2"]


def test_a_heartbeat_overtakes_entries_that_wait_and_refers_to_none_of_them(
    replicator: Replicator, sent: list[dict[str, Any]], backlog: list[int]
) -> None:
    replicator._peers.progress["n2"].probe_from(6)
    replicator.acknowledged("n2", ack(5))
    replicator.push("n2")
    backlog[0] = 900
    replicator.replicate()
    assert [entry[1] for entry in sent[0]["entries"]] == [6, 7, 8, 9, 10]
    assert (sent[1]["prevLogIdx"], sent[1]["entries"], sent[1]["under_way"]) == (5, [], 10)
    assert replicator.acknowledged("n2", ack(5)) == 5
    progress = replicator._peers.progress["n2"]
    assert (progress.state, progress.next_index, progress.match_index) == (REPLICATE, 11, 5)
    # Behind them it shows whether they have arrived.
    backlog[0] = 0
    replicator.replicate()
    assert sent[2]["prevLogIdx"] == 10 and "under_way" not in sent[2]


def test_a_link_that_takes_no_more_entries_takes_a_heartbeat(
    replicator: Replicator, sent: list[dict[str, Any]], backlog: list[int]
) -> None:
    replicator._peers.progress["n2"].probe_from(6)
    replicator.acknowledged("n2", ack(5))
    backlog[0] = BACKLOG_MAX + 1
    replicator.replicate()
    assert [(message["prevLogIdx"], message["entries"]) for message in sent] == [(5, [])]
    assert replicator._peers.progress["n2"].next_index == 6
    backlog[0] = 0
    replicator.replicate()
    assert len(sent[1]["entries"]) == 5


def test_an_acknowledgement_of_a_heartbeat_is_no_reason_for_another(
    replicator: Replicator, sent: list[dict[str, Any]], backlog: list[int]
) -> None:
    replicator._peers.progress["n2"].probe_from(6)
    replicator.acknowledged("n2", ack(5))
    backlog[0] = BACKLOG_MAX + 1
    replicator.push("n2")
    replicator.send_news()
    assert sent == []
    # Nor is news where a snapshot is on its way.
    replicator._peers.progress["n2"].need_snapshot()
    replicator.send_news()
    assert sent == []
    backlog[0] = 0
    replicator.send_news()
    assert len(sent) == 1
