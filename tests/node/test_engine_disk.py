"""A disk that refuses: what passes is waited for, what does not is told to whoever restarts nodes."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import QUICK, Waiting, leader_of, three_nodes, wait_for

from cacheflow import verbs
from cacheflow.aio.store import AsyncReplicatedStore
from cacheflow.errors import ConfigError, NotReady, ReplicationError
from cacheflow.node import engine
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


def test_a_data_directory_that_is_removed_is_noticed(store: ReplicatedStore) -> None:
    engine = store._engine
    assert engine is not None and all(good for _, good, _ in store.liveness())
    shutil.rmtree(engine.data_path)
    engine.on_loop(engine.space.look)
    wait_for(lambda: not check(store.liveness(), "node")[0])
    assert "was removed while it ran" in check(store.liveness(), "node")[1]
    with pytest.raises(ReplicationError):
        store["k"] = "v"


def test_a_directory_of_a_node_in_memory_alone_may_go(tmp_path: Path) -> None:
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, persistence=False
    ) as store:
        store.wait_ready(10)
        engine = store._engine
        (engine.data_path / "lock").unlink()
        engine.on_loop(engine.space.look)
        wait_for(lambda: engine.space.bytes is None)
        store["k"] = "v"
        assert all(good for _, good, _ in store.liveness())


class HungDisk:
    """The disk of one node, whose flushes do not return until it goes on."""

    def __init__(self, store: ReplicatedStore) -> None:
        self._goes_on = threading.Event()
        assert store._local is not None
        disk = store._local.journal._files._disk
        write_durably, sync = disk.write_durably, disk.sync

        def hang_writing(handle: int, offset: int, data: bytes) -> None:
            self._goes_on.wait()
            write_durably(handle, offset, data)

        def hang(handle: int) -> None:
            self._goes_on.wait()
            sync(handle)

        disk.write_durably, disk.sync = hang_writing, hang  # type: ignore[method-assign]

    def go_on(self) -> None:
        self._goes_on.set()


def test_close_does_not_wait_for_a_disk_that_hangs_and_nothing_acknowledged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "CLOSED_WITHIN_S", 0.5)
    with three_nodes(tmp_path, request_timeout_s=5.0) as stores:
        leader = leader_of(stores)
        others = [store for store in stores if store is not leader]
        stop: list[bool] = []
        counted: list[int] = []

        def write() -> None:
            while not stop:
                counted.append(others[0].incr("count", initial=0))

        writer = Waiting(write)
        wait_for(lambda: len(counted) > 10)
        disk = HungDisk(leader)
        through_it = Waiting(lambda: leader.set("through it", 1))
        before = len(counted)
        began = time.monotonic()
        with caplog.at_level(logging.ERROR, "cacheflow"):
            assert leader.close() is False
        assert time.monotonic() - began < 4.0
        assert [record.message for record in caplog.records if "without the last flush" in record.message]
        assert isinstance(through_it.end(2.0), (ReplicationError, type(None)))
        wait_for(lambda: len(counted) > before + 10)
        stop.append(True)
        assert writer.end() is None
        assert leader_of(others) in others

        # It is closed for everybody, and its directory is kept from everybody.
        with pytest.raises(NotReady):
            leader.get("count")
        with pytest.raises(ConfigError, match="the last flush of this node still waits for the disk"):
            leader.start()
        with pytest.raises(ConfigError, match="is in use by process"):
            ReplicatedStore(leader.config).start()
        assert leader.close() is False, "a second time likewise"

        disk.go_on()
        wait_for(leader.close)
        assert leader.close() is True
        leader.start()
        leader.wait_ready(20.0)
        assert leader.get("count", consistency="linearizable") == counted[-1] == len(counted)


def test_an_asyncio_store_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CLOSED_WITHIN_S", 0.2)

    async def main() -> None:
        cache = AsyncReplicatedStore(
            node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, **QUICK
        )
        async with cache:
            disk = HungDisk(cache.store)
            write = asyncio.ensure_future(cache.set("k", 1))
            await asyncio.sleep(0.1)
            assert await cache.close() is False
            with pytest.raises(ReplicationError):
                await write
            disk.go_on()
        assert await cache.close() is True

    asyncio.run(main())
