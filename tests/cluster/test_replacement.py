"""Row ``replacement`` in its short form: three new nodes take the places of all three under load, the leader first."""

from __future__ import annotations

from scripts.bench.more import replacement


def test_all_three_nodes_are_replaced_under_load_and_nothing_fails() -> None:
    verdict = replacement.run(clients=2)
    assert verdict.passed, (verdict.measured, verdict.details)
    assert verdict.figures["calls"] > 0
