"""The checker itself: it must accept what one copy could have told, and nothing else."""

from __future__ import annotations

from math import inf

import pytest
from simulation import linearizability
from simulation.linearizability import Operation, check
from simulation.registers import lossy_step

HISTORIES = {
    "a read between two writes may see either": (
        "ok",
        [
            Operation("set", 0, 1, b"a"),
            Operation("set", 2, 5, b"b"),
            Operation("get", 3, 4, None, b"a"),
            Operation("get", 3, 4, None, b"b"),
        ],
    ),
    "a read after a write must see it": (
        "wrong",
        [Operation("set", 0, 1, b"a"), Operation("set", 2, 3, b"b"), Operation("get", 4, 5, None, b"a")],
    ),
    "two reads may not go back": (
        "wrong",
        [
            Operation("set", 0, 1, b"a"),
            Operation("set", 2, 9, b"b"),
            Operation("get", 3, 4, None, b"b"),
            Operation("get", 5, 6, None, b"a"),
        ],
    ),
    "an unknown write may happen late": (
        "ok",
        [
            Operation("set", 0, inf, b"a"),
            Operation("get", 1, 2, None, None),
            Operation("get", 3, 4, None, b"a"),
        ],
    ),
    "an unknown write may never happen": (
        "ok",
        [Operation("set", 0, inf, b"a"), Operation("get", 1, 2, None, None), Operation("get", 3, 4, None, None)],
    ),
    "an unknown write happens once": (
        "wrong",
        [
            Operation("set", 0, inf, b"a"),
            Operation("get", 1, 2, None, b"a"),
            Operation("set", 3, 4, b"b"),
            Operation("get", 5, 6, None, b"b"),
            Operation("get", 7, 8, None, b"a"),
        ],
    ),
    "what nobody wrote is not read": ("wrong", [Operation("get", 0, 1, None, b"x")]),
    "one of two compare-and-sets wins": (
        "ok",
        [
            Operation("set", 0, 1, b"a"),
            Operation("cas", 2, 4, (b"a", b"b"), True),
            Operation("cas", 2, 4, (b"a", b"c"), False),
            Operation("get", 5, 6, None, b"b"),
        ],
    ),
    "not both": (
        "wrong",
        [
            Operation("set", 0, 1, b"a"),
            Operation("cas", 2, 4, (b"a", b"b"), True),
            Operation("cas", 2, 4, (b"a", b"c"), True),
        ],
    ),
    "a delete tells whether there was something": (
        "wrong",
        [Operation("set", 0, 1, b"a"), Operation("delete", 2, 3, None, False)],
    ),
    "an unknown delete may explain an absent key": (
        "ok",
        [Operation("set", 0, 1, b"a"), Operation("delete", 2, inf), Operation("get", 3, 4, None, None)],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_checker_judges(name: str) -> None:
    verdict, history = HISTORIES[name]
    assert check(history) == verdict


def test_what_is_too_hard_is_undecided_and_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "STEPS_MAX", 5000)
    history = [Operation("set", 0, inf, b"%d" % number) for number in range(24)]
    history += [Operation("get", 1, 2, None, b"%d" % number) for number in range(24)]
    history.append(Operation("get", 3, 4, None, b"nobody wrote this"))
    assert check(history) == "undecided"


def test_a_key_may_be_evicted_before_an_unknown_write_that_needs_it_absent() -> None:
    history = [
        Operation("set", 0, 1, b"a"),
        Operation("cas", 2, inf, (None, b"b")),
        Operation("get", 3, 4, None, b"b"),
    ]
    assert check(history) == "wrong"
    assert check(history, advance=lossy_step) == "ok"


def test_a_write_that_nobody_saw_may_be_what_a_delete_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "STEPS_MAX", 2000)
    lost = [Operation("set", 0.1 * n, inf, b"lost%d" % n) for n in range(30)]
    removed = [Operation("delete", 5, 6, None, True), Operation("delete", 7, 8, None, False)]
    later = [Operation("set", 10.0 + n, 10.5 + n, b"v%d" % n) for n in range(5)]
    assert check([*lost, *removed, *later, Operation("get", 20, 21, None, b"v4")]) == "ok"
    assert check([*removed, *later]) == "wrong"
