"""The outlook tells machines apart that agree on every effect so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machine.driver import Driver

from cacheflow.machine import outlook
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.sessions import Session


def filled(policy: str) -> Driver:
    """Return a machine with items, a session with answers, kept answers, and removals that wait."""
    driver = Driver()
    driver.run(c.configure({"policy": policy, "max_items": 5000, "max_bytes": None}))
    driver.run(c.members("cluster", [["n1", "i", "h:1", "h:2", True, False], ["n2", "i", "h:3", "h:4", True, False]]))
    for number in range(30):
        driver.run(c.set_(f"k{number}", b"v", 0))
        driver.run(c.idempotent(f"client-{number}", c.incr("n", 1, 0)))
    driver.run(c.touch("k3", 60_000))
    return driver


def go_on_with_a_scan(machine: CacheMachine) -> None:
    machine.contents.items.scan(1)


def use_the_next_victim(machine: CacheMachine) -> None:
    machine.contents.use(next(iter(machine.contents.items.ordered()))[0], 1)


def forget_the_first_kept_answer(machine: CacheMachine) -> None:
    machine.idempotency._drop_oldest()


def remember_another_removed_member(machine: CacheMachine) -> None:
    machine.removed["n9", "i"] = None


def count_more_uses(machine: CacheMachine) -> None:
    machine.contents.use("k29", 7)


def go_on_with_the_clock(machine: CacheMachine) -> None:
    machine.contents.now_ms += 1


def open_another_session(machine: CacheMachine) -> None:
    machine.sessions.latest_id += 1


@pytest.mark.parametrize("policy", ["lru", "lfu"])
@pytest.mark.parametrize(
    "change",
    [
        use_the_next_victim,
        go_on_with_a_scan,
        count_more_uses,
        forget_the_first_kept_answer,
        remember_another_removed_member,
        go_on_with_the_clock,
        open_another_session,
    ],
)
def test_what_no_effect_tells_is_in_the_outlook(policy: str, change: Callable[[CacheMachine], None]) -> None:
    driver = filled(policy)
    changed = driver.copy().machine
    assert (changed.digest, changed.outlook()) == (driver.machine.digest, driver.machine.outlook())
    change(changed)
    assert changed.digest == driver.machine.digest
    assert changed.outlook() != driver.machine.outlook()


def test_the_answers_of_a_session_are_in_the_outlook() -> None:
    first, second = filled("lru"), filled("lru")
    for driver, number in ((first, 1), (second, 2)):
        driver.machine.sessions.open("n1", 1, "start", 1)
        session = driver.machine.sessions.find(driver.machine.sessions.latest_id)
        assert session is not None
        session.last = 1
        session.kept.append([c.OK, [c.OK, b"value", number]])
    assert first.machine.digest == second.machine.digest
    assert first.machine.outlook() != second.machine.outlook()


def test_long_answers_cost_no_more_than_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = filled("lru")
    session = Session("n1", 1, "x", 1)
    session.kept.extend([[c.OK, [[c.OK, number] for number in range(10_000)]]] * 50)
    driver.machine.sessions.adopt(1, session)
    driver.machine.sessions.latest_id = 1
    looked = 0

    def brief(part: Any, brief: Any = outlook._brief) -> Any:
        nonlocal looked
        looked += 1
        return brief(part)

    monkeypatch.setattr(outlook, "_brief", brief)
    before = driver.machine.outlook()
    assert looked < 200
    session.kept[-1] = [c.OK, [*session.kept[-1][1][:-1], [c.MISSING]]]
    assert driver.machine.outlook() != before


def test_the_outlook_counts_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    # How many a pass has seen is counted key by key, which takes a fifth of a second for a million.
    machine = filled("lfu").machine
    monkeypatch.setattr(type(machine.contents.items), "passed", None)
    assert machine.outlook()
