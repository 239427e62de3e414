"""The samples of a node's last hour: rates, quantiles, gaps, and how much is kept."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.measuring.histogram import Histogram
from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.history import EVERY_S, PLACES, SERIES_MAX, History
from cacheflow.rest.request.context import RestConfig

START_S = 1_700_000_000.0


class Sampled:
    """A history of the metrics that a test sets, by clocks that it moves. A machine that sleeps moves the wall clock alone."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {"items": 1, "hits_total": 0, "misses_total": 0, "evicted_total": 0}
        self.wall_s = START_S
        self.clock_s = 5.0
        self.asked = 0
        self.history = History(self.measure, lambda: self.wall_s, lambda: self.clock_s)

    def measure(self) -> dict[str, Any]:
        self.asked += 1
        if "failure" in self.metrics:
            raise self.metrics["failure"]
        return dict(self.metrics)

    def sample(self, after_s: float = EVERY_S, /, **metrics: Any) -> None:
        """Look again ``after_s`` seconds later, when ``metrics`` have changed."""
        self.wall_s += after_s
        self.clock_s += after_s
        self.metrics |= metrics
        self.history.look()

    def told(self, since_s: float | None = None) -> dict[str, Any]:
        return json.loads(self.history.as_json(since_s))  # type: ignore[no-any-return]

    def series(self, name: str) -> Any:
        return self.told()["series"][name]


@pytest.fixture
def sampled() -> Sampled:
    return Sampled()


def test_a_sample_is_taken_every_five_seconds(sampled: Sampled) -> None:
    for _ in range(26):
        sampled.sample(1.0)
    assert sampled.asked == 6
    told = sampled.told()
    assert told["times"] == [START_S + 1 + EVERY_S * n for n in range(6)]
    assert (told["now"], told["every"]) == (START_S + 26, 5)
    assert told["series"]["items"] == [1] * 6


def test_counters_are_rates_a_second_and_gauges_are_themselves(sampled: Sampled) -> None:
    sampled.sample()
    sampled.sample(hits_total=10, misses_total=5, items=7, bytes=1234, evicted_total=1)
    # What is late is spread over the time that has passed.
    sampled.sample(8.0, hits_total=26)
    assert sampled.series("hits") == [None, 2, 2]
    assert sampled.series("misses") == [None, 1, 0]
    assert sampled.series("reads") == [None, 3, 2]
    assert sampled.series("evictions") == [None, 0.2, 0]
    assert sampled.series("items") == [1, 7, 7] and sampled.series("bytes") == [None, 1234, 1234]


def test_a_counter_that_has_begun_anew_has_no_rate(sampled: Sampled) -> None:
    sampled.sample(hits_total=100)
    sampled.sample(hits_total=3)
    sampled.sample(hits_total=8)
    assert sampled.series("hits") == [None, None, 1]


def test_a_histogram_tells_of_what_it_has_counted_since_the_sample_before(sampled: Sampled) -> None:
    def requests(front: str, *seconds: float) -> dict[str, Histogram]:
        noted = Histogram()
        for each in seconds:
            noted.note(each)
        return {f'request_seconds{{front="{front}",command="get",outcome="ok"}}': noted}

    flushed = Histogram()
    sampled.sample(**requests("http", 30.0, 30.0), journal_flush_seconds=flushed)
    sampled.metrics |= {**requests("http", 30.0, 30.0, *[0.001] * 10), **requests("resp", *[0.000_1] * 90)}
    flushed.note(0.01)
    sampled.sample()
    sampled.sample()
    told = sampled.told()["series"]
    assert told["requests_http"] == [None, 2, 0] and told["requests_resp"] == [None, 18, 0]
    assert told["requests"] == [None, 20, 0]
    assert told["p50_ms_http"][1] == pytest.approx(1, rel=0.5) and told["p99_ms"][1] == pytest.approx(1, rel=0.5)
    assert told["p50_ms"][1] == pytest.approx(0.1, rel=0.5)
    assert told["flush_p99_ms"][1] == pytest.approx(10, rel=0.7)
    # Where there was nothing there is nothing to tell.
    assert told["p50_ms"][2] is None and told["flush_p99_ms"][2] is None


def test_over_a_gap_leads_no_line(sampled: Sampled) -> None:
    sampled.sample()
    sampled.sample(hits_total=5)
    before_s = sampled.wall_s
    sampled.sample(600.0, hits_total=600)
    sampled.sample(hits_total=610)
    told = sampled.told()
    assert told["times"] == [before_s - 5, before_s, before_s + 5, before_s + 600, before_s + 605]
    assert told["series"]["items"] == [1, 1, None, 1, 1]
    assert told["series"]["hits"] == [None, 1, None, None, 2]


