"""Who has to show a token before anything else."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.memcached_client import connect

TOKEN = b"a token of many letters"
RIGHT = b"set x 0 0 28\r\nuser a token of many letters\r\n"


def test_only_the_token_opens_the_door() -> None:
    client = connect(FakeStore(), TOKEN)
    for said in (b"get a\r\n", b"version\r\n", b"mn\r\n", b"set x 0 0\r\n", b"set x 0 0 x\r\n"):
        assert client.send(said) == b"CLIENT_ERROR unauthenticated\r\n"
    wrong = b"set x 0 0 28\r\nuser a token of many Letters\r\n"
    assert client.send(wrong) == b"CLIENT_ERROR authentication failure\r\n"
    assert client.send(b"get a\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    assert client.send(RIGHT) == b"STORED\r\n"
    assert client.send(b"get a\r\n") == b"END\r\n"
    assert client.send(b"set k 0 0 1\r\n1\r\n") == b"STORED\r\n"


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"set x 0 0 4\r\nuser\r\n", b"CLIENT_ERROR bad authentication token format\r\n"),
        (b"set x 0 0 5\r\nuser \r\n", b"CLIENT_ERROR authentication failure\r\n"),
        (
            b"set x 0 0 3\r\nuser t\r\n",
            b"CLIENT_ERROR bad command line termination\r\nCLIENT_ERROR unauthenticated\r\n",
        ),
        (b"set x 0 0 2147483645\r\n", b"CLIENT_ERROR auth token too long\r\n"),
        (b"x" * 3000, b"CLIENT_ERROR line too long\r\n"),
        (b"get " + b"k " * 3000, b"CLIENT_ERROR line too long\r\n"),
    ],
)
def test_anything_else_is_refused(said: bytes, answered: bytes) -> None:
    store = FakeStore()
    assert connect(store, TOKEN).send(said) == answered
    assert store.proposed == [] and store.hits + store.misses == 0


def test_the_token_may_come_in_pieces_and_requests_right_behind_it() -> None:
    client = connect(FakeStore(), TOKEN)
    replies = b"".join(client.send(bytes([byte])) for byte in RIGHT + b"get a\r\n")
    assert replies == b"STORED\r\nEND\r\n"
    assert connect(FakeStore(), TOKEN).send(RIGHT + b"get a\r\nget a\r\n") == b"STORED\r\nEND\r\nEND\r\n"
