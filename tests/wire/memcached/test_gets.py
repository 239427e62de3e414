"""Gets in a row, of several keys and of several clients at once, are answered as one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.memcached_client import connect, port

from cacheflow.machine.language import commands
from cacheflow.wire.arrivals import Arrival
from cacheflow.wire.connection import Connection

LINES = st.sampled_from(
    [
        *(b"get k\r\n", b"get l\r\n", b"get none\r\n", b"get k l none k\r\n", b"get  k\r\n", b"get k \r\n", b"get k\n"),
        *(b"get \r\n", b"get\r\n", b"gets k\r\n", b"get k\x01\r\n", b"get \xc3\xa4\r\n", b"get %b\r\n" % (b"x" * 250)),
        *(
            b"get %b\r\n" % (b"x" * 251),
            b"get flags\r\n",
            b"get k\tl\r\n",
            b"mn\r\n",
            b"get k",
            b"get ",
            b"get k\r",
            b"\r\n",
        ),
    ]
)
SAID = st.lists(LINES, max_size=5).map(b"".join)


def filled() -> FakeStore:
    store = FakeStore()
    store.apply([commands.set_("k", b"1", 0), commands.set_("l", b"22", 0), commands.set_("flags", b"3", 0, 7)])
    return store


@settings(max_examples=500, deadline=None)
@given(said=SAID)
def test_a_row_is_answered_as_byte_by_byte(said: bytes) -> None:
    stores = filled(), filled()
    whole, bytewise = (connect(store) for store in stores)
    assert whole.send(said) == b"".join([bytewise.send(said[at : at + 1]) for at in range(len(said))])
    assert (stores[0].hits, stores[0].misses) == (stores[1].hits, stores[1].misses)
    assert whole.protocol.requests == bytewise.protocol.requests


@settings(max_examples=500, deadline=None)
@given(said=st.lists(SAID, min_size=3, max_size=3))
def test_what_comes_together_is_answered_as_if_it_came_apart(said: list[bytes]) -> None:
    service = port(store := filled())
    clients = [Client(_connection(service.connect())) for _ in said]
    arrived: list[Arrival] = [
        (client.protocol, data, client.transport) for client, data in zip(clients, said, strict=True) if data
    ]
    for connection, data, _ in service.answer_many(arrived):
        connection.data_received(data)
    other = filled()
    apart = [connect(other) for _ in said]
    assert [client.replies() for client in clients] == [each.send(data) for each, data in zip(apart, said, strict=True)]
    assert (store.hits, store.misses, service.requests) == (
        *(other.hits, other.misses),
        sum(each.protocol.requests for each in apart),
    )


@pytest.mark.parametrize("said", [b"get k\r\n", b"get k l\r\n", b"get k\r\nget l\r\n"])
def test_a_node_that_may_not_be_read_says_so(said: bytes) -> None:
    store = filled()
    store.readable = False
    answers = connect(store).send(said)
    assert answers.startswith(b"SERVER_ERROR not ready") and answers.count(b"\r\n") == said.count(b"get ")


def _connection(protocol: object) -> Connection:
    assert isinstance(protocol, Connection)
    return protocol
