"""What happens at the end of a turn, in which order, and that nothing keeps it from ending."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cacheflow.raft.turn import Turn


def test_what_is_deferred_in_a_turn_is_done_at_its_end_and_what_wakes_threads_after_that() -> None:
    done: list[str] = []
    turn = Turn(lambda call: None)

    def work() -> None:
        turn.defer_wake(lambda: done.append("wake"))
        turn.defer_send(lambda: turn.defer_send(lambda: done.append("send")))
        turn.run(lambda: done.append("inner"))
        done.append("work")

    turn.run(work)
    assert done == ["inner", "work", "send", "wake"] and not turn.is_open


def test_what_hands_work_to_a_thread_comes_behind_all_that_leaves_without_one() -> None:
    done: list[str] = []
    turn = Turn(lambda call: None)

    def work() -> None:
        turn.defer_wake(lambda: done.append("wake"))
        turn.defer_flush(lambda: done.append("flush"))
        turn.defer_send(lambda: turn.defer_send(lambda: done.append("send")))

    turn.run(work)
    assert done == ["send", "flush", "wake"]


def test_what_tells_clients_comes_once_and_before_any_answer_even_one_that_was_asked_for_earlier() -> None:
    done: list[str] = []
    turn = Turn(lambda call: None)

    def answer() -> None:
        done.append("answer")

    def tell() -> None:
        done.append("tell")

    def work() -> None:
        for _ in range(2):
            turn.defer_wake(answer)
            turn.defer_tell(tell)
            turn.defer_flush(lambda: done.append("flush"))

    turn.run(work)
    assert done == ["flush", "flush", "tell", "answer"]
    turn.defer_tell(tell)
    assert done[4:] == ["tell"]


def test_outside_a_turn_it_is_done_soon_and_threads_are_woken_at_once() -> None:
    soon: list[Callable[[], None]] = []
    turn = Turn(soon.append)
    done: list[str] = []
    turn.defer_send(lambda: done.append("send"))
    turn.defer_wake(lambda: done.append("wake"))
    assert done == ["wake"] and len(soon) == 1


def test_a_turn_ends_whatever_fails_in_it(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    turn = Turn(lambda call: None)

    def work() -> None:
        turn.defer_send(lambda: [][0])
        turn.defer_send(lambda: done.append("next"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        turn.run(work)
    assert done == ["next"] and not turn.is_open
    assert "stumbled" in caplog.text
