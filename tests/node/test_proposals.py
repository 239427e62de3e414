"""Proposals against a leader that is a list: numbering, sending again, deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cacheflow.errors import AnswerNotKept, NoLeader, NotCommitted, OutcomeUnknown, Overloaded
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state import contents
from cacheflow.machine.state.condemnations import Condemnations
from cacheflow.node import proposals
from cacheflow.node.assembly import LocalNode
from cacheflow.node.proposals import (
    BLOCK_BYTES_MAX,
    BLOCK_COMMANDS_MAX,
    GATHER_FROM,
    PENDING_BYTES_MAX,
    PENDING_MAX,
    SEND_AGAIN_BYTES_PER_S,
    Proposal,
    Proposals,
)

NONCE = "this start"


def table(*member_ids: str) -> Command:
    """The command for a table of these members."""
    return commands.members("c", [(member_id, "i", "h:1", "", True) for member_id in member_ids])


class Cluster:
    """A leader that keeps what it is sent until it is told to apply it, and the time."""

    def __init__(self) -> None:
        self.machine = CacheMachine()
        self.machine.apply(1, entry([(0, 0, 0, [table("me", "other")])]))
        self.index = 1
        self.sent: list[bytes] = []
        self.takes = True
        # Whether an entry is on its way to a majority, and how many were committed.
        self.waits = False
        self.sending = False
        self.committed = 0
        self.now = 100.0
        # The leader's time, which a node may lag behind.
        self.cluster_ms = self.leader_ms = 1000
        self.uses: list[tuple[str, int]] = []
        self.timers: list[Callable[[], None]] = []
        self.proposals = Proposals(
            self,
            opening=commands.open_session("me", "i", 1, NONCE),
            clock=lambda: self.now,
            cluster_ms=lambda: self.cluster_ms,
            uses=self.drain,
            later=lambda _, call: self.timers.append(call),
        )

    def propose(self, blocks: list[bytes], crowded: bool = False, again: bool = False) -> bool:
        if self.takes and again:
            # What waits of this node is all sent again.
            self.sent.clear()
        if self.takes:
            self.sent += blocks
        return self.takes

    def is_sending(self) -> bool:
        return self.sending

    def log_progress(self) -> tuple[int, bool]:
        return self.committed, self.waits

    def drain(self) -> list[tuple[str, int]]:
        uses, self.uses = self.uses, []
        return uses

    def apply(self, *blocks: bytes) -> None:
        """Commit these blocks, by default everything that was sent, in one entry."""
        chosen = list(blocks) if blocks else self.sent
        if not blocks:
            self.sent = []
        self.index += 1
        self.proposals.applied(self.machine.apply(self.index, commands.encode_entry(self.leader_ms, chosen)))

    def open(self) -> Cluster:
        """With a route and a session."""
        self.proposals.route_changed(True)
        self.apply()
        return self

    def wait(self) -> None:
        """Let the timers run out."""
        timers, self.timers = self.timers, []
        for call in timers:
            call()

    def blocks(self) -> list[tuple[int, int, int, list[list[Any]]]]:
        blocks = map(commands.decode_block, self.sent)
        return [(session, first, lowest, body) for session, first, lowest, _, body in blocks]

    def lose_session(self) -> None:
        """Let the member leave the table and come again."""
        self.apply(commands.encode_block(0, 0, 0, [table("other"), table("me", "other")]))


def entry(blocks: list[tuple[int, int, int, list[Command]]]) -> bytes:
    return commands.encode_entry(1, [commands.encode_block(*block) for block in blocks])


class Call:
    """A caller that waits. outcomes: what it was told; never more than one."""

    def __init__(
        self, cluster: Cluster, *commands_: Command, timeout_s: float = 10.0, size: int = 64, flush: bool = True
    ) -> None:
        self.outcomes: list[Any] = []
        cluster.proposals.add(Proposal(commands_, size, cluster.now + timeout_s, self.outcomes.append))
        if flush:
            cluster.proposals.flush()

    @property
    def outcome(self) -> Any:
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def count(key: str = "n") -> Command:
    return commands.incr(key, 1, 0)


def numbers(results: list[Result]) -> list[int]:
    assert all(result[0] == commands.OK for result in results)
    return [result[2] for result in results]


def test_a_session_is_opened_before_anything_is_sent() -> None:
    cluster = Cluster()
    call = Call(cluster, count())
    assert cluster.sent == []
    cluster.proposals.route_changed(True)
    ((session, _, _, (opening,)),) = cluster.blocks()
    assert session == 0 and opening == [commands.OPEN_SESSION, "me", "i", 1, NONCE, BUILD_LEVEL]
    cluster.apply()
    ((session, first, lowest, _),) = cluster.blocks()
    assert session > 0 and (first, lowest) == (1, 1)
    cluster.apply()
    assert numbers(call.outcome) == [1]
    assert cluster.proposals.pending == 0


def test_a_command_that_the_log_cannot_carry_is_refused_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster().open()
    good = Call(cluster, count(), flush=False)
    bad = Call(cluster, commands.set_("k", b"x", 1, "\ud800"), flush=False)
    late = Call(cluster, count())
    assert isinstance(bad.outcome, NotCommitted) and "cannot carry" in str(bad.outcome)
    cluster.apply()
    assert numbers(good.outcome) == [1] and numbers(late.outcome) == [2]
    cluster.now += 20.0
    cluster.proposals.expire()
    assert cluster.proposals.pending == 0 and numbers(Call(cluster, count()).outcomes) == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_opening_that_was_lost_is_sent_again_after_a_while() -> None:
    cluster = Cluster()
    cluster.proposals.route_changed(True)
    cluster.sent.clear()
    cluster.proposals.expire()
    assert cluster.sent == []
    cluster.now += 1.1
    cluster.proposals.expire()
    assert len(cluster.sent) == 1


def test_the_answer_to_somebody_elses_opening_is_not_taken() -> None:
    cluster = Cluster()
    cluster.proposals.route_changed(True)
    cluster.sent = [commands.encode_block(0, 0, 0, [commands.open_session("other", "i", 1, "other start")])]
    cluster.apply()
    call = Call(cluster, count())
    assert cluster.sent == [] and call.outcomes == []


def test_what_waits_together_travels_together_and_is_answered_call_by_call() -> None:
    cluster = Cluster().open()
    calls = []
    for _ in range(3):
        call = Call.__new__(Call)
        call.outcomes = []
        cluster.proposals.add(Proposal([count(), count()], 128, 200.0, call.outcomes.append))
        calls.append(call)
    cluster.proposals.flush()
    ((_, first, _, block),) = cluster.blocks()
    assert (first, len(block)) == (1, 6)
    cluster.apply()
    assert [numbers(call.outcome) for call in calls] == [[1, 2], [3, 4], [5, 6]]


def test_a_large_crowd_is_cut_into_blocks() -> None:
    cluster = Cluster().open()
    Call(cluster, *[count()] * BLOCK_COMMANDS_MAX)
    Call(cluster, count())
    Call(cluster, commands.set_("k", b"x" * 2_000_000, 0), size=2_000_000)
    Call(cluster, count())
    sizes = []
    while cluster.sent:
        sizes += [len(block[3]) for block in cluster.blocks()]
        cluster.apply()
        cluster.wait()
    assert sizes == [BLOCK_COMMANDS_MAX, 2, 1]
    assert cluster.proposals.pending == 0


def test_what_batches_hold_counts_in_the_limit_of_a_block() -> None:
    sets = [commands.set_(f"k{number}", b"x", 0) for number in range(BLOCK_COMMANDS_MAX // 2)]
    heavy = commands.batch([*sets, *sets, *sets])
    cluster = Cluster().open()
    kinds = [
        [commands.batch(sets)],
        [commands.scoped(1, "n", 1, 1, commands.batch(sets[1:]))],
        [commands.idempotent("i", commands.guarded([], sets))],
        [count()],
        [heavy],
        [count(), count()],
    ]
    calls = [Call(cluster, *each) for each in kinds]
    sizes = []
    while cluster.sent:
        # Also of all blocks that are on their way together.
        sizes.append([[command[0] for command in block[3]] for block in cluster.blocks()])
        cluster.apply()
        cluster.wait()
    assert sizes == [
        [[commands.BATCH]],
        [[commands.SCOPED]],
        [[commands.IDEMPOTENT, commands.INCR]],
        [[commands.BATCH]],
        [[commands.INCR, commands.INCR]],
    ]
    assert all(call.outcomes for call in calls) and cluster.proposals.pending == 0


def test_a_block_does_not_wait_for_the_answer_to_the_one_before() -> None:
    cluster = Cluster().open()
    calls = [Call(cluster, count()) for _ in range(3)]
    assert [(first, len(block)) for _, first, _, block in cluster.blocks()] == [(1, 1), (2, 1), (3, 1)]
    cluster.apply()
    assert [numbers(call.outcome) for call in calls] == [[1], [2], [3]]
    assert cluster.timers == [] and cluster.proposals.pending == 0


def test_what_is_on_its_way_is_bounded() -> None:
    cluster = Cluster().open()
    large = [Call(cluster, commands.set_("k", b"x", 0), size=BLOCK_BYTES_MAX // 2) for _ in range(3)]
    assert len(cluster.blocks()) == 2 and cluster.proposals.holds_back(1000)
    cluster.apply()
    assert [len(call.outcomes) for call in large] == [1, 1, 0] and not cluster.proposals.holds_back(0)
    cluster.apply()
    assert len(large[2].outcomes) == 1


def test_while_the_way_is_full_nothing_new_overtakes_what_is_to_be_sent_again() -> None:
    cluster = Cluster().open()
    first = Call(cluster, count())
    cluster.sent.clear()
    cluster.takes = False
    second = Call(cluster, count())
    cluster.proposals.flush()
    assert cluster.sent == []
    cluster.takes = True
    cluster.proposals.flush()
    cluster.apply()
    assert [numbers(call.outcome) for call in (first, second)] == [[1], [2]]


def test_after_a_crowded_block_the_next_one_waits_a_moment_for_company() -> None:
    cluster = crowded()
    calls = [Call(cluster, count()) for _ in range(2)]
    assert cluster.sent == [] and cluster.proposals.holds_back(1)
    cluster.wait()
    assert [len(block[3]) for block in cluster.blocks()] == [2]
    cluster.apply()
    assert [len(call.outcomes) for call in calls] == [1, 1]


def crowded() -> Cluster:
    """GATHER_FROM callers have just been answered by one entry."""
    cluster = Cluster().open()
    calls = [Call(cluster, count()) for _ in range(GATHER_FROM)]
    cluster.apply()
    assert all(len(call.outcomes) == 1 for call in calls)
    return cluster


def test_who_has_all_its_company_waits_no_longer() -> None:
    cluster = crowded()
    for _ in range(GATHER_FROM - 1):
        Call(cluster, count())
    assert cluster.sent == [] and not cluster.proposals.holds_back(1)
    Call(cluster, count())
    assert [len(block[3]) for block in cluster.blocks()] == [GATHER_FROM]


def test_who_came_too_late_for_a_crowded_block_goes_with_those_that_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = crowded()
    for _ in range(GATHER_FROM):
        Call(cluster, count())
    with monkeypatch.context() as full:
        full.setattr(proposals, "BLOCK_COMMANDS_MAX", 0)
        late = [Call(cluster, count()) for _ in range(2)]
    cluster.apply()
    assert cluster.sent == []
    for _ in range(GATHER_FROM):
        Call(cluster, count())
    assert [len(block[3]) for block in cluster.blocks()] == [GATHER_FROM + 2]
    cluster.apply()
    assert [len(call.outcomes) for call in late] == [1, 1]


def test_a_lone_caller_of_many_commands_waits_for_nobody() -> None:
    cluster = Cluster().open()
    Call(cluster, *[count()] * 10 * GATHER_FROM)
    cluster.apply()
    Call(cluster, count())
    assert [len(block[3]) for block in cluster.blocks()] == [1]


def test_what_a_new_leader_may_not_have_is_sent_again_and_applied_once() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count(), count(), count())
    before, cluster.sent = cluster.sent, []
    cluster.proposals.route_changed(True)
    ((session, first, lowest, block),) = cluster.blocks()
    assert (first, lowest, len(block)) == (1, 1, 3)
    again, cluster.sent = cluster.sent, []
    # Both ways arrive, and a part of the old one first.
    cluster.apply(commands.encode_block(session, 1, 1, [tuple(block[0])]))
    cluster.apply(*again)
    cluster.apply(*before)
    assert numbers(call.outcome) == [1, 2, 3]
    assert cluster.machine.lookup("n", 0)[0] == b"3"  # type: ignore[index]


def test_nothing_is_sent_without_a_route_and_everything_when_there_is_one() -> None:
    cluster = Cluster().open()
    first = Call(cluster, count())
    cluster.sent.clear()
    cluster.proposals.route_changed(False)
    second = Call(cluster, count())
    assert cluster.sent == []
    cluster.proposals.route_changed(True)
    cluster.apply()
    cluster.apply()
    assert [numbers(call.outcome) for call in (first, second)] == [[1], [2]]


def test_what_a_full_link_refused_is_sent_by_the_timer() -> None:
    cluster = Cluster().open()
    cluster.takes = False
    calls = [Call(cluster, count()) for _ in range(2)]
    cluster.takes = True
    cluster.proposals.expire()
    cluster.apply()
    cluster.apply()
    assert [numbers(call.outcome) for call in calls] == [[1], [2]]


def test_a_gap_is_closed_from_the_lowest_unanswered_number() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count(), count(), count())
    ((session, _, _, block),) = cluster.blocks()
    cluster.sent = [commands.encode_block(session, 2, 1, [tuple(body) for body in block[1:]])]
    cluster.apply()
    assert call.outcomes == []
    cluster.proposals.expire()
    cluster.apply()
    assert numbers(call.outcome) == [1, 2, 3]


def test_answers_that_a_snapshot_swallowed_are_asked_for_again() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count())
    cluster.machine.apply(cluster.index + 1, commands.encode_entry(1, cluster.sent))
    cluster.index += 1
    cluster.sent = []
    cluster.proposals.answers_missed()
    cluster.proposals.expire()
    cluster.apply()
    assert numbers(call.outcome) == [1], "answered from the kept result, not applied again"


def test_at_its_deadline_an_unsent_call_is_withdrawn_and_a_sent_one_unknown() -> None:
    cluster = Cluster().open()
    sent = Call(cluster, count(), timeout_s=5)
    cluster.proposals.route_changed(False)
    unsent = Call(cluster, count(), timeout_s=5)
    cluster.now += 4.9
    cluster.proposals.expire()
    assert sent.outcomes == unsent.outcomes == []
    cluster.now += 0.2
    cluster.proposals.expire()
    assert isinstance(sent.outcome, OutcomeUnknown) and isinstance(unsent.outcome, NoLeader)
    # The sent one keeps its number, which a no-op takes; what comes later is not mixed up with it.
    later = Call(cluster, count())
    cluster.proposals.route_changed(True)
    cluster.apply()
    assert numbers(later.outcome) == [1]
    assert len(sent.outcomes) == 1 and cluster.proposals.pending == 0


@pytest.mark.parametrize(("has_route", "told"), [(True, OutcomeUnknown), (False, NoLeader)])
def test_a_short_deadline_behind_a_long_one_is_kept(has_route: bool, told: type[Exception]) -> None:
    cluster = Cluster().open()
    cluster.proposals.route_changed(has_route)
    long, short = Call(cluster, count(), timeout_s=60), Call(cluster, count(), timeout_s=1)
    cluster.now += 1.5
    cluster.proposals.expire()
    assert long.outcomes == [] and isinstance(short.outcome, told)
    cluster.now += 60
    cluster.proposals.expire()
    assert len(long.outcomes) == 1


def test_what_no_block_can_carry_ends_before_it_has_a_number_and_nobody_waits_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposals, "BLOCK_BYTES_MAX", 1000)
    monkeypatch.setattr(proposals, "SENT_BYTES_MAX", 5000)
    cluster = Cluster().open()
    # Whoever calls has said too little: the block tells.
    before = [Call(cluster, commands.set_(f"k{number}", bytes(3000), 0), flush=False) for number in range(3)]
    large = Call(cluster, commands.set_("k", bytes(4500), 0), flush=False)
    after = Call(cluster, count())
    assert isinstance(large.outcome, NotCommitted) and "cannot carry" in str(large.outcome)
    while cluster.sent:
        assert max(map(len, cluster.sent)) <= 5000
        cluster.apply()
    assert [call.outcome[0][0] for call in before] == [commands.OK] * 3
    assert numbers(after.outcome) == [1]
    assert cluster.proposals.pending == 0
    assert cluster.proposals._pending_bytes == 0


def test_too_much_at_once_is_refused_and_counted_right_afterwards() -> None:
    cluster = Cluster().open()
    assert isinstance(Call(cluster, *[count()] * (PENDING_MAX + 1)).outcome, Overloaded)
    assert isinstance(Call(cluster, count(), size=PENDING_BYTES_MAX + 1).outcome, Overloaded)
    assert cluster.proposals.pending == 0
    call = Call(cluster, count())
    cluster.apply()
    assert numbers(call.outcome) == [1]


def test_a_closed_session_ends_what_was_sent_as_unknown_and_a_new_one_is_opened() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count())
    pending, cluster.sent = cluster.sent, []
    cluster.lose_session()
    cluster.apply(*pending)
    assert isinstance(call.outcome, OutcomeUnknown)
    ((session, _, _, (opening,)),) = cluster.blocks()
    assert (session, opening[0]) == (0, commands.OPEN_SESSION)
    cluster.apply()
    later = Call(cluster, count())
    cluster.apply()
    assert numbers(later.outcome) == [1]


def test_recency_goes_with_the_next_block() -> None:
    cluster = Cluster().open()
    cluster.uses = [("a", 2)]
    Call(cluster, count())
    (session, _, _, (body,)), _ = cluster.blocks()
    assert session == 0 and body[0] == commands.RECENCY and body[1] == [["a", 2]]


def test_at_the_end_nobody_waits_and_nobody_begins() -> None:
    cluster = Cluster().open()
    sent = Call(cluster, count())
    cluster.proposals.route_changed(False)
    unsent = Call(cluster, count())
    cluster.proposals.close()
    assert isinstance(sent.outcome, OutcomeUnknown) and isinstance(unsent.outcome, NoLeader)
    assert isinstance(Call(cluster, count()).outcome, NoLeader)
    assert cluster.proposals.pending == cluster.proposals._pending_bytes == 0, "what has ended does not count"
    # An answer that comes all the same is nobody's.
    cluster.apply()
    assert cluster.proposals.pending == cluster.proposals._pending_bytes == 0


def test_answers_that_come_in_pieces_are_put_together() -> None:
    cluster = Cluster().open()
    calls = [Call(cluster, count())]
    cluster.apply()
    calls += [Call(cluster, *[count()] * number, flush=number == 1) for number in (3, 2, 1)]
    ((session, first, lowest, block),) = cluster.blocks()
    sent = [tuple(command) for command in block]
    assert (first, len(sent)) == (2, 6)
    cluster.apply(commands.encode_block(session, 2, lowest, sent[:2]))
    assert [len(call.outcomes) for call in calls] == [1, 0, 0, 0]
    # The same numbers once more, with some that were not there before.
    cluster.apply(
        commands.encode_block(session, 2, lowest, sent[:4]), commands.encode_block(session, 6, lowest, sent[4:])
    )
    assert [numbers(call.outcome) for call in calls] == [[1], [2, 3, 4], [5, 6], [7]]
    assert cluster.proposals.pending == 0


def test_a_session_that_is_lost_while_the_next_block_gathers_keeps_nobody_waiting() -> None:
    cluster = Cluster().open()
    for _ in range(GATHER_FROM):
        Call(cluster, count())
    crowd, cluster.sent = cluster.sent, []
    Call(cluster, count())
    behind, cluster.sent = cluster.sent, []
    cluster.apply(*crowd)
    # The block behind the crowd's is refused.
    cluster.lose_session()
    cluster.apply(*behind)
    late = Call(cluster, count())
    cluster.apply()
    cluster.wait()
    cluster.apply()
    assert numbers(late.outcome) != []


def test_what_was_sent_is_not_sent_again_while_the_log_waits_for_an_entry() -> None:
    cluster = Cluster().open()
    cluster.committed, cluster.waits = 7, True
    call = Call(cluster, count(), timeout_s=100.0)
    for _ in range(300):
        cluster.now += 0.1
        cluster.proposals.expire()
    assert len(cluster.sent) == 1
    # Some entries more may have been those that it waited for; behind four it must have been lost.
    cluster.committed = 10
    for _ in range(30):
        cluster.now += 0.1
        cluster.proposals.expire()
    assert len(cluster.sent) == 1
    cluster.sent, cluster.committed = [], 11
    for _ in range(11):
        cluster.now += 0.1
        cluster.proposals.expire()
    assert len(cluster.sent) == 1
    cluster.apply()
    assert numbers(call.outcome) == [1]


def moments(cluster: Cluster) -> list[int]:
    return [commands.decode_block(block)[3] for block in cluster.sent]


def test_a_block_tells_the_last_moment_at_which_its_commands_may_take_place() -> None:
    cluster = Cluster().open()
    Call(cluster, count(), timeout_s=10, flush=False)
    Call(cluster, count(), timeout_s=3)
    assert moments(cluster) == [1000 + 10_000 + proposals.LATE_MS]
    cluster.now += 4
    cluster.cluster_ms += 4500
    cluster.proposals.route_changed(True)
    assert moments(cluster) == [1000 + 4500 + 6000 + proposals.LATE_MS]


def test_what_was_told_as_unknown_is_not_sent_again_and_its_number_is_taken_all_the_same() -> None:
    cluster = Cluster().open()
    given_up = Call(cluster, count(), count(), timeout_s=2)
    waits = Call(cluster, count(), timeout_s=10)
    cluster.sent.clear()
    cluster.now += 3
    cluster.proposals.expire()
    assert isinstance(given_up.outcome, OutcomeUnknown) and waits.outcomes == []
    cluster.proposals.route_changed(True)
    ((_, first, _, block),) = cluster.blocks()
    assert (first, [command[0] for command in block]) == (1, [commands.NOOP, commands.NOOP, commands.INCR])
    cluster.apply()
    assert numbers(waits.outcome) == [1]
    given_up = Call(cluster, count(), timeout_s=1)
    cluster.sent.clear()
    cluster.now += 3
    cluster.proposals.expire()
    # A block of which nobody waits for anything has no last moment: all that it does is take numbers.
    cluster.proposals.route_changed(True)
    assert moments(cluster) == [0] and cluster.blocks()[0][3] == [[commands.NOOP]]
    cluster.apply()
    assert cluster.proposals.pending == 0 and cluster.machine.contents.revision == 1


def test_who_still_waits_when_it_is_too_late_is_told_that_nothing_has_happened() -> None:
    cluster = Cluster().open()
    call, two = Call(cluster, count()), Call(cluster, count(), count())
    cluster.leader_ms += 11_000 + 1
    cluster.apply()
    assert isinstance(call.outcome, NotCommitted) and isinstance(two.outcome, NotCommitted)
    assert cluster.proposals.pending == 0 and cluster.machine.contents.revision == 0
    cluster.cluster_ms = cluster.leader_ms
    call = Call(cluster, count())
    cluster.apply()
    assert numbers(call.outcome) == [1]


def test_what_has_not_left_is_not_sent_again() -> None:
    cluster = Cluster().open()
    cluster.sending = True
    Call(cluster, count(), timeout_s=100.0)
    for _ in range(300):
        cluster.now += 0.1
        cluster.committed += 1
        cluster.proposals.expire()
    assert len(cluster.sent) == 1
    cluster.sent, cluster.sending = [], False
    for _ in range(9):
        cluster.now += 0.1
        cluster.proposals.expire()
    assert not cluster.sent
    cluster.now += 0.2
    cluster.proposals.expire()
    assert len(cluster.sent) == 1


def test_a_large_block_has_longer_to_arrive() -> None:
    cluster = Cluster().open()
    Call(cluster, count(), timeout_s=100.0, size=4 * SEND_AGAIN_BYTES_PER_S)
    cluster.proposals.expire()
    cluster.sent = []
    cluster.now += 4.0
    cluster.proposals.expire()
    assert not cluster.sent
    cluster.now += 1.1
    cluster.proposals.expire()
    assert len(cluster.sent) == 1


def test_a_node_that_lags_behind_its_leader_by_a_second_writes_nothing_too_late() -> None:
    cluster = Cluster().open()
    cluster.leader_ms += 1000
    call = Call(cluster, count(), timeout_s=0.001)
    cluster.apply()
    assert numbers(call.outcome) == [1]


def test_a_call_of_which_a_part_took_place_in_time_is_unknown() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count(), count())
    ((session, first, lowest, block),) = cluster.blocks()
    pending, cluster.sent = cluster.sent, []
    cluster.apply(commands.encode_block(session, first, lowest, [tuple(block[0])]))
    cluster.leader_ms += 20_000
    cluster.apply(*pending)
    assert isinstance(call.outcome, OutcomeUnknown) and cluster.machine.contents.revision == 1


def test_a_write_whose_answer_is_not_kept_any_more_is_unknown_and_the_session_goes_on() -> None:
    cluster = Cluster().open()
    calls = [Call(cluster, count()), Call(cluster, count())]
    cluster.machine.apply(cluster.index + 1, commands.encode_entry(1000, cluster.sent))
    cluster.index += 1
    cluster.sent = []
    ((_, session),) = cluster.machine.sessions
    # An installed snapshot covers the entry, and the session has dropped the first answer.
    session.kept.popleft()
    cluster.proposals.answers_missed()
    cluster.proposals.expire()
    cluster.apply()
    assert type(calls[0].outcome) is OutcomeUnknown and numbers(calls[1].outcome) == [2]
    later = Call(cluster, count())
    cluster.apply()
    assert numbers(later.outcome) == [3] and cluster.proposals.pending == 0


def test_a_write_whose_answer_the_session_has_dropped_is_not_told_as_one_that_took_place() -> None:
    cluster = Cluster().open()
    Call(cluster, commands.open_scope("nonce"))
    cluster.apply()
    numbered = commands.scoped(1, "nonce", 1, 1, count())
    refused = commands.set_("k", b"", 1, when=commands.IF_PRESENT)
    calls = [Call(cluster, numbered), Call(cluster, refused)]
    cluster.machine.apply(cluster.index + 1, commands.encode_entry(1000, cluster.sent))
    cluster.index += 1
    cluster.sent = []
    ((_, session),) = cluster.machine.sessions
    # As it does when much was read in a later block.
    session.kept.clear()
    cluster.proposals.answers_missed()
    cluster.proposals.expire()
    cluster.apply()
    assert [type(call.outcome) for call in calls] == [OutcomeUnknown, OutcomeUnknown]
    # The client asks again, and its scope has kept the answer.
    again = Call(cluster, numbered)
    cluster.apply()
    assert numbers(again.outcome) == [1] and cluster.machine.contents.revision == 1


@pytest.mark.parametrize("repeated", [False, True])
def test_removals_whose_keys_are_being_counted_are_in_the_limit_of_what_waits(
    repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghi"))
    cluster.apply()
    monkeypatch.setattr(proposals, "PENDING_MAX", 3)
    # The same one again counts as another: everybody who waits takes a place.
    removal = commands.idempotent("again", commands.delete_prefix("")) if repeated else commands.delete_prefix("")
    removals = [Call(cluster, removal) for _ in range(3)]
    cluster.apply()
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert [each.outcomes for each in removals] == [[]] * 3 and cluster.proposals.pending == 3
    assert isinstance(Call(cluster, count()).outcome, Overloaded)
    while cluster.machine.next_due_ms() == 0:
        cluster.apply(commands.encode_block(0, 0, 0, [commands.noop()]))
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert [each.outcome for each in removals] == [
        [[commands.OK, 9 if repeated or not number else 0]] for number in range(3)
    ]
    assert cluster.proposals.pending == cluster.proposals._pending_bytes == 0
    served = Call(cluster, count())
    cluster.apply()
    assert numbers(served.outcome) == [1]


def test_an_entry_looks_at_one_removal_however_many_are_being_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghijklmnop"))
    cluster.apply()
    first = commands.idempotent("first", commands.delete_prefix("a"))
    Call(cluster, first)
    for _ in range(2):
        Call(cluster, commands.delete_prefix("b"))
    cluster.apply()
    # Sent again behind all others it waits for the oldest removal.
    Call(cluster, first)
    cluster.apply()
    revisions = [proposal.results[-1][1] for proposal in cluster.proposals.counting]
    assert len(revisions) == 4 and revisions == sorted(revisions) and revisions[0] == revisions[1]
    asked: list[int] = []

    def is_counting(_: Condemnations, revision: int) -> bool:
        asked.append(revision)
        return True

    monkeypatch.setattr(Condemnations, "is_counting", is_counting)
    counting = cluster.proposals.counting
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert asked == revisions[:1]
    # Nor does it copy them.
    assert cluster.proposals.counting is counting


def slow_sweeps(patch: pytest.MonkeyPatch) -> None:
    """Let an entry sweep one key."""
    patch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 1)
    patch.setattr(contents, "SWEPT_AT_ONCE", 1)


def test_a_removal_is_answered_when_its_keys_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abc"))
    cluster.apply()
    removal, after = Call(cluster, commands.delete_prefix("")), Call(cluster, count())
    cluster.apply()
    assert numbers(after.outcome) == [1]
    assert removal.outcomes == []
    for _ in range(5):
        cluster.apply(commands.encode_block(0, 0, 0, [commands.noop()]))
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert removal.outcome == [[commands.OK, 3]]
    assert cluster.proposals.counting == []


def test_a_removal_is_answered_also_when_snapshots_bring_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abc"))
    cluster.apply()
    local, older = object.__new__(LocalNode), CacheMachine.restore([*cluster.machine.snapshot()])
    local.proposals = cluster.proposals
    removal = Call(cluster, commands.delete_prefix(""))
    cluster.apply()
    local.machine_replaced(older)
    assert (removal.outcomes, local.machine) == ([], older)
    while cluster.machine.next_due_ms() == 0:
        # Applied by others while this node is away.
        cluster.index += 1
        cluster.machine.apply(cluster.index, commands.encode_entry(cluster.leader_ms, []))
    local.machine_replaced(CacheMachine.restore([*cluster.machine.snapshot()]))
    assert removal.outcome == [[commands.OK, 3]]


@pytest.mark.parametrize("end", ["deadline", "close", "forgotten"])
def test_a_removal_that_is_not_counted_in_time_is_told_as_done(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghi"))
    cluster.apply()
    removal = Call(cluster, commands.delete_prefix(""))
    cluster.apply()
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert removal.outcomes == []
    if end == "deadline":
        cluster.now += 20.0
        cluster.proposals.expire()
    elif end == "close":
        cluster.proposals.close()
    else:
        cluster.machine.contents.condemned.adopt([], 0)
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert type(removal.outcome) is (AnswerNotKept if end == "forgotten" else OutcomeUnknown)
    assert "are removed" in str(removal.outcome)
    assert (cluster.proposals.counting, cluster.proposals.pending) == ([], 0)
