"""Whose vote is given, taken or passed on: the leader's own decisions about one table."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.machine.state.settings import Member
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.votes import Votes
from cacheflow.raft.peers import PROBE, REPLICATE
from cacheflow.raft.seams import Timing

REPLACE_AFTER_S = 3.0


class Leader:
    """Votes on the leader "a", with all that it looks at: who is down, how far each is, how many shall vote, and the time."""

    def __init__(self, table: str, replicas: int | None = 2) -> None:
        members = {}
        for word in table.split():
            node_id, kind = word[0], word[1:]
            members[node_id] = Member(node_id, "disk", f"{node_id}:1", "", kind == "", kind == "?")
        self.now_ms = 0
        self.core: Any = SimpleNamespace(is_leader=True, term=5)
        self.peers: Any = SimpleNamespace(down=[], progress={}, down_ids=lambda: set(self.peers.down))
        for node_id in members:
            if node_id != "a":
                self.peers.progress[node_id] = SimpleNamespace(state=REPLICATE, match_index=100)
        self.settings = SimpleNamespace(replicas=replicas)
        configurations = SimpleNamespace(latest=Configuration(7, "c", members))
        self.membership: Any = SimpleNamespace(node_id="a", configurations=configurations)
        links: Any = SimpleNamespace(now_ms=lambda: self.now_ms)
        replica: Any = SimpleNamespace(machine=SimpleNamespace(settings=self.settings))
        leading: Any = SimpleNamespace(committed_lately=100)
        parts: dict[str, Any] = {"core": self.core, "links": links, "peers": self.peers, "membership": self.membership}
        self.votes = Votes(**parts, replica=replica, leading=leading, timing=Timing(1.0, 0.1, REPLACE_AFTER_S))
        self.votes.look()

    def pass_s(self, seconds: float, step_s: float = 0.1) -> None:
        for _ in range(round(seconds / step_s)):
            self.now_ms += round(step_s * 1000)
            self.votes.look()

    def step(self) -> str:
        """Put the next table in force; return what it changes, "" if there is none."""
        latest = self.membership.configurations.latest
        after = self.votes.next_table(latest)
        if after is None:
            return ""
        self.membership.configurations.latest = after
        changed = {one for one in after.members if after.members[one] != latest.members[one]}
        assert len(changed) == 1 == len(set(after.voters) ^ set(latest.voters))
        (node_id,) = changed
        return ("+" if after.members[node_id].voter else "-") + node_id

    def steps(self) -> list[str]:
        found: deque[str] = deque()
        while len(found) < 10 and (step := self.step()):
            found.append(step)
        return list(found)


# In the tables "b" votes, "b-" may and "b?" observes.


def test_spares_that_have_caught_up_are_given_a_vote_one_at_a_time_and_observers_none() -> None:
    leader = Leader("a b- c? d- e-")
    leader.peers.progress["b"].match_index = 99
    leader.peers.progress["d"].state = PROBE
    assert leader.votes.is_wanted(leader.membership.configurations.latest)
    assert leader.steps() == ["+e"]
    leader.peers.progress["b"].match_index = 100
    leader.peers.down = ["d"]
    assert leader.steps() == ["+b"]
    assert not leader.votes.is_wanted(leader.membership.configurations.latest)


def test_nobody_is_given_a_vote_before_the_settings_are_in_the_log() -> None:
    assert Leader("a b- c-", replicas=None).steps() == []


def test_only_observers_are_left_and_nothing_more_is_wanted() -> None:
    leader = Leader("a b? c?")
    assert leader.steps() == [] and not leader.votes.is_wanted(leader.membership.configurations.latest)


def test_a_spare_that_is_down_keeps_no_turn_busy() -> None:
    leader = Leader("a b- c?")
    leader.peers.down = ["b"]
    assert not leader.votes.is_wanted(leader.membership.configurations.latest)
    leader.peers.down = []
    assert leader.votes.is_wanted(leader.membership.configurations.latest)


def test_those_go_first_who_are_down_then_the_furthest_behind_then_the_last_and_the_leader_never() -> None:
    leader = Leader("a b c d e f g", replicas=0)
    leader.peers.down = ["c"]
    leader.peers.progress["e"].match_index = 98
    assert leader.steps() == ["-c", "-e", "-g", "-f", "-d", "-b"]
    assert not any(member.observer for member in leader.membership.configurations.latest.members.values())


def test_nobody_goes_while_no_majority_is_up_and_has_caught_up() -> None:
    leader = Leader("a b c d e", replicas=2)
    leader.peers.down = ["d", "e"]
    leader.peers.progress["c"].match_index = 5
    assert leader.steps() == []
    leader.peers.progress["c"].match_index = 100
    assert leader.steps() == ["-e", "-d"]


def test_a_living_voter_stays_whose_going_would_leave_no_majority() -> None:
    leader = Leader("a b c d", replicas=0)
    leader.peers.down = ["b"]
    assert leader.steps() == ["-b", "-d", "-c"]
    leader = Leader("a b c", replicas=0)
    leader.peers.progress["b"].match_index = leader.peers.progress["c"].match_index = 0
    assert leader.steps() == []


def test_a_silent_voter_gives_its_vote_first_and_then_the_spare_has_it() -> None:
    leader = Leader("a b c d- e?")
    leader.peers.down = ["b"]
    leader.pass_s(REPLACE_AFTER_S - 0.2)
    assert leader.steps() == []
    assert leader.votes.under_way()["b"].due_ms == 200
    leader.pass_s(0.2)
    assert leader.steps() == ["-b", "+d"]
    leader.peers.down = []
    leader.pass_s(60)
    assert leader.steps() == [] and leader.votes.under_way() == {}


@pytest.mark.parametrize("spoils", ["no spare", "spare is down", "spare is behind", "no majority", "never", "heard"])
def test_and_keeps_it_otherwise(spoils: str) -> None:
    leader = Leader("a b c e?" if spoils == "no spare" else "a b c d- e?")
    leader.peers.down = {"spare is down": ["b", "d"], "no majority": ["b", "c"]}.get(spoils, ["b"])
    if spoils == "spare is behind":
        leader.peers.progress["d"].match_index = 99
    if spoils == "never":
        leader.votes._replace_after_ms = 0
    leader.pass_s(REPLACE_AFTER_S - 0.1)
    if spoils == "heard":
        leader.peers.down = []
        leader.pass_s(0.1)
        leader.peers.down = ["b"]
    leader.pass_s(REPLACE_AFTER_S - 0.1 if spoils == "heard" else 60)
    assert leader.steps() == []


def test_of_two_silent_ones_each_is_replaced_in_its_turn() -> None:
    leader = Leader("a b c d e f- g-", replicas=4)
    leader.peers.down = ["c"]
    leader.pass_s(1.0)
    leader.peers.down = ["c", "b"]
    leader.pass_s(REPLACE_AFTER_S)
    assert leader.steps() == ["-c", "+f", "-b", "+g"]


def test_a_leader_that_stood_still_has_heard_nobody_and_takes_no_vote_for_that() -> None:
    leader = Leader("a b c d-")
    leader.peers.down = ["b"]
    leader.pass_s(600, step_s=600)
    assert leader.steps() == []
    leader.pass_s(REPLACE_AFTER_S)
    assert leader.steps() == ["-b", "+d"]


def test_a_new_leader_waits_for_itself() -> None:
    leader = Leader("a b c d-")
    leader.peers.down = ["b"]
    leader.pass_s(REPLACE_AFTER_S - 0.1)
    leader.core.term = 6
    leader.pass_s(REPLACE_AFTER_S - 0.1)
    assert leader.steps() == []


def test_who_catches_up_is_shown_with_since_when() -> None:
    leader = Leader("a b c-")
    leader.peers.progress["c"].match_index = 90
    leader.pass_s(1.5)
    assert leader.steps() == []
    assert leader.votes.under_way()["c"].what == "catching up"
    assert leader.votes.under_way()["c"].since_ms == 1500
    assert "10 entries" in leader.votes.lack_of("c")
    leader.core.is_leader = False
    assert leader.votes.under_way() == {}
