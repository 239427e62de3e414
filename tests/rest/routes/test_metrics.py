"""Metrics as scrapers get them: by prometheus-client, read here by its own parsers, and as JSON."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.measuring.histogram import BOUNDS_S, BUCKETS, Histogram
from cacheflow.measuring.metrics import Metrics, labelled
from cacheflow.net.slices import Breaks
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.routes.metrics import ProcessNumbers, Scraped

# What a Prometheus server asks with.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


def families(found: Iterable[Metric]) -> dict[str, Metric]:
    return {family.name: family for family in found}


def scraped(measured: Metrics, accept: str = "") -> dict[str, Metric]:
    """Return the families that a scraper makes of ``measured``."""
    body, content_type = Scraped(lambda: measured).text(accept)
    parse = parse_open if content_type.startswith("application/openmetrics-text") else parse_plain
    return families(parse(body.decode()))


def test_every_kind_is_told_as_what_it_is() -> None:
    durations = Histogram()
    durations.note(0.003, times=3)
    durations.note(100.0)
    measured = {"items": 3, "hits_total": 5, 'node_info{node="a",cluster="c"}': 1, "loop_turn_seconds": durations}
    for accept in ("", PROMETHEUS):
        found = scraped(measured, accept)
        assert found["cacheflow_items"].type == "gauge" and found["cacheflow_items"].samples[0].value == 3
        assert found["cacheflow_hits"].type == "counter" and found["cacheflow_hits"].samples[0].value == 5
        assert found["cacheflow_items"].documentation.startswith("Living keys")
        info = found["cacheflow_node" if accept else "cacheflow_node_info"]
        assert info.samples[0].labels == {"node": "a", "cluster": "c"} and info.samples[0].value == 1
        turns = found["cacheflow_loop_turn_seconds"]
        assert turns.type == "histogram"
        by_bound = {float(each.labels["le"]): each.value for each in turns.samples if each.name.endswith("_bucket")}
        assert list(by_bound) == [*BOUNDS_S, math.inf] == sorted(by_bound)
        assert by_bound[math.inf] == 4 and by_bound[BOUNDS_S[-1]] == 3 and by_bound[0.002048] == 0
        others = {
            each.name.rpartition("_")[2]: each.value for each in turns.samples if not each.name.endswith("_bucket")
        }
        assert others == {"count": 4, "sum": pytest.approx(100.009)}


def test_samples_of_one_name_make_one_family_whatever_their_labels_are() -> None:
    strange = 'a"b\\c\nd,e="f"'
    found = scraped({labelled("peer_lag", peer=peer): lag for lag, peer in enumerate(["n1", strange, "n3"])})
    assert [(each.labels["peer"], each.value) for each in found["cacheflow_peer_lag"].samples] == [
        ("n1", 0),
        (strange, 1),
        ("n3", 2),
    ]


def test_a_metric_that_the_table_lacks_is_told_all_the_same() -> None:
    found = scraped({"strange_new_thing": math.nan, "up": math.inf, "down": -math.inf, "big": 2e15})
    assert found["cacheflow_strange_new_thing"].documentation == "Strange new thing."
    assert math.isnan(found["cacheflow_strange_new_thing"].samples[0].value)
    values = [found[f"cacheflow_{name}"].samples[0].value for name in ("up", "down", "big")]
    assert values == [math.inf, -math.inf, 2e15]


def test_a_node_tells_of_its_process(client: Client) -> None:
    for accept in ("", PROMETHEUS):
        text = client.get("/metrics", headers={"Accept": accept}).text
        found = families((parse_open if accept else parse_plain)(text))
        assert 10e6 < found["process_resident_memory_bytes"].samples[0].value < 10e9
        assert found["process_open_fds"].samples[0].value > 2 and found["process_cpu_seconds"].type == "counter"
        assert found["cacheflow_http_waiting_requests_max"].samples[0].value == 158
        assert [each.labels for each in found["cacheflow_peer_lag"].samples] == [{"peer": "b"}, {"peer": "c"}]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html,*/*;q=0.8", PLAIN),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        # What is no version must do no harm.
        ("application/openmetrics-text;version=latest", PLAIN),
        ("text/plain;version=1.x", PLAIN),
        ("text/plain;version=", PLAIN),
        (",;=,;,", PLAIN),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(client: Client, accept: str, content_type: str) -> None:
    answer = client.get("/metrics", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)


def test_metrics_are_json_for_who_asks(client: Client) -> None:
    for answer in (
        client.get("/metrics?format=json"),
        client.get("/metrics", headers={"Accept": "application/json"}),
    ):
        assert answer.content_type == "application/json"
        assert answer.json["hits_total"] == 2 and answer.json["process_open_fds"] > 2
    assert client.get("/metrics?format=prometheus", headers={"Accept": "application/json"}).text.startswith("# HELP")
    assert client.get("/metrics?format=xml").status_code == 400


def test_json_has_what_a_histogram_says_and_null_for_what_is_not_finite() -> None:
    durations = Histogram()
    durations.note(0.0015, times=99)
    durations.note(1.5)
    told = Scraped(lambda: {"loop_turn_seconds": durations, "nothing_seconds": Histogram(), "age": math.inf}).plain()
    assert told["loop_turn_seconds"]["count"] == 100 and told["loop_turn_seconds"]["sum"] == pytest.approx(1.6485)
    assert 0.001024 < told["loop_turn_seconds"]["p50"] < told["loop_turn_seconds"]["p90"] < 0.002048
    assert told["loop_turn_seconds"]["p99"] <= 0.002048 < 1.5 < told["loop_turn_seconds"]["max"] < 2.1
    nothing = {"count": 0, "sum": 0.0, "p50": None, "p90": None, "p99": None, "max": None, "buckets": [0] * BUCKETS}
    assert told["nothing_seconds"] == nothing and told["loop_turn_seconds"]["buckets"] == durations.counts
    assert told["age"] is None


@pytest.mark.parametrize("accept", ["", PROMETHEUS, None], ids=["text", "openmetrics", "json"])
def test_whoever_makes_many_lines_gives_way_to_the_loop_all_the_time(
    accept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(Breaks, "give_way", lambda breaks: given.append(id(breaks)))
    histograms = 50
    measured = {labelled("request_seconds", front="resp", command=f"c{n}"): Histogram() for n in range(histograms)}
    shown = Scraped(lambda: measured)
    if accept is None:
        shown.plain()
        assert len(given) >= histograms
    else:
        shown.text(accept)
        # One for each histogram, and one for each line.
        assert len(given) >= histograms + histograms * (len(BOUNDS_S) + 1)


def test_nothing_of_ours_is_in_the_registry_of_an_application() -> None:
    before = {family.name for family in REGISTRY.collect()}
    client = Client(create_app(FakeStore(), RestConfig()))
    assert client.get("/metrics").status_code == 200
    assert {family.name for family in REGISTRY.collect()} == before
    # An application that embeds a node does not even load the package.
    code = "import sys, cacheflow, cacheflow.aio; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_process_of_which_the_system_tells_nothing_useful_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "self" / "fd").mkdir(parents=True)
    (tmp_path / "stat").write_text("btime 1700000000\n")
    (tmp_path / "self" / "stat").write_text("1 (python) " + " ".join(["S"] + ["7"] * 40))
    limits = tmp_path / "self" / "limits"
    limits.write_text("Max open files 1024 4096 files\n")
    assert {family.name for family in ProcessNumbers(registry=None, proc=str(tmp_path)).collect()} >= {
        "process_max_fds"
    }
    limits.write_text("Max open files unlimited unlimited files\n")
    assert list(ProcessNumbers(registry=None, proc=str(tmp_path)).collect()) == []
