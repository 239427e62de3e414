"""The asyncio client: threads of its own, and what a cancelled call leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.http_node import FakeNode

from cacheflow.aio import threads
from cacheflow.client.client import AsyncCacheClient
from cacheflow.errors import CacheFlowError, NotCommitted


def own_threads() -> int:
    return sum(thread.name.startswith("cacheflow-client") for thread in threading.enumerate())


async def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_calls_that_wait_take_no_threads_of_the_application() -> None:
    with FakeNode() as node:

        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
            async with AsyncCacheClient(node.url, timeout_s=20, discover=False) as client:
                await client.set("k", 1)
                node.faults.extend(["hang"] * 12)
                waiting = [asyncio.ensure_future(client.set("k", number)) for number in range(12)]
                await until(lambda: not node.faults)
                began = time.monotonic()
                assert await asyncio.to_thread(lambda: "free") == "free"
                assert await client.get("k") == 1
                assert time.monotonic() - began < 2.0
                for call in waiting:
                    call.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                node.released.set()

        asyncio.run(main())


def test_a_call_that_is_cancelled_before_a_thread_takes_it_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS_MAX", 1)
    with FakeNode() as node:

        async def main() -> None:
            async with AsyncCacheClient(node.url, timeout_s=20, discover=False) as client:
                await client.set("k", 1)
                node.faults.append("hang")
                first = asyncio.ensure_future(client.get("k"))
                await until(lambda: not node.faults)
                second = asyncio.ensure_future(client.set("k", 2))
                await asyncio.sleep(0)
                second.cancel()
                node.released.set()
                with contextlib.suppress(CacheFlowError):
                    await first
                assert await client.get("k") == 1

        asyncio.run(main())
        assert [verb for verb, _, _ in node.requests].count("PUT") == 1


def test_a_call_that_waited_too_long_for_a_thread_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS_MAX", 1)
    with FakeNode() as node:

        async def main() -> None:
            async with AsyncCacheClient(node.url, timeout_s=0.3, discover=False) as client:
                node.faults.extend(["hang"] * 20)
                calls = [asyncio.ensure_future(client.set("k", number)) for number in range(10)]
                began = time.monotonic()
                found = await asyncio.gather(*calls, return_exceptions=True)
                assert time.monotonic() - began < 5
                assert sum(isinstance(each, NotCommitted) and "busy" in str(each) for each in found) >= 5

        asyncio.run(main())


def test_a_closed_client_leaves_no_thread_and_can_be_used_again() -> None:
    with FakeNode() as node:

        async def main() -> None:
            client = AsyncCacheClient(node.url, timeout_s=5, discover=False)
            for _ in range(2):
                await asyncio.gather(*(client.set(f"k{number}", number) for number in range(10)))
                assert own_threads() > 0
                await client.close()
                await until(lambda: own_threads() == 0)

        asyncio.run(main())


def test_a_forked_child_has_threads_of_its_own() -> None:
    with FakeNode() as node:
        client = AsyncCacheClient(node.url, timeout_s=5, discover=False)
        asyncio.run(client.set("k", 1))
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if asyncio.run(client.get("k")) == 1 else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(client.get("k")) == 1
