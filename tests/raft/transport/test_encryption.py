"""Nodes with certificates, and without: who talks to whom, encrypted or not, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from fakes.certificates import HERE, Authority, put_in_place
from fakes.raft_peers import Node, RawPeer, connected, eventually, hello, number, on_a_loop, started

from cacheflow.net.tls.certificates import Certificates
from cacheflow.net.tls.handshakes import Done, Failed, Handshakes
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.stream import TlsStream
from cacheflow.raft.transport.encryption import Encryption
from cacheflow.raft.transport.network import PeerUnreachable

Make = Callable[..., Encryption]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("peers") / "ca")


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes the encryption of a node; its thread ends with the test."""
    made: list[Handshakes] = []

    def make(certificates: Certificates, required: bool = False, **named: float) -> Encryption:
        handshakes = Handshakes(certificates, **named)  # type: ignore[arg-type]
        handshakes.start()
        made.append(handshakes)
        return Encryption(handshakes, required)

    yield make
    for handshakes in made:
        handshakes.stop()


def is_encrypted(node: Node, other: str) -> bool:
    connection = node._links[other]._connection
    assert connection is not None
    return isinstance(connection.transport, TlsStream)


async def talk(a: Node, b: Node) -> None:
    for n in range(200):
        assert a.send("b", number(n, data=bytes(n * 10))) and b.send("a", number(-n))
    await eventually(lambda: len(a.messages) == len(b.messages) == 200)
    assert b.numbers() == list(range(200)) and a.numbers() == [-n for n in range(200)]


@pytest.mark.parametrize("required", [True, False])
@on_a_loop
async def test_two_with_certificates_talk_encrypted(authority: Authority, make: Make, required: bool) -> None:
    a = await started("a", encryption=make(authority.certificates(), required))
    b = await started("b", encryption=make(authority.certificates(), required))
    await connected(a, b)
    assert is_encrypted(a, "b") and is_encrypted(b, "a")
    await talk(a, b)


@on_a_loop
async def test_large_messages_travel_encrypted_and_a_heartbeat_overtakes_them(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    b = await started("b", encryption=make(authority.certificates()))
    await connected(a, b)
    assert a.send("b", {"type": "propose", "number": 0, "data": bytes(15_000_000)})
    assert a.send("b", {"type": "append_ack", "number": 1})
    await eventually(lambda: len(b.messages) == 2)
    assert b.numbers() == [1, 0]


@on_a_loop
async def test_while_a_cluster_changes_over_plain_and_encrypted_nodes_talk(authority: Authority, make: Make) -> None:
    a, b = await started("a", encryption=make(authority.certificates())), await started("b")
    await connected(a, b)
    assert not is_encrypted(a, "b") and not is_encrypted(b, "a")
    await talk(a, b)


@on_a_loop
async def test_where_tls_is_required_a_plain_node_is_let_in_by_nobody(authority: Authority, make: Make) -> None:
    a, b = await started("a", encryption=make(authority.certificates(), True)), await started("b")
    a.set_peers({"b": b.raft_address})
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: a.trouble("b") and b.trouble("a"))
    assert a.trouble("b") == "it ended without a word of TLS, and --peer-tls is require"
    await asyncio.sleep(0.2)
    assert not a.is_connected("b") and not b.is_connected("a") and not a._incoming and not b._incoming


@pytest.mark.parametrize("required", [True, False])
@on_a_loop
async def test_a_node_with_too_many_handshakes_says_so_and_is_not_dialed_plainly(
    authority: Authority, make: Make, required: bool
) -> None:
    a = await started("a", encryption=make(authority.certificates(), required))
    b = await started("b", encryption=(theirs := make(authority.certificates(), required)))
    theirs._handshakes._all_half_open_max = 0
    a.set_peers({"b": b.raft_address})
    await eventually(lambda: theirs._door.turned_away > 2)
    assert str(a.trouble("b")).startswith("TLS: it shakes no hands now, because too many want to")
    assert theirs._door.plain == 0
    theirs._handshakes._all_half_open_max = 100
    await eventually(lambda: a.is_connected("b"))


