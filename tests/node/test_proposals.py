"""Proposals against a leader that is a list: sessions, numbers, blocks and how many may wait."""

from __future__ import annotations

import pytest
from node.listed_leader import NONCE, Call, Cluster, count, numbers

from cacheflow.errors import NoLeader, NotCommitted, OutcomeUnknown, Overloaded
from cacheflow.machine.deciding.field_decisions import BYTES_A_COMMAND, searched_bytes
from cacheflow.machine.language import commands, fields
from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.machine.state.entries import KIND_HASH
from cacheflow.node import proposals
from cacheflow.node.proposal import Proposal
from cacheflow.node.proposals import (
    BLOCK_BYTES_MAX,
    BLOCK_COMMANDS_MAX,
    GATHER_FROM,
    PENDING_BYTES_MAX,
    PENDING_MAX,
)


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
        cluster.proposals.add(Proposal([count(), count()], 128, 2, 200.0, call.told))
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
    assert cluster.proposals.pending_bytes == 0


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
    assert cluster.proposals.pending == cluster.proposals.pending_bytes == 0, "what has ended does not count"
    # An answer that comes all the same is nobody's.
    cluster.apply()
    assert cluster.proposals.pending == cluster.proposals.pending_bytes == 0


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


def test_commands_that_are_much_work_go_a_few_at_a_time_and_in_order() -> None:
    cluster = Cluster().open()
    works = [BLOCK_COMMANDS_MAX * 2, BLOCK_COMMANDS_MAX // 2, BLOCK_COMMANDS_MAX // 3, BLOCK_COMMANDS_MAX // 2, 0, 0]
    calls = [Call(cluster, count(), work=work, flush=False) for work in works]
    cluster.proposals.flush()
    sizes = []
    while cluster.sent:
        sizes += [len(block[3]) for block in cluster.blocks()]
        cluster.apply()
        cluster.wait()
    # What alone is more than an entry should hold goes alone; who comes behind does not overtake.
    assert sizes == [1, 2, 3]
    assert [numbers(call.outcome) for call in calls] == [[1], [2], [3], [4], [5], [6]]
    assert cluster.proposals.pending == 0 and not cluster.proposals.holds_back(0)


def test_while_much_work_is_on_its_way_more_of_it_waits() -> None:
    cluster = Cluster().open()
    calls = [Call(cluster, count(), work=BLOCK_COMMANDS_MAX // 2) for _ in range(3)]
    plain = Call(cluster, count())
    assert [len(block[3]) for block in cluster.blocks()] == [1]
    cluster.apply()
    assert [len(block[3]) for block in cluster.blocks()] == [1]
    cluster.apply()
    cluster.apply()
    assert [len(call.outcomes) for call in (*calls, plain)] == [1] * 4


def fields_of(client: int) -> list[commands.Command]:
    """Fifty fields of 40 bytes that one client writes into a hash of all clients."""
    return [commands.set_fields("h", KIND_HASH, [b"%d:%d" % (client, n), bytes(40)], 1 << 20) for n in range(50)]


def test_clients_that_fill_one_new_hash_together_are_not_one_long_entry() -> None:
    cluster = Cluster().open()
    # Each has asked what its commands cost while the hash was not there.
    calls = [Call(cluster, *fields_of(client), flush=False) for client in range(20)]
    cluster.proposals.flush()
    data = b""
    blocks = 0
    while cluster.sent:
        blocks += 1
        searched = 0
        for block in cluster.blocks():
            for command in block[3]:
                entry = (data, KIND_HASH, None, 1, 0) if data else None
                searched += searched_bytes(entry, command)
                data, _ = fields.with_fields(data, command[3])
        assert searched < 2 * BLOCK_COMMANDS_MAX * BYTES_A_COMMAND
        cluster.items["h"] = (data, KIND_HASH, None, 1, 0)
        cluster.apply()
        cluster.wait()
    assert blocks > 5
    assert [len(call.outcomes) for call in calls] == [1] * 20
    assert not cluster.proposals._growing.under_way


def test_what_was_lost_with_its_session_grows_nothing_any_more() -> None:
    cluster = Cluster().open()
    Call(cluster, commands.guarded([], fields_of(1)))
    assert list(cluster.proposals._growing.under_way) == ["h"]
    cluster.lose_session()
    cluster.apply()
    assert not cluster.proposals._growing.under_way


@pytest.mark.parametrize(
    "command",
    [
        commands.batch(None),  # type: ignore[arg-type]
        commands.batch([None, [], ["x"], [[]], [commands.SET_FIELDS]]),  # type: ignore[list-item]
        [commands.SET_FIELDS, "h", KIND_HASH, None, False, 9],
        [commands.SET_FIELDS, [], KIND_HASH, [b"f", b"v"], False, 9],
        [commands.SET_FIELDS, "h", KIND_HASH, [1, 2], False, 9],
        [commands.REMOVE_FIELDS],
        [commands.COUNT_FIELD, "h"],
    ],
)
def test_a_command_that_is_not_well_formed_is_left_to_the_machine(command: commands.Command) -> None:
    cluster = Cluster().open()
    call = Call(cluster, command, weight=1)
    cluster.apply()
    ((result,),) = call.outcomes
    # What is wrong inside a batch is told for itself.
    assert result[0] == commands.MALFORMED or {inner[0] for inner in result[1]} == {commands.MALFORMED}
