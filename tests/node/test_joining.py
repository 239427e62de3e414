"""How a node comes into a cluster, with a Raft node, a network and members that are only pretended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.config import NodeConfig, join_token
from cacheflow.errors import ConfigError, InvalidRequest, NoCluster
from cacheflow.machine.state.settings import Member
from cacheflow.node import joining as joining_module
from cacheflow.node.joining import Joining
from cacheflow.node.registration import AskSeed, SeedAnswer, over_http
from cacheflow.raft.membership.changes import CONFLICT, JOINED
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.transport.network import Peer, PeerUnreachable

ME = Member("me", "incarnation-1", "127.0.0.1:9001", "127.0.0.1:8001", False)
DEADLINE_S = 5.0


class FakeReconfiguration:
    def __init__(self) -> None:
        self.asked: list[Member] = []
        self.was_member: list[bool] = []
        self.levels: list[int] = []
        self.answer = (JOINED, "")

    refusal = ""

    def register(self, member: Member, done: Callable[[str, str], None], was_member: bool, level: int) -> None:
        self.asked.append(member)
        self.levels.append(level)
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
        self.replica = SimpleNamespace(machine=SimpleNamespace(build_level=7))
        self.removed_at: int | None = None
        self.disowned = False
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.route: object | None = object()

    def own_cluster(self) -> str:
        return self.latest.cluster_id

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
    epoch = "epoch of me"

    def __init__(self, **peers: Peer) -> None:
        self.at = {peer.raft_address: peer for peer in peers.values()}
        self.at[ME.raft_address] = self.at["localhost:9001"] = peer("me", 9001)
        self.peers: dict[str, str] = {}
        self.callers: list[Peer] = []

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        if raft_address not in self.at:
            raise PeerUnreachable("nobody there")
        return self.at[raft_address]

    def set_peers(self, peers: dict[str, str]) -> None:
        self.peers = dict(peers)


def peer(node_id: str, port: int, cluster_id: str = "", incarnation: str = "incarnation-1") -> Peer:
    return Peer(node_id, incarnation, f"127.0.0.1:{port}", cluster_id, f"epoch of {node_id}")


def joining(
    node: FakeNode,
    network: FakeNetwork | None = None,
    ask_seed: AskSeed | None = None,
    came_from: tuple[str, ...] = (),
    **settings: Any,
) -> Joining:
    return Joining(
        node,  # type: ignore[arg-type]
        network or FakeNetwork(),  # type: ignore[arg-type]
        NodeConfig(port=8001, **settings),
        ME.address,
        came_from=came_from,
        ask_seed=ask_seed or over_http(None, None),
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
def member_over_http(
    answers: list[tuple[int, dict[str, Any]]], shown: list[str] | None = None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A member that answers registrations from a list, the last answer again and again: (url, what it was asked).

    shown: gets what each request showed to be let in.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/nodes/register"
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if shown is not None:
                shown.append(self.headers["Authorization"])
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


def test_a_node_that_is_told_to_founds_at_once_and_votes() -> None:
    node = FakeNode()
    joining(node, bootstrap=True, seed=("http://127.0.0.1:1",)).found_at_once()
    assert node.latest.voters == ["me"] and node.latest.cluster_id


@pytest.mark.parametrize("settings", [{}, {"seed": ("http://127.0.0.1:1",)}, {"peers": ("127.0.0.1:9002",)}])
def test_a_node_that_is_not_told_to_does_not_found_before_it_looked(settings: dict[str, Any]) -> None:
    node = FakeNode()
    joining(node, **settings).found_at_once()
    assert not node.latest.members


def test_a_node_whose_addresses_no_machine_would_take_does_not_start() -> None:
    node = FakeNode()
    alone = joining(node, bootstrap=True)
    alone._http_address = "h" * 300 + ":8080"
    with pytest.raises(ConfigError, match="not a short str"):
        alone.found_at_once()
    assert not node.latest.members


def test_an_address_that_no_machine_would_take_is_refused_before_anything_is_appended() -> None:
    node, network = FakeNode(), FakeNetwork(b=peer("b", 9002))
    node.learn(ME)
    with pytest.raises(InvalidRequest, match="not a short str"):
        asyncio.run(joining(node, network).register("b", "h" * 300 + ":8002", "127.0.0.1:9002"))
    assert node.reconfiguration.asked == []


def test_a_node_with_a_configuration_goes_on_with_it() -> None:
    node = FakeNode()
    node.learn(ME)
    joining(node, bootstrap=True).found_at_once()
    assert node.latest.cluster_id == "c"
    asyncio.run(asyncio.wait_for(joining(node, seed=("http://127.0.0.1:1",)).run(), DEADLINE_S))
    assert node.reconfiguration.asked == []


@pytest.mark.parametrize("peers", [(), ("localhost:9001",)])
def test_a_node_that_names_nobody_listens_and_founds_when_nobody_dials_it(
    peers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "LISTEN_S", 0.4)
    node = FakeNode()
    alone = joining(node, peers=peers)

    async def main() -> None:
        task = asyncio.ensure_future(alone.run())
        await until(task, lambda: alone.waits_for)
        assert not node.latest.members and "listening" in alone.waits_for
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    assert node.latest.voters == ["me"] and alone.waits_for == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "answers no more"),
        ({"seed": ("http://127.0.0.1:1",)}, "cannot be asked"),
        ({"peers": ("127.0.0.1:9002",)}, "no answer from"),
    ],
)
def test_a_node_that_a_member_dials_joins_its_cluster_and_founds_none_any_more(
    settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "LISTEN_S", 0.0)
    node, network = FakeNode(), FakeNetwork()
    # Another newcomer has dialed it, too.
    network.callers = [peer("c", 9003), peer("b", 9002, cluster_id="the old one")]
    dialed = joining(node, network, **settings)

    async def main() -> None:
        task = asyncio.ensure_future(dialed.run())
        await until(task, lambda: node.sent)
        network.callers = []
        await until(task, lambda: said in dialed.waits_for)
        assert not node.latest.members, "the cluster is there, whether it answers or not"
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    node_id, message = node.sent[0]
    assert (node_id, message["type"], message["member"][0]) == ("b", "register", "me")


def test_a_node_asks_its_seeds_until_it_is_a_member(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    refusal = (409, {"detail": "node id 'me' lives at 127.0.0.1:7"})

    async def main(url: str) -> None:
        task = asyncio.ensure_future(joining(node, seed=("http://127.0.0.1:1", url)).run())
        await until(task, lambda: len(asked) >= 2)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    caplog.set_level(logging.INFO)
    with member_over_http([refusal, (201, {"status": "joined"})]) as (url, asked):
        asyncio.run(main(url))
    assert asked[0] == {
        "id": "me",
        "address": "127.0.0.1:8001",
        "raft_address": "127.0.0.1:9001",
        "was_member": False,
        "role": "voter",
    }
    told = [record.getMessage() for record in caplog.records if "not a member yet" in record.getMessage()]
    assert len(told) == 1 and "lives at 127.0.0.1:7" in told[0], "said once, in the member's words"


def test_a_way_into_the_cluster_that_takes_long_is_worth_a_warning_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "QUIET_S", 0.5)
    node = FakeNode()

    async def main() -> None:
        caplog.set_level(logging.INFO)
        task = asyncio.ensure_future(joining(node, seed=("http://127.0.0.1:1",)).run())
        await until(task, lambda: any(record.levelno == logging.WARNING for record in caplog.records))
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)

    asyncio.run(main())
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    said = "not a member yet: http://127.0.0.1:1 cannot be asked: connection refused"
    assert told == [("INFO", said), ("WARNING", said), ("INFO", "member of the cluster")]


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


@pytest.mark.parametrize(
    "answer",
    [
        b"ERROR\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 503 No\r\n\r\n" + b"[" * 50_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000,
        b"\x00" * 1_000_000,
    ],
    ids=["another protocol", "nothing", "no JSON", "no member", "elsewhere", "nested", "cut off", "headers", "much"],
)
def test_a_seed_that_answers_anything_unexpected_is_told_and_the_next_one_is_asked_all_the_same(answer: bytes) -> None:
    node = FakeNode()

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def main(good: str) -> None:
        server = await asyncio.start_server(odd, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told = await over_http(None, None)(url, {})
        assert told.problem.startswith(url) and not told.empty_at
        task = asyncio.ensure_future(joining(node, seed=(url, good)).run())
        await until(task, lambda: asked)
        node.learn(ME)
        await asyncio.wait_for(task, DEADLINE_S)
        server.close()

    with member_over_http([(201, {"status": "joined"})]) as (good, asked):
        asyncio.run(main(good))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:80x", "http://127.0.0.1:99999", "http://127.0.0.1:1/a b", "http://", "http://[::1"),
        *("http://127.0.0.1:1", "http://no such host", "http://" + "a" * 300, "http://127.0.0.1:0"),
    ],
)
def test_a_seed_that_cannot_be_asked_is_told(url: str) -> None:
    assert "cannot be asked" in asyncio.run(over_http(None, None)(url, {})).problem


def test_a_token_that_cannot_be_read_for_a_while_is_told(tmp_path: Path) -> None:
    ask = over_http(None, tmp_path / "token")
    assert "cannot be read" in asyncio.run(ask("http://127.0.0.1:1", {})).problem
    (tmp_path / "token").write_bytes(b"\xff" * 32)
    assert "must be one line" in asyncio.run(ask("http://127.0.0.1:1", {})).problem
    (tmp_path / "token").write_bytes(b"a token of a member")
    with member_over_http([(200, {"status": "known"})]) as (url, _):
        assert asyncio.run(ask(url, {})).problem == ""


def test_neither_a_proxy_nor_the_api_token_has_a_part_in_joining_where_there_is_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    shown: list[str] = []
    with member_over_http([(200, {"status": "known"})], shown) as (url, _):
        assert asyncio.run(over_http(b"the secret of all nodes", tmp_path / "gone")(url, {})).problem == ""
    assert shown == [f"Bearer {join_token(b'the secret of all nodes').decode()}"]


def test_a_node_of_no_cluster_says_so_to_those_who_want_to_be_registered() -> None:
    with pytest.raises(NoCluster) as refused:
        asyncio.run(joining(FakeNode()).register("b", "127.0.0.1:8002", "127.0.0.1:9002"))
    assert refused.value.raft_address == ME.raft_address


def empty_seeds(*ports: int) -> AskSeed:
    """Seeds at 127.0.0.1 without a cluster, each named by its HTTP port, 1000 below that of its peers."""

    async def ask(url: str, document: dict[str, Any]) -> SeedAnswer:
        port = int(url.rpartition(":")[2])
        return SeedAnswer(f"{url}: no cluster", f"127.0.0.1:{port + 1000}") if port in ports else SeedAnswer("down")

    return ask


def template(node: FakeNode, network: FakeNetwork, *up: int, expect: int = 3) -> Joining:
    """One command for all of three nodes: this one at 8001, the others at 8002 and 8003."""
    seeds = tuple(f"http://127.0.0.1:{port}" for port in (8001, 8002, 8003))
    return joining(node, network, ask_seed=empty_seeds(*up), seed=seeds, bootstrap_expect=expect)


def test_of_nodes_with_one_list_of_seeds_the_lowest_id_founds_once_all_are_there() -> None:
    node, network = FakeNode(), FakeNetwork(n=peer("n", 9002), o=peer("o", 9003))
    asyncio.run(asyncio.wait_for(template(node, network, 8001, 8002, 8003).run(), DEADLINE_S))
    assert node.latest.voters == ["me"]


@pytest.mark.parametrize(
    ("others", "up", "said"),
    [
        ((peer("n", 9002), peer("o", 9003)), (8001, 8002), "down"),
        ((peer("n", 9002),), (8001, 8002, 8003), "no answer from 127.0.0.1:9003"),
        ((peer("a", 9002), peer("o", 9003)), (8001, 8002, 8003), "waiting for a to found"),
        ((peer("me", 9002), peer("o", 9003)), (8001, 8002, 8003), "has the id 'me' too"),
        ((peer("n", 9002), peer("o", 9003, cluster_id="c")), (8001, 8002, 8003), "waiting for o to register"),
    ],
    ids=["one is down", "one is not reached", "another is lower", "another has this id", "one has data"],
)
def test_nobody_founds_unless_all_seeds_are_there_without_data(
    others: tuple[Peer, ...], up: tuple[int, ...], said: str
) -> None:
    node = FakeNode()
    network = FakeNetwork(**{str(each.raft_address): each for each in others})
    for each in others:
        # One that has this node's id is another process all the same.
        network.at[each.raft_address] = replace(each, epoch=f"another one of {each.node_id}")
    meeting = template(node, network, *up)

    async def main() -> None:
        task = asyncio.ensure_future(meeting.run())
        await until(task, lambda: said in meeting.waits_for)
        task.cancel()

    asyncio.run(main())
    assert not node.latest.members


def test_a_node_that_is_not_among_the_seeds_founds_nothing_with_them() -> None:
    node, network = FakeNode(), FakeNetwork(n=peer("n", 9002), o=peer("o", 9003), p=peer("p", 9004))
    seeds = tuple(f"http://127.0.0.1:{port}" for port in (8002, 8003, 8004))
    other = joining(node, network, ask_seed=empty_seeds(8002, 8003, 8004), seed=seeds, bootstrap_expect=3)

    async def main() -> None:
        task = asyncio.ensure_future(other.run())
        await until(task, lambda: "to found the cluster" in other.waits_for)
        task.cancel()

    asyncio.run(main())
    assert not node.latest.members


def test_a_member_with_another_disk_is_not_current() -> None:
    node = FakeNode()
    node.learn(Member("me", "an older incarnation", ME.raft_address, ME.address, True))

    async def main() -> None:
        task = asyncio.ensure_future(joining(node).run())
        await until(task, lambda: node.reconfiguration.asked)
        task.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    "peers",
    [
        ("127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"),
        ("127.0.0.1:9002", "127.0.0.1:9003"),
        ("localhost:9001", "localhost:9002", "127.0.0.1:9002", "127.0.0.1:9003"),
    ],
    ids=["all", "the others", "in two spellings"],
)
def test_of_several_new_nodes_the_one_with_the_lowest_id_founds(peers: tuple[str, ...]) -> None:
    node = FakeNode()
    network = FakeNetwork(n=peer("n", 9002), o=peer("o", 9003))
    network.at["localhost:9002"] = network.at["127.0.0.1:9002"]
    asyncio.run(asyncio.wait_for(joining(node, network, peers=peers).run(), DEADLINE_S))
    assert node.latest.voters == ["me"]


@pytest.mark.parametrize(
    ("peers", "others"),
    [
        (("127.0.0.1:9002", "127.0.0.1:9003"), {"b": peer("b", 9002)}),
        (("127.0.0.1:9000", "127.0.0.1:9002"), {"a": peer("a", 9000), "b": peer("b", 9002)}),
    ],
    ids=["one is not there yet", "another has a lower id"],
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
    assert message["level"] == 7


def test_why_a_member_refuses_this_node_is_told() -> None:
    node = FakeNode()
    node.reconfiguration.refusal = "this cluster works at level 2"
    meeting = joining(node)
    assert meeting._ask_members(["b"]) == "waiting for b to register this node: this cluster works at level 2"


def test_who_answers_at_the_address_is_what_becomes_a_member() -> None:
    node = FakeNode()
    node.learn(ME)
    network = FakeNetwork(b=replace(peer("b", 9002, incarnation="b's disk"), level=3))
    outcome = asyncio.run(joining(node, network).register("b", "127.0.0.1:8002", "127.0.0.1:9002"))
    assert outcome == (JOINED, "")
    assert node.reconfiguration.asked == [Member("b", "b's disk", "127.0.0.1:9002", "127.0.0.1:8002", False)]
    assert node.reconfiguration.levels == [3], "the level is what its hello says"
    node.reconfiguration.answer = (CONFLICT, "lives elsewhere")
    assert asyncio.run(joining(node, network).register("b", "x:1", "127.0.0.1:9002")) == (CONFLICT, "lives elsewhere")


@pytest.mark.parametrize(
    ("node_id", "raft_address", "said"),
    [("b", "127.0.0.1:9003", "answers at"), ("other", "127.0.0.1:9002", "has the id 'b'")],
)
def test_who_does_not_answer_or_is_somebody_else_is_not_registered(node_id: str, raft_address: str, said: str) -> None:
    node = FakeNode()
    node.learn(ME)
    network = FakeNetwork(b=peer("b", 9002))
    with pytest.raises(InvalidRequest, match=said):
        asyncio.run(joining(node, network).register(node_id, "127.0.0.1:8002", raft_address))
    assert node.reconfiguration.asked == []
