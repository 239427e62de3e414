"""The alerting rules of docs/alerts.yml, as tests read them, and with shorter times for a Prometheus that is in a hurry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from monitoring.expressions import selectors

ROOT = Path(__file__).resolve().parents[2]
RULES_FILE = ROOT / "docs/alerts.yml"

# What the names of all rules begin with.
PREFIX = "CacheFlow"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?<=\[)\d+[smhd](?=\])|(?<=for: )\d+[smhd]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule. for_s: how long its expression must be true.  window_s: the longest range that it looks back."""

    name: str
    expr: str
    for_s: int
    severity: str
    annotations: dict[str, str]

    @property
    def window_s(self) -> int:
        """The seconds of the longest range in the expression; 0 without one."""
        return max([seconds(each) for each in _DURATION.findall(self.expr)], default=0)

    @property
    def metrics(self) -> set[str]:
        """The names of the metrics that the expression reads."""
        return {name for name, _ in selectors(self.expr)}


def seconds(duration: str) -> int:
    """Return the seconds of a duration of Prometheus, such as ``5m``."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def rules() -> dict[str, Rule]:
    """Return the rules of docs/alerts.yml by name."""
    document: dict[str, Any] = yaml.safe_load(RULES_FILE.read_text())
    read = [
        Rule(
            rule["alert"],
            rule["expr"],
            seconds(rule.get("for", "0s")),
            rule["labels"]["severity"],
            rule["annotations"],
        )
        for group in document["groups"]
        for rule in group["rules"]
    ]
    assert len({rule.name for rule in read}) == len(read), "two rules of one name"
    return {rule.name: rule for rule in read}


def hurried(factor: int) -> str:
    """Return the text of docs/alerts.yml with all ranges and all times of ``for`` divided by ``factor``."""
    return _DURATION.sub(lambda found: f"{seconds(found[0]) * 1000 // factor}ms", RULES_FILE.read_text())
