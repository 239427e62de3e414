"""Metrics: what a node tells of itself in numbers: by name and labels, a counter, a gauge or a histogram.

A name says what it is: ``_total`` is a counter, ``_info`` is always 1 and has facts in its labels, a Histogram is one, and all
else is a gauge. ``families.py`` has the meaning of each name. Labels stand behind the name as Prometheus writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

# {name with its labels: number, or Histogram where the name is one's}, such as {"items": 3, 'peer_lag{peer="b"}': 0}.
Metrics: TypeAlias = Mapping[str, Any]

# One label: its name, and its value between quotes, in which these, line ends and backslashes stand behind a backslash.
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}
_ESCAPED = re.compile(r'[\\\n"]')
_UNESCAPED = re.compile(r"\\(.)")


def labelled(name: str, **labels: str) -> str:
    """Return the metric ``name`` with its labels behind it, whatever text the labels' values are."""
    told = [f'{label}="{_ESCAPED.sub(lambda found: _ESCAPES[found[0]], text)}"' for label, text in labels.items()]
    return f"{name}{{{','.join(told)}}}"


def parted(named: str) -> tuple[str, dict[str, str]]:
    """Return (name, {label: value}) of a metric's name with its labels, as ``labelled`` has made it."""
    name, _, labels = named.partition("{")
    return name, {
        label: _UNESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)
        for label, text in _LABEL.findall(labels)
    }
