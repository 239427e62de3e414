"""PySyncObj's inside is as the core relies on it, and the core's own rules hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pysyncobj.syncobj
import pytest
from fakes.disk import FakeDisk, StepWriter
from pysyncobj import SyncObj

from cacheflow.errors import ConfigError
from cacheflow.raft import core as core_module
from cacheflow.raft.core import Core, check_pysyncobj
from cacheflow.raft.log.journal import Journal


class Driver:
    """A node that does nothing but campaign."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.pre_votes = 0
        self.held: list[Callable[[], None]] = []

    def send_vote_message(self, node_id: str, message: dict[str, Any]) -> None:
        self.sent.append((node_id, message))

    def apply_committed(self) -> None: ...
    def propose_queued(self) -> None: ...
    def replicate(self) -> None: ...
    def before_leading(self) -> None: ...

    def hold(self, begin: Callable[[], None]) -> None:
        self.held.append(begin)

    def flushed(self) -> None:
        held, self.held = self.held, []
        for begin in held:
            begin()

    def role_changed(self) -> None: ...

    def start_pre_vote(self) -> None:
        self.pre_votes += 1

    def may_campaign(self) -> bool:
        return True

    def leader_silent(self, node_id: str) -> None: ...


def begin(writer: StepWriter) -> tuple[Core, Journal, Driver]:
    driver = Driver()
    journal = Journal.open(FakeDisk(), Path("/data"), submit=writer.submit)
    core = Core("me", journal, driver, election_timeout_s=1.0, heartbeat_s=0.1, random=lambda: 0.5)
    return core, journal, driver


def test_another_version_of_pysyncobj_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pysyncobj()
    monkeypatch.setattr(core_module, "VERSION", "0.3.18")
    with pytest.raises(ConfigError, match=r"pip install pysyncobj==0\.3\.17"):
        check_pysyncobj()


@pytest.mark.parametrize("seam", core_module.SEAMS)
def test_a_seam_that_is_gone_is_refused(seam: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SyncObj, seam)
    with pytest.raises(ConfigError):
        check_pysyncobj()


@pytest.mark.parametrize("may_campaign", [True, False])
@pytest.mark.parametrize("voters", [[], ["a", "b"]])
def test_a_deadline_that_passes_within_a_tick_begins_no_campaign(
    monkeypatch: pytest.MonkeyPatch, voters: list[str], may_campaign: bool
) -> None:
    core, _, driver = begin(StepWriter())
    time_s = [100.0]
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: time_s[0])
    monkeypatch.setattr(driver, "may_campaign", lambda: may_campaign)
    core.set_voters(voters)
    for voter in voters:
        core.set_connected(voter, True)
    core.expect_election(1.0)
    time_s[0] += 0.99
    tell = core._tell_what_was_acknowledged

    def lose_the_processor() -> None:
        tell()
        time_s[0] += 0.06

    monkeypatch.setattr(core, "_tell_what_was_acknowledged", lose_the_processor)
    core.tick()
    driver.flushed()
    assert (core.term, core.role, driver.pre_votes) == (0, core_module.FOLLOWER, 0)
    core.tick()
    assert driver.pre_votes == may_campaign and core.term == 0


def test_a_campaign_waits_for_a_pre_vote() -> None:
    core, _, driver = begin(StepWriter())
    core.set_voters(["a", "b"])
    core.set_connected("a", True)
    core.expect_election(0.0)
    core.tick()
    assert driver.pre_votes == 1 and driver.sent == [] and core.term == 0
    core.campaign()
    core.tick()
    assert [message["type"] for _, message in driver.sent] == ["request_vote", "request_vote"] and core.term == 1


def test_a_voter_alone_leads_once_its_own_vote_is_durable() -> None:
    core, _, driver = begin(StepWriter())
    core.campaign()
    core.tick()
    assert (core.is_leader, core.term) == (False, 1)
    driver.flushed()
    assert (core.is_leader, core.term) == (True, 1)


def test_a_vote_that_is_durable_too_late_elects_nobody() -> None:
    core, _, driver = begin(StepWriter())
    core.campaign()
    core.tick()
    core.adopt_term(5)
    driver.flushed()
    assert (core.is_leader, core.term) == (False, 5)


