"""Who has to show a token before anything else."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.resp_client import connect, line, lines, pack

TOKEN = b"a token of many letters"
REFUSED = b"-NOAUTH Authentication required.\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


@pytest.mark.parametrize(
    "words", ["GET k", "SET k v", "DEL k", "INCR k", "PING", "MULTI", "INFO", "COMMAND", "WATCH k", "KEYS *"]
)
def test_without_the_token_nothing_is_answered(words: str) -> None:
    store = FakeStore()
    client = connect(store, TOKEN)
    assert client.send(line(words)) == REFUSED
    assert client.send(words.encode() + b"\r\n") == REFUSED
    assert store.proposed == [] and store.hits + store.misses == 0


@pytest.mark.parametrize(
    "door", [("AUTH", TOKEN), ("AUTH", "default", TOKEN), ("HELLO", "3", "AUTH", "default", TOKEN)]
)
def test_the_token_opens_the_door(door: tuple[bytes | str, ...]) -> None:
    client = connect(token=TOKEN)
    assert client.send(pack(*door))[:1] in (b"+", b"%")
    assert client.send(line("PING")) == b"+PONG\r\n"
    assert client.send(lines("SET k v\nGET k")) == b"+OK\r\n$1\r\nv\r\n"


@pytest.mark.parametrize(
    "door",
    [
        ("AUTH", b"a token of many Letters"),
        ("AUTH", b""),
        ("AUTH", TOKEN + b"x"),
        ("AUTH", "somebody", TOKEN),
        ("AUTH", "default", "x"),
        ("AUTH", b"\xff"),
        ("HELLO", "3", "AUTH", "default", "x"),
    ],
)
def test_nothing_else_does(door: tuple[bytes | str, ...]) -> None:
    client = connect(token=TOKEN)
    assert client.send(pack(*door)) == WRONG
    assert client.send(line("PING")) == REFUSED


def test_hello_alone_says_how_to_come_in() -> None:
    client = connect(token=TOKEN)
    assert client.send(line("HELLO 3")).startswith(
        b"-NOAUTH HELLO must be called with the client already authenticated, "
    )
    assert client.send(pack("HELLO", "2", "AUTH", "default", TOKEN, "SETNAME", "me")).startswith(b"*14\r\n")
    assert client.send(line("CLIENT GETNAME")) == b"$2\r\nme\r\n"


def test_unknown_commands_are_unknown_to_strangers_too() -> None:
    assert connect(token=TOKEN).send(line("NOPE")).startswith(b"-ERR unknown command")


def test_reset_closes_the_door_again() -> None:
    client = connect(token=TOKEN)
    client.send(pack("AUTH", TOKEN))
    assert client.send(lines("SET k v\nRESET\nGET k")) == b"+OK\r\n+RESET\r\n" + REFUSED


def test_a_stranger_can_leave() -> None:
    client = connect(token=TOKEN)
    assert client.send(line("QUIT")) == b"+OK\r\n" and client.closed


def test_a_stranger_cannot_make_the_node_keep_much() -> None:
    client = connect(token=TOKEN)
    assert client.send(b"*2\r\n$4\r\nAUTH\r\n$100000\r\n") == b"-ERR Protocol error: unauthenticated bulk length\r\n"
    assert client.closed
    client = connect(token=TOKEN)
    assert client.send(b"*100\r\n") == b"-ERR Protocol error: unauthenticated multibulk length\r\n"
