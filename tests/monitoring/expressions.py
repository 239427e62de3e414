"""What an expression of PromQL reads: metrics, and the labels by which it selects and groups them."""

from __future__ import annotations

import re

# Prometheus' own: whether a scrape has worked, which alerts there are, and the labels that it adds.
OWN = {"up": {"alertname"}, "ALERTS": {"alertname", "alertstate"}}
ADDED = {"job", "instance"}

_METRIC = re.compile(r"\b(cacheflow_\w+|process_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_TEXTS = re.compile(r"\"[^\"]*\"")


def selectors(expr: str) -> list[tuple[str, set[str]]]:
    """Return (metric, the labels that are compared) of each selector in ``expr``."""
    return [(name, set(_LABEL.findall(labels))) for name, labels in _METRIC.findall(expr)]


def grouped(expr: str) -> set[str]:
    """Return the labels by which ``expr`` groups and matches."""
    return {label.strip() for labels in _GROUPED.findall(expr) for label in labels.split(",") if label.strip()}


def unknown(expr: str, known: dict[str, set[str]]) -> set[str]:
    """Return the metrics and labels of ``expr`` that nobody has.

    known: metric -> its labels, as nodes show them. Prometheus' own count as well.
    """
    every = {**known, **OWN}
    found = selectors(expr)
    wrong = {name for name, _ in found if name not in every}
    for name, labels in found:
        wrong |= {f"{name}{{{label}}}" for label in labels - every.get(name, labels) - ADDED}
    had = set[str]().union(ADDED, *[every.get(name, set()) for name, _ in found])
    return wrong | {f"by ({label})" for label in grouped(_TEXTS.sub('""', expr)) - had}