def test_a_leader_never_commits_what_it_has_not_flushed() -> None:
    writer = StepWriter()
    core, journal, driver = begin(writer)
    core.campaign()
    core.tick()
    driver.flushed()
    core.tick()
    assert core.is_leader and core.commit_index < journal.last_index
    writer.drain()
    core.tick()
    assert core.commit_index == journal.last_index == journal.durable_index


def test_the_commit_index_never_goes_back() -> None:
    core, _, _ = begin(StepWriter())
    core._SyncObj__raftCommitIndex = 7
    core._SyncObj__raftCommitIndex = 3
    assert core.commit_index == 7


def leader_of(others: list[str]) -> tuple[Core, Journal, StepWriter]:
    """A leader whose own no-op is durable."""
    writer = StepWriter()
    core, journal, driver = begin(writer)
    core.set_voters(others)
    for node_id in others:
        core.set_connected(node_id, True)
    core.campaign()
    core.tick()
    for node_id in others:
        core.receive(node_id, {"type": "response_vote", "term": core.term})
    driver.flushed()
    writer.drain()
    assert core.is_leader
    return core, journal, writer


def test_a_turn_of_load_commits_what_a_majority_has_and_this_node_has_flushed() -> None:
    core, journal, writer = leader_of(["a", "b", "c", "d"])
    journal.add(b"\x00x", journal.last_index + 1, core.term)
    index = journal.last_index
    core.acknowledge("a", index)
    core.advance()
    assert core.commit_index < index, "two of five"
    core.acknowledge("b", index)
    core.acknowledge("c", index)
    core.advance()
    assert core.commit_index == index - 1, "three others, but it is not durable here"
    writer.drain()
    core.advance()
    assert core.commit_index == index


def test_a_turn_of_load_commits_no_older_term_by_counting() -> None:
    core, journal, _ = leader_of(["a", "b"])
    noop_index = journal.last_index
    core.acknowledge("a", noop_index - 1)
    core.advance()
    assert core.commit_index == 1, "what came before the no-op is of an older term"
    core.acknowledge("a", noop_index)
    core.advance()
    assert core.commit_index == noop_index


@pytest.mark.parametrize("others", [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]])
def test_a_turn_of_load_commits_what_pysyncobj_would(others: list[str]) -> None:
    random = Random(len(others))
    for _ in range(30):
        by_us, by_pysyncobj = leader_of(others), leader_of(others)
        acknowledged = {node_id: random.randrange(7) for node_id in others}
        flushed = random.random() < 0.7
        for core, journal, writer in (by_us, by_pysyncobj):
            for _ in range(4):
                journal.add(b"\x00x", journal.last_index + 1, core.term)
            if flushed:
                writer.drain()
            for node_id, index in acknowledged.items():
                core.acknowledge(node_id, min(index, journal.last_index))
        by_us[0].advance()
        by_pysyncobj[0].tick()
        assert by_us[0].commit_index == by_pysyncobj[0].commit_index


def test_entries_of_the_leader_that_is_followed_go_the_short_way_and_all_others_do_not() -> None:
    core, journal, _ = begin(StepWriter())
    entry = (b"\x00x", 2, 1)
    heartbeat = {
        "type": "append_entries",
        "term": 1,
        "commit_index": 1,
        "prevLogIdx": 1,
        "prevLogTerm": 0,
        "entries": [],
    }
    assert not core.extend("a", 1, 1, [entry]), "nobody is followed yet"
    core.receive("a", heartbeat)
    assert not core.extend("b", 1, 1, [entry]), "another leader"
    assert not core.extend("a", 2, 1, [entry]), "another term"
    assert journal.last_index == 1
    assert core.extend("a", 1, 7, [entry])
    assert (journal.last_index, core.commit_index) == (2, 2), "no more is committed than what is here"
    core.adopt_term(2)
    assert not core.extend("a", 2, 2, []), "it follows nobody in the new term"
    core.receive("a", {"type": "timeout_now", "term": 2})
    assert journal.last_index == 2


def test_who_was_asked_to_lead_takes_nothing_the_short_way() -> None:
    core, journal, _ = begin(StepWriter())
    core.receive(
        "a",
        {"type": "append_entries", "term": 1, "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0, "entries": []},
    )
    core.receive("a", {"type": "timeout_now", "term": 1})
    assert not core.extend("a", 1, 1, [(b"\x00x", 2, 1)])
    assert journal.last_index == 1
