"""Real processes under kills and partitions, with clients on every node and one in this process, for half a minute."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest
from cluster.campaign import Campaign, Plan, too_little
from cluster.proxied import ProxyNetwork, missing

KINDS = ("kill_leader", "kill_some", "kill_all", "split", "ring", "one_way", "cut_and_kill")


def test_kills_and_partitions_lose_nothing_and_apply_nothing_twice(folder: Path) -> None:
    if missing():
        pytest.skip(missing())
    # Another run every time; a failure says which one it was.
    seed = random.randrange(1_000_000)
    plan = Plan(nodes=3, seconds=20.0, seed=seed, kinds=KINDS, embedded_votes=seed % 2 == 0, epoch_s=6.0)
    with closing(ProxyNetwork()) as network:
        report = Campaign(plan, network, folder, print).run()
    assert not report.violations, (plan, report.violations, report.line())
    assert not too_little(report), (plan, report.line())
    assert report.faults["kills"] and report.faults["partitions"], (plan, report.line())
