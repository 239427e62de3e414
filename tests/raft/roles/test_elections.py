"""Pre-votes of voters that miss their leader: who goes on when several ask, and that nobody stands in another's way for long."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.raft.roles.elections import GIVE_WAY, GIVE_WAY_S, Elections
from cacheflow.raft.transport.network import Peer

# The term of the leader that is missed, and the one that is asked for; the end of the log.
TERM, NEXT = 4, 5
INDEX = 20


class Voter:
    """The voter "b" of a, b, c, d and e; also all parts of it that its elections use."""

    def __init__(self, election_timeout_s: float = 1.0) -> None:
        self.node_id = "b"
        self.time_s = 100.0
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.campaigns = 0
        self.gives_way_s = 0.0
        # Of the core.
        self.conf = SimpleNamespace(raftMinTimeout=election_timeout_s)
        self.term, self.is_leader, self.leader_id = TERM, False, None
        self.voter_ids = ["a", "c", "d", "e"]
        # Of the journal, and of the disk.
        self.last_index, self.last_term = INDEX, TERM
        self.hung = False
        members = {each: SimpleNamespace(incarnation="disk", voter=True) for each in "abcde"}
        self.configurations = SimpleNamespace(latest=SimpleNamespace(members=members))
        me: Any = self
        times: Any = SimpleNamespace(
            own=lambda: (0, False), note=lambda node_id, message: None, is_disputed=lambda voters: False
        )
        self.elections = Elections(me, me, times, links=me, ticks=me, peers=me, membership=me, disk=me)

    def now(self) -> float:
        return self.time_s

    def send(self, node_id: str, message: dict[str, Any]) -> None:
        self.sent.append((node_id, message))

    def asked(self, node_id: str) -> None: ...

    def campaign(self) -> None:
        self.campaigns += 1

    def give_way(self, for_s: float) -> None:
        self.gives_way_s = for_s

    def adopt_term(self, term: int) -> None:
        assert term <= self.term

    def withdraw(self) -> None: ...
    def wake(self) -> None: ...
    def wake_after(self, seconds: float) -> None: ...
    def expect_election(self, after_s: float) -> None: ...

    def is_voter(self, peer: Peer) -> bool:
        return True

    # What the test does.

    def ask(self) -> None:
        """Have it begin a pre-vote."""
        self.elections.start_pre_vote()
        assert [(to, sent["type"], sent["term"]) for to, sent in self.sent[-4:]] == [
            (voter, "pre_vote", NEXT) for voter in self.voter_ids
        ]

    def grants(self, node_id: str, index: int = INDEX, log_term: int = TERM, term: int = NEXT) -> bool:
        """Return its answer to a request for a pre-vote."""
        asked = {"type": "pre_vote", "term": term, "last_log_index": index, "last_log_term": log_term}
        self.elections.handlers["pre_vote"](peer(node_id), asked)
        to, reply = self.sent.pop()
        assert (to, reply["type"], reply["term"]) == (node_id, "pre_vote_reply", term)
        return bool(reply["granted"])

    def is_granted(self, *node_ids: str) -> None:
        """Have it hear that others have granted its pre-vote."""
        for node_id in node_ids:
            reply = {"type": "pre_vote_reply", "term": NEXT, "current": TERM, "granted": True}
            self.elections.handlers["pre_vote_reply"](peer(node_id), reply)


def peer(node_id: str) -> Peer:
    return Peer(node_id, "disk", f"{node_id}:1", "cluster", "epoch")


def test_who_asks_at_the_same_moment_grants_to_those_whose_id_comes_first_and_asks_no_more() -> None:
    voter = Voter()
    voter.ask()
    assert voter.grants("a")
    assert voter.gives_way_s == GIVE_WAY_S
    voter.is_granted("c", "d")
    assert voter.campaigns == 0
    # Having dropped its own it refuses nobody.
    assert voter.grants("c")


def test_who_asks_at_the_same_moment_refuses_those_whose_id_comes_later_and_goes_on() -> None:
    voter = Voter()
    voter.ask()
    assert not voter.grants("c")
    assert voter.gives_way_s == 0.0
    voter.is_granted("d", "e")
    assert voter.campaigns == 1


def test_who_has_not_asked_grants_to_all() -> None:
    voter = Voter()
    assert voter.grants("a") and voter.grants("c")


@pytest.mark.parametrize("timeout_s", [0.1, 0.5, 1.0, 60.0])
def test_the_moment_ends(timeout_s: float) -> None:
    window_s = min(GIVE_WAY_S, GIVE_WAY * timeout_s)
    voter = Voter(timeout_s)
    voter.ask()
    began_s = voter.time_s
    voter.time_s = began_s + 0.99 * window_s
    assert not voter.grants("c")
    voter.time_s = began_s + 1.01 * window_s
    assert voter.grants("c")
    # A grant drops nothing that was asked for long before.
    assert voter.grants("a")
    voter.is_granted("d", "e")
    assert voter.campaigns == 1


def test_a_node_gives_way_for_less_than_the_pause_before_the_next_request_of_another() -> None:
    # The shortest pause of a node that asks again and again is 0.3 election timeouts (core.py).
    for timeout_s in (0.1, 0.2, 0.3, 0.5, 1.0, 60.0):
        voter = Voter(timeout_s)
        assert voter.grants("a")
        assert 0 < voter.gives_way_s <= 0.15 * timeout_s


def test_who_asks_again_neither_refuses_nor_drops_its_own() -> None:
    voter = Voter()
    voter.ask()
    voter.time_s += 0.5
    voter.ask()
    # It may be cut off from too many to win, and its id comes first for ever.
    assert voter.grants("c")
    # And one that comes first may be, too.
    assert voter.grants("a")
    voter.is_granted("d", "e")
    assert voter.campaigns == 1


def test_who_dropped_its_own_asks_again_as_one_who_has_asked_before() -> None:
    voter = Voter()
    voter.ask()
    assert voter.grants("a")
    voter.time_s += 0.5
    voter.ask()
    assert voter.grants("c")


def test_once_a_leader_was_heard_the_next_request_is_a_first_one() -> None:
    voter = Voter()
    voter.ask()
    voter.time_s += 5.0
    voter.elections.leader_heard()
    # The leader of the same term is missed again.
    voter.time_s += 2.0
    voter.ask()
    assert not voter.grants("c")


def test_when_the_connection_to_a_leader_breaks_again_the_next_request_is_a_first_one() -> None:
    voter = Voter()
    for _ in range(2):
        voter.elections.leader_heard()
        voter.elections.leader_lost()
        voter.ask()
        assert not voter.grants("c")
        voter.time_s += 100.0


def test_another_term_is_asked_for_anew() -> None:
    voter = Voter()
    voter.ask()
    # Another has been elected meanwhile and was not heard.
    voter.term = TERM - 1
    voter.elections.start_pre_vote()
    assert not voter.grants("c", term=TERM)
    # Those who ask for yet another term ask for something else.
    assert voter.grants("c", term=NEXT)


@pytest.mark.parametrize(
    ("index", "log_term", "granted"), [(INDEX + 1, TERM, True), (INDEX - 1, TERM, False), (1, TERM + 1, True)]
)
def test_of_unequal_logs_the_better_one_goes_first_whatever_the_ids(index: int, log_term: int, granted: bool) -> None:
    voter = Voter()
    voter.ask()
    assert voter.grants("c", index, log_term) is granted
    voter.is_granted("d", "e")
    assert voter.campaigns == (0 if granted else 1)


def test_a_voter_whose_disk_hangs_or_that_hears_a_leader_grants_nothing() -> None:
    voter = Voter()
    voter.hung = True
    assert not voter.grants("a")
    voter.hung = False
    voter.elections.leader_heard()
    assert not voter.grants("a")
    voter.elections._leader_heard_s = -math.inf
    assert voter.grants("a")
