"""What the benchmark's rows judge, by figures that are made up, and the nodes that they ask for more than others can."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from cacheflow.client.client import CacheClient
from scripts.bench.harness import cluster, node_command
from scripts.bench.load import Tally, fill
from scripts.bench.loadgen import Measured
from scripts.bench.more import looppauses, scripts, snapshot
from scripts.bench.more.snapshot import Turn, Window
from scripts.bench.rows import counted, freshness

ROOT = Path(__file__).parent.parent
RATE = 1000.0


def window(*buckets: tuple[float, int]) -> Window:
    replies = sum(count for _, count in buckets)
    measured = Measured(replies, replies, 0, 0, buckets[0][0], buckets[-1][0], buckets[-1][0], buckets)
    return Window(measured, measured, 0.5)


CALM = window((1000.0, 1000))
BAD = window((1000.0, 900), (5000.0, 100))


def test_one_bad_window_of_three_is_not_hidden_by_the_others() -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM, CALM, BAD], CALM)], RATE)
    assert verdict.figures["ratio"] == pytest.approx(5)
    assert verdict.passed is False


def test_the_window_in_which_the_build_ends_is_shown_and_not_judged() -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM], BAD)], RATE)
    assert verdict.passed is True
    assert "as it ends 5.0 ms" in verdict.measured


@pytest.mark.parametrize(("answered", "passed"), [(990, True), (989, False)])
def test_a_window_that_was_not_answered_at_its_rate_has_missed(answered: int, passed: bool) -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM, window((1000.0, answered))], CALM)], RATE)
    assert verdict.passed is passed


def test_without_a_whole_window_nothing_is_judged() -> None:
    assert snapshot.judge([Turn([CALM], [], CALM)], RATE).passed is None


def paused(longest_ms: float, over: int) -> dict[str, Any]:
    return {
        "longest_ms": {"node-1": longest_ms},
        "over_50_ms": {"node-1": over},
        "noise_ms": 1.0,
        "sets_per_s": 1.0,
        "evicted": 1,
        "snapshots": 1,
    }


def test_pauses_are_judged_by_the_limits_of_that_many_items() -> None:
    assert looppauses.judge({1_000_000: paused(300, 2)}).passed is True
    assert looppauses.judge({1_000_000: paused(300, 3)}).passed is False
    assert looppauses.judge({1_000_000: paused(300, 2), 100_000: paused(51, 1)}).passed is False


def test_pauses_with_another_number_of_items_are_information() -> None:
    verdict = looppauses.judge({20_000: paused(300, 2)})
    assert verdict.passed is None
    assert "information" in verdict.measured


class LaggingNode:
    """A node that shows a write of another one only after ``lag`` questions."""

    def __init__(self, written: dict[str, str], lag: int) -> None:
        self._written = written
        self._lag = lag
        self._asked: list[str] = []
        self._misses: dict[str, int] = {}

    def write(self, key: str, value: str) -> None:
        self._written[key] = value

    def ask(self, key: str) -> None:
        self._asked.append(key)

    def answer(self) -> str | None:
        key = self._asked.pop(0)
        value = self._written[key]
        self._misses[value] = self._misses.get(value, 0) + 1
        return value if self._misses[value] > self._lag else "an older one"

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("lags", "found"), [((0, 0, 0), 60), ((0, 0, 1), 40), ((1, 1, 1), 0)])
def test_a_read_counts_as_fresh_when_its_first_question_finds_the_write(lags: tuple[int, ...], found: int) -> None:
    written: dict[str, str] = {}
    seen = freshness.turns([LaggingNode(written, lag) for lag in lags], "test", 60, lambda: False)
    assert (seen.reads, seen.found, len(seen.late_s), seen.never) == (60, found, 60 - found, 0)


def test_a_node_on_demand_builds_a_snapshot_when_it_is_asked() -> None:
    with cluster(nodes=1, command=node_command("on-demand")) as nodes:
        (node,) = nodes.children
        asyncio.run(fill(node.url, 10))
        assert not list(node.data_dir.glob("snapshot-*"))
        nodes.begin_snapshot(node)
        nodes.wait_built(node)
        assert list(node.data_dir.glob("snapshot-*"))


@pytest.mark.parametrize(
    ("numbers", "unknown", "value", "passed", "wrong"),
    [
        ([1, 2, 3], 0, 3, True, 0),
        ([1, 3, 4], 1, 4, True, 0),
        # What nobody knows of may not have taken place.
        ([1, 2, 3], 2, 3, True, 0),
        ([1, 2, 3], 0, 4, False, 1),
        ([1, 2, 4], 0, 5, False, 2),
        ([1, 2, 3], 1, 2, False, 1),
        ([1, 2, 2], 0, 3, False, 1),
        # Nothing is known of most: that proves nothing.
        ([1], 5, 3, False, 0),
    ],
)
def test_an_increment_that_counted_twice_or_not_at_all_is_a_miss(
    numbers: list[int], unknown: int, value: int, passed: bool, wrong: int
) -> None:
    verdict = counted.judge(counted.Counted(numbers, unknown), value, Tally(), lost=5, late=2)
    assert verdict.passed is passed
    assert verdict.figures["wrong"] == wrong
    assert counted.judge(counted.Counted(numbers, unknown), value, Tally(), lost=0, late=0).passed is False


def test_a_counter_of_scripts_is_judged_by_what_clients_were_told() -> None:
    def judged(numbers: list[int], unknown: int, counter: int) -> bool | None:
        return scripts.judge(scripts.Counting([], numbers, unknown), counter, RATE).passed

    assert judged([1, 2, 4], 1, 4) is True
    assert judged([1, 2, 3], 1, 3) is True
    assert judged([1, 2, 2], 0, 3) is False
    assert judged([1, 2, 3], 0, 4) is False
    assert judged([1, 2, 3], 1, 2) is False
    assert judged([], 1, 0) is False


async def mute() -> asyncio.Server:
    """Takes connections and answers nothing."""

    async def serve(*_: object) -> None:
        await asyncio.Event().wait()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def test_a_row_of_counting_that_hangs_says_where_everybody_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "REST_S", 0.5)
    monkeypatch.setattr(counted, "LATE", 0.0)
    monkeypatch.setattr(counted, "CacheClient", functools.partial(CacheClient, timeout_s=2))
    monkeypatch.setattr(counted, "stacks_of", lambda nodes: ["what the nodes say"])

    async def hang() -> None:
        server = await mute()
        port = server.sockets[0].getsockname()[1]
        nodes: Any = SimpleNamespace(children=[SimpleNamespace(url=f"http://127.0.0.1:{port}")] * 3)
        await counted._measure(nodes, 0.2, 1000, 0.0)

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(hang())
    told = str(raised.value)
    assert told.startswith("hung while writing\n") and told.endswith("what the nodes say")
    assert "counting-7" in told and "in _count" in told
    assert "another writer: 0." in told and "in the proxy: 'POST /scopes" in told


def test_a_late_request_that_no_node_answers_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "DELIVERED_S", 0.1)
    monkeypatch.setattr(counted, "LATE", 1.0)

    async def deliver() -> list[str]:
        server = await mute()
        proxy = counted.LossyProxy(Random(1), 0.1)
        _, writer = await asyncio.open_connection(
            *urlsplit(await proxy.listen(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")).netloc.split(":")
        )
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        while not proxy.late:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(proxy.delivered(), 10)
        return proxy.unanswered

    [told] = asyncio.run(deliver())
    assert told.startswith("no answer within 0.1 s: 'GET /livez HTTP/1.1'")


def test_a_row_that_hangs_in_its_end_too_ends_with_the_process_and_shows_the_stacks() -> None:
    program = """
import time, types
from scripts.bench import run

def hang():
    try:
        time.sleep(60)
    finally:
        time.sleep(60)

run.ENDING_S = 1
run.module_of = lambda name: types.SimpleNamespace(run=hang, LIMIT_S=1, MUST="end")
run.measure("hanging", {})
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stderr.count("in hang") == 2
