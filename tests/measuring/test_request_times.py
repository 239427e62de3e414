"""The times of requests, by command and outcome."""

from __future__ import annotations

from cacheflow.measuring.request_times import ERROR, OK, RequestTimes
from cacheflow.measuring.slow_log import SlowLog


def test_requests_are_counted_by_command_and_outcome() -> None:
    times = RequestTimes("resp", SlowLog(50))
    times.note("set", OK, 0.25, 3)
    times.note("set", OK, 0.5)
    times.note("set", ERROR, 1.0)
    times.note("get", OK, 0.125)
    found = times.metrics()
    assert {name: (histogram.count, histogram.sum_s) for name, histogram in found.items()} == {
        'request_seconds{front="resp",command="get",outcome="ok"}': (1, 0.125),
        'request_seconds{front="resp",command="set",outcome="error"}': (1, 1.0),
        'request_seconds{front="resp",command="set",outcome="ok"}': (4, 1.25),
    }
    assert {command: set(outcomes) for command, outcomes in times.by_command().items()} == {
        "get": {OK},
        "set": {OK, ERROR},
    }


def test_a_hot_path_may_keep_the_histogram_that_it_notes_in() -> None:
    times = RequestTimes("resp", SlowLog(50))
    kept = times.histogram("get")
    kept.note(0.5)
    times.note("get", OK, 0.5)
    assert times.histogram("get") is kept and kept.count == 2
