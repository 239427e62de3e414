"""Who is told that it is no member, and who believes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member
from cacheflow.raft import guards
from cacheflow.raft.log.records import CONFIGURATION
from cacheflow.raft.membership.configuration import NOBODY, Configuration, Configurations
from cacheflow.raft.membership.removed import Removal
from cacheflow.raft.transport.network import Peer


class Log:
    """Terms by index; the first one is the sentinel's."""

    def __init__(self, terms: dict[int, int]) -> None:
        self.terms = terms

    @property
    def first_index(self) -> int:
        return min(self.terms)

    def term_at(self, index: int) -> int | None:
        return self.terms.get(index)


class FakeNode:
    """A node "me" whose log holds member tables at some indexes; also all parts of it that its removal uses."""

    def __init__(self, terms: dict[int, int], tables: dict[int, list[str]], applied: int) -> None:
        self.node_id, self.incarnation = "me", "disk"
        self.configurations = Configurations(NOBODY, [(entry(ids), index, 1) for index, ids in tables.items()])
        self.configurations.committed(applied)
        self.last_applied = self.commit_index = applied
        self.is_leader = False
        self.machine = CacheMachine()
        self.leader_silent_s = 0.0
        self.time_ms = 10_000
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.removed_at: list[int] = []
        # What is to be called once a removal is noted; the disk takes its time when ``disk_hangs``.
        self.noted: list[Callable[[], None]] = []
        self.disk_hangs = False
        me: Any = self
        log: Any = Log(terms)
        self.removal = Removal(me, log, me, links=me, membership=me, replica=me, elections=me)
        self.removal.on_removed = self.on_removed

    def now_ms(self) -> int:
        return self.time_ms

    def others(self) -> dict[str, str]:
        return {node_id: "disk" for node_id in self.configurations.latest.members if node_id != "me"}

    def send(self, node_id: str, message: dict[str, Any]) -> bool:
        self.sent.append((node_id, message))
        return True

    def on_removed(self, reason: str, noted: Callable[[], None]) -> None:
        assert self.removal.removed_at is None, "noted before anybody can see it"
        self.noted.append(noted)
        if not self.disk_hangs:
            noted()

    def fail(self, reason: str) -> None:
        assert self.removal.removed_at is not None
        self.removed_at.append(self.removal.removed_at)

    def set_peers(self, peers: dict[str, str]) -> None:
        assert not peers and self.removed_at, "a node that was removed talks to nobody"

    def hear(self, kind: str, sender: str = "a", **fields: Any) -> None:
        self.removal.handlers[kind](peer(sender), {"type": kind, **fields})

    def told(self, term: int, index: int, **fields: Any) -> None:
        self.hear("not_member", **{"incarnation": "disk", "term": term, "index": index, "since": index, **fields})


def entry(ids: list[str]) -> bytes:
    table = Configuration(0, "cluster", {one: Member(one, "disk", f"{one}:1", f"{one}:2", True) for one in ids})
    return CONFIGURATION + commands.encode_entry(5, [commands.encode_block(0, 0, 0, [table.command()])])


def peer(node_id: str, incarnation: str = "disk") -> Peer:
    return Peer(node_id, incarnation, f"{node_id}:1", "cluster", "epoch")


def member(applied: int = 5) -> FakeNode:
    """It became a member at 4 of term 2."""
    return FakeNode({1: 0, 2: 1, 3: 1, 4: 2, 5: 2}, {2: ["a"], 4: ["a", "me"]}, applied)


def test_a_later_committed_entry_without_it_removes_a_member() -> None:
    node = member()
    node.told(2, 6, since=6)
    assert node.removed_at == [6] and node.removal.removed_at == 6


def test_a_removal_shows_once_it_is_on_the_disk_and_is_noted_once() -> None:
    node = member()
    node.disk_hangs = True
    node.told(2, 6, since=6)
    node.told(2, 7, since=6)
    assert not node.removed_at and node.removal.removed_at is None
    assert len(node.noted) == 1
    node.noted[0]()
    assert node.removed_at == [6]


@pytest.mark.parametrize(("term", "index"), [(1, 3), (1, 99), (2, 3), (2, 4)])
def test_a_member_that_lags_cannot_send_a_newcomer_away(term: int, index: int) -> None:
    node = member()
    node.told(term, index)
    assert not node.removed_at and not node.sent


def test_what_is_said_to_another_disk_of_the_same_id_does_not_count() -> None:
    node = member()
    node.told(9, 9, incarnation="an older disk")
    assert not node.removed_at


