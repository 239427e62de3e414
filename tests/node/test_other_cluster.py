"""Members of two clusters meet: both refuse and say so, and the one that was founded by mistake stops serving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from fakes.embedded import DEADLINE_S, QUICK, leader_of, three_nodes, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.errors import NotReady
from cacheflow.store import ReplicatedStore


@contextmanager
def founded_beside(folder: Path, lost: ReplicatedStore, voters: int) -> Iterator[ReplicatedStore]:
    """Found another cluster with the id and address of a member of the first, whose data is gone; yield that node."""
    own = f"127.0.0.1:{lost.config.raft_listen_port}"
    addresses = [own, *(f"127.0.0.1:{port}" for port in free_ports(voters - 1))]
    with ExitStack() as stack:
        stores = [
            ReplicatedStore(
                node_id=lost.config.node_id if address == own else f"other-{address[-5:]}",
                raft_address=address,
                peers=addresses,
                bootstrap=address == own,
                data_dir=folder / address[-5:],
                **QUICK,
            )
            for address in reversed(addresses)
        ]
        for store in stores:
            stack.callback(store.close)
            store.start()
        if voters > 1:
            wait_for(lambda: sum(row["voter"] for row in stores[0].nodes()) == voters)
        yield stores[-1]


def detail(store: ReplicatedStore, check: str) -> str:
    """Return what a check of ``/readyz`` says of a node."""
    return next((said for name, _, said in store.readiness() if name == check), "")


def test_a_cluster_of_one_that_was_founded_beside_the_old_one_stops_serving(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores:
        stores[0]["k"] = "v"
        lost = stores[0]
        lost.close()
        leader_of(stores[1:])
        with founded_beside(tmp_path / "new", lost, voters=1) as wrong:
            wait_for(lambda: "lists this node as a member" in detail(wrong, "contents"))
            for call in (lambda: wrong.get("k"), lambda: wrong.set("k", "another")):
                with pytest.raises(NotReady, match=f"cluster {stores[1].status()['cluster_id']} lists this node"):
                    call()
            named = f"node-1 of cluster {wrong.status()['cluster_id']}"
            assert not all(good for _, good, _ in wrong.readiness())
            for store in stores[1:]:
                wait_for(lambda store=store: named in detail(store, "cluster"))  # type: ignore[misc]
                store.wait_ready(DEADLINE_S)
            assert stores[1].get("k", consistency="linearizable") == "v"


def test_a_cluster_with_other_voters_goes_on_whoever_knocks(tmp_path: Path) -> None:
    with three_nodes(tmp_path) as stores:
        lost = stores[0]
        lost.close()
        members = {row["id"] for row in leader_of(stores[1:]).nodes()} - {"node-1"}
        # It is dialed before it has another voter: this cluster is founded while the first one is down.
        for store in stores[1:]:
            store.close()
        with founded_beside(tmp_path / "new", lost, voters=2) as other:
            for store in stores[1:]:
                store.start()
            wait_for(lambda: any(f"{member} of cluster" in detail(other, "cluster") for member in members))
            other["k"] = "v"
            assert other.get("k", consistency="linearizable") == "v"
