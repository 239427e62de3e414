"""Whoever breaks a rule loses its connection, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import socket
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.raft_peers import DeafListener, Node, RawPeer, connected, eventually, hello, number, on_a_loop, started

from cacheflow.errors import ConfigError
from cacheflow.raft.transport import messages
from cacheflow.raft.transport.dialing import Outgoing
from cacheflow.raft.transport.frames import HEADER, MORE, PIECE_BYTES, encode_frame
from cacheflow.raft.transport.handshake import HANDSHAKE_BYTES_MAX, REPLY, SEND, Handshake
from cacheflow.raft.transport.log_throttle import LogThrottle
from cacheflow.raft.transport.network import PeerRefused

GARBAGE = [
    HEADER.pack((1 << 32) - 1),
    encode_frame(b""),
    encode_frame(b"\xc1"),
    encode_frame(b"\x92\x00\x80"),
    encode_frame(b"\x92\xff\x82\xa4type\xa5about\xaacluster_id\xa1\x0a"),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize(
    "frame",
    [
        b"\x92\x01\x81\xa4type\xa1t",  # a group that does not exist
        b"\x92\xff\x81\xa4type\xa1t",  # a control message of no known kind
    ],
)
@on_a_loop
async def test_what_a_newer_build_may_send_is_dropped_and_counted(
    frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a = await started("a")
    newer = await RawPeer.to(a)
    await newer.shake(hello("newer", purpose=REPLY))
    for _ in range(3):
        newer.send(frame)
    newer.send(b"\x92\x00\x83\xa4type\xa1t\xa6number\x01\xa3new\xa5field")
    await eventually(lambda: a.numbers() == [1])
    assert a.unknown_frames == 3
    assert sum("as a newer CacheFlow may send it" in record.message for record in caplog.records) == 1
    newer.close()


@pytest.mark.parametrize("garbage", GARBAGE)
@on_a_loop
async def test_a_peer_that_sends_garbage_is_cut_off_with_one_line(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    for _ in range(3):
        bad = await RawPeer.to(a)
        await bad.shake(hello("bad", purpose=REPLY))
        bad.writer.write(garbage)
        await bad.ended()
        bad.close()
    assert sum("closed the connection of bad" in record.message for record in caplog.records) == 1
    b.send("a", number(1))
    await eventually(lambda: a.numbers() == [1])
    assert a.messages[0][0].node_id == "b" and ("disconnected", "b") not in a.events


@pytest.mark.parametrize("garbage", [*GARBAGE, HEADER.pack(HANDSHAKE_BYTES_MAX + 1), bytes(HANDSHAKE_BYTES_MAX + 1)])
@on_a_loop
async def test_a_stranger_that_sends_garbage_is_cut_off(garbage: bytes) -> None:
    a = await started("a")
    bad = await RawPeer.to(a)
    bad.writer.write(garbage)
    await bad.ended()
    bad.close()
    assert a.messages == [] and a.events == []


@on_a_loop
async def test_messages_before_the_proof_do_not_count() -> None:
    a = await started("a")
    bad = await RawPeer.to(a)
    bad.send(hello("bad", purpose=REPLY).encode())
    bad.send(b"\x92\x00\x82\xa4type\xa1t\xa6number\x01")
    await bad.ended()
    assert a.messages == []
    bad.close()


@on_a_loop
async def test_a_recorded_conversation_cannot_be_played_again() -> None:
    a = await started("a")
    good = await RawPeer.to(a)
    hands = Handshake(hello("x", purpose=REPLY), b"sixteen bytes or more", dialer=True)
    good.send(hands.opening())
    proof = hands.receive(await good.frame())
    assert proof is not None
    good.send(proof)
    assert hands.receive(await good.frame()) is None
    replay = await RawPeer.to(a)
    replay.writer.write(encode_frame(hands.opening()) + encode_frame(proof))
    again = Handshake(hello("x", purpose=REPLY), b"sixteen bytes or more", dialer=True)
    again.receive(await replay.frame())
    with pytest.raises(PeerRefused, match="secrets differ"):
        again.receive(await replay.frame())
    await replay.ended()
    good.close()
    replay.close()


@on_a_loop
async def test_half_a_hello_is_given_up_at_the_deadline() -> None:
    a = await started("a", handshake_s=0.05)
    slow = await RawPeer.to(a)
    slow.writer.write(encode_frame(hello().encode())[:50])
    await slow.ended()
    slow.close()


@on_a_loop
async def test_a_listener_that_never_answers_is_given_up_at_the_deadline() -> None:
    a, silent = await started("a", handshake_s=0.05), DeafListener(shakes=False)
    await silent.start()
    a.set_peers({"b": silent.address})
    await eventually(lambda: a.trouble("b"))
    assert "within 0.05 s" in str(a.trouble("b"))
    await silent.stop()


@on_a_loop
async def test_a_listener_that_talks_back_is_cut_off() -> None:
    a, deaf = await started("a"), DeafListener()
    await deaf.start()
    a.set_peers({"deaf": deaf.address})
    await eventually(lambda: a.is_connected("deaf"))
    deaf.peers[0].send(b"\x92\x00\x82\xa4type\xa1t\xa6number\x01")
    await eventually(lambda: ("disconnected", "deaf") in a.events)
    assert a.messages == []
    await deaf.stop()


@on_a_loop
async def test_connections_without_a_handshake_are_capped_and_an_honest_peer_gets_in() -> None:
    a, b = await started("a", handshakes_max=4), await started("b")
    idle = [await RawPeer.to(a) for _ in range(4)]
    await eventually(lambda: len(a._handshaking) == 4)
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: b.is_connected("a"))
    await idle[0].ended()
    for peer in idle:
        peer.close()


@on_a_loop
async def test_a_slow_reader_is_refused_more_and_nobody_else_notices() -> None:
    a, b, deaf = await started("a", backlog_bytes_max=1_000_000, stall_s=60), await started("b"), DeafListener()
    await deaf.start()
    a.set_peers({"b": b.raft_address, "deaf": deaf.address})
    await eventually(lambda: a.is_connected("b") and a.is_connected("deaf"))
    sent = 0
    while a.send("deaf", number(sent, data=bytes(100_000))):
        sent += 1
        assert sent < 1000
    assert 1_000_000 < a.backlog("deaf") < 1_200_000
    assert a.is_connected("deaf")
    assert a.send("b", number(1)) and a.backlog("b") < 100
    await eventually(lambda: b.numbers() == [1])
    await deaf.stop()
    await eventually(lambda: not a.is_connected("deaf"))
    assert a.backlog("deaf") == 0


@on_a_loop
async def test_beside_a_message_larger_than_the_backlog_a_heartbeat_is_taken() -> None:
    a, deaf = await started("a", backlog_bytes_max=1_000_000, stall_s=60), DeafListener()
    await deaf.start()
    a.set_peers({"deaf": deaf.address})
    await eventually(lambda: a.is_connected("deaf"))
    assert a.send("deaf", number(0, data=bytes(30_000_000)))
    heartbeat: dict[str, Any] = {"type": "append_entries", "entries": [], "data": bytes(500)}
    entries: dict[str, Any] = {"type": "append_entries", "entries": [1]}
    assert a.send("deaf", heartbeat) and not a.send("deaf", entries) and not a.send("deaf", number(1))
    acknowledgements = 0
    while a.send("deaf", {"type": "append_ack", "data": bytes(1000)}):
        acknowledgements += 1
        assert acknowledgements < 2000, "what overtakes is bounded, too"
    await deaf.stop()


@on_a_loop
async def test_what_many_peers_have_sent_in_part_is_bounded_and_a_member_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = await started("a", unfinished_bytes_max=2_000_000), await started("b")
    await connected(a, b)
    piece = HEADER.pack(MORE | PIECE_BYTES) + bytes(PIECE_BYTES)
    bad = [await RawPeer.to(a) for _ in range(16)]
    for place, peer in enumerate(bad):
        await peer.shake(hello(f"bad{place}", purpose=REPLY))
        peer.writer.write(piece * 50)
    await eventually(lambda: a._budget.held_bytes >= 50 * PIECE_BYTES)
    for place in range(3):
        assert b.send("a", number(place, data=bytes(1_900_000)))
    await eventually(lambda: a.numbers("b") == [0, 1, 2])
    assert a._budget.held_bytes <= 2_000_000
    # They are still there, and nobody keeps what they send.
    bad[-1].send(messages.encode(number(7)))
    await eventually(lambda: a.numbers("bad15") == [7])
    assert any("of a large message of bad" in record.message for record in caplog.records)
    for peer in bad:
        peer.close()
    await eventually(lambda: a._budget.held_bytes == 0)


@on_a_loop
async def test_a_connection_that_takes_nothing_is_given_up() -> None:
    a, deaf = await started("a", stall_s=0.1), DeafListener()
    await deaf.start()
    a.set_peers({"deaf": deaf.address})
    await eventually(lambda: a.is_connected("deaf"))
    while a.send("deaf", number(0, data=bytes(1_000_000))):
        pass
    await eventually(lambda: ("disconnected", "deaf") in a.events)
    assert "took nothing" in str(a.trouble("deaf")) or "timed out" in str(a.trouble("deaf"))
    await deaf.stop()


@on_a_loop
async def test_a_message_larger_than_a_frame_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    a, b = await started("a", frame_bytes_max=1000), await started("b", frame_bytes_max=1000)
    await connected(a, b)
    assert not a.send("b", number(1, data=bytes(1000)))
    assert not a.send("b", number(1, data=bytes(1000)))
    assert a.send("b", number(2, data=bytes(900)))
    await eventually(lambda: b.numbers() == [2])
    assert sum("too large to send" in record.message for record in caplog.records) == 1


@on_a_loop
async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    a = await started("a")
    with pytest.raises(ConfigError) as caught:
        await Node("b", port=a.port).start()
    assert f"raft port {a.port} on 127.0.0.1 is taken" in str(caught.value)
    assert "--raft-port" in str(caught.value) and "\n" not in str(caught.value)


@on_a_loop
async def test_a_host_that_is_not_ours_is_one_clear_line() -> None:
    node = Node("b")
    node._listen = ("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="not an address of this machine"):
        await node.start()


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """No file or socket can be opened inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on numbers: everything below the first free one is in use.
    probe = socket.socket()
    first_free = probe.fileno()
    probe.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        with pytest.raises(OSError) as caught:
            socket.socket()
        assert caught.value.errno == errno.EMFILE
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_a_loop
async def test_the_listener_survives_when_descriptors_run_out(caplog: pytest.LogCaptureFixture) -> None:
    a, b = await started("a"), await started("b")
    await connected(a, b)
    assert a.healthy
    client = socket.socket()
    client.setblocking(False)
    with no_descriptors_left():
        with contextlib.suppress(BlockingIOError):
            client.connect(("127.0.0.1", a.port))
        await eventually(lambda: not a.healthy)
        b.send("a", number(1))  # who is connected stays connected
        await eventually(lambda: a.numbers() == [1])
    await eventually(lambda: a.healthy)
    peer = RawPeer(*await asyncio.open_connection(sock=client))
    await peer.shake(hello("x", purpose=REPLY))
    peer.close()
    lines = [record for record in caplog.records if "ulimit" in record.message]
    assert 1 <= len(lines) <= 50 and lines[0].levelno == logging.ERROR


