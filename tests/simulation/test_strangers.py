"""Peers that are no members, or say what no peer can: nothing that they send puts a node out of its cluster."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.clients import keep
from simulation.cluster import Cluster, leader_of, patched

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.raft.transport.network import Peer

FAR = 2**61
STRANGER = Peer("stranger", "its disk", "10.0.0.9:1", "", "an epoch")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "not_member", "term": FAR, "index": FAR, "since": 1},
        {"type": "not_member", "term": 3, "index": FAR, "since": 1},
        {"type": "term", "term": FAR},
        {"type": "pre_vote_reply", "term": 3, "current": FAR, "granted": False},
        {"type": "append_ack", "term": FAR, "at": 0, "clock": 0, "ok": True, "match": 1},
        {"type": "append_entries", "term": FAR, "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0, "entries": []},
        {"type": "snapshot", "term": FAR, "index": FAR, "snapshot_term": 1, "bytes": 1, "offset": 0, "data": b"x"},
        {"type": "request_vote", "term": FAR, "last_log_index": FAR, "last_log_term": FAR, "transfer": True},
        {"type": "timeout_now", "term": 2},
        {"type": "hand_over", "heir": ""},
    ],
    ids=lambda fields: f"{fields['type']} {fields.get('term', '')}",
)
@pytest.mark.parametrize("sender", ["a stranger", "a member"])
def test_one_message_ends_no_node(fields: dict[str, Any], sender: str) -> None:
    cluster = Cluster(1, 3)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        leader = leader_of(cluster)
        term = leader.node.term
        for process in cluster.processes:
            other = next(each for each in cluster.processes if each is not process)
            member = other.node.membership
            peer = STRANGER if sender == "a stranger" else Peer(member.node_id, member.incarnation, "", "", "an epoch")
            message = {**fields}
            if fields["type"] == "not_member":
                message["incarnation"] = process.node.incarnation
                if sender == "a member" and fields["term"] != FAR:
                    continue  # a member knows who belongs to its cluster
            process.loop.do(process.node.receive, peer, message)
        assert cluster.run(5.0, cluster.healthy)
        assert all(process.node.replica.failure is None for process in cluster.processes)
        # A member may ask the leader to hand over, or be asked to lead by it.
        assert leader_of(cluster).node.term == term or (
            sender == "a member" and leader_of(cluster).node.term < term + 9
        )


def test_a_block_under_the_session_of_another_node_is_dropped() -> None:
    cluster = Cluster(1, 3)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        leader = leader_of(cluster)
        writer, other = (process for process in cluster.processes if process is not leader)
        answers: list[Outcome] = []
        write = commands.set_("k", b"x", 0)
        writer.inbox.submit([write], keep(answers), 5.0)
        assert cluster.run(5.0, lambda: len(answers) == 1)
        number, session = next(each for each in leader.machine.sessions if each[1].member_id == writer.node_id)
        # The writer's next command would be taken for one that was applied already.
        block = commands.encode_block(number, session.last + 1, 1, [commands.set_("k", b"another's", 0)])
        member = other.node.membership
        peer = Peer(member.node_id, member.incarnation, "", "", "an epoch")
        leader.loop.do(leader.node.receive, peer, {"type": "propose", "blocks": [block], "crowded": False})
        writer.inbox.submit([commands.get("k")], keep(answers), 5.0)
        assert cluster.run(5.0, lambda: len(answers) == 2)
        assert isinstance(answers[1], list) and answers[1][0][:2] == [commands.OK, b"x"]


def test_a_session_opened_in_the_name_of_another_node_is_dropped() -> None:
    cluster = Cluster(1, 3)
    with patched(cluster):
        for host in cluster.hosts:
            cluster.start(host)
        assert cluster.run(5.0, cluster.healthy)
        leader = leader_of(cluster)
        writer, other = (process for process in cluster.processes if process is not leader)
        victim, sender = writer.node.membership, other.node.membership
        # A later start than the writer's: its session would be closed.
        opening = commands.open_session(victim.node_id, victim.incarnation, 99, "another's")
        peer = Peer(sender.node_id, sender.incarnation, "", "", "an epoch", start=99)
        blocks = [commands.encode_block(0, 0, 0, [opening])]
        leader.loop.do(leader.node.receive, peer, {"type": "propose", "blocks": blocks, "crowded": False})
        cluster.run(1.0)
        assert [one.start for _, one in leader.machine.sessions if one.member_id == writer.node_id] == [1]
