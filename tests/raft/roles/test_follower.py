"""How old the contents are, as a node tells it: never fresher than they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.raft import guards
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.roles.freshness import CAUGHT_UP, FRESH_MARKS_MAX, Freshness


class Node:
    """A node's time, and what its core has committed and applied; also its links, clock and peers."""

    def __init__(self) -> None:
        self.time_ms = 1_000
        self.heard_ms = 0
        self.late_ms: int | None = None
        self.core = SimpleNamespace(
            conf=SimpleNamespace(raftMinTimeout=0.5),
            is_leader=False,
            has_settled=False,
            last_applied=0,
            commit_index=0,
            voter_ids=["n2", "n3"],
        )
        peers = SimpleNamespace(quorum_at_ms=lambda voters, now_ms: self.time_ms - 10)
        make: Any = Freshness
        self.freshness: Freshness = make(self.core, self, peers)

    def now_ms(self) -> int:
        return self.time_ms

    def hear(self, cluster_ms: int, late_ms: int | None) -> None:
        self.heard_ms, self.late_ms = cluster_ms, late_ms


@pytest.fixture
def node() -> Node:
    return Node()


def following(node: Node, random: float = 0.5, log: Any = None) -> Following:
    make: Any = Following
    made: Following = make(
        node.core,
        log,
        node,
        lambda: random,
        links=node,
        peers=SimpleNamespace(),
        membership=None,
        elections=None,
        freshness=node.freshness,
        divergence=SimpleNamespace(compare=lambda digest: None),
        disk=None,
        build_level=1,
    )
    return made


def header(clock_ms: int, commit_index: int = 5, hold_ms: int = 20, age_ms: int = 30) -> dict[str, Any]:
    return {
        "type": "append_entries",
        "term": 1,
        "at": 0,
        "time": 0,
        "clock": clock_ms,
        "hold": hold_ms,
        "age": age_ms,
        "commit_index": commit_index,
    }


def test_contents_are_as_old_as_the_leaders_last_majority_once_what_it_had_committed_is_applied(node: Node) -> None:
    follower = following(node)
    said_ms = node.now_ms() + follower._clock_origin_ms
    node.time_ms += 50
    follower._hear_header(header(said_ms))
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 0
    node.core.last_applied = 5
    node.freshness.note_progress()
    # The last is for clocks that run at different rates.
    assert node.freshness.fresh_at_ms == 1_000 + 20 - 30 - 1


@pytest.mark.parametrize("hold_ms", [0, 3_000])
@pytest.mark.parametrize("age_ms", [0, 2_000])
def test_contents_are_never_told_younger_than_they_are_by_a_leader_whose_clock_runs_wrong(
    node: Node, hold_ms: int, age_ms: int
) -> None:
    follower = following(node)
    node.time_ms = 100_000
    said_ms = node.now_ms() + follower._clock_origin_ms
    node.core.last_applied = 5
    node.time_ms += 10_000
    # It runs faster than this node's by two parts in a thousand, and then slower.
    for wrong in (1.002, 0.998):
        follower._hear_header(header(said_ms, 5, int(hold_ms * wrong), int(age_ms * wrong)))
        node.freshness.note_progress()
        assert node.freshness.fresh_at_ms <= 100_000 + hold_ms - age_ms
        node.freshness.fresh_at_ms = 0


def test_a_message_that_was_overtaken_says_nothing_of_the_time(node: Node) -> None:
    follower = following(node)
    follower._hear_header(header(0) | {"at": 500, "time": 9_500, "under_way": 8})
    assert (node.heard_ms, follower.under_way) == (9_500, 8)
    follower._hear_header(header(0) | {"at": 100, "time": 9_100})
    assert (node.heard_ms, follower.under_way) == (9_500, 8)
    # Another leader has another clock.
    follower._hear_header(header(0) | {"term": 2, "at": 3, "time": 9_600})
    assert (node.heard_ms, follower.under_way) == (9_600, 0)


def test_a_message_is_as_late_as_the_own_clock_reading_in_it_is_old_and_a_reading_of_nobody_says_nothing(
    node: Node,
) -> None:
    follower = following(node)
    said_ms = node.now_ms() + follower._clock_origin_ms
    node.time_ms += 150
    for clock_ms, late_ms in ((0, None), (said_ms, 130), (said_ms + 10**6, None)):
        follower._hear_header(header(clock_ms))
        assert node.late_ms == late_ms


