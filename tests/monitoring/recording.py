"""Recording: what real nodes say in /metrics, scrape after scrape, as series for promtool, and which alerts these fire.

A scrape of the recording counts as a minute, or as long as is told, however soon the next one is made: a fault that would have
to last for ten minutes is made once, and scraped ten times. The rules are those of docs/alerts.yml as they stand there.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.connection import Connection
from cluster.processes import NodeProcess
from monitoring.rules import RULES_FILE, Rule
from prometheus_client.parser import text_string_to_metric_families

JOB = "cacheflow"
# The rules' answer: which alerts fire, and for which node.
FIRING = 'group by (alertname, instance) (ALERTS{alertstate="firing"})'
# Seconds that a rule may need, beside those of ``for``, until its range holds enough of the fault.
WINDOW_S = 300
MISSING, STALE = "_", "stale"


class Recording:
    """The series of some nodes. wanted: the metrics that are kept.  interval_s: how long a scrape counts."""

    def __init__(self, nodes: Sequence[NodeProcess], wanted: Iterable[str], interval_s: int = 60) -> None:
        self.nodes = nodes
        self.interval_s = interval_s
        self.scrapes = 0
        self._wanted = tuple(sorted(wanted))
        self._series: dict[str, list[str]] = {}
        # Kept open, as Prometheus does.
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.close()

    def scrape(self) -> None:
        """Ask every node for its metrics, and keep what is wanted of them."""
        for node in self.nodes:
            samples = self._scraped(node)
            up = samples is not None
            for name, value in {**(samples or {}), series_name("up", node): float(up)}.items():
                values = self._series.setdefault(name, [])
                values += [MISSING] * (self.scrapes - len(values))
                values.append(repr(value) if value != float("inf") else "Inf")
        self.scrapes += 1
        for values in self._series.values():
            if len(values) < self.scrapes:
                # As Prometheus does when a target has it no more.
                values.append(STALE if values[-1] not in (STALE, MISSING) else MISSING)

    def _scraped(self, node: NodeProcess) -> dict[str, float] | None:
        """Return the values of a node's metrics that are wanted, by series; None if the node does not answer."""
        if not node.alive or node.hangs:
            return None
        if node.node_id not in self._connections:
            self._connections[node.node_id] = node.connect(5.0)
        try:
            answer = self._connections[node.node_id].request("GET", "/metrics", headers={"Accept": "text/plain"})
        except (OSError, http.client.HTTPException):
            # Of a process that has ended meanwhile: the next request opens another.
            return None
        if answer.status != 200:
            return None
        lines = [line for line in answer.body.decode().splitlines() if line.startswith(self._wanted)]
        return {
            series_name(sample.name, node, sample.labels): sample.value
            for family in text_string_to_metric_families("\n".join(lines) + "\n")
            for sample in family.samples
        }

    def check(self, promtool: str, folder: Path, expected: Mapping[int, Iterable[tuple[str, str]]]) -> str:
        """Return what promtool finds wrong, "" if nothing: which alerts fire at which scrape.

        expected: scrape -> (alert, node id) of all that fire then.
        """
        evaluations = [
            {
                "expr": FIRING,
                "eval_time": f"{scrape * self.interval_s}s",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"{f", instance={json.dumps(node)}" if node else ""}}}', "value": 1}
                    for alert, node in sorted(set(alerts))
                ],
            }
            for scrape, alerts in expected.items()
        ]
        document = {
            "rule_files": [str(RULES_FILE)],
            "evaluation_interval": f"{self.interval_s}s",
            "tests": [
                {
                    "interval": f"{self.interval_s}s",
                    "input_series": [
                        {"series": name, "values": " ".join(values)} for name, values in self._series.items()
                    ],
                    "promql_expr_test": evaluations,
                }
            ],
        }
        # promtool reads YAML, of which JSON is a part.
        file = folder / "recording.yml"
        file.write_text(json.dumps(document, indent=1))
        done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
        return "" if done.returncode == 0 else done.stdout + done.stderr


def scrapes_until(rules: Iterable[Rule], interval_s: int) -> int:
    """Return how many scrapes it takes from the beginning of a fault until all of ``rules`` must fire.

    Not so many that what has happened once is out of sight again.
    """
    return max(-(-(rule.for_s + min(rule.window_s, WINDOW_S)) // interval_s) for rule in rules) + 2


def series_name(name: str, node: NodeProcess, labels: Mapping[str, str] | None = None) -> str:
    """Return a metric's name and labels as Prometheus would write them, with the job and the node added."""
    given = {**(labels or {}), "instance": node.node_id, "job": JOB}
    return f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in sorted(given.items()))}}}"