def test_a_clock_that_is_set_back_begins_another_history(sampled: Sampled) -> None:
    for _ in range(3):
        sampled.sample()
    sampled.wall_s -= 3600
    sampled.history.look()
    sampled.sample()
    assert sampled.told()["times"] == [sampled.wall_s - 5, sampled.wall_s]


def test_who_has_the_older_samples_gets_the_newer_ones_and_who_is_ahead_of_this_clock_all(sampled: Sampled) -> None:
    for number in range(4):
        sampled.sample(items=number)
    times = sampled.told()["times"]
    newer = sampled.told(times[1])
    assert newer["times"] == times[2:] and newer["series"]["items"] == [2, 3]
    assert sampled.told(times[-1])["times"] == [] and sampled.told(times[-1])["series"]["items"] == []
    assert sampled.told(sampled.wall_s + 100)["times"] == times


def test_an_hour_is_kept_and_no_more(sampled: Sampled) -> None:
    for number in range(2 * PLACES + 7):
        sampled.sample(items=number)
    told = sampled.told()
    assert len(told["times"]) == PLACES == 3600 / EVERY_S and told["times"] == sorted(told["times"])
    assert told["series"]["items"] == [*range(PLACES + 7, 2 * PLACES + 7)]


def test_lags_are_kept_by_peer_and_those_of_who_is_gone_are_dropped_after_an_hour(sampled: Sampled) -> None:
    sampled.sample(**{'peer_lag{peer="b"}': 3, 'peer_lag{peer="with \\"quotes\\""}': 0})
    assert sampled.series("lag") == {"b": [3], 'with "quotes"': [0]}
    del sampled.metrics['peer_lag{peer="b"}']
    for _ in range(PLACES - 1):
        sampled.sample()
    assert sampled.series("lag")["b"][0] == 3
    sampled.sample()
    assert [*sampled.series("lag")] == ['with "quotes"']


def test_there_are_no_more_series_than_fit(sampled: Sampled) -> None:
    for turn in range(3):
        sampled.sample(**{f'peer_lag{{peer="{turn}-{number}"}}': 1 for number in range(1000)})
    assert 0 < len(sampled.series("lag")) < SERIES_MAX
    assert len(sampled.history._rings._series) < SERIES_MAX + 20
    assert sampled.series("items") == [1, 1, 1]
    # A front that is asked for the first time has its own all the same.
    asked = Histogram()
    for _ in range(2):
        asked.note(0.001)
        sampled.sample(**{'request_seconds{front="resp",command="get",outcome="ok"}': asked})
    assert sampled.series("requests_resp")[-1] is not None


def test_what_is_not_finite_is_not_known(sampled: Sampled) -> None:
    sampled.sample(items=math.inf)
    sampled.sample(items=math.nan)
    sampled.sample(items=2.5)
    assert sampled.series("items") == [None, None, 2.5]


def test_a_node_that_cannot_be_measured_is_a_gap_and_is_told_of_once(
    sampled: Sampled, caplog: pytest.LogCaptureFixture
) -> None:
    sampled.sample()
    sampled.metrics["failure"] = RuntimeError("no metrics")
    for _ in range(10):
        sampled.sample()
    assert len(caplog.records) == 1
    del sampled.metrics["failure"]
    sampled.sample()
    assert sampled.series("items") == [1, None, 1]


# Over HTTP


def test_the_history_is_served_and_compressed_for_who_takes_it(app: RestApp, client: Client) -> None:
    assert client.get("/history").json["times"] == []
    app.history.look()
    answer = client.get("/history")
    assert answer.json["series"]["items"] == [0] and answer.json["series"]["lag"] == {"b": [0], "c": [7.5]}
    assert answer.headers["Cache-Control"] == "no-store" and "Content-Encoding" not in answer.headers
    for number in range(PLACES):
        app.history._rings.add(number, {("items", ""): number})
    packed = client.get("/history", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip" and len(packed.data) < 6000
    assert json.loads(gzip.decompress(packed.data))["series"]["items"] == [*range(PLACES)]
    assert client.get("/history?since=1e12").json["times"] != []
    for since in ("-1", "nan", "x", "1_0", "", "1795977032516", "1e300"):
        assert client.get(f"/history?since={since}").status_code == 400


def test_each_application_has_a_history_of_its_own() -> None:
    one, other = create_app(FakeStore(), RestConfig()), create_app(FakeStore(), RestConfig())
    one.history.look()
    assert Client(other).get("/history").json["times"] == []
