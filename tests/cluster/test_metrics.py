"""The metrics of real nodes with everything that a node can have: each is in the table, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from cluster.processes import NodeProcess, Nodes, Place, wait_for
from fakes.certificates import Authority
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from cacheflow.access.roles import Role
from cacheflow.access.users_file import line_of, new_token
from cacheflow.measuring.families import FAMILIES
from cacheflow.rest.routes.metrics import PREFIX

# What only the leader knows of the others.
LEADERS = {"peer_lag", "peer_round_trip_seconds"}
PROCESS = {"cpu_seconds", "resident_memory_bytes", "virtual_memory_bytes", "start_time_seconds", "open_fds", "max_fds"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes with users, TLS and all ports."""
    folder = tmp_path_factory.mktemp("measured")
    authority, token = Authority(folder / "ca"), new_token()
    (folder / "users").write_text(line_of("monitor", Role.ADMIN, token) + "\n")
    (folder / "secret").write_text("the secret of all nodes")
    flags = ["--users-file", str(folder / "users"), "--cluster-secret-file", str(folder / "secret"), *authority.flags()]
    ports = ["--resp-port", "0", "--memcached-port", "0"]
    with Nodes(2, folder, [*flags, *ports], lambda node_id: Place(token=token)) as nodes:
        for node in nodes.all:
            node.ca = authority.crt
            node.seeds = [seed.replace("http:", "https:") for seed in node.seeds]
        yield nodes.start()


def scraped(node: NodeProcess) -> dict[str, Metric]:
    """Return the families of a node by the names that the table has, as a scraper of OpenMetrics gets them."""
    body = node.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).body
    parse: Callable[[str], Iterable[Metric]] = parse_open
    ends = {"counter": "_total", "info": "_info"}
    return {f"{each.name}{ends.get(each.type, '')}".removeprefix(PREFIX): each for each in parse(body.decode())}


def measured(node: NodeProcess) -> Any:
    answer = node.try_get("/metrics?format=json")
    return answer.body if answer.status == 200 else {}


def test_a_node_has_every_metric_of_the_table_with_its_labels_and_no_other(pair: Nodes) -> None:
    leader = pair.leader()
    wait_for(lambda: "peer_round_trip_seconds" in scraped(leader) and "disk_free_bytes" in scraped(leader))
    found = scraped(leader)
    ours = {name: family for name, family in found.items() if not name.startswith("process_")}
    assert set(ours) == set(FAMILIES)
    assert {name.removesuffix("_total") for name in found.keys() - ours} == {f"process_{name}" for name in PROCESS}
    for name, family in ours.items():
        assert (family.type, family.documentation) == (FAMILIES[name].kind, FAMILIES[name].meaning), name
        assert family.samples, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(FAMILIES[name].labels), name
    assert set(FAMILIES) - set(scraped(pair.others(leader)[0])) == LEADERS


def test_the_older_format_says_the_same(pair: Nodes) -> None:
    text = pair[0].ask("GET", "/metrics").body.decode()
    plain = {family.name: family for family in parse_plain(text)}
    assert len(plain) > len(FAMILIES) - len(LEADERS)
    for name, family in scraped(pair[0]).items():
        if not name.startswith("process_"):
            # This parser keeps the name of a counter's family without its end.
            other = plain[PREFIX + name.removesuffix("_total")]
            assert [each.labels for each in other.samples] == [each.labels for each in family.samples], name


def test_a_member_that_dies_and_comes_back_is_seen_in_the_numbers(pair: Nodes) -> None:
    leader = pair.leader()
    (other,) = pair.others(leader)
    peer = f'{{peer="{other.node_id}"}}'
    assert leader.put("k", "v").status in (200, 201)
    wait_for(lambda: measured(leader).get("voters_up") == 2)
    up = measured(leader)
    assert up["failure_tolerance"] == 0 and up["members_down"] == 0 and up[f"peer_connected{peer}"] == 1
    assert up["staleness_seconds"] < 10 and up["has_leader"] == 1
    assert up[f"peer_sent_bytes_total{peer}"] > 100 and up[f"peer_received_bytes_total{peer}"] > 100
    other.kill()
    wait_for(lambda: measured(leader).get("has_leader") == 0)
    down = measured(leader)
    assert down["voters"] == 2 and down["voters_up"] == 1 and down["failure_tolerance"] == -1
    assert down["members_down"] == 1 and down[f"peer_connected{peer}"] == 0
    assert down["staleness_seconds"] > up["staleness_seconds"]
    assert down['readiness_check{check="leader"}'] == 0 and down['readiness_check{check="disk"}'] == 1
    wait_for(lambda: measured(leader)[f"peer_silent_seconds{peer}"] > 1)
    pair.start()
    again = measured(leader)
    assert again["voters_up"] == 2 and again["failure_tolerance"] == 0 and again["has_leader"] == 1
    assert again[f"peer_sent_bytes_total{peer}"] > up[f"peer_sent_bytes_total{peer}"], "over all connections"
