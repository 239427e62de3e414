"""Three embedded nodes in one process: founding, agreement, hand-over, and what a start refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import QUICK, Waiting, leader_of, three_nodes, wait_for

from cacheflow import verbs
from cacheflow.errors import ConfigError, InvalidRequest, NotCommitted, NotReady
from cacheflow.store import ReplicatedStore


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ReplicatedStore]]:
    with three_nodes(tmp_path_factory.mktemp("trio"), max_items=500) as stores:
        yield stores


def test_nodes_that_name_each_other_found_one_cluster(trio: list[ReplicatedStore]) -> None:
    assert len({store.status()["cluster_id"] for store in trio}) == 1
    for store in trio:
        assert [row["id"] for row in store.nodes()] == ["node-1", "node-2", "node-3"]
    assert sum(store.status()["role"] == "leader" for store in trio) == 1


def test_a_write_on_any_node_is_visible_there_at_once_and_everywhere_soon(trio: list[ReplicatedStore]) -> None:
    for writer in trio:
        key = f"by/{writer.config.node_id}"
        writer[key] = key
        assert writer[key] == key
        for reader in trio:
            assert reader.get(key, consistency="linearizable") == key
            wait_for(lambda reader=reader, key=key: reader.get(key) == key)  # type: ignore[misc]


def test_threads_on_all_nodes_count_exactly(trio: list[ReplicatedStore]) -> None:
    def count(store: ReplicatedStore) -> None:
        for _ in range(50):
            store.incr("counter", initial=0)

    calls = [Waiting(lambda store=store: count(store)) for store in trio * 2]  # type: ignore[misc]
    assert [call.end() for call in calls] == [None] * 6
    assert [store.get("counter", consistency="linearizable") for store in trio] == [300] * 3


def test_digests_are_equal_at_an_equal_index(trio: list[ReplicatedStore]) -> None:
    for number in range(600):
        trio[number % 3].run([verbs.set_command(f"digest/{number}", number, ttl=0.05 if number % 7 == 0 else None)])

    def equal() -> bool:
        found = {store.digest() for store in trio}
        return len(found) == 1

    wait_for(equal)
    wait_for(lambda: len({store.digest(full=True) for store in trio}) == 1)
    assert trio[0].metrics()["evicted_total"] > 0


def test_bounded_reads_on_a_follower_are_as_fresh_as_asked(trio: list[ReplicatedStore]) -> None:
    leader = leader_of(trio)
    follower = next(store for store in trio if store is not leader)
    leader["bounded"] = 1
    wait_for(lambda: follower.get("bounded") == 1)
    item = follower.get_item("bounded", consistency="bounded", max_staleness=2)
    assert item is not None and item.value == 1
    with pytest.raises(NotReady):
        follower.get_item("bounded", consistency="bounded", max_staleness=1e-9)


def test_leadership_is_handed_over_while_threads_write(trio: list[ReplicatedStore]) -> None:
    stop: list[bool] = []

    def write(store: ReplicatedStore) -> int:
        done = 0
        while not stop:
            store.incr("handed", initial=0)
            done += 1
        return done

    calls = [Waiting(lambda store=store: write(store)) for store in trio]  # type: ignore[misc]
    for _ in range(3):
        leader = leader_of(trio)
        heir = next(store for store in trio if store is not leader)
        assert heir.transfer_leadership(heir.config.node_id) == heir.config.node_id
        wait_for(lambda heir=heir: heir.status()["role"] == "leader")  # type: ignore[misc]
    stop.append(True)
    assert [call.end() for call in calls] == [None] * 3
    assert trio[0].get("handed", consistency="linearizable") == sum(call.result for call in calls)


def test_leadership_stays_where_it_is_when_asked_to_and_goes_to_no_stranger(trio: list[ReplicatedStore]) -> None:
    leader_id = leader_of(trio).config.node_id
    assert leader_id is not None
    for store in trio:
        assert store.transfer_leadership(leader_id) == leader_id
        with pytest.raises(InvalidRequest):
            store.transfer_leadership("nobody")


def test_a_cluster_closed_and_started_again_has_its_contents(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores:
        stores[1].set("kept", "by all", ttl=600)
        for store in stores:
            store.close()
        for store in stores:
            store.start()
        for store in stores:
            store.wait_ready(20)
            item = store.get_item("kept")
            assert item is not None and item.value == "by all"
            assert item.ttl_s is not None and 500 < item.ttl_s <= 600


def test_a_locked_data_directory_is_a_configuration_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path) as first:
        second = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path)
        with pytest.raises(ConfigError, match="in use by process"):
            second.start()
        second.close()
        first["still"] = "works"
    with second:
        assert second["still"] == "works"


def test_a_taken_raft_port_is_a_configuration_error_and_frees_the_directory(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        store = ReplicatedStore(node_id="a", raft_address=f"127.0.0.1:{port}", data_dir=tmp_path)
        with pytest.raises(ConfigError, match=str(port)):
            store.start()
    with store:
        store["k"] = "v"


def test_without_its_peers_a_new_node_is_not_ready_and_refuses_reads(tmp_path: Path) -> None:
    store = ReplicatedStore(
        node_id="a",
        raft_address="127.0.0.1:0",
        peers=["127.0.0.1:1"],
        data_dir=tmp_path,
        request_timeout_s=0.2,
        **QUICK,
    )
    with pytest.raises(NotReady), store:
        pytest.fail("it must not get ready")
    store.start()
    try:
        for call in (lambda: store.get("k"), lambda: len(store), lambda: store.set("k", 1)):
            with pytest.raises(NotCommitted, match=r"not caught up|no leader"):
                call()
    finally:
        store.close()


def test_a_node_says_once_which_of_its_settings_the_cluster_overrules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a"
    with ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder, max_items=7
    ) as store:
        wait_for(lambda: store.status()["configuration"]["max_items"] == 7)
    assert "settings count" not in caplog.text
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", data_dir=folder, max_items=9, eviction="lfu"):
        wait_for(lambda: "not this node's: eviction lru, not lfu; max_items 7, not 9" in caplog.text)
