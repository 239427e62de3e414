"""Removing members of a cluster in this process: what the store promises, on the leader, a follower and the removed node."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import QUICK, Waiting, leader_of, three_nodes, wait_for

from cacheflow.aio.store import AsyncReplicatedStore
from cacheflow.errors import (
    ConfigError,
    InvalidRequest,
    MemberConflict,
    MemberUnknown,
    NotReady,
    ReplicationError,
)
from cacheflow.store import ReplicatedStore


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[list[ReplicatedStore]]:
    with three_nodes(tmp_path, request_timeout_s=5.0) as stores:
        yield stores


def id_of(store: ReplicatedStore) -> str:
    return str(store.config.node_id)


def ids(store: ReplicatedStore) -> set[str]:
    return {row["id"] for row in store.nodes()}


def is_removed(store: ReplicatedStore) -> bool:
    return any(name == "member" and not good for name, good, _ in store.readiness())


def rest(trio: list[ReplicatedStore], *but: ReplicatedStore) -> list[ReplicatedStore]:
    return [store for store in trio if all(store is not other for other in but)]


def test_a_removed_node_says_why_it_does_nothing_any_more_and_does_not_start_again(
    trio: list[ReplicatedStore], caplog: pytest.LogCaptureFixture
) -> None:
    leader = leader_of(trio)
    removed, other = rest(trio, leader)
    with caplog.at_level(logging.ERROR, "cacheflow"):
        other.remove_node(id_of(removed))
        wait_for(lambda: is_removed(removed))
    [line] = [record.message for record in caplog.records if "removed from the cluster" in record.message]
    assert "remove its data directory and start it with --seed" in line
    for store in (leader, other):
        wait_for(lambda store=store: ids(store) == {id_of(leader), id_of(other)})  # type: ignore[misc]
        assert store.metrics()["members"] == 2
    assert f'peer_lag{{peer="{id_of(removed)}"}}' not in leader.metrics()
    assert removed.metrics()["removed"] == 1 and removed.metrics()["ready"] == removed.metrics()["failed"] == 0
    for call in (
        lambda: removed.set("k", 1),
        lambda: removed.get("k"),
        lambda: removed.get("k", consistency="linearizable"),
        lambda: removed.remove_node(id_of(other)),
    ):
        with pytest.raises(NotReady, match="removed from the cluster"):
            call()
    assert all(good for _, good, _ in removed.liveness())
    other["still"] = "works"
    assert leader.get("still", consistency="linearizable") == "works"

    # Nobody brings it back while its data is there.
    address = removed.config
    with pytest.raises(InvalidRequest, match="was removed from the cluster"):
        leader.register(id_of(removed), "", f"{address.host}:{address.raft_port}")
    removed.close()
    with pytest.raises(ConfigError, match="was removed from the cluster at index") as refused:
        removed.start()
    assert "start again with --seed" in str(refused.value)

    shutil.rmtree(address.data_dir)
    removed.start()
    removed.wait_ready(20.0)
    assert removed.get("still") == "works"
    wait_for(lambda: all(row["voter"] for row in leader.nodes()) and len(leader.nodes()) == 3)


def test_a_disk_that_hangs_holds_up_the_mark_and_not_the_loop(
    trio: list[ReplicatedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    removed, other = rest(trio, leader_of(trio))
    local = removed._local
    assert local is not None
    note = local._note_removed
    noting: list[str] = []

    def hang(reason: str) -> None:
        noting.append(threading.current_thread().name)
        goes_on.wait()
        note(reason)

    monkeypatch.setattr(local, "_note_removed", hang)
    other.remove_node(id_of(removed))
    wait_for(lambda: noting)
    for _ in range(10):
        assert removed._engine.call(lambda: True), "the loop answers"
        time.sleep(0.05)
    assert not is_removed(removed), "it would not be after kill -9"
    mark = removed.config.data_dir / "removed"
    assert not mark.exists()
    goes_on.set()
    wait_for(lambda: is_removed(removed))
    assert mark.exists()
    assert noting == ["cacheflow-journal"]


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_leader_that_is_removed_is_succeeded_and_no_write_fails(trio: list[ReplicatedStore], through: str) -> None:
    leader = leader_of(trio)
    others = rest(trio, leader)
    stop: list[bool] = []

    def write(store: ReplicatedStore) -> None:
        while not stop:
            store.incr("count", initial=0)

    writers = [Waiting(lambda store=store: write(store)) for store in others]  # type: ignore[misc]
    (leader if through == "leader" else others[0]).remove_node(id_of(leader))
    wait_for(lambda: is_removed(leader))
    before = others[0].get("count")
    wait_for(lambda: others[0].get("count") != before)
    stop.append(True)
    assert [writer.end() for writer in writers] == [None, None]
    assert leader_of(others) in others
    assert ids(others[0]) == {id_of(store) for store in others}


def test_writes_that_wait_on_the_removed_node_end_at_once(trio: list[ReplicatedStore]) -> None:
    removed, other = rest(trio, leader_of(trio))
    stop: list[bool] = []

    def write() -> None:
        while not stop:
            removed.incr("count", initial=0)

    writers = [Waiting(write) for _ in range(4)]
    wait_for(lambda: (removed.get("count") or 0) > 10)
    other.remove_node(id_of(removed))
    errors = [writer.end(deadline_s=4.0) for writer in writers]
    stop.append(True)
    assert all(isinstance(error, ReplicationError) for error in errors), errors


def test_what_cannot_be_removed_is_refused(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    one, other = rest(trio, leader)
    for store in trio:
        with pytest.raises(MemberUnknown, match="nobody"):
            store.remove_node("nobody")
    leader.remove_node(id_of(one))
    other.remove_node(id_of(other))
    with pytest.raises(MemberConflict, match="only node that votes"):
        leader.remove_node(id_of(leader))
    leader["alone"] = 1
    assert ids(leader) == {id_of(leader)}


def test_an_asyncio_application_removes_members_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncReplicatedStore(
            node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, **QUICK
        ) as cache:
            with pytest.raises(MemberUnknown):
                await cache.remove_node("b")

    asyncio.run(main())


def test_every_node_knows_when_every_other_was_last_seen(trio: list[ReplicatedStore]) -> None:
    for store in trio:
        wait_for(lambda store=store: all(row["last_seen"] is not None for row in store.nodes()))  # type: ignore[misc]
        assert all(0 <= row["last_seen"] < 5 for row in store.nodes())
