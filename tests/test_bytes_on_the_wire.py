"""Replication sends each entry once to each follower, and little beside it."""

from __future__ import annotations

from scripts.bench.rows import wire


def test_append_entries_takes_at_most_1_2_times_the_bytes_of_the_entries_for_each_follower() -> None:
    verdict = wire.run(writes=400)
    assert verdict.passed, verdict.measured
    assert verdict.details.keys() == {name for name, _, _ in wire.LOADS}
    assert all(each["entries"] >= 5 for each in verdict.details.values())
