"""What a node tells the log of its cluster: the leader, the members, who does not answer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cacheflow.machine.state.settings import Member
from cacheflow.raft.announcing import NO_LEADER_MS, SILENT_MS, Announcer
from cacheflow.raft.membership.configuration import NOBODY, Configuration


def member(node_id: str, *, port: int = 1, voter: bool = True, incarnation: str = "i") -> Member:
    return Member(node_id, incarnation, f"127.0.0.1:{port}", "", voter)


def table(index: int, *members: Member) -> Configuration:
    return Configuration(index, "cluster", {each.id: each for each in members})


class Cluster:
    """What an announcer looks at, and the lines that it has written since the last look."""

    def __init__(self, caplog: pytest.LogCaptureFixture, latest: Configuration) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.now_ms = 0
        self.connected = {"b", "c"}
        self.core = SimpleNamespace(is_leader=True, term=3)
        self.links = SimpleNamespace(
            route="a", now_ms=lambda: self.now_ms, is_connected=lambda node_id: node_id in self.connected
        )
        self.peers = SimpleNamespace(down=[], down_ids=lambda: {"b", "c"} - self.connected)
        self.configurations = SimpleNamespace(latest=latest, settled=latest)
        self.announcer = Announcer(*cast(Any, (self.core, self.links, self.peers, self.configurations, "a")))

    def look(self, passed_ms: int = 0) -> list[str]:
        self.now_ms += passed_ms
        self.announcer.look()
        told = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return told


@pytest.fixture
def cluster(caplog: pytest.LogCaptureFixture) -> Cluster:
    return Cluster(caplog, table(5, member("a"), member("b"), member("c")))


def test_a_member_that_joins_votes_moves_and_leaves_is_told_once(cluster: Cluster) -> None:
    assert cluster.look() == []
    three = [member("a"), member("b"), member("c")]
    cluster.configurations.settled = table(6, *three, member("d", port=4, voter=False))
    assert cluster.look() == ["d is a member of the cluster now, at 127.0.0.1:4"]
    assert cluster.look() == []
    cluster.configurations.settled = table(7, *three[:2], member("d", port=4))
    assert cluster.look() == ["c is no member of the cluster any more", "d votes now"]
    cluster.configurations.settled = table(8, *three[:2], member("d", port=5, voter=False))
    assert cluster.look() == ["d has moved from 127.0.0.1:4 to 127.0.0.1:5", "d votes no more"]


def test_an_emptied_disk_that_comes_back_is_a_new_member(cluster: Cluster) -> None:
    cluster.configurations.settled = table(6, member("a"), member("b"), member("c", voter=False, incarnation="j"))
    assert cluster.look() == ["c is a member of the cluster now, at 127.0.0.1:1", "c votes no more"]


def test_what_a_restarted_node_reads_in_its_own_log_is_not_told_again(cluster: Cluster) -> None:
    cluster.configurations.settled = table(3, member("a"))
    assert cluster.look() == []


def test_the_first_table_that_a_new_node_sees_is_no_change(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(caplog, NOBODY)
    cluster.configurations.settled = table(4, member("a"), member("b"))
    assert cluster.look() == []
    cluster.configurations.settled = table(5, member("b"))
    assert cluster.look() == ["a is no member of the cluster any more"]


def test_another_leader_is_told_by_those_whom_it_leads(cluster: Cluster) -> None:
    assert cluster.announcer.tell_leader("b")
    assert cluster.look() == ["b leads in term 3"]
    assert not cluster.announcer.tell_leader("b")
    cluster.core.term = 4
    assert not cluster.announcer.tell_leader("b")
    assert cluster.look() == ["b leads in term 4"]
    assert cluster.announcer.tell_leader("a")
    assert cluster.look() == []


def test_a_leader_that_is_missing_for_long_is_told_once_and_its_return_too(cluster: Cluster) -> None:
    cluster.announcer.tell_leader("b")
    cluster.core.is_leader, cluster.links.route = False, None
    cluster.connected.clear()
    assert cluster.look() == ["b leads in term 3"] and cluster.look(NO_LEADER_MS - 1) == []
    assert cluster.look(1) == ["no leader for 5 s, so nothing can be written: no connection with b, c"]
    assert cluster.look(NO_LEADER_MS) == []
    cluster.links.route = "b"
    cluster.announcer.tell_leader("b")
    assert cluster.look() == ["b leads in term 3"]


def test_a_member_that_hangs_is_told_by_the_leader_although_its_connection_stands(cluster: Cluster) -> None:
    cluster.peers.down = ["b"]
    assert cluster.look() == [] and cluster.look(SILENT_MS - 1) == []
    assert cluster.look(1) == ["b does not answer, although its connection stands: does its process hang, or its disk?"]
    assert cluster.look(SILENT_MS) == []
    cluster.peers.down = []
    assert cluster.look() == ["b answers again"]


def test_a_member_that_has_just_connected_and_one_whose_connection_broke_are_not_told_here(cluster: Cluster) -> None:
    cluster.peers.down = ["b"]
    assert cluster.look() == []
    cluster.peers.down = []
    assert cluster.look(SILENT_MS) == []
    cluster.connected.discard("c")
    cluster.peers.down = ["c"]
    assert cluster.look() == [] and cluster.look(SILENT_MS) == []
