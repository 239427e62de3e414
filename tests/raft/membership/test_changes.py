"""Asking another node for a change of the membership."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.machine.state.settings import MEMBERS_MAX, Member
from cacheflow.raft.guards import BadMessage
from cacheflow.raft.membership.changes import CONFLICT, NO_LEADER, REGISTER, UNSURE, Reconfiguration, _Change
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.seams import Timing
from cacheflow.raft.transport.network import Peer

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
    return Reconfiguration(core, links=links, timing=Timing(), **parts), sent


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


@pytest.mark.parametrize(
    "fields",
    [
        None,
        ["new", "disk", "127.0.0.1:9"],
        ["", "disk", "127.0.0.1:9", ""],
        ["new", 7, "127.0.0.1:9", ""],
        ["new", "disk", "r" * 257, ""],
        ["new", "disk", "127.0.0.1:9", "h" * 257],
    ],
)
def test_a_member_that_no_machine_would_take_is_passed_on_to_nobody(fields: Any) -> None:
    reconfiguration, sent = follower(delivers=True)
    peer = Peer("new", "disk", "127.0.0.1:9", "", "epoch")
    with pytest.raises(BadMessage):
        reconfiguration.handlers["register"](
            peer, {"type": "register", "request": 1, "member": fields, "observer": False, "was": False}
        )
    assert sent == []


def test_a_full_table_takes_no_further_member() -> None:
    reconfiguration, _ = follower(delivers=True)
    peers: Any = SimpleNamespace(down_ids=set)
    replica: Any = SimpleNamespace(machine=SimpleNamespace(removed=(), level=1))
    reconfiguration._peers, reconfiguration._replica = peers, replica
    ids = [f"n{number}" for number in range(MEMBERS_MAX)]
    full = Configuration(1, "c", {node_id: Member(node_id, "disk", "", "", True) for node_id in ids})
    outcomes: list[str] = []
    change = _Change(REGISTER, NEWCOMER, 1, False, 0, lambda outcome, _: outcomes.append(outcome))
    assert reconfiguration._decide(full, change) is None and outcomes == [CONFLICT]
    assert reconfiguration._decide(full.without("n0"), change) is not None


def test_a_newcomer_below_the_level_in_force_is_refused_by_name() -> None:
    reconfiguration, _ = follower(delivers=True)
    peers: Any = SimpleNamespace(down_ids=set)
    replica: Any = SimpleNamespace(machine=SimpleNamespace(removed=(), level=3))
    reconfiguration._peers, reconfiguration._replica = peers, replica
    table = Configuration(1, "c", {"n1": Member("n1", "disk", "", "", True)})
    told: list[tuple[str, str]] = []
    change = _Change(REGISTER, NEWCOMER, 2, False, 0, lambda *outcome: told.append(outcome))
    assert reconfiguration._decide(table, change) is None
    ((outcome, detail),) = told
    assert outcome == CONFLICT
    assert detail.startswith(f"the CacheFlow on node {NEWCOMER.id!r} knows level 2 and this cluster works at level 3")
    change.level = 3
    assert reconfiguration._decide(table, change) is not None


def test_why_a_member_refuses_this_node_is_kept_as_one_line() -> None:
    reconfiguration, _ = follower(delivers=True)
    peer = Peer("n1", "disk", "127.0.0.1:9", "c", "epoch")
    reply = {"type": "change_reply", "request": 0, "outcome": NO_LEADER, "detail": "later"}
    reconfiguration.handlers["change_reply"](peer, reply)
    assert reconfiguration.refusal == ""
    reconfiguration.handlers["change_reply"](peer, reply | {"outcome": CONFLICT, "detail": "too\nold" + "!" * 999})
    assert reconfiguration.refusal == "too?old" + "!" * 293
