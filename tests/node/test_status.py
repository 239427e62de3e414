"""What a node says of itself when its snapshots cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.embedded import wait_for

from cacheflow.raft.snapshots import building
from cacheflow.store import ReplicatedStore


def test_a_node_whose_snapshots_fail_again_and_again_says_so_until_one_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BUILD_AGAIN_MS", 1)
    monkeypatch.setattr(building, "BUILD_AGAIN_MS_MAX", 1)
    # Each write is reason enough for a snapshot.
    monkeypatch.setattr(building, "JOURNAL_BYTES_MIN", 0)
    monkeypatch.setattr(building, "JOURNAL_PER_SNAPSHOT", 0)
    with ReplicatedStore(raft_address="127.0.0.1:0", data_dir=tmp_path, fsync="never") as store:
        storage = store._engine.local.node.building._storage
        build, storage.build = storage.build, lambda index, done: done(OSError("no more processes"))
        store["k"] = "v"
        wait_for(lambda: dict(check[:2] for check in store.readiness())["snapshots"] is False)
        assert any("no more processes" in detail for _, _, detail in store.readiness())
        assert store.metrics()["snapshot_failures_total"] >= building.FAILURES_SHOWN
        age_s = store.metrics()["snapshot_age_seconds"]
        assert age_s > 0
        storage.build = build
        store.wait_ready(30.0)
        assert storage.newest is not None
        assert store.metrics()["snapshot_age_seconds"] < 30