@on_a_loop
async def test_a_connection_that_is_reset_before_it_is_accepted_is_nothing() -> None:
    a, b = await started("a"), await started("b")
    with socket.create_connection(("127.0.0.1", a.port)) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await connected(a, b)


def test_the_same_complaint_is_made_once_in_a_while() -> None:
    now_s = 0.0
    throttle = LogThrottle(10, lambda: now_s)
    assert [throttle.allows("x"), throttle.allows("x"), throttle.allows("y")] == [True, False, True]
    now_s = 10.0
    assert [throttle.allows("x"), throttle.allows("x")] == [True, False]


def test_complaints_about_ever_new_things_are_bounded() -> None:
    now_s = 0.0
    throttle = LogThrottle(10, lambda: now_s)
    assert sum(throttle.allows(n) for n in range(1000)) == 256
    now_s = 10.0
    assert sum(throttle.allows(n) for n in range(1000, 2000)) == 256


@on_a_loop
async def test_a_stranger_that_is_connected_is_not_forgotten_for_others_that_come_and_go() -> None:
    a = await started("a", strangers_max=3)
    first = await RawPeer.to(a)
    await first.shake(hello("first", purpose=SEND))
    await eventually(lambda: "first" in a._links)
    for n in range(6):
        other = await RawPeer.to(a)
        await other.shake(hello(f"x{n}", purpose=REPLY))
        await eventually(lambda: len(a._incoming) == 2)
        other.close()
        await eventually(lambda: len(a._incoming) == 1)
    about = {"type": "about", "cluster_id": "c9", "purpose": SEND}
    first.send(messages.encode(about, messages.CONTROL))
    first.send(messages.encode({"type": "t", "number": 1}))
    await eventually(lambda: a.numbers() == [1])
    assert "first" in a._incoming
    first.close()


@on_a_loop
async def test_a_stranger_that_is_gone_is_freed_without_the_garbage_collector() -> None:
    a = await started("a")
    kept: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        for n in range(3):
            stranger = await RawPeer.to(a)
            await stranger.shake(hello(f"x{n}", purpose=SEND))
            # It lives where nobody listens: this node's own link to it fails, and is ended while it waits or dials.
            await eventually(lambda: bool(a._incoming) and bool(a._links))
            (incoming,), (link,) = a._incoming.values(), a._links.values()
            kept += [weakref.ref(each) for each in (incoming, incoming.transport, link)]
            if n:
                await eventually(lambda link=link: link.trouble is not None)  # type: ignore[misc]
            del incoming, link
            stranger.close()
            await eventually(lambda: not a._incoming and not a._links)
        await eventually(lambda: all(each() is None for each in kept))
        await eventually(lambda: not any(type(each) is Outgoing for each in gc.get_objects()))
    finally:
        gc.enable()
