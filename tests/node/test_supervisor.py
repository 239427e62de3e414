"""What becomes of a background task that raises."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from cacheflow.node import supervisor as supervisor_module
from cacheflow.node.supervisor import Supervisor


class Failing:
    """Work that raises so often, and ends the next time."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs <= self.times:
            raise ValueError(f"run {self.runs}")


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "RESTART_AFTER_S", 0.001)


def test_a_task_that_raises_is_started_again_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        supervisor, work = Supervisor(asyncio.get_running_loop()), Failing(2)
        await supervisor.start("the work", work)
        assert work.runs == 3
        assert supervisor.problems() == ["the work: ValueError: run 2"]

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["the work has failed and starts again in 0.001 s"] * 2
    assert all(record.exc_info for record in caplog.records)


def test_a_failure_is_shown_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        supervisor = Supervisor(asyncio.get_running_loop())
        await supervisor.start("the work", Failing(1))
        assert supervisor.problems()
        monkeypatch.setattr(supervisor_module, "SHOWN_S", 0.0)
        assert supervisor.problems() == []

    asyncio.run(main())


def test_stop_ends_every_task_also_one_in_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "RESTART_AFTER_S", 3600.0)

    def forever() -> Coroutine[Any, Any, bool]:
        return asyncio.Event().wait()

    async def waits() -> None:
        await forever()

    async def main() -> None:
        supervisor, failing = Supervisor(asyncio.get_running_loop()), Failing(1)
        tasks = [supervisor.start("waits", waits), supervisor.start("fails", failing)]
        while not supervisor.problems():
            await asyncio.sleep(0)
        await supervisor.stop()
        assert all(task.cancelled() for task in tasks) and failing.runs == 1

    asyncio.run(main())
