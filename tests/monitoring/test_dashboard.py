"""docs/grafana.json: every expression is one, and asks for metrics and labels that nodes show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitoring.expressions import unknown
from monitoring.rules import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs/grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EACH = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
# What Grafana puts in their places.
VARIABLES = {"$job": "cacheflow", "$instance": ".*", "$__rate_interval": "1m"}


def expressions(panel: dict[str, Any]) -> Iterator[str]:
    """The panel's expressions as Prometheus gets them."""
    for target in panel["targets"]:
        expr = target["expr"]
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        assert "$" not in expr, f"{expr}: a variable that the dashboard does not have"
        yield expr


@EACH
def test_a_node_shows_every_metric_and_label_of_a_panel(panel: dict[str, Any], shown: dict[str, set[str]]) -> None:
    assert [wrong for expr in expressions(panel) if (wrong := unknown(expr, shown))] == []


@EACH
def test_a_panel_is_of_the_chosen_data_source_and_cluster(panel: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source and all(target["datasource"] == source for target in panel["targets"])
    assert all('job="$job"' in target["expr"] for target in panel["targets"])
    assert panel["title"] and panel["description"].endswith(".")


def test_prometheus_takes_every_expression(promtool: str, tmp_path: Path) -> None:
    """promtool checks files of rules alone, so each expression becomes a rule."""
    found = [expr for panel in PANELS for expr in expressions(panel)]
    assert taken(promtool, tmp_path / "rules.yml", found) == ""
    assert "parse error" in taken(promtool, tmp_path / "worse.yml", [*found, "rate(cacheflow_items[5m)"])


def taken(promtool: str, file: Path, found: list[str]) -> str:
    rules = [{"record": f"expression:{number}", "expr": expr} for number, expr in enumerate(found)]
    # promtool reads YAML, of which JSON is a part.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_variables_ask_for_what_nodes_show(shown: dict[str, set[str]]) -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        assert not unknown(variables[name]["definition"].replace("$job", "cacheflow"), shown)


def test_panels_have_numbers_of_their_own_and_do_not_lie_on_each_other() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken_by: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken_by.setdefault((x, y), panel["title"]) == panel["title"]
