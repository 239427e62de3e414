"""Names of metrics with their labels, and the table of their meanings."""

from __future__ import annotations

import re

import pytest

from cacheflow.measuring.families import FAMILIES
from cacheflow.measuring.metrics import labelled, parted


def test_labels_stand_behind_a_name_as_prometheus_writes_them() -> None:
    assert labelled("peer_lag", peer="b") == 'peer_lag{peer="b"}'
    assert labelled("refused_total", port="http", reason="token") == 'refused_total{port="http",reason="token"}'
    assert parted("items") == ("items", {})
    assert parted('refused_total{port="http",reason="token"}') == ("refused_total", {"port": "http", "reason": "token"})


@pytest.mark.parametrize("text", ["", '"', "\\", "\n", '\\"', "\\n", '",peer="other', "}{", "=", "ä b", '\\\n"\\'])
def test_a_label_comes_back_whatever_text_it_is(text: str) -> None:
    named = labelled("peer_lag", before="1", peer=text, behind="2")
    assert parted(named) == ("peer_lag", {"before": "1", "peer": text, "behind": "2"})
    assert "\n" not in named


def test_each_name_says_what_kind_it_is_of_and_each_meaning_is_a_sentence() -> None:
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"[a-z][a-z_]*", name), name
        assert (family.kind == "counter") == name.endswith("_total"), name
        assert (family.kind == "info") == name.endswith("_info"), name
        assert family.kind != "histogram" or name.endswith("_seconds"), name
        assert family.meaning[0].isupper() or family.meaning[0].isdigit(), name
        assert family.meaning.endswith("."), name
