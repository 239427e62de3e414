"""How a node comes into a cluster, with a Raft node, a network and members that are only pretended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cacheflow.config import NodeConfig
from cacheflow.errors import InvalidRequest
from cacheflow.machine.state.settings import Member
from cacheflow.node.joining import Joining
from cacheflow.node.registration import over_http
from cacheflow.raft.membership.changes import CONFLICT, JOINED
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.transport.network import Peer, PeerUnreachable

ME = Member("me", "incarnation-1", "127.0.0.1:9001", "127.0.0.1:8001", False)
DEADLINE_S = 5.0


class FakeReconfiguration:
    def __init__(self) -> None:
        self.asked: list[Member] = []
        self.was_member: list[bool] = []
        self.answer = (JOINED, "")

    def register(self, member: Member, done: Callable[[str, str], None], was_member: bool) -> None:
        self.asked.append(member)
        self.was_member.append(was_member)
        done(*self.answer)


class FakeNode:
    """A RaftNode as Joining sees it: its configuration, and what it was told to do."""

    node_id = ME.id
    incarnation = ME.incarnation

    def __init__(self) -> None:
        # It is all of its own parts.
        self.configurations = self.membership = self.links = self.ticks = self
        self.latest = Configuration(0, "", {})
        self.reconfiguration = FakeReconfiguration()
        self.removal = self
        self.removed_at: int | None = None
        self.disowned = False
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.route: object | None = object()

    def found_cluster(self, cluster_id: str, member: Member) -> None:
        assert not self.latest.members, "a cluster is founded once"
        self.learn(member, cluster_id)

    def learn(self, member: Member, cluster_id: str = "c") -> None:
        self.latest = Configuration(1, cluster_id, {**self.latest.members, member.id: member})

    def others(self) -> dict[str, str]:
        return {member.id: member.incarnation for member in self.latest.members.values() if member.id != ME.id}

    def wake(self) -> None:
        pass

    def send(self, node_id: str, message: dict[str, Any]) -> bool:
        self.sent.append((node_id, message))
        return True


class FakeNetwork:
    """Who answers where."""

    raft_address = ME.raft_address

    def __init__(self, **peers: Peer) -> None:
        self.at = {peer.raft_address: peer for peer in peers.values()}
        self.peers: dict[str, str] = {}

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        if raft_address not in self.at:
            raise PeerUnreachable("nobody there")
        return self.at[raft_address]

    def set_peers(self, peers: dict[str, str]) -> None:
        self.peers = dict(peers)


def peer(node_id: str, port: int, cluster_id: str = "", incarnation: str = "incarnation-1") -> Peer:
    return Peer(node_id, incarnation, f"127.0.0.1:{port}", cluster_id, f"epoch of {node_id}")


def joining(node: FakeNode, network: FakeNetwork | None = None, **settings: Any) -> Joining:
    return Joining(
        node,  # type: ignore[arg-type]
        network or FakeNetwork(),  # type: ignore[arg-type]
        NodeConfig(port=8001, **settings),
        ME.address,
        ask_seed=over_http(None),
        random_bytes=os.urandom,
    )


async def until(task: asyncio.Task[None], condition: Callable[[], Any]) -> None:
    """Let the task run until the condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            if task.done():
                task.result()
                raise AssertionError("it ended before")
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def member_over_http(answers: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A member that answers registrations from a list, the last answer again and again: (url, what it was asked)."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/nodes/register"
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, document = answers.pop(0) if len(answers) > 1 else answers[0]
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_node_without_seeds_or_peers_founds_a_cluster_and_votes_in_it() -> None:
    node = FakeNode()
    joining(node).found_or_wait()
    assert node.latest.voters == ["me"] and node.latest.cluster_id


@pytest.mark.parametrize("settings", [{"seed": ("http://127.0.0.1:1",)}, {"peers": ("127.0.0.1:9002",)}])
def test_a_node_with_seeds_or_peers_does_not_found_before_it_looked(settings: dict[str, Any]) -> None:
    node = FakeNode()
    joining(node, **settings).found_or_wait()
    assert not node.latest.members


def test_a_node_with_a_configuration_goes_on_with_it() -> None:
    node = FakeNode()
    node.learn(ME)
    joining(node).found_or_wait()
    assert node.latest.cluster_id == "c"
    asyncio.run(asyncio.wait_for(joining(node, seed=("http://127.0.0.1:1",)).run(), DEADLINE_S))
    assert node.reconfiguration.asked == []


def test_a_node_asks_its_seeds_until_it_is_a_member(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    refusal = (409, {"detail": "node id 'me' lives at 127.0.0.1:7"})

    async def main(url: str) -> None:
        task = asyncio.ensure_future(joining(node, seed=("http://127.0.0.1:1", url)).run())
        await until(task, lambda: len(asked) >= 2)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    with member_over_http([refusal, (201, {})]) as (url, asked):
        asyncio.run(main(url))
    assert asked[0] == {
        "id": "me",
        "address": "127.0.0.1:8001",
        "raft_address": "127.0.0.1:9001",
        "was_member": False,
    }
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1 and "lives at 127.0.0.1:7" in told[0], "said once, in the member's words"


def test_a_member_at_a_new_address_tells_the_leader() -> None:
    node = FakeNode()
    node.learn(Member("me", "incarnation-1", "127.0.0.1:7777", "127.0.0.1:8001", True))

    async def main() -> None:
        task = asyncio.ensure_future(joining(node).run())
        await until(task, lambda: node.reconfiguration.asked)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    assert node.reconfiguration.asked == [ME]


def test_a_member_at_a_new_address_that_knows_no_leader_tells_the_others() -> None:
    node = FakeNode()
    node.learn(Member("me", "incarnation-1", "127.0.0.1:7777", "127.0.0.1:8001", True))
    node.learn(Member("b", "b's disk", "127.0.0.1:9002", "127.0.0.1:8002", True))
    node.route = None

    async def main() -> None:
        task = asyncio.ensure_future(joining(node).run())
        await until(task, lambda: node.sent)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    assert node.reconfiguration.asked == []
    node_id, message = node.sent[0]
    assert (node_id, message["type"], message["member"][2]) == ("b", "register", ME.raft_address)


def test_a_request_that_cannot_even_be_made_is_told_and_made_again(tmp_path: Path) -> None:
    def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ERROR\r\n")
        writer.close()

    async def main() -> None:
        assert "no token here" in await over_http(tmp_path / "no token here")("http://127.0.0.1:1", {})
        assert "cannot be asked" in await over_http(None)("nonsense", {})
        (tmp_path / "token").write_bytes(b"\xff" * 32)
        assert "cannot be asked" in await over_http(tmp_path / "token")("http://127.0.0.1:1", {})
        server = await asyncio.start_server(garbage, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert "cannot be asked" in await over_http(None)(f"http://127.0.0.1:{port}", {})
        server.close()

    asyncio.run(main())


def test_a_member_with_another_disk_is_not_current() -> None:
    node = FakeNode()
    node.learn(Member("me", "an older incarnation", ME.raft_address, ME.address, True))

    async def main() -> None:
        task = asyncio.ensure_future(joining(node).run())
        await until(task, lambda: node.reconfiguration.asked)
        task.cancel()

    asyncio.run(main())


def test_of_several_new_nodes_the_one_with_the_lowest_address_founds() -> None:
    node = FakeNode()
    network = FakeNetwork(b=peer("b", 9002), c=peer("c", 9003))
    meeting = joining(node, network, peers=("127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"))
    asyncio.run(asyncio.wait_for(meeting.run(), DEADLINE_S))
    assert node.latest.voters == ["me"]


@pytest.mark.parametrize(
    ("peers", "others"),
    [
        (("127.0.0.1:9002", "127.0.0.1:9003"), {"b": peer("b", 9002)}),
        (("127.0.0.1:9000", "127.0.0.1:9002"), {"a": peer("a", 9000), "b": peer("b", 9002)}),
    ],
    ids=["one is not there yet", "another has a lower address"],
)
def test_nobody_founds_before_all_are_there_nor_in_another_ones_place(
    peers: tuple[str, ...], others: dict[str, Peer]
) -> None:
    node = FakeNode()
    network = FakeNetwork(**others)
    probes = 0
    probe = network.probe

    async def counted(raft_address: str, timeout_s: float) -> Peer:
        nonlocal probes
        probes += 1
        return await probe(raft_address, timeout_s)

    async def main() -> None:
        network.probe = counted  # type: ignore[method-assign]
        task = asyncio.ensure_future(joining(node, network, peers=peers).run())
        await until(task, lambda: probes >= 4)
        task.cancel()

    asyncio.run(main())
    assert not node.latest.members


def test_who_finds_a_cluster_among_its_peers_asks_to_join_it() -> None:
    node = FakeNode()
    network = FakeNetwork(b=peer("b", 9002, cluster_id="c"), c=peer("c", 9003))

    async def main() -> None:
        meeting = joining(node, network, peers=("127.0.0.1:9002", "127.0.0.1:9003"))
        task = asyncio.ensure_future(meeting.run())
        await until(task, lambda: node.sent)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    assert network.peers == {"b": "127.0.0.1:9002"}, "only those who have a cluster"
    node_id, message = node.sent[0]
    assert node_id == "b" and message["type"] == "register"
    assert message["member"] == ["me", "incarnation-1", "127.0.0.1:9001", "127.0.0.1:8001"]


def test_who_answers_at_the_address_is_what_becomes_a_member() -> None:
    node = FakeNode()
    network = FakeNetwork(b=peer("b", 9002, incarnation="b's disk"))
    outcome = asyncio.run(joining(node, network).register("b", "127.0.0.1:8002", "127.0.0.1:9002"))
    assert outcome == (JOINED, "")
    assert node.reconfiguration.asked == [Member("b", "b's disk", "127.0.0.1:9002", "127.0.0.1:8002", False)]
    node.reconfiguration.answer = (CONFLICT, "lives elsewhere")
    assert asyncio.run(joining(node, network).register("b", "x:1", "127.0.0.1:9002")) == (CONFLICT, "lives elsewhere")


@pytest.mark.parametrize(
    ("node_id", "raft_address", "said"),
    [("b", "127.0.0.1:9003", "answers at"), ("other", "127.0.0.1:9002", "has the id 'b'")],
)
def test_who_does_not_answer_or_is_somebody_else_is_not_registered(node_id: str, raft_address: str, said: str) -> None:
    node = FakeNode()
    network = FakeNetwork(b=peer("b", 9002))
    with pytest.raises(InvalidRequest, match=said):
        asyncio.run(joining(node, network).register(node_id, "127.0.0.1:8002", raft_address))
    assert node.reconfiguration.asked == []
