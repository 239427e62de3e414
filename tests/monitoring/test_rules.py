"""docs/alerts.yml: what Prometheus would refuse, what no node shows, and what would help nobody at night."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from monitoring.expressions import unknown
from monitoring.rules import PREFIX, ROOT, RULES_FILE, Rule, hurried, rules

RULES = rules()
OPERATING = ROOT / "docs/operating.md"
EACH = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def test_prometheus_takes_the_rules(promtool: str, tmp_path: Path) -> None:
    assert checked(promtool, RULES_FILE) == ""
    worse = tmp_path / "worse.yml"
    worse.write_text(RULES_FILE.read_text().replace("max by (job)", "max by job"))
    assert "parse error" in checked(promtool, worse)


def checked(promtool: str, file: Path) -> str:
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


UP = {"up": "1x80", "cacheflow_ready": "1x80", "cacheflow_has_leader": "1x80", "cacheflow_removed": "0x80"}
DOWN = {"up": "0x80"}


@pytest.mark.parametrize(
    ("series", "fires"),
    [
        ({"a1": UP, "a2": DOWN, "b1": UP}, []),
        ({"a1": DOWN, "a2": DOWN, "b1": UP}, [("Absent", "cacheflow-a")]),
        ({"a1": DOWN, "b1": DOWN}, [("Absent", "cacheflow-a"), ("Absent", "cacheflow-b")]),
        ({}, [("Absent", "")]),
        ({"a1": UP, "b1": UP | {"cacheflow_ready": "0x80"}}, [("SeveralNotReady", "cacheflow-b")]),
        ({"a1": UP, "a2": UP | {"cacheflow_ready": "0x80"}}, []),
        ({"a1": UP, "a2": UP | {"cacheflow_ready": "0x80", "cacheflow_removed": "1x80"}}, []),
    ],
    ids=[
        *("one node down", "one of two clusters down", "both clusters down", "nothing scraped"),
        *("a lone node not ready", "one of two not ready", "a removed node not ready"),
    ],
)
def test_a_cluster_that_is_wholly_out_is_critical_whatever_the_others_do(
    series: dict[str, dict[str, str]], fires: list[tuple[str, str]], promtool: str, tmp_path: Path
) -> None:
    """series: node -> metric -> values; the first letter of a node is its cluster."""
    shown = [
        {"series": f'{metric}{{job="cacheflow-{node[0]}",instance="{node}"}}', "values": values}
        for node, metrics in series.items()
        for metric, values in metrics.items()
    ]
    expected = [
        {"labels": f'{{alertname="{PREFIX}{alert}"{f", job={json.dumps(job)}" if job else ""}}}', "value": 1}
        for alert, job in fires
    ]
    firing = 'group by (alertname, job) (ALERTS{alertstate="firing",severity="critical"})'
    document = {
        "rule_files": [str(RULES_FILE)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": shown,
                "promql_expr_test": [{"expr": firing, "eval_time": "15m", "exp_samples": expected}],
            }
        ],
    }
    file = tmp_path / "clusters.yml"
    file.write_text(json.dumps(document))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@EACH
def test_a_node_shows_every_metric_and_label_of_a_rule(rule: Rule, shown: dict[str, set[str]]) -> None:
    assert not unknown(rule.expr, shown)


@EACH
def test_a_rule_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: Rule) -> None:
    assert rule.name.startswith(PREFIX)
    assert rule.severity in ("critical", "warning", "info")
    assert set(rule.annotations) == {"summary", "description", "runbook"}
    assert rule.annotations["summary"].endswith(".") and len(rule.annotations["description"]) > 80


@EACH
def test_a_rule_names_a_section_that_there_is(rule: Rule) -> None:
    page, _, section = rule.annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert not section or section in {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_operating_tells_of_every_rule_how_bad_it_is() -> None:
    rows = re.findall(r"^\| (\w+) \|.*\| (`CacheFlow.*) \|$", OPERATING.read_text(), re.MULTILINE)
    told = {name: severity for severity, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {rule.name: rule.severity for rule in RULES.values()}


def test_prometheus_takes_the_configuration_that_operating_shows(promtool: str, tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```text\n(scrape_configs:.*?)^```$", OPERATING.read_text(), re.MULTILINE | re.DOTALL)
    for name in ("cacheflow-token", "cacheflow-ca.crt", "alerts.yml"):
        assert f"/etc/prometheus/{name}" in shown
    config = tmp_path / "prometheus.yml"
    config.write_text(shown)
    check = [promtool, "check", "config", "--syntax-only", str(config)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    config.write_text(shown.replace("credentials_file", "credential_file"))
    assert subprocess.run(check, capture_output=True, timeout=60).returncode != 0


def test_what_reads_nothing_that_nodes_show_is_found() -> None:
    known = {"cacheflow_items": set[str](), "cacheflow_lag": {"peer"}}
    assert not unknown('sum by (job) (cacheflow_items{job="a"}) + max by (peer) (cacheflow_lag{peer!=""})', known)
    assert unknown("cacheflow_item > 0", known) == {"cacheflow_item"}
    assert unknown('cacheflow_items{peer="b"}', known) == {"cacheflow_items{peer}"}
    assert unknown("sum by (peer) (cacheflow_items)", known) == {"by (peer)"}


def test_a_hurried_rule_differs_in_its_times_alone() -> None:
    times = re.compile(r"\d+(?:ms|s|m|h)\b")
    assert "for: 5000ms" in hurried(60) and "[5000ms]" in hurried(60)
    assert times.sub("", hurried(60)) == times.sub("", RULES_FILE.read_text())
