"""The load generator against nodes that only pretend."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.cli.bench import Report, percentile, read_trace, replay, run_load
from cacheflow.errors import InvalidRequest


@pytest.fixture
def nodes() -> Iterator[list[FakeNode]]:
    state = FakeState()
    with FakeNode(state, "a") as first, FakeNode(state, "b") as second, FakeNode(state, "c") as third:
        yield [first, second, third]


def urls(nodes: list[FakeNode]) -> list[str]:
    return [node.url for node in nodes]


def totals(report: Report) -> dict[str, tuple[int, int]]:
    return {kind: (tally.ops, tally.errors) for kind, tally in report.tallies.items()}


def test_every_operation_is_done_once_and_counted(nodes: list[FakeNode]) -> None:
    seen: list[int] = []
    report = run_load(urls(nodes), 100, clients=6, write_ratio=0.3, progress=seen.append)
    assert totals(report) == {"reads": (70, 0), "writes": (30, 0)}
    assert sum(seen) == 100
    assert sum(len(node.requests) for node in nodes) == 100
    assert all(node.requests for node in nodes)
    assert (report.first_error, report.hits + report.misses) == (None, 70)


def test_connections_are_kept(nodes: list[FakeNode]) -> None:
    run_load(urls(nodes), 100, clients=6)
    assert sum(node.connections for node in nodes) == 6


@pytest.mark.parametrize("ops", [1000, 250, 7])
def test_batches_add_up_to_the_number_asked_for(nodes: list[FakeNode], ops: int) -> None:
    report = run_load(urls(nodes), ops, clients=2, write_ratio=1, batch=100, keys=50, value_bytes=10)
    assert totals(report) == {"writes": (ops, 0)}
    assert set(nodes[0].state.entries) <= {f"bench:{number}" for number in range(50)}
    assert {entry.value for entry in nodes[0].state.entries.values()} == {"x" * 10}


def test_only_reads_or_only_writes(nodes: list[FakeNode]) -> None:
    assert set(run_load(urls(nodes), 10, write_ratio=0).tallies) == {"reads"}
    assert set(run_load(urls(nodes), 10, write_ratio=1).tallies) == {"writes"}


def test_refusals_and_broken_connections_are_errors_and_the_run_goes_on(nodes: list[FakeNode]) -> None:
    nodes[0].faults.extend([(503, "No leader"), "drop-early"])
    report = run_load(urls(nodes[:1]), 20, clients=1, write_ratio=1)
    assert totals(report) == {"writes": (18, 2)}
    assert report.first_error is not None and "503" in report.first_error


def test_a_node_that_is_gone_costs_each_of_its_clients_one_error(nodes: list[FakeNode]) -> None:
    nodes[0].stop()
    assert totals(run_load(urls(nodes[:2]), 20, clients=4, write_ratio=1)) == {"writes": (18, 2)}


def test_without_any_node_every_operation_is_an_error(nodes: list[FakeNode]) -> None:
    nodes[0].stop()
    assert totals(run_load(urls(nodes[:1]), 20, clients=4, write_ratio=1)) == {"writes": (0, 20)}


def test_the_requests_are_plain_http(nodes: list[FakeNode]) -> None:
    run_load(urls(nodes[:1]), 4, clients=1, token="secret")
    for _, _, headers in nodes[0].requests:
        assert headers["host"] == nodes[0].url.removeprefix("http://")
        assert headers["authorization"] == "Bearer secret"


def test_a_row_has_rates_and_percentiles(nodes: list[FakeNode]) -> None:
    row = run_load(urls(nodes), 50, write_ratio=0).rows()[0]
    assert list(row) == ["kind", "ops", "requests", "ops_per_s", "p50_ms", "p95_ms", "p99_ms", "max_ms", "errors"]
    assert 0 < float(row["p50_ms"]) <= float(row["p95_ms"]) <= float(row["p99_ms"]) <= float(row["max_ms"])


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert (percentile([], 0.5), percentile([3.0], 0.01)) == (0, 3)


def test_a_trace_is_read_plain_and_compressed(tmp_path: Path) -> None:
    data = struct.pack(">3I", 7, 2**32 - 1, 7)
    plain, packed = tmp_path / "t.trace", tmp_path / "t.trace.xz"
    plain.write_bytes(data)
    packed.write_bytes(lzma.compress(data))
    assert read_trace(plain) == read_trace(packed) == [7, 2**32 - 1, 7]


@pytest.mark.parametrize("data", [b"", b"12345"])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "t.trace"
    file.write_bytes(data)
    with pytest.raises(InvalidRequest, match="trace"):
        read_trace(file)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_trace(tmp_path / "absent")


def test_a_replay_sets_what_it_misses_and_goes_round_the_nodes_in_order(nodes: list[FakeNode]) -> None:
    report = replay(urls(nodes), [1, 2, 1, 3, 2, 1])
    assert (report.hits, report.misses, report.hit_ratio) == (3, 3, 0.5)
    assert totals(report) == {"reads": (6, 0), "writes": (3, 0)}
    assert [(verb, path) for verb, path, _ in nodes[0].requests] == [
        ("GET", "/cache/1"),
        ("PUT", "/cache/1"),
        ("GET", "/cache/3"),
        ("PUT", "/cache/3"),
    ]


def test_a_strict_replay_counts_reads_through_the_log(nodes: list[FakeNode]) -> None:
    replay(urls(nodes), [1], strict=True)
    assert nodes[0].requests[0][1] == "/cache/1?recency=strict"


def test_a_replay_with_several_clients_asks_for_every_key_once(nodes: list[FakeNode]) -> None:
    report = replay(urls(nodes), list(range(60)), clients=5)
    assert (report.hits, report.misses) == (0, 60)


@pytest.mark.parametrize("options", [{"clients": 0}, {"batch": 0}, {"write_ratio": 2}, {"keys": 0}])
def test_impossible_loads_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        run_load(["http://127.0.0.1:1"], 1, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        run_load(["ftp://x"], 1)
