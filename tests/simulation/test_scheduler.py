"""The simulated event loop of one process: what it does with calls while the process is busy or paused."""

from __future__ import annotations

from random import Random

import pytest
from simulation.scheduler import ProcessLoop, Scheduler


@pytest.mark.parametrize("seed", range(1, 31))
def test_a_process_makes_its_calls_in_the_order_in_which_they_come_due(seed: int) -> None:
    scheduler, random = Scheduler(), Random(seed)
    loop = ProcessLoop(scheduler, 0.0, 1.0, lambda: None)
    due: list[int] = []
    made: list[int] = []

    def come(number: int, direct: bool) -> None:
        # As one who publishes beside the process does, or as a message from the network.
        due.append(number)
        (loop.do if direct else loop.call_soon)(make, number)

    def make(number: int) -> None:
        made.append(number)
        if random.random() < 0.5:
            loop.work(random.choice((0.0, 0.04, 0.3)))

    for number in range(200):
        scheduler.at(random.uniform(0.0, 10.0), come, number, random.random() < 0.5)
    at = 0.0
    while at < 10.0:
        at += random.uniform(0.0, 0.5)
        scheduler.at(at, loop.pause)
        at += random.uniform(0.0, 0.5)
        scheduler.at(at, loop.resume, random.random() < 0.5)
    scheduler.run_until(2000.0)
    assert len(made) == 200 and made == due


def test_a_process_that_is_ended_makes_none_of_the_calls_that_wait() -> None:
    scheduler = Scheduler()
    loop = ProcessLoop(scheduler, 0.0, 1.0, lambda: None)
    made: list[str] = []
    loop.work(1.0)
    loop.do(made.append, "busy")
    loop.pause()
    loop.do(made.append, "paused")
    loop.kill()
    loop.resume()
    scheduler.run_until(2000.0)
    assert made == []
