"""Nodes find each other, talk, lose each other and come back."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
import pytest
from fakes.raft_peers import DeafListener, Node, RawPeer, connected, eventually, hello, number, on_a_loop, started

from cacheflow.config import join_address
from cacheflow.errors import ConfigError
from cacheflow.raft.transport.frames import PIECE_BYTES, encode_frame
from cacheflow.raft.transport.handshake import REPLY, Hello
from cacheflow.raft.transport.network import Identity, Network, Peer, PeerRefused, PeerUnreachable
from cacheflow.raft.transport.peer_transport import PeerTransport


class NoTasks:
    """For a transport that is never started."""

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        raise AssertionError


def alone(node: Node) -> bool:
    """Nobody is connected to the node, and it tries to reach nobody."""
    return not node._links and not node._incoming


@on_a_loop
async def test_messages_go_both_ways_and_arrive_in_order() -> None:
    a, b = await started("a"), await started("b", incarnation="7")
    await connected(a, b)
    for n in range(2000):
        assert a.send("b", number(n, data=bytes(n)))
        assert b.send("a", number(-n))
    await eventually(lambda: len(a.messages) == len(b.messages) == 2000)
    assert b.numbers() == list(range(2000))
    assert a.numbers() == [-n for n in range(2000)]
    assert b.messages[5][1] == number(5, data=bytes(5))
    peer = a.messages[0][0]
    assert (peer.node_id, peer.incarnation, peer.raft_address, peer.epoch) == ("b", "7", b.raft_address, b.epoch)


@on_a_loop
async def test_messages_of_one_turn_leave_together() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    for n in range(10):
        a.send("b", number(n))
    assert a.backlog("b") > 10 * 10
    await asyncio.sleep(0)
    assert a.backlog("b") == 0


@on_a_loop
async def test_a_vanished_host_is_noticed_by_the_system_too() -> None:
    a, b = await started("a", stall_s=2.5), await started("b", stall_s=2.5)
    await connected(a, b)
    sockets = [s.transport.get_extra_info("socket") for node in (a, b) for s in node._sockets if s.transport]
    assert len(sockets) == 4
    for sock in sockets:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500


@on_a_loop
async def test_large_and_small_messages_keep_their_order() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    sizes = [0, 3_000_000, 10, 70_000, 0, 65_000, 300_000, 1]
    for n, size in enumerate(sizes):
        assert a.send("b", number(n, data=bytes(size)))
    await eventually(lambda: len(b.messages) == len(sizes))
    assert [(m["number"], len(m["data"])) for _, m in b.messages] == list(enumerate(sizes))


@on_a_loop
async def test_a_heartbeat_overtakes_a_large_message_and_each_kind_keeps_its_order() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    large = {"type": "propose", "number": 0, "data": bytes(15_000_000)}
    assert a.send("b", large)
    for n in range(1, 10):
        assert a.send("b", {"type": "append_ack" if n % 2 else "propose", "number": n})
    await eventually(lambda: len(b.messages) == 10)
    assert b.numbers() == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


@on_a_loop
async def test_the_system_keeps_little_of_what_has_not_left() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    sock = a._links["b"]._connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == PIECE_BYTES


@on_a_loop
async def test_sending_to_nobody_says_no() -> None:
    a = await started("a")
    assert a.send("b", number(1)) is False
    a.set_peers({"b": "127.0.0.1:1", "a": a.raft_address})
    assert a.send("b", number(1)) is False and a.send("b", {"type": "append_ack"}) is False
    assert a.send("a", number(1)) is False
    assert a.backlog("b") == 0 and not a.is_connected("b")
    await eventually(lambda: a.trouble("b") == "Connection refused")


@on_a_loop
async def test_without_a_secret_nodes_on_loopback_talk() -> None:
    a, b = await started("a", secret=None), await started("b", secret=None)
    await connected(a, b)
    a.send("b", number(1))
    await eventually(lambda: b.numbers() == [1])


def test_without_a_secret_no_other_address_is_listened_on() -> None:
    with pytest.raises(ConfigError, match="--cluster-secret-file"):
        PeerTransport(Identity("a", "1"), ("0.0.0.0", 0), "10.0.0.1:9080", None, supervisor=NoTasks())


def test_an_advertised_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="not host:port"):
        PeerTransport(Identity("a", "1"), ("127.0.0.1", 0), "nonsense", None, supervisor=NoTasks())


@on_a_loop
async def test_other_secrets_are_refused_and_the_dialer_knows_why(caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = await started("a"), await started("b", secret=b"another secret, wrong"), await started("c", secret=None)
    with caplog.at_level(logging.WARNING):
        for node in (b, c):
            node.set_peers({"a": a.raft_address})
            a.set_peers({"b": b.raft_address, "c": c.raft_address})
        await eventually(lambda: all([b.trouble("a"), c.trouble("a"), a.trouble("b"), a.trouble("c")]))
        for _ in range(3):
            with pytest.raises(PeerRefused, match="secrets differ"):
                await b.probe(a.raft_address, 2)
    assert "secrets differ" in str(b.trouble("a"))
    assert "a cluster secret is set there and none here" in str(a.trouble("b")) or "differ" in str(a.trouble("b"))
    assert "secret is set" in str(c.trouble("a"))
    assert a.events == b.events == c.events == []
    # However often it was tried: once at each of the two nodes that refused for this reason.
    assert (
        1 <= sum("refused the peer" in record.message and "differ" in record.message for record in caplog.records) <= 2
    )


@on_a_loop
async def test_members_of_another_cluster_are_refused() -> None:
    a, b = await started("a", cluster_id="c1"), await started("b", cluster_id="c2")
    a.set_peers({"b": b.raft_address})
    await eventually(lambda: a.trouble("b"))
    assert "belongs to cluster 'c1', not 'c2'" in str(a.trouble("b"))
    with pytest.raises(PeerRefused, match="cluster"):
        await b.probe(a.raft_address, 2)


@on_a_loop
@pytest.mark.parametrize("dials", ["old", "new"])
async def test_a_member_of_a_cluster_that_was_replaced_is_refused_and_told_so_whoever_dials(dials: str) -> None:
    old, new = await started("a", cluster_id="c1"), await started("b", cluster_id="c2")
    new.replaced = ("c0", "c1")
    told: list[Peer] = []
    others: list[Peer] = []
    old.on_replaced = told.append
    new.on_other_cluster = new.on_replaced = others.append
    dialer, listener = (old, new) if dials == "old" else (new, old)
    dialer.set_peers({listener._identity.node_id: listener.raft_address})
    await eventually(lambda: told)
    assert (told[0].node_id, told[0].cluster_id) == ("b", "c2") and not others
    if dials == "old":
        assert "cluster 'c1' was replaced by 'c2', in a recovery" in str(old.trouble("b"))
    assert old.other_clusters == ["b of cluster c2"] or new.other_clusters == ["a of cluster c1"]
    assert not old.numbers() and not new.numbers()


@on_a_loop
async def test_who_does_not_show_that_it_knows_the_secret_ends_nobody_by_saying_that_its_cluster_was_replaced() -> None:
    a = await started("a", cluster_id="c1")
    told: list[Peer] = []
    a.on_replaced = told.append

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = Hello(
            "b",
            "2",
            "127.0.0.1:1",
            "c2",
            "e" * 32,
            1,
            "send",
            True,
            bytes(32),
            1,
            "",
            certified=False,
            replaced=("c1",),
        )
        await reader.readexactly(8)
        writer.write(encode_frame(hello.encode()))
        await asyncio.sleep(0.05)
        writer.write(encode_frame(msgpack.packb(("refused", "replaced", bytes(32)))))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    a.set_peers({"b": join_address(*server.sockets[0].getsockname())})
    await eventually(lambda: a.trouble("b") == "replaced")
    assert not told
    server.close()
    await a.stop()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@on_a_loop
async def test_a_node_without_a_cluster_may_join_and_tells_its_cluster_later() -> None:
    a, b = await started("a", cluster_id="c1"), await started("b")
    await connected(a, b)
    b.send("a", number(1))
    b.cluster_id = "c1"
    b.send("a", number(2))
    await eventually(lambda: a.numbers() == [1, 2])
    assert [peer.cluster_id for peer, _ in a.messages] == ["", "c1"]
    assert ("disconnected", "a") not in b.events


@on_a_loop
async def test_a_node_that_joins_another_cluster_is_cut_off() -> None:
    a, b = await started("a", cluster_id="c1"), await started("b")
    await connected(a, b)
    b.cluster_id = "c2"
    await eventually(lambda: not a.is_connected("b") and not b.is_connected("a"))
    await eventually(lambda: "belongs to cluster" in str(b.trouble("a")))
    assert ("lost", "b") in a.events


@on_a_loop
async def test_an_address_where_another_node_lives_is_not_sent_to() -> None:
    a, b = await started("a"), await started("b")
    a.set_peers({"c": b.raft_address})
    await eventually(lambda: a.trouble("c"))
    assert a.trouble("c") == "node 'b' lives there, not 'c'"
    assert b.events == []


@on_a_loop
async def test_a_node_does_not_dial_itself_under_another_name() -> None:
    a = await started("a")
    a.set_peers({"b": a.raft_address})
    await eventually(lambda: a.trouble("b"))
    assert "both sides are node 'a'" in str(a.trouble("b"))


@on_a_loop
async def test_a_peer_that_starts_again_is_found_again() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    port = b.port
    await b.stop()
    await eventually(lambda: ("disconnected", "b") in a.events and ("lost", "b") in a.events)
    assert not a.send("b", number(0))
    again = await started("b", port=port)
    again.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b") and again.is_connected("a"))
    assert a.send("b", number(1)) and again.send("a", number(2))
    await eventually(lambda: again.numbers() == [1] and a.numbers() == [2])
    assert [event for event, _ in a.events if event != "lost"] == ["connected", "disconnected", "connected"]


@on_a_loop
async def test_bytes_are_counted_by_node_over_all_its_connections() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    assert (a.traffic("b").sent_bytes, a.traffic("b").received_bytes, a.traffic("nobody").sent_bytes) == (0, 0, 0)
    a.send("b", number(1, data=bytes(200_000)))
    a.send("b", number(2, data=bytes(2_000)))
    a.broadcast({"type": "publish", "data": bytes(1_000)})
    await eventually(lambda: b.numbers() == [1, 2])
    await eventually(lambda: b.traffic("a").received_bytes == a.traffic("b").sent_bytes > 203_000)
    assert a.traffic("b").sent_bytes < 204_000 and a.traffic("b").received_bytes == 0
    port, before = b.port, a.traffic("b").sent_bytes
    await b.stop()
    again = await started("b", port=port)
    again.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b") and again.is_connected("a"))
    a.send("b", number(3, data=bytes(1_000)))
    await eventually(lambda: again.numbers() == [3])
    assert before + 1_000 < a.traffic("b").sent_bytes < before + 1_200
    again.send("a", number(4, data=bytes(500)))
    await eventually(lambda: 500 < a.traffic("b").received_bytes < 700)


@on_a_loop
async def test_a_peer_that_dials_us_is_dialed_at_once() -> None:
    a = await started("a", retry_s=(60, 60))
    b = Node("b")
    unused = await started("unused")
    port = unused.port
    await unused.stop()
    a.set_peers({"b": f"127.0.0.1:{port}"})
    await eventually(lambda: a.trouble("b"))
    b = await started("b", port=port)
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b"))


@on_a_loop
async def test_a_peer_that_moved_is_answered_at_its_new_address() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    await b.stop()
    moved = await started("b")
    moved.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b"))
    a.send("b", number(1))
    await eventually(lambda: moved.numbers() == [1])


@on_a_loop
async def test_a_new_address_is_dialed_and_a_dropped_peer_is_not() -> None:
    a, b, other = await started("a"), await started("b"), await started("b", incarnation="2")
    a.set_peers({"b": b.raft_address})
    await eventually(lambda: a.is_connected("b"))
    a.set_peers({"b": other.raft_address})
    assert not a.is_connected("b")
    await eventually(lambda: a.is_connected("b"))
    a.send("b", number(1))
    await eventually(lambda: other.numbers() == [1] and ("lost", "a") in b.events)
    a.set_peers({})
    assert [what for what, _ in a.events if what != "lost"][:4] == ["connected", "disconnected"] * 2
    await eventually(lambda: ("lost", "a") in other.events)


@on_a_loop
async def test_what_was_sent_to_a_peer_before_it_was_dropped_still_arrives() -> None:
    a, b = await started("a"), await started("b")
    a.set_peers({"b": b.raft_address})
    await eventually(lambda: a.is_connected("b"))
    a.send("b", number(1, data=bytes(5_000_000)))
    a.send("b", number(2))
    a.set_peers({})
    assert not a.send("b", number(3))
    await eventually(lambda: b.numbers() == [1, 2])


@on_a_loop
async def test_a_newer_connection_takes_the_place_of_the_older_one() -> None:
    a = await started("a")
    old = await RawPeer.to(a)
    await old.shake(hello("x", purpose=REPLY))
    old.send(b"\x92\x00\x82\xa4type\xa1t\xa6number\x01")
    await eventually(lambda: a.numbers() == [1])
    new = await RawPeer.to(a)
    await new.shake(hello("x", purpose=REPLY))
    await old.ended()
    old.send(b"\x92\x00\x82\xa4type\xa1t\xa6number\x02")
    new.send(b"\x92\x00\x82\xa4type\xa1t\xa6number\x03")
    await eventually(lambda: len(a.messages) == 2)
    assert a.numbers() == [1, 3]
    assert a.events == []  # the same process: nobody was lost
    newer = await RawPeer.to(a)
    await newer.shake(hello("x", purpose=REPLY, epoch="e2", start=2))
    await eventually(lambda: a.events == [("lost", "x")])
    await new.ended()
    newer.close()
    await eventually(lambda: a.events == [("lost", "x")] * 2)
    old.close()
    new.close()


@on_a_loop
async def test_an_unknown_node_that_dials_us_is_answered_until_it_leaves() -> None:
    a, b = await started("a"), await started("b")
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b"))
    a.send("b", number(1))
    await eventually(lambda: b.numbers() == [1])
    b.set_peers({})
    # Neither the answering link nor its answer keeps the other alive.
    await eventually(lambda: alone(a) and alone(b))


@on_a_loop
async def test_a_stranger_becomes_a_peer_and_a_peer_a_stranger_without_a_break() -> None:
    a, b = await started("a"), await started("b")
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: a.is_connected("b"))
    a.set_peers({"b": b.raft_address})
    a.send("b", number(1))
    await eventually(lambda: b.numbers() == [1])
    # Now b may leave its link and a's keeps standing, answered by b.
    b.set_peers({})
    b.send("a", number(2))
    await eventually(lambda: a.numbers() == [2])
    a.set_peers({})
    await eventually(lambda: alone(a) and alone(b))
    assert [event for event in b.events if event[0] == "connected"] == [("connected", "a")]


@on_a_loop
async def test_only_so_many_unknown_nodes_are_let_in() -> None:
    a, member = await started("a", strangers_max=3), await started("member")
    a.set_peers({"member": member.raft_address})
    strangers = [await RawPeer.to(a) for _ in range(3)]
    for n, stranger in enumerate(strangers):
        await stranger.shake(hello(f"x{n}", purpose=REPLY))
    late = await RawPeer.to(a)
    with pytest.raises(PeerRefused, match="too many"):
        await late.shake(hello("late"))
    member.set_peers({"a": a.raft_address})
    await eventually(lambda: member.is_connected("a"))
    assert (await member.probe(a.raft_address, 2)).node_id == "a"
    strangers[0].close()
    await eventually(lambda: len(a._incoming) == 3)
    again = await RawPeer.to(a)
    await again.shake(hello("late", purpose=REPLY))
    for peer in (*strangers, late, again):
        peer.close()


@on_a_loop
async def test_a_probe_tells_who_lives_there_and_disturbs_nothing() -> None:
    a, b = await started("a", cluster_id="c1"), await started("b", incarnation="5")
    await connected(a, b)
    peer = await a.probe(b.raft_address, 2)
    assert (peer.node_id, peer.incarnation, peer.raft_address, peer.epoch) == ("b", "5", b.raft_address, b.epoch)
    a.send("b", number(1)), b.send("a", number(2))
    await eventually(lambda: b.numbers() == [1] and a.numbers() == [2])
    assert a.events == [("connected", "b")] and b.events == [("connected", "a")]


@on_a_loop
async def test_a_node_that_probes_its_own_address_finds_itself_and_not_a_copy_of_it() -> None:
    a, copy = await started("a"), await started("a")
    for spelling in (a.raft_address, a.raft_address.replace("127.0.0.1", "localhost")):
        assert (await a.probe(spelling, 2)).epoch == a.epoch
    with pytest.raises(PeerRefused, match="both sides are node 'a'"):
        await a.probe(copy.raft_address, 2)


@on_a_loop
async def test_only_those_who_dial_to_send_are_callers() -> None:
    a, b, c = await started("a"), await started("b", cluster_id="c1"), await started("c")
    b.set_peers({"a": a.raft_address})
    a.set_peers({"c": c.raft_address})
    await c.probe(a.raft_address, 2)
    await eventually(lambda: [peer.node_id for peer in a.callers] == ["b"])
    # It is answered, which makes no caller of it; and b is one no more when it stops sending.
    await eventually(lambda: b.is_connected("a") and a.is_connected("b") and not b.callers)
    b.set_peers({})
    await eventually(lambda: not a.callers)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "", "::1:80", "no such host:80", "127.0.0.1:70000"])
@on_a_loop
async def test_a_probe_of_nobody_says_so(address: str) -> None:
    a = await started("a")
    with pytest.raises(PeerUnreachable):
        await a.probe(address, 2)


@on_a_loop
async def test_a_probe_of_somebody_silent_ends_in_time() -> None:
    a, silent = await started("a"), DeafListener(shakes=False)
    await silent.start()
    with pytest.raises(PeerUnreachable, match=r"no answer within 0\.05 s"):
        await a.probe(silent.address, 0.05)
    await silent.stop()


@on_a_loop
async def test_a_callback_that_fails_is_logged_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    a, b = await started("a"), await started("b")

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    b.on_connected = fail
    await connected(a, b)
    keep, b.on_message = b.on_message, fail
    a.send("b", number(1))
    await eventually(lambda: sum(record.exc_info is not None for record in caplog.records) == 2)
    b.on_message = keep
    a.send("b", number(2))
    await eventually(lambda: b.numbers() == [2])
    assert ("disconnected", "b") not in a.events


@on_a_loop
async def test_after_stop_there_are_no_callbacks_and_no_sockets() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    b.send("a", number(1, data=bytes(1_000_000)))
    stopping = asyncio.ensure_future(a.stop())
    await asyncio.sleep(0)
    a.events.clear()
    a.messages.clear()
    b.send("a", number(2))
    await stopping
    await eventually(lambda: ("disconnected", "a") in b.events and ("lost", "a") in b.events)
    assert a.events == [] and a.messages == [] and not a._sockets
    assert not a.send("b", number(3)) and not a.healthy
    a.set_peers({"b": b.raft_address})
    assert not a._links
    await a.stop()


@on_a_loop
async def test_a_node_may_be_stopped_from_a_callback() -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    stops: list[asyncio.Task[None]] = []

    def stop_at_the_first(*message: object) -> None:
        b.messages.append(message)  # type: ignore[arg-type]
        stops.append(asyncio.get_running_loop().create_task(b.stop()))

    b.on_message = stop_at_the_first
    a.send("b", number(1))
    await eventually(lambda: stops)
    await stops[0]
    assert len(b.messages) == 1


@on_a_loop
async def test_peers_may_be_set_before_the_start_and_from_callbacks() -> None:
    a, b = Node("a"), await started("b")
    a.set_peers({"b": b.raft_address})
    a.on_connected = lambda node_id: a.set_peers({})
    await a.start()
    await eventually(lambda: ("disconnected", "b") in a.events)
    await eventually(lambda: ("lost", "a") in b.events)


def test_the_transport_is_a_network() -> None:
    network: Network = PeerTransport(Identity("a", "1"), ("127.0.0.1", 0), "127.0.0.1:0", None, supervisor=NoTasks())
    assert network.cluster_id == ""


@on_a_loop
async def test_a_node_that_takes_no_part_any_more_tells_who_knocks_why() -> None:
    a, b = await started("a"), await started("b")
    a.refuse("node a was removed")
    with pytest.raises(PeerRefused, match="node a was removed"):
        await b.probe(a.raft_address, 2)
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: "node a was removed" in str(b.trouble("a")))
    assert a.events == []


@on_a_loop
async def test_a_copy_of_a_node_s_data_does_not_take_its_address_and_is_told_why() -> None:
    a, b = await started("a"), await started("b", start=7)
    await connected(a, b)
    # Copied while it ran: the copy counts one start more.
    copy = await started("b", start=8)
    copy.set_peers({"a": a.raft_address})
    await eventually(lambda: copy.trouble("a"))
    assert f"'b' lives at {b.raft_address} and not at {copy.raft_address}" in str(copy.trouble("a"))
    with pytest.raises(PeerRefused, match="its data directory was copied"):
        await a.probe(copy.raft_address, 2)
    a.send("b", number(1))
    await eventually(lambda: b.numbers() == [1])
    assert "lost" not in [what for what, _ in a.events]
    # When the first one is gone, the other one is the node: at its new address.
    await b.stop()
    await eventually(lambda: copy.is_connected("a") and a.is_connected("b"))
    a.send("b", number(2))
    await eventually(lambda: copy.numbers() == [2])


@pytest.mark.parametrize("start", [7, 6])
@on_a_loop
async def test_a_process_on_an_older_copy_of_a_node_s_data_is_refused_by_name(start: int) -> None:
    a, b = await started("a"), await started("b", start=7)
    await connected(a, b)
    await b.stop()
    older = await started("b", start=start)
    older.set_peers({"a": a.raft_address})
    await eventually(lambda: older.trouble("a"))
    assert f"start {start} of node 'b' comes behind its start 7: its data directory was copied" in str(
        older.trouble("a")
    )
    emptied = await started("b", start=1, incarnation="2")
    await connected(a, emptied)


@on_a_loop
async def test_members_that_all_have_moved_are_dialed_where_a_probe_has_found_them() -> None:
    a, b = await started("a"), await started("b")
    for node, other in ((a, "b"), (b, "a")):
        node.set_peers({other: "127.0.0.1:1"})
    assert (await a.probe(b.raft_address, 2)).node_id == "b"
    await eventually(lambda: a.is_connected("b") and b.is_connected("a"))


@on_a_loop
async def test_what_is_broadcast_comes_to_all_peers_beside_the_log() -> None:
    a, b, c = await started("a"), await started("b"), await started("c")
    await connected(a, b, c)
    came: list[tuple[str, str, int]] = []
    b.on_beside = lambda peer, message: came.append(("b", peer.node_id, message["number"]))
    c.on_beside = lambda peer, message: came.append(("c", peer.node_id, message["number"]))
    assert [a.broadcast(number(value)) for value in range(100)] == [0] * 100
    await eventually(lambda: len(came) == 200)
    for to in ("b", "c"):
        assert [each for each in came if each[0] == to] == [(to, "a", value) for value in range(100)]
    assert not b.messages and not c.messages
    await c.stop()
    await eventually(lambda: not a.is_connected("c"))
    assert a.broadcast(number(1)) == 1
    await eventually(lambda: len(came) == 201)