@on_a_loop
async def test_a_certificate_of_another_ca_is_refused_by_both(authority: Authority, make: Make, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    a = await started("a", encryption=make(authority.certificates()))
    b = await started("b", encryption=make(other.certificates()))
    a.set_peers({"b": b.raft_address})
    b.set_peers({"a": a.raft_address})
    await eventually(lambda: a.trouble("b") and b.trouble("a"))
    assert "certificate" in str(a.trouble("b"))
    await asyncio.sleep(0.2)
    # What fails is not tried again without TLS.
    assert not a.is_connected("b") and not b.is_connected("a") and not a._incoming and not b._incoming


@on_a_loop
async def test_a_certificate_for_another_host_is_refused(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    b = await started("b", encryption=make(authority.certificates("elsewhere", ["elsewhere.example"])))
    with pytest.raises(PeerUnreachable, match=r"TLS: .*mismatch"):
        await a.probe(b.raft_address, 2.0)
    # The other way round only the CA counts: a dialer has many addresses.
    assert (await b.probe(a.raft_address, 2.0)).node_id == "a"


@on_a_loop
async def test_who_shows_no_certificate_is_no_node(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", a.port, ssl=authority.trusted(), server_hostname="localhost"
    )
    peer = RawPeer(reader, writer)
    peer.send(b"hello")
    with contextlib.suppress(OSError):
        await peer.ended()
    assert not a._handshaking and not a._incoming
    peer.close()


@on_a_loop
async def test_the_secret_is_asked_for_inside(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    b = await started("b", encryption=make(authority.certificates()), secret=b"another secret, wrong")
    with pytest.raises(PeerUnreachable, match="the cluster secrets differ"):
        await b.probe(a.raft_address, 2.0)


@contextlib.asynccontextmanager
async def wire_cutter(node: Node) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An attacker between nodes, who ends every connection that begins with TLS and passes on all others.

    Yields (its address, the first bytes of the connections that it has passed on).
    """
    passed: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if first == b"\x16":
            writer.close()
            return
        passed.append(first)
        there = await asyncio.open_connection("127.0.0.1", node.port)
        there[1].write(first)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield f"{host}:{port}", passed
    server.close()


@on_a_loop
async def test_nobody_between_two_with_certificates_can_make_them_do_without(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    b = await started("b", encryption=make(authority.certificates()))
    async with wire_cutter(b) as (address, passed):
        with pytest.raises(PeerUnreachable, match="keeps TLS away"):
            await a.probe(address, 2.0)
        assert passed == [b"\x00"]
        # A node without certificates is reached the same way.
        c = await started("c")
        assert (await c.probe(address, 2.0)).node_id == "b"
        for node in (a, b, c):
            await node.stop()
        await asyncio.sleep(0.05)


@on_a_loop
async def test_a_listener_refuses_a_plain_dialer_that_has_certificates(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates()))
    peer = await RawPeer.to(a)
    with pytest.raises(PeerUnreachable, match="keeps TLS away"):
        await peer.shake(hello("b", certified=True))
    peer.close()


@on_a_loop
async def test_a_handshake_that_hangs_ends_and_holds_nobody_up(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates(), deadline_s=0.3))
    b = await started("b", encryption=make(authority.certificates()))
    hanging = [await RawPeer.to(a) for _ in range(20)]
    for each in hanging[:10]:
        each.writer.write(b"\x16\x03\x01")
    await connected(a, b)
    for each in hanging:
        await each.ended()
        each.close()


@on_a_loop
async def test_a_dialed_node_that_hangs_in_the_handshake_is_given_up(authority: Authority, make: Make) -> None:
    a = await started("a", encryption=make(authority.certificates(), deadline_s=0.2))

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(PeerUnreachable, match="no handshake within"):
        await a.probe(address, 2.0)
    # It has not spoken a word, but it was there: no second try without TLS.
    assert len(held) == 1
    with pytest.raises(PeerUnreachable, match="no answer within"):
        await a.probe(address, 0.05)
    for writer in held:
        writer.close()
    server.close()
    await asyncio.sleep(0.3)


@on_a_loop
async def test_renewed_certificates_are_for_new_connections_and_end_no_old_one(
    authority: Authority, make: Make, tmp_path: Path
) -> None:
    files = tmp_path / "n.crt", tmp_path / "n.key"
    put_in_place(authority.node("first", HERE, 10), files)
    certificates = Certificates(*files, authority.crt)
    a = await started("a", encryption=make(certificates))
    b = await started("b", encryption=make(authority.certificates()))
    await connected(a, b)
    before = a._links["b"]._connection
    put_in_place(authority.node("second", HERE, 50), files)
    certificates.reload()
    await talk(a, b)
    assert a._links["b"]._connection is before
    a._links["b"].redial("for the test")
    await eventually(lambda: a.is_connected("b") and a._links["b"]._connection is not before)
    assert certificates.days_left > 49


@on_a_loop
async def test_one_line_says_that_strangers_fail(
    authority: Authority, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    a = await started("a", encryption=make(authority.certificates(), True))
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            peer = await RawPeer.to(a)
            peer.send(b"hello")
            await peer.ended()
            peer.close()
    assert len([record for record in caplog.records if "raft port" in record.getMessage()]) == 1


@on_a_loop
async def test_a_dial_that_is_given_up_as_hands_are_shaken_leaves_no_socket(authority: Authority, make: Make) -> None:
    loop = asyncio.get_running_loop()
    encryption = make(authority.certificates())
    theirs, ours = socket.socketpair()

    class Shaken:
        """Hands are shaken in the very turn in which the dialer is cancelled."""

        def dial(self, sock: socket.socket, host: str, done: Done, failed: Failed) -> None:
            done(sock, Session(authority.trusted(), server_side=False, host=host))
            loop.call_soon(task.cancel)

    encryption._handshakes = Shaken()  # type: ignore[assignment]
    task = loop.create_task(encryption._shake(loop, ours, "localhost"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ours.fileno() == -1
    theirs.close()