def test_who_was_never_known_to_be_a_member_asks_back() -> None:
    node = member(applied=3)
    node.told(3, 6)
    assert not node.removed_at
    assert node.sent == [("a", {"type": "membership", "first": [2, 4]})]


def test_one_whose_entry_was_dropped_registers_again_and_is_not_removed() -> None:
    node = member(applied=3)
    node.told(3, 6, first=[2, 4], was=False)
    assert node.removal.disowned and not node.removed_at
    # A new entry takes it in.
    node.configurations.note(entry(["a", "me"]), 5)
    assert not node.removal.disowned


def test_one_whose_entry_was_committed_is_removed_although_it_has_not_applied_it() -> None:
    node = member(applied=3)
    node.told(3, 6, first=[2, 3], was=True)
    assert not node.removed_at, "an answer to another question"
    node.told(3, 6, first=[2, 4], was=True)
    assert node.removed_at == [6]


def test_a_newcomer_without_a_place_in_its_log_believes_nothing() -> None:
    node = FakeNode({1: 0, 2: 1}, {2: ["a"]}, 2)
    node.told(9, 9)
    node.told(9, 9, first=[2, 4], was=True)
    assert not node.removed_at and not node.sent and not node.removal.disowned


def test_a_stranger_is_told_once_in_a_while_whatever_it_says() -> None:
    node = member()
    for _ in range(3):
        node.removal.answer_stranger(peer("b"), "pre_vote")
    assert node.sent == [("b", {"type": "not_member", "incarnation": "disk", "term": 2, "index": 5, "since": 4})]
    node.time_ms += 1000
    node.removal.answer_stranger(peer("b"), "append_entries")
    assert len(node.sent) == 2


@pytest.mark.parametrize("kind", ["register", "change_reply", "membership", "not_member"])
def test_who_is_about_to_join_is_told_nothing(kind: str) -> None:
    node = member()
    node.removal.answer_stranger(peer("b"), kind)
    assert not node.sent


def test_a_member_of_a_table_that_is_not_committed_yet_is_no_stranger() -> None:
    node = member()
    node.configurations.note(entry(["a", "b", "me"]), 6)
    node.removal.answer_stranger(peer("b"), "pre_vote")
    assert not node.sent
    node.removal.answer_stranger(peer("b", "an older disk"), "pre_vote")
    assert len(node.sent) == 1


def test_a_node_that_knows_no_configuration_tells_nobody_anything() -> None:
    node = FakeNode({1: 0}, {}, 1)
    node.removal.answer_stranger(peer("b"), "pre_vote")
    node.hear("membership", "b", first=[1, 2])
    assert not node.sent


@pytest.mark.parametrize("was", [True, False])
def test_the_answer_tells_whether_the_asker_ever_was_a_member(was: bool) -> None:
    node = FakeNode({2: 1, 3: 1, 4: 2, 5: 2}, {4: ["a", "me"]}, 5)
    node.machine.removed["b", "disk" if was else "an older disk"] = None
    # The log does not go back so far.
    first = [1, 1]
    node.hear("membership", "b", first=first)
    [(receiver, answer)] = node.sent
    assert (receiver, answer["type"], answer["first"], answer["was"]) == ("b", "not_member", first, was)
    node.hear("membership", "a", first=first)
    assert len(node.sent) == 1, "a member needs no answer"


def test_a_leader_tells_those_whom_it_has_just_removed() -> None:
    node = member()
    before = Configuration(3, "cluster", {one: Member(one, "disk", "", "", True) for one in ("a", "b", "me")})
    node.removal.tell_removed(before)
    assert not node.sent
    node.is_leader = True
    node.removal.tell_removed(before)
    assert [receiver for receiver, _ in node.sent] == ["b"]


def test_a_member_that_hears_no_leader_asks_all_members_once_a_second() -> None:
    node = member()
    node.removal.consider()
    assert not node.sent
    node.leader_silent_s = 5.0
    node.removal.consider()
    node.removal.consider()
    assert node.sent == [("a", {"type": "membership", "first": [2, 4]})]
    node.time_ms += 1000
    node.removal.consider()
    assert len(node.sent) == 2


@pytest.mark.parametrize("first", [None, [1], [1, "2"], "12", [True, 1, 2]])
def test_a_question_of_the_wrong_shape_is_dropped(first: Any) -> None:
    with pytest.raises(guards.BadMessage):
        member().hear("membership", "b", first=first)
