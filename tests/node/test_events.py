"""The events of a node: what becomes of its cluster, its checks and its contents, how much is kept, and what the log is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes.embedded import wait_for

from cacheflow.machine.state.restore import Restore
from cacheflow.machine.state.settings import Member, Settings
from cacheflow.node.events import (
    EVENTS_MAX,
    LOGGED_ELSEWHERE,
    NO_LEADER_S,
    SILENT_S,
    TEXT_CHARS_MAX,
    EventLog,
    member_changes,
    settings_change,
)
from cacheflow.raft.membership.configuration import NOBODY, Configuration
from cacheflow.raft.node import RaftNode
from cacheflow.store import ReplicatedStore

ANN = Member("ann", "i1", "10.0.0.1:9080", "10.0.0.1:8080", voter=True)
BOB = replace(ANN, id="bob", raft_address="10.0.0.2:9080")


def table(index: int, *members: Member) -> Configuration:
    return replace(NOBODY, index=index, members={each.id: each for each in members})


def bare_node() -> Any:
    """What an event log looks at of a node that has caught up."""
    return SimpleNamespace(
        node_id="ann",
        may_read=True,
        is_leader=False,
        term=1,
        links=SimpleNamespace(route=None, is_connected=lambda node_id: True),
        configurations=SimpleNamespace(settled=table(5, ANN), latest=table(5, ANN)),
        replica=SimpleNamespace(
            machine=SimpleNamespace(settings=Settings(version=1), level=3, restoring=None), failure=None
        ),
        building=SimpleNamespace(reloads_total=0),
        peers=SimpleNamespace(down_ids=set),
    )


@dataclass
class Watched:
    """An event log of such a node, with the clock and the checks that a test sets."""

    node: Any = field(default_factory=bare_node)
    now_ms: int = 1_000_000
    checks: Sequence[tuple[str, bool, str]] = (("disk", True, "answers"), ("leader", True, "is ann"))

    def __post_init__(self) -> None:
        self.log = EventLog(cast(RaftNode, self.node), lambda: self.now_ms, lambda: self.now_ms / 1000)
        self.log.checks = lambda: self.checks

    def leads(self, leader_id: str | None, term: int = 7) -> None:
        self.node.links.route = None if leader_id is None else SimpleNamespace(leader_id=leader_id, term=term)

    def look(self, after_ms: int = 1000) -> list[tuple[str, str]]:
        """Look once, a while later; return what is new."""
        known = len(self.log.latest())
        self.now_ms += after_ms
        self.log.look()
        return [(event.what, event.text) for event in self.log.latest()[known:]]


def hanging() -> Watched:
    """Return the event log of a leader, whose follower bob has a connection and does not answer."""
    watched = Watched()
    watched.leads("ann")
    watched.node.is_leader = True
    watched.node.configurations.settled = table(6, ANN, BOB)
    watched.look()
    watched.node.peers.down_ids = lambda: {"bob"}
    return watched


def test_a_check_that_begins_to_fail_is_an_alarm_and_one_that_ends_too() -> None:
    watched = Watched()
    watched.leads("ann")
    assert len(watched.look()) == 1 and watched.look() == []
    watched.checks = [("disk", False, "has not answered for 1.5 s"), ("leader", True, "is ann")]
    assert watched.look() == [("alarm", "the check 'disk' fails: has not answered for 1.5 s")]
    watched.checks = [("disk", False, "has not answered for 2.5 s"), ("leader", False, "is not known")]
    assert watched.look() == [("alarm", "the check 'leader' fails: is not known")]
    watched.checks = [("disk", True, "answers"), ("leader", True, "is ann")]
    assert watched.look() == [("alarm", "the check 'disk' passes again"), ("alarm", "the check 'leader' passes again")]
    assert watched.log.latest()[-1].about == "ann" and watched.log.latest()[-1].at_s == watched.now_ms / 1000


def test_a_node_that_starts_is_not_ready_and_that_is_no_alarm() -> None:
    watched = Watched(checks=[("leader", False, "is not known")])
    assert watched.look() == []
    watched.checks = [("leader", True, "is ann")]
    assert watched.look() == []
    watched.checks = [("leader", False, "is not known")]
    assert len(watched.look()) == 1


def test_checks_are_looked_at_once_a_second() -> None:
    watched = Watched()
    asked: list[int] = []
    watched.log.checks = lambda: asked.append(watched.now_ms) or ()  # type: ignore[func-returns-value]
    for _ in range(30):
        watched.now_ms += 100
        watched.log.look()
    assert len(asked) == 3


def test_a_node_that_stood_still_says_for_how_long() -> None:
    watched = Watched()
    watched.leads("ann")
    watched.look()
    watched.now_ms += 11_000
    assert watched.look() == [("node", "this node stood still for 12.0 s")]
    assert watched.look() == []


def test_a_node_that_has_not_caught_up_tells_of_its_leaders_alone() -> None:
    watched = Watched()
    watched.node.may_read = False
    machine = watched.node.replica.machine
    machine.settings, machine.level = Settings(version=2, max_items=5), 4
    watched.leads("bob")
    watched.checks = [("leader", False, "")]
    assert watched.look() == [("leader", "bob leads in term 7")]
    watched.node.may_read = True
    assert watched.look() == [], "it was so before"
    machine.settings = Settings(version=3, max_items=6, changed_by="eve")
    assert watched.look() == [("settings", "settings changed (by eve): max_items 6, before 5")]


def test_what_happens_to_the_contents_is_told() -> None:
    watched = Watched()
    watched.leads("ann")
    watched.look()
    machine = watched.node.replica.machine
    machine.level = 4
    assert watched.look() == [("level", "the cluster works at feature level 4, before at 3")]
    machine.restoring = Restore("r1", 10, online=True)
    assert watched.look() == [("restore", "a restore of 10 items has begun online")]
    machine.restoring.done = 4
    assert watched.look() == []
    machine.restoring.ended = True
    assert watched.look() == [("restore", "a restore was given up, with 4 of 10 items")]
    machine.restoring = Restore("r2", 3, online=False, done=3, ended=True)
    assert watched.look() == [("restore", "a restore of 3 items is done")]
    watched.node.building.reloads_total = 1
    assert watched.look() == [("contents", "the contents were wrong and were loaded anew from this node's disk")]


def test_only_who_is_connected_again_answers_again() -> None:
    watched = Watched()
    watched.node.configurations.settled = table(6, ANN, BOB)
    watched.look()
    watched.node.links.is_connected = lambda node_id: False
    watched.node.peers.down_ids = lambda: {"bob", "a stranger"}
    assert watched.look() == [("member", "bob does not answer")]
    # A new leader has found nobody down yet.
    watched.node.peers.down_ids = set
    assert watched.look() == []
    watched.node.peers.down_ids = lambda: {"bob"}
    assert watched.look() == []
    watched.node.peers.down_ids, watched.node.links.is_connected = set, lambda node_id: True
    assert watched.look() == [("member", "bob answers again")]
    watched.node.peers.down_ids, watched.node.links.is_connected = lambda: {"bob"}, lambda node_id: False
    watched.look()
    watched.node.configurations.settled = table(7, ANN)
    assert watched.look() == [("member", "bob is no member any more")]


def test_a_member_with_a_connection_that_hangs_is_noted_once_it_was_silent_for_a_while() -> None:
    watched = hanging()
    assert watched.look(100) == [] and watched.look(int(SILENT_S * 1000) - 1) == []
    told = "bob does not answer, although its connection stands: does its process hang, or its disk, or is its machine off?"
    assert watched.look(1) == [("member", told)]
    assert watched.look() == []
    watched.node.peers.down_ids = set
    assert watched.look() == [("member", "bob answers again")]
    assert watched.look() == []


def test_a_follower_knows_from_its_leader_who_hangs() -> None:
    watched = hanging()
    watched.node.is_leader = False
    assert watched.look() == []
    assert watched.look() == [("member", "bob does not answer the leader")]


def test_a_member_that_has_just_connected_is_not_silent() -> None:
    watched = hanging()
    assert watched.look() == []
    watched.node.peers.down_ids = set
    assert watched.look() == []
    watched.node.peers.down_ids = lambda: {"bob"}
    assert watched.look() == [], "it is silent anew"


def test_a_leader_that_is_missing_for_long_is_noted_once_and_its_return_too() -> None:
    watched = Watched()
    watched.node.configurations.settled = table(6, ANN, BOB)
    watched.leads("bob")
    assert watched.look() == [("leader", "bob leads in term 7")]
    watched.leads(None)
    watched.node.peers.down_ids, watched.node.links.is_connected = lambda: {"bob"}, lambda node_id: False
    assert ("leader", "no leader is known, in term 1") in watched.look()
    for _ in range(4):
        assert watched.look() == []
    lacks = "no leader for 5 s, so nothing can be written: no answer of bob"
    assert watched.look(999) == [] and watched.look(1) == [("leader", lacks)]
    assert watched.look(int(NO_LEADER_S * 300)) == watched.look(1500) == watched.look(1500) == watched.look(1500) == []
    watched.leads("bob")
    assert watched.look() == [("leader", "bob leads in term 7")]
    watched.leads(None)
    again = [told for _ in range(8) for told in watched.look()]
    assert again == [("leader", "no leader is known, in term 1"), ("leader", lacks)]


def test_a_node_without_a_cluster_and_one_that_takes_no_part_miss_no_leader() -> None:
    watched = Watched()
    watched.node.configurations.latest = watched.node.configurations.settled = NOBODY
    watched.node.may_read = False
    assert [watched.look() for _ in range(9)] == [[]] * 9
    # A restarted node knows from its log who is a member, and applies none of it before it has a leader.
    watched.node.configurations.latest = table(6, ANN)
    watched.node.replica.failure = "the disk is gone"
    assert [watched.look() for _ in range(9)] == [[]] * 9
    watched.node.replica.failure = None
    hears_none = "no leader for 5 s, so nothing can be written: this node hears none, although all are connected"
    assert [told for _ in range(9) for told in watched.look()] == [("leader", hears_none)]


def test_an_older_table_of_contents_that_are_loaded_anew_is_no_change() -> None:
    watched = Watched()
    watched.look()
    watched.node.configurations.settled = table(6, ANN, BOB)
    joined = [("member", "bob is a member now, a voter, at 10.0.0.2:9080")]
    assert watched.look() == joined
    watched.node.configurations.settled = table(5, ANN)
    assert watched.look() == []
    watched.node.configurations.settled = table(6, ANN, BOB)
    assert watched.look() == []


def test_the_log_is_told_of_each_event_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cacheflow.node.events")
    watched = Watched()

    def lines() -> list[tuple[str, str]]:
        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return told

    watched.leads("bob")
    watched.look()
    watched.look()
    assert lines() == [("INFO", "bob leads in term 7")]
    watched.node.configurations.settled = table(6, ANN, BOB)
    watched.look(11_000)
    assert lines() == [
        ("WARNING", "this node stood still for 11.0 s"),
        ("INFO", "bob is a member now, a voter, at 10.0.0.2:9080"),
    ]
    watched.node.peers.down_ids = lambda: {"bob"}
    watched.look()
    watched.look()
    watched.node.peers.down_ids = set
    watched.look()
    assert lines() == [("WARNING", "bob does not answer the leader"), ("INFO", "bob answers again")]
    watched.checks = [("restore", False, "goes on")]
    watched.look()
    watched.checks = [("restore", True, "")]
    watched.look()
    assert lines() == [
        ("WARNING", "the check 'restore' fails: goes on"),
        ("INFO", "the check 'restore' passes again"),
    ]
    watched.leads(None)
    for _ in range(9):
        watched.look()
    assert [level for level, _ in lines()] == ["INFO", "WARNING"]


def test_an_event_of_which_another_part_tells_the_log_is_no_second_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cacheflow.node.events")
    watched = Watched()
    watched.node.configurations.settled = table(6, ANN, BOB)
    watched.look()
    watched.leads("ann")
    assert watched.look() == [("leader", "ann leads in term 7")]
    watched.node.links.is_connected, watched.node.peers.down_ids = lambda node_id: False, lambda: {"bob"}
    assert watched.look() == [("member", "bob does not answer")]
    watched.node.links.is_connected, watched.node.peers.down_ids = lambda node_id: True, set
    assert watched.look() == [("member", "bob answers again")]
    watched.checks = [(name, False, "is wrong") for name in sorted(LOGGED_ELSEWHERE)]
    assert len(watched.look()) == len(LOGGED_ELSEWHERE)
    watched.checks = []
    assert len(watched.look()) == len(LOGGED_ELSEWHERE)
    assert not caplog.records


def test_only_the_latest_events_are_kept_and_their_texts_are_cut() -> None:
    watched = Watched(checks=[])
    for number in range(3 * EVENTS_MAX):
        watched.leads("x" * 5000, number)
        watched.look()
    kept = watched.log.latest()
    assert len(kept) == EVENTS_MAX and len(kept[-1].text) == TEXT_CHARS_MAX
    last = 1_000_000 + 1 + 3 * EVENTS_MAX
    assert [event.number for event in kept] == list(range(last - EVENTS_MAX + 1, last + 1))


def test_numbers_grow_across_starts_and_javascript_can_hold_them() -> None:
    before = Watched()
    for term in range(20):
        before.leads("ann", term)
        before.look(100)
    after = Watched(now_ms=before.now_ms + 100)
    assert after.log.latest()[0].number > before.log.latest()[-1].number
    in_the_year_9999 = Watched(now_ms=253_402_300_799_000)
    assert in_the_year_9999.log.latest()[0].number < 2**53


def test_every_change_of_a_member_is_a_sentence() -> None:
    bob = replace(ANN, id="bob", raft_address="10.0.0.2:9080", voter=False)
    assert member_changes({"ann": ANN}, {"ann": ANN, "bob": bob}) == [
        ("bob", "bob is a member now, a spare, at 10.0.0.2:9080")
    ]
    observer, voter = replace(bob, observer=True), replace(bob, voter=True)
    assert member_changes({"bob": bob}, {"bob": voter}) == [("bob", "bob is a voter now")]
    assert member_changes({"bob": voter}, {"bob": observer}) == [("bob", "bob is an observer now")]
    anew = replace(bob, incarnation="i2")
    assert member_changes({"bob": voter}, {"bob": anew}) == [
        ("bob", "bob came back with an empty disk, a spare, at 10.0.0.2:9080")
    ]
    assert member_changes({"bob": bob}, {"bob": replace(bob, raft_address="h:1")}) == [("bob", "bob is at h:1 now")]
    assert member_changes({"bob": bob}, {}) == [("bob", "bob is no member any more")]


def test_a_change_that_changes_no_value_is_none() -> None:
    settings = Settings(version=1, max_items=5)
    assert settings_change(settings, replace(settings, version=2, changed_by="ann", changed_at_ms=7)) == ""
    changed = replace(settings, max_items=None, max_bytes=4096)
    assert (
        settings_change(settings, changed) == "settings changed: max_items none, before 5; max_bytes 4096, before none"
    )


def test_an_embedded_node_tells_its_start_its_leader_and_what_is_changed(tmp_path: Path) -> None:
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, fsync="never"
    ) as store:
        store.wait_ready(30.0)
        [row] = store.status()["members"]
        assert row["connected"] is None
        wait_for(lambda: any(event.what == "leader" and event.about == "a" for event in store.events()))
        assert store.events()[0].text.startswith("this node started, with CacheFlow ")
        wait_for(lambda: store._engine.local.events._failing is not None)
        store.change_settings(max_items=77)
        store._engine.is_retiring = True
        wait_for(lambda: {"settings", "alarm"} <= {event.what for event in store.events()})
        assert next(event for event in store.events() if event.what == "alarm").text.startswith(
            "the check 'stays' fails"
        )
