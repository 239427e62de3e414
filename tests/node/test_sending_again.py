"""Proposals that are sent again: when, from which number on, and each applied once."""

from __future__ import annotations

from node.listed_leader import Call, Cluster, count, numbers

from cacheflow.errors import OutcomeUnknown
from cacheflow.machine.language import commands
from cacheflow.node.proposals import SEND_AGAIN_BYTES_PER_S


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


def test_an_opening_that_was_lost_is_sent_again_after_a_while() -> None:
    cluster = Cluster()
    cluster.proposals.route_changed(True)
    cluster.sent.clear()
    cluster.proposals.expire()
    assert cluster.sent == []
    cluster.now += 1.1
    cluster.proposals.expire()
    assert len(cluster.sent) == 1
