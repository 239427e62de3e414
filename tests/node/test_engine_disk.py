"""A disk that refuses: what passes is waited for, what does not is told to whoever restarts nodes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import Waiting, wait_for

from cacheflow import verbs
from cacheflow.errors import ReplicationError
from cacheflow.raft.log.disk import Disk
from cacheflow.store import ReplicatedStore

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplicatedStore]:
    with ReplicatedStore(
        node_id="one",
        raft_address="127.0.0.1:0",
        data_dir=tmp_path / "one",
        election_timeout_s=0.2,
        heartbeat_s=0.02,
        request_timeout_s=20,
    ) as store:
        yield store


def check(results: list[tuple[str, bool, str]], name: str) -> tuple[bool, str]:
    """Return whether a check is good, and what it says."""
    return next((good, detail) for found, good, detail in results if found == name)


def test_a_segment_waits_for_a_file_handle_and_the_write_is_done_then(
    store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Disk.open

    def refuse(disk: Disk, path: Path, create: bool = False) -> int:
        if create and path.name.startswith("journal-"):
            raise OSError(errno.EMFILE, "Too many open files")
        return begin(disk, path, create)

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "open", refuse)
        writes = Waiting(lambda: [store.set(f"k{number}", b"x" * MIB) for number in range(20)])
        wait_for(lambda: not check(store.readiness(), "disk")[0])
        assert "Too many open files" in check(store.readiness(), "disk")[1]
        assert all(good for _, good, _ in store.liveness()), "it mends itself"
        assert store.metrics()["disk_hung"] == 1
        assert store.metrics()["failed"] == 0
    assert writes.end() is None
    wait_for(lambda: check(store.readiness(), "disk") == (True, "works"))


def test_a_disk_that_failed_is_a_reason_to_restart(store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    assert all(good for _, good, _ in store.liveness())
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write_durably", fail)
        with pytest.raises(ReplicationError):
            store.run([verbs.set_command("k", "v")], timeout_s=0.5)
    good, detail = check(store.liveness(), "node")
    assert not good and "Input/output error" in detail
