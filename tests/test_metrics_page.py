"""docs/metrics.md has every metric of a node, in the words in which scrapers are told them, and no other."""

from __future__ import annotations

import re

from documented.reading import ROOT

from cacheflow.measuring.families import FAMILIES

PAGE = (ROOT / "docs/metrics.md").read_text()


def test_the_page_has_the_table_of_all_metrics() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}
    assert told == {name: (family.kind, family.labels, family.meaning) for name, family in FAMILIES.items()}
    assert list(told) == list(FAMILIES), "in the same order"
