"""What a node has done between two of its answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cacheflow.cli.monitor.answers import Answered
from cacheflow.cli.monitor.rates import rates, totals
from cacheflow.measuring.histogram import Histogram

COUNTERS = ("hits_total", "misses_total", "sets_total", "deletes_total", "evicted_total", "expired_total")


def answer(at_s: float, **metrics: Any) -> Answered:
    """Return an answer of a node at a moment, whose counters are 0 unless told."""
    return Answered("http://n", at_s, {}, [], {**dict.fromkeys(COUNTERS, 0), **metrics}, None)


def histogram(*durations_s: float) -> dict[str, Any]:
    """Return a histogram of durations as a node's JSON has it."""
    noted = Histogram()
    for each in durations_s:
        noted.note(each)
    return {"count": noted.count, "buckets": noted.counts}


def request(front: str, command: str, outcome: str = "ok") -> str:
    return f'request_seconds{{front="{front}",command="{command}",outcome="{outcome}"}}'


def test_rates_are_differences_by_the_nodes_own_time() -> None:
    before = answer(10.0, hits_total=100, misses_total=50, sets_total=7, unsent_bytes=3)
    now = answer(12.5, hits_total=190, misses_total=60, sets_total=17, deletes_total=5, evicted_total=2, unsent_bytes=9)
    found = rates(now, before)
    assert (found["step_s"], found["reads_per_s"], found["writes_per_s"]) == (2.5, 40.0, 6.0)
    assert (found["hit_ratio"], found["evicted_per_s"], found["expired_per_s"]) == (0.9, 0.8, 0.0)
    assert found["unsent_bytes"] == 9


def test_a_huge_name_of_a_metric_takes_no_long_look() -> None:
    began_s = time.monotonic()
    assert rates(answer(11.0, **{"request_seconds{" + "a" * 100_000: 1}), answer(10.0))["fronts"] == {}
    assert time.monotonic() - began_s < 2.0


def test_nothing_is_known_before_the_second_answer_and_without_reads_no_ratio() -> None:
    found = rates(answer(10.0, hits_total=5), None)
    assert {found[name] for name in ("step_s", "reads_per_s", "writes_per_s", "hit_ratio", "loop_p99_s")} == {None}
    assert rates(answer(11.0), answer(10.0))["hit_ratio"] is None
    assert rates(answer(11.0), answer(10.0))["reads_per_s"] == 0
    # The same moment twice, as a clock of a coarse step may give.
    assert rates(answer(10.0), answer(10.0))["reads_per_s"] is None


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_node_that_was_restarted_shows_no_rates(counter: str) -> None:
    before = answer(10.0, **dict.fromkeys(COUNTERS, 100), loop_turn_seconds=histogram(1.0))
    now = answer(11.0, **dict.fromkeys(COUNTERS, 100) | {counter: 3}, loop_turn_seconds=histogram(1.0, 1.0))
    found = rates(now, before)
    assert {found[name] for name in found if name not in ("fronts", "unsent_bytes")} == {None}
    assert totals([found])["reads_per_s"] is None


def test_a_node_that_was_restarted_and_has_counted_on_is_known_by_its_process() -> None:
    before = answer(10.0, hits_total=1, process_start_time_seconds=5.0)
    now = answer(11.0, hits_total=9, process_start_time_seconds=10.5)
    assert rates(now, before)["reads_per_s"] is None


def test_latencies_are_those_of_the_step_over_all_commands_of_a_front() -> None:
    slow_once = histogram(*[5.0] * 1000)
    before = answer(0.0, **{request("resp", "get"): slow_once, request("http", "GET /cache/{key}"): histogram(1.0)})
    now = answer(
        2.0,
        **{
            request("resp", "get"): histogram(*[5.0] * 1000, *[0.0015] * 90),
            # It was never asked for before.
            request("resp", "set"): histogram(*[0.012] * 10),
            request("http", "GET /cache/{key}"): histogram(1.0),
            "loop_turn_seconds": histogram(0.003),
        },
    )
    found = rates(now, before)
    resp, http = found["fronts"]["resp"], found["fronts"]["http"]
    assert resp["requests_per_s"] == 50.0
    assert 0.001 < resp["p50_s"] < 0.00205 < 0.008 < resp["p99_s"] < 0.0165
    assert (http["requests_per_s"], http["p50_s"], http["p99_s"]) == (0.0, None, None)
    assert list(found["fronts"]) == ["http", "resp"] and 0.002 < found["loop_p99_s"] < 0.0042
    # In either order: it is not said in which the labels come.
    named = 'request_seconds{command="get",front="memcached",outcome="ok"}'
    assert list(rates(answer(1.0, **{named: histogram(1.0)}), answer(0.0))["fronts"]) == ["memcached"]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        [],
        "x",
        {},
        {"buckets": 7},
        {"buckets": [1] * 99},
        {"buckets": [-1]},
        {"buckets": ["x"]},
        {"buckets": [10**30]},
    ],
)
def test_what_is_no_histogram_and_no_number_is_unknown(odd: Any) -> None:
    before, now = answer(0.0), answer(1.0, loop_turn_seconds=odd, sets_total=str(odd), **{request("http", "x"): odd})
    found = rates(now, before)
    assert found["loop_p99_s"] is None and found["fronts"]["http"]["requests_per_s"] is None
    assert found["writes_per_s"] is None


def test_errors_are_the_requests_that_the_node_could_not_do() -> None:
    before = answer(0.0, **{request("http", "x"): histogram(1.0)})
    refused = {request("http", "x", "refused"): histogram(1.0), request("http", "x"): histogram(1.0, 1.0)}
    assert rates(answer(2.0, **refused), before)["errors_per_s"] == 0
    failed = {request(front, "x", "error"): histogram(1.0, 2.0) for front in ("http", "resp")}
    assert rates(answer(2.0, **refused, **failed), before)["errors_per_s"] == 2.0
    # A node that does not count its requests, and a first look.
    unread = {request("http", "x", "error"): {"count": 5}}
    assert rates(answer(2.0, **unread), answer(0.0))["errors_per_s"] is None
    assert rates(answer(2.0), answer(0.0))["errors_per_s"] is rates(answer(2.0, **failed), None)["errors_per_s"] is None


def test_fronts_that_nobody_knows_are_left_out() -> None:
    strange = {request(front, "x"): histogram(1.0) for front in ("gopher", "x" * 99, "\x1b[2J", "[red]")}
    assert rates(answer(1.0, **strange), answer(0.0))["fronts"] == {}


def test_reads_are_added_up_and_writes_are_not() -> None:
    steps = [
        rates(
            answer(1.0, hits_total=30, misses_total=10, sets_total=5, **{request("http", "x"): histogram(1.0)}),
            answer(0.0),
        ),
        rates(answer(2.0, sets_total=12), answer(0.0)),
        rates(answer(2.0), None),
    ]
    found = totals(steps)
    assert (found["reads_per_s"], found["writes_per_s"], found["hit_ratio"]) == (40.0, 6.0, 0.75)
    assert found["fronts"] == {"http": {"requests_per_s": 1.0}}
    assert totals([])["reads_per_s"] is None and totals([])["fronts"] == {}