@pytest.mark.parametrize("is_first", [True, False])
def test_contents_that_are_replaced_are_read_only_behind_what_a_leader_has_said(node: Node, is_first: bool) -> None:
    node.core.last_applied = 5
    node.freshness.catch_up_to = None if is_first else 4
    node.freshness.goes_back()
    node.freshness.note_mark(5, node.now_ms())
    node.freshness.note_progress()
    assert node.freshness.caught_up is not is_first


def test_contents_behind_a_start_are_read_once_they_are_nearly_the_newest(node: Node) -> None:
    """Much was to be applied, and the cluster has gone on for long meanwhile."""
    began_ms = node.now_ms()
    node.freshness.catch_up_to = 100
    node.freshness.note_mark(100, began_ms)
    node.freshness.note_mark(200, began_ms + 60_000)
    node.freshness.note_mark(210, began_ms + 70_000)
    most_ms = int(CAUGHT_UP * node.core.conf.raftMinTimeout * 1000)
    for applied, passed_ms, caught_up in (
        (99, 0, False),
        (100, most_ms + 1, False),
        (200, 60_001 + most_ms, False),
        (209, 70_000, False),
        (210, 70_000 + most_ms, True),
        # It stays so: local reads are as old as a cut.
        (210, 200_000, True),
    ):
        node.core.last_applied = applied
        node.time_ms = began_ms + passed_ms
        node.freshness.note_progress()
        assert node.freshness.caught_up is caught_up, (applied, passed_ms)


@pytest.mark.parametrize("uptime_ms", [1_000, 10_000_000])
@pytest.mark.parametrize("random", [0.1, 0.9])
def test_what_a_leader_heard_from_the_start_before_says_nothing(node: Node, uptime_ms: int, random: float) -> None:
    before = following(node)
    node.core.last_applied = 5
    said_ms = uptime_ms + before._clock_origin_ms
    after = following(node, random)
    after._hear_header(header(said_ms))
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 0


def test_a_leader_is_not_fresh_while_it_has_not_applied_what_it_committed(node: Node) -> None:
    node.core.is_leader = node.core.has_settled = True
    node.core.commit_index = node.core.last_applied = 7
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 990
    node.core.commit_index = 9
    node.time_ms = 2_000
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 990, "a follower may have acknowledged 9 already"
    node.core.last_applied = 9
    node.time_ms = 2_500
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 2_490


def test_who_lags_for_long_still_learns_how_far_it_is(node: Node) -> None:
    follower = following(node)
    for index in range(1, 10 * FRESH_MARKS_MAX):
        node.time_ms += 100
        follower._hear_header(header(node.now_ms() + follower._clock_origin_ms, index, 0, 0))
    node.core.last_applied = 1
    node.freshness.note_progress()
    assert node.freshness.fresh_at_ms == 1_100


def test_a_commit_counts_where_the_log_has_that_very_entry(node: Node) -> None:
    taken: list[tuple[str, int, int]] = []

    def extend(node_id: str, term: int, index: int, entries: object) -> bool:
        taken.append((node_id, term, index))
        return False

    node.core.extend = extend
    log = SimpleNamespace(term_at={7: 3, 8: 4}.get)
    follower = following(node, log=log)
    peer: Any = SimpleNamespace(node_id="n2")

    def hear(index: int, index_term: int) -> None:
        message = {"type": "commit", "term": 4, "index": index, "index_term": index_term}
        follower.handlers["commit"](peer, message)

    hear(8, 3)
    hear(9, 4)
    assert taken == []
    hear(8, 4)
    assert taken == [("n2", 4, 8)]
    with pytest.raises(guards.BadMessage):
        hear(8, -1)


def test_a_node_knows_how_far_the_leader_is_also_where_it_lacks_the_entries(node: Node) -> None:
    node.core.term, node.core.receive = 4, lambda node_id, message: None
    log = SimpleNamespace(first_index=1, last_index=3, last_term=4, term_at={1: 4, 2: 4, 3: 4}.get)
    follower: Any = following(node, log=log)
    follower._disk, follower._elections = SimpleNamespace(hung=False), SimpleNamespace(leader_heard=lambda: None)
    sent: list[Any] = []
    follower._links = SimpleNamespace(send=lambda node_id, message: sent.append(message), now_ms=node.now_ms)
    peer: Any = SimpleNamespace(node_id="n2")
    where = {"prevLogIdx": 8, "prevLogTerm": 4, "entries": []}
    follower.handlers["append_entries"](peer, {**header(0, commit_index=9), **where, "term": 4})
    assert sent[0]["ok"] is False and follower.told_commit_index == 9
    follower.handlers["commit"](peer, {"type": "commit", "term": 4, "index": 11, "index_term": 4})
    assert follower.told_commit_index == 11
