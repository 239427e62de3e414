"""Asking another node for a change of the membership."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cacheflow.machine.state.settings import Member
from cacheflow.raft.membership.changes import NO_LEADER, UNSURE, Reconfiguration

NEWCOMER = Member("new", "disk", "127.0.0.1:9", "", False)


def follower(delivers: bool) -> tuple[Reconfiguration, list[tuple[str, dict[str, Any]]]]:
    sent: list[tuple[str, dict[str, Any]]] = []

    def send(node_id: str, message: dict[str, Any]) -> bool:
        sent.append((node_id, message))
        return delivers

    links: Any = SimpleNamespace(route=SimpleNamespace(leader_id="leader"), send=send)
    core: Any = SimpleNamespace(is_leader=False)
    nothing: Any = None
    parts = dict.fromkeys(("ticks", "peers", "replica", "membership", "leading", "hand_over"), nothing)
    return Reconfiguration(core, links=links, **parts), sent


def test_who_asked_learns_at_once_that_the_leader_is_another() -> None:
    reconfiguration, sent = follower(delivers=True)
    outcomes: list[str] = []
    reconfiguration.register(NEWCOMER, lambda outcome, _: outcomes.append(outcome))
    assert [node_id for node_id, _ in sent] == ["leader"] and outcomes == []
    reconfiguration.route_changed()
    reconfiguration.route_changed()
    assert outcomes == [UNSURE]


def test_a_request_that_cannot_leave_is_answered_at_once() -> None:
    reconfiguration, _ = follower(delivers=False)
    outcomes: list[str] = []
    reconfiguration.remove("old", "disk", lambda outcome, _: outcomes.append(outcome))
    reconfiguration.route_changed()
    assert outcomes == [NO_LEADER]
