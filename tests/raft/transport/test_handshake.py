"""Two sides agree on who they are, or one of them says why not."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import msgpack
import pytest
from fakes.raft_peers import SECRET, hello
from hypothesis import given
from hypothesis import strategies as st

from cacheflow.raft.transport import handshake
from cacheflow.raft.transport.frames import FrameError
from cacheflow.raft.transport.handshake import Handshake, Hello, Refusal
from cacheflow.raft.transport.network import Peer, PeerRefused


def fresh(name: str, **changes: Any) -> Hello:
    return hello(name, **({"nonce": os.urandom(32)} | changes))


def pair(
    secrets: tuple[bytes | None, bytes | None] = (SECRET, SECRET),
    *,
    expected: str | None = None,
    dialer: dict[str, Any] | None = None,
    listener: dict[str, Any] | None = None,
) -> tuple[Handshake, Handshake]:
    first, second = secrets
    return (
        Handshake(fresh("a", secured=first is not None, **(dialer or {})), first, dialer=True, expected=expected),
        Handshake(fresh("b", secured=second is not None, **(listener or {})), second, dialer=False),
    )


def converse(dialer: Handshake, listener: Handshake) -> list[bytes]:
    """Let both talk until neither has anything to say; returns what was said."""
    said = [dialer.opening()]
    sides = [listener, dialer]
    while True:
        answer = sides[0].receive(said[-1])
        if answer is None:
            return said
        said.append(answer)
        sides.reverse()


@pytest.mark.parametrize("secret", [SECRET, None])
def test_both_learn_who_the_other_is(secret: bytes | None) -> None:
    dialer, listener = pair((secret, secret), dialer={"cluster_id": "c", "epoch": "e9"}, listener={"incarnation": "2"})
    converse(dialer, listener)
    assert dialer.done and listener.done
    assert dialer.remote is not None and dialer.remote.peer() == Peer("b", "2", "127.0.0.1:1", "", "e1", build="1.0")
    assert listener.remote is not None and listener.remote.peer() == Peer(
        "a", "1", "127.0.0.1:1", "c", "e9", build="1.0"
    )


@pytest.mark.parametrize("secrets", [(SECRET, None), (None, SECRET)])
def test_a_secret_on_one_side_only_is_refused_with_a_reason(secrets: tuple[bytes | None, bytes | None]) -> None:
    with pytest.raises(Refusal, match="a cluster secret is set"):
        converse(*pair(secrets))


def test_a_dialer_with_another_secret_is_refused() -> None:
    dialer, listener = pair((b"another secret that is wrong", SECRET))
    with pytest.raises(Refusal, match="secrets differ"):
        converse(dialer, listener)
    assert not listener.done


def test_a_listener_that_cannot_prove_itself_is_refused_by_the_dialer() -> None:
    dialer, listener = pair()
    answer = listener.receive(dialer.opening())
    assert answer is not None
    dialer.receive(answer)
    for forged in (bytes(32), dialer._proof(handshake._DIALER)):  # invented, and the dialer's own sent back
        with pytest.raises(Refusal, match="secrets differ"):
            dialer.receive(msgpack.packb(("proof", forged)))
    assert not dialer.done


def test_a_listener_without_a_secret_cannot_lure_a_dialer_that_has_one() -> None:
    dialer, _ = pair()
    lure = Handshake(fresh("b", secured=True), None, dialer=False)
    with pytest.raises(Refusal):
        converse(dialer, lure)
    assert not dialer.done


def test_a_replayed_handshake_is_refused() -> None:
    dialer, listener = pair()
    said = converse(dialer, listener)
    again = Handshake(fresh("b"), SECRET, dialer=False)
    again.receive(said[0])
    with pytest.raises(Refusal, match="secrets differ"):
        again.receive(said[2])
    assert not again.done


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("field", ["node_id", "cluster_id", "raft_address", "epoch", "incarnation", "purpose"])
def test_nothing_in_a_hello_can_be_changed_on_its_way(which: int, field: str) -> None:
    def changed(value: str) -> dict[str, Any]:
        return {field: value}

    dialer, listener = pair()
    opening = dialer.opening()
    if which == 0:
        opening = dataclasses.replace(dialer.local, **changed("probe")).encode()
    answer = listener.receive(opening)
    assert answer is not None
    if which == 1:
        answer = dataclasses.replace(listener.local, **changed("reply")).encode()
    proof = dialer.receive(answer)
    assert proof is not None
    with pytest.raises(Refusal, match="secrets differ"):
        listener.receive(proof)


def test_a_node_does_not_talk_to_itself() -> None:
    with pytest.raises(Refusal, match="both sides are node 'b'"):
        converse(*pair(dialer={"node_id": "b"}))


def test_an_emptied_node_may_talk_to_its_namesake() -> None:
    dialer, listener = pair(dialer={"node_id": "b", "incarnation": "2"})
    converse(dialer, listener)
    assert listener.done


def test_a_dialer_that_reaches_another_node_says_nothing_more() -> None:
    with pytest.raises(Refusal, match="node 'b' lives there, not 'c'"):
        converse(*pair(expected="c"))


def test_another_protocol_version_is_named() -> None:
    _, listener = pair()
    with pytest.raises(Refusal, match="protocol 7 is spoken there and 1 here"):
        listener.receive(msgpack.packb(("hello", "cacheflow", 7, "whatever", "comes", "then")))


def test_the_reason_of_a_refusal_reaches_the_dialer_as_one_line() -> None:
    dialer, listener = pair()
    with pytest.raises(PeerRefused, match=r"^no\?\?way$"):
        dialer.receive(listener.refusal("no\r\nway"))
    assert not dialer.is_refusal_proved


def test_a_refusal_of_one_that_has_proved_the_secret_is_proved_itself() -> None:
    dialer, listener = pair()
    proof = dialer.receive(listener.receive(dialer.opening()) or b"")
    assert proof is not None
    listener.receive(proof)
    kind, reason, shown = msgpack.unpackb(listener.refusal("no"))
    forged = [bytes(32), listener._proof(handshake._LISTENER), dialer._proof(handshake._DIALER), "x", None]
    for other in forged:
        with pytest.raises(PeerRefused):
            dialer.receive(msgpack.packb((kind, reason, other)))
        assert not dialer.is_refusal_proved
    with pytest.raises(PeerRefused, match="no"):
        dialer.receive(listener.refusal("no"))
    assert dialer.is_refusal_proved and len(shown) == 32


@pytest.mark.parametrize("replaced", [None, "x", ["x" * 65], ["é"], [5], ["a"] * 33])
def test_a_hello_with_a_wrong_list_of_replaced_clusters_is_refused(replaced: object) -> None:
    dialer, listener = pair()
    hello = msgpack.unpackb(dialer.opening())
    with pytest.raises(FrameError):
        listener.receive(msgpack.packb([*hello[:-1], replaced]))


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": ""},
        {"node_id": "a\n"},
        {"node_id": "x" * 64},
        {"node_id": 5},
        {"incarnation": 1},
        {"raft_address": "a b:1"},
        {"raft_address": ""},
        {"cluster_id": None},
        {"epoch": "\x1b[0m"},
        {"purpose": "rule"},
        {"purpose": []},
        {"secured": 1},
        {"nonce": b"short"},
        {"nonce": "x" * 32},
        {"level": 0},
        {"level": True},
        {"level": 2**31 + 1},
        {"build": "x" * 65},
        {"build": "a\nb"},
    ],
)
def test_a_hello_with_a_wrong_field_is_no_hello(change: dict[str, Any]) -> None:
    _, listener = pair()
    with pytest.raises(FrameError):
        listener.receive(hello("a", **change).encode())


def test_a_hello_tells_the_level_and_may_have_fields_that_are_not_known_here() -> None:
    newer = Hello.of([*msgpack.unpackb(hello("a", level=7).encode()), "a field", {}])
    assert newer.peer().level == 7 and newer == hello("a", level=7)


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3), st.booleans())
def test_arbitrary_bytes_never_finish_a_handshake(bodies: list[bytes], dialer: bool) -> None:
    side = Handshake(fresh("a"), SECRET, dialer=dialer)
    with pytest.raises(FrameError):
        for body in bodies:
            side.receive(body)
    assert not side.done
