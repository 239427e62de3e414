"""The scripts' thread: one script at a time, and the loop goes on whatever it does."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cacheflow.wire.resp.replies import CommandError
from cacheflow.wire.resp.scripting import runner as module
from cacheflow.wire.resp.scripting.runner import BUSY, KILLED, TOO_SLOW, Expired, Runner
from cacheflow.wire.resp.scripting.sandbox import Sandbox


def script(source: bytes) -> Callable[[Sandbox, Expired], bytes]:
    return lambda sandbox, expired: sandbox.run(source, source, [], [], b"$-1\r\n", lambda words: b"+OK\r\n", expired)


def asked(runner: Runner, work: Callable[[Sandbox, Expired], Any]) -> asyncio.Future[Any]:
    """What ``work`` ends with."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    runner.start(work, future.set_result)
    return future


def played(scene: Callable[[Runner], Awaitable[None]]) -> None:
    async def play() -> None:
        await asyncio.wait_for(scene(Runner()), 30)

    asyncio.run(play())


def told(outcome: object) -> str:
    assert isinstance(outcome, CommandError), outcome
    return str(outcome)


def test_scripts_run_in_the_order_in_which_they_came() -> None:
    async def scene(runner: Runner) -> None:
        threads: list[str] = []

        def work(sandbox: Sandbox, expired: Expired) -> int:
            threads.append(threading.current_thread().name)
            return len(threads)

        assert await asyncio.gather(*[asked(runner, work) for _ in range(5)]) == [1, 2, 3, 4, 5]
        assert set(threads) == {"cacheflow-scripts"}

    played(scene)


def test_the_loop_turns_while_a_script_runs_and_its_caller_is_told_in_time() -> None:
    async def scene(runner: Runner) -> None:
        assert await asked(runner, script(b"return 1")) == b":1\r\n"
        began = time.monotonic()
        turns = 0
        future = asked(runner, script(b"while true do end"))
        while not future.done():
            await asyncio.sleep(0)
            turns += 1
        assert "given up" in told(future.result())
        # With the interpreter's lock held by Lua there would be some at most.
        assert turns > 50
        assert module.TIME_S <= time.monotonic() - began < module.WALL_S + 1
        assert await asked(runner, script(b"return 2")) == b":2\r\n"

    played(scene)


def test_one_that_does_not_end_is_left_alone_and_the_next_has_a_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WALL_S", 0.2)

    async def scene(runner: Runner) -> None:
        stuck = [threading.Event() for _ in range(module.ABANDONED_MAX)]
        for event in stuck:

            def wait(sandbox: Sandbox, expired: Expired, event: threading.Event = event) -> None:
                event.wait()

            assert told(await asked(runner, wait)) == TOO_SLOW
        assert told(await asked(runner, script(b"return 1"))) == BUSY
        assert await asyncio.gather(*[asked(runner, script(b"return 1")) for _ in range(3)]) != [b":1\r\n"] * 3
        stuck[0].set()
        until = time.monotonic() + 10
        while told_busy(await asked(runner, script(b"return 1"))):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        for event in stuck:
            event.set()

    played(scene)


def told_busy(outcome: object) -> bool:
    return isinstance(outcome, CommandError) and str(outcome) == BUSY


def test_a_script_is_ended_by_an_operator() -> None:
    async def scene(runner: Runner) -> None:
        assert not runner.kill()
        begun, ended = threading.Event(), threading.Event()

        def work(sandbox: Sandbox, expired: Expired) -> bytes:
            begun.set()
            # This takes no time of the thread.
            while not expired():
                time.sleep(0.05)
            ended.set()
            return b""

        first, second = asked(runner, work), asked(runner, script(b"return 2"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        assert runner.kill()
        assert told(first.result()) == KILLED
        assert await second == b":2\r\n"
        assert ended.wait(10)

    played(scene)


def test_a_fault_is_told_and_the_next_script_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(runner: Runner) -> None:
        def work(sandbox: Sandbox, expired: Expired) -> None:
            raise RuntimeError("a fault")

        assert told(await asked(runner, work)) == module.BROKEN
        assert await asked(runner, script(b"return 1")) == b":1\r\n"

    played(scene)
    assert "a fault" in caplog.text


def test_a_runner_that_nobody_holds_leaves_no_thread() -> None:
    found: list[threading.Thread] = []

    async def play() -> weakref.ref[Runner]:
        runner = Runner()
        assert await asked(runner, script(b"return 1")) == b":1\r\n"
        assert runner._worker is not None
        found.append(runner._worker.thread)
        return weakref.ref(runner)

    runner = asyncio.run(play())
    gc.collect()
    assert runner() is None
    found[0].join(10)
    assert not found[0].is_alive()
