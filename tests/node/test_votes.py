"""Five embedded nodes, as many of which vote as the replicated settings say; promoting and demoting in Python."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.embedded import DEADLINE_S, QUICK, leader_of, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.errors import InvalidRequest, MemberConflict, MemberUnknown
from cacheflow.machine.language import commands
from cacheflow.store import ReplicatedStore


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ReplicatedStore]]:
    folder: Path = tmp_path_factory.mktemp("five")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(5)]
    stores = [
        ReplicatedStore(
            node_id=f"node-{number}",
            raft_address=address,
            peers=addresses[:3],
            data_dir=folder / f"node-{number}",
            role="observer" if number == 5 else "voter",
            **QUICK,
        )
        for number, address in enumerate(addresses, 1)
    ]
    with contextlib.ExitStack() as stack:
        for store in stores:
            stack.callback(store.close)
            store.start()
        for store in stores:
            store.wait_ready(DEADLINE_S)
        wait_for(lambda: len(stores[0].nodes()) == 5)
        yield stores


def voters(store: ReplicatedStore) -> list[str]:
    return [row["id"] for row in store.nodes() if row["voter"]]


def vote(stores: list[ReplicatedStore], count: int) -> None:
    """Wait until all list so many voters."""
    wait_for(lambda: all(len(voters(store)) == count for store in stores))


def test_replicas_up_and_down_and_up_again_under_writes(five: list[ReplicatedStore]) -> None:
    vote(five, 3)
    assert "node-5" not in voters(five[0])
    done, failed, ended = [0] * 5, [], threading.Event()

    def write(number: int) -> None:
        while not ended.is_set():
            try:
                five[number].set(f"{number}/{done[number]}", done[number])
            except Exception as error:
                failed.append(error)
            done[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    try:
        leader = leader_of(five)
        for replicas, count in ((4, 4), (1, 2), (2, 3), (0, 1), (2, 3)):
            before = list(done)
            five[4].run([commands.configure({"replicas": replicas})])
            # The fifth never votes by itself.
            vote(five, count)
            wait_for(lambda before=before: all(now > then + 3 for now, then in zip(done, before, strict=True)))  # type: ignore[misc]
            assert leader.config.node_id in voters(leader) and "node-5" not in voters(leader)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert leader_of(five) is leader, "nobody has taken over for that"
    wait_for(lambda: len({store.digest() for store in five}) == 1)
    assert len({store.digest(full=True) for store in five}) == 1


def test_promoting_and_demoting_through_any_node(five: list[ReplicatedStore]) -> None:
    vote(five, 3)
    with pytest.raises(MemberConflict, match="raise replicas, or demote another node"):
        five[0].promote_node("node-5")
    five[1].run([commands.configure({"replicas": 4})])
    vote(five, 4)
    row = five[3].promote_node("node-5")
    assert (row["id"], row["voter"], row["observer"]) == ("node-5", True, False)
    assert five[2].promote_node("node-5")["voter"]
    leader = leader_of(five)
    row = five[4].demote_node(leader.config.node_id or "")
    assert (row["voter"], row["observer"], row["role"]) == (False, True, "follower")
    assert leader_of(five) is not leader
    vote(five, 4)
    assert leader.demote_node(leader.config.node_id or "")["observer"]
    assert leader.promote_node(leader.config.node_id or "")["voter"]
    five[1].run([commands.configure({"replicas": 2})])
    vote(five, 3)


def test_what_cannot_be_is_refused(five: list[ReplicatedStore]) -> None:
    for change in (five[0].promote_node, five[1].demote_node):
        with pytest.raises(MemberUnknown):
            change("nobody")
        with pytest.raises(InvalidRequest):
            change("")


def test_the_only_voter_cannot_be_demoted(tmp_path: Path) -> None:
    with ReplicatedStore(node_id="a", data_dir=tmp_path, bootstrap=True, **QUICK) as store:
        store.wait_ready(DEADLINE_S)
        with pytest.raises(MemberConflict, match="the only node that votes"):
            store.demote_node("a")
        assert store.promote_node("a")["voter"]
