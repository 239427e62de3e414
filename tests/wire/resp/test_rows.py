"""Rows read by the column: exactly those that the parser would take for the same requests, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import VALUE_BYTES_MAX, connect, ignore, pack, service

from cacheflow import values
from cacheflow.errors import NoLeader
from cacheflow.machine.language import commands
from cacheflow.wire.arrivals import Arrival
from cacheflow.wire.connection import REQUESTS_MAX
from cacheflow.wire.resp.gets import MANY_BYTES_MAX, answer_gets
from cacheflow.wire.resp.parser import RequestParser
from cacheflow.wire.resp.rows import keys_of_gets, lone_set, pairs_of_sets

# Such that pieces of requests come to stand inside others.
WORDS = st.one_of(
    st.sampled_from([b"k", b"kk", b"\r", b"\n", b"\r\n", b"*2", b"$3", b"GET", b"1\r\n", b"k" * 255, b"k" * 256]),
    st.binary(max_size=4),
    st.text(max_size=4).map(str.encode),
)
PIECES = st.one_of(
    WORDS.map(lambda key: pack("GET", key)),
    st.tuples(WORDS, WORDS).map(lambda pair: pack("SET", *pair)),
    st.sampled_from(
        [
            *(
                b"*2\r\n$3\r\nGET\r\n$",
                b"*3\r\n$3\r\nSET\r\n$",
                b"*2\r\n$3\r\nGET\r\n$1\r\n",
                b"$1\r\n",
                b"\r\n",
                b"1\r\nb\r\n",
            ),
            *(
                b"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
                b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n",
                b"*1\r\n$4\r\nPING\r\n",
                b"0",
                b"k",
            ),
        ]
    ),
)
ROWS = st.one_of(st.lists(PIECES, max_size=6), st.lists(WORDS.map(lambda key: pack("GET", key)), max_size=6)).map(
    b"".join
)


def parsed(data: bytes) -> list[list[bytes]] | None:
    """The requests, when ``data`` is nothing but whole ones."""
    parser = RequestParser(10_000_000, trusted=True)
    requests = parser.feed(data)
    return None if parser.fault or parser.holds else requests


@settings(max_examples=1000, deadline=None)
@given(data=ROWS)
def test_what_is_taken_for_a_row_is_one(data: bytes) -> None:
    keys = keys_of_gets(data)
    if keys is not None:
        assert parsed(data) == [[b"GET", key.encode()] for key in keys]
        assert pack_all([("GET", key.encode()) for key in keys]) == data
    pairs = pairs_of_sets(data)
    if pairs is not None:
        requests = [[b"SET", key.encode(), value] for key, value in zip(*pairs, strict=True)]
        assert parsed(data) == requests
        assert b"".join([pack(*request) for request in requests]) == data
    lone = lone_set(data)
    if lone is not None:
        assert parsed(data) == [[b"SET", lone[0].encode(), lone[1]]]


def pack_all(requests: list[tuple[str, bytes]]) -> bytes:
    return b"".join([pack(*request) for request in requests])


@pytest.mark.parametrize("keys", [["a"], ["a", "b"], ["a", "bb", "c" * 255], ["x" * 12] * 300])
def test_rows_are_recognized(keys: list[str]) -> None:
    assert keys_of_gets(b"".join([pack("GET", key) for key in keys])) == keys
    datas = [b"1" * at for at in range(len(keys))]
    row = b"".join([pack("SET", key, data) for key, data in zip(keys, datas, strict=True)])
    assert pairs_of_sets(row) == (keys, datas)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        # An offset by which lengths and keys change places.
        b"*2\r\n$3\r\nGET\r\n$1\r\n*2\r\n$3\r\nGET\r\n$1\r\n1\r\nb\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nkX\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\rX",
        b"*2\r\n$3\r\nGET\r\n$+1\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r",
        pack("GET", "a\x01"),
        pack("GET", ""),
        pack("GET", "ä"),
        pack("SET", "k", "v", "NX"),
        pack("SET", "k", "v") + pack("GET", "k"),
    ],
)
def test_what_is_no_row_is_none(data: bytes) -> None:
    assert keys_of_gets(data) is None and pairs_of_sets(data) is None and lone_set(data) is None


@settings(max_examples=200, deadline=None)
@given(data=ROWS, cut=st.integers(0, 200))
def test_rows_are_answered_the_same_however_they_are_cut(data: bytes, cut: int) -> None:
    whole, pieces, bytewise = connect(FakeStore()), connect(FakeStore()), connect(FakeStore())
    answered = whole.send(data)
    assert pieces.send(data[:cut]) + pieces.send(data[cut:]) == answered
    assert b"".join([bytewise.send(data[at : at + 1]) for at in range(len(data))]) == answered
    assert whole.closed == pieces.closed == bytewise.closed


def test_a_row_of_sets_is_one_proposal_and_each_is_answered() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    row = pack("SET", "a", "1") + pack("SET", "b", b"\xff") + pack("SET", "c", "")
    last = pack("SET", "d", "x\r\ny")
    assert client.send(row + last[:-3]) == b"" and [len(each) for each in store.proposed] == [3]
    assert client.send(last[-3:] + pack("GET", "b")) == b"" and [len(each) for each in store.proposed] == [3, 1]
    while store.release():
        pass
    assert client.replies() == b"+OK\r\n" * 4 + b"$1\r\n\xff\r\n"
    entries = [store.entry(key) for key in "abcd"]
    assert [entry and entry[:2] for entry in entries] == [
        *((b"1", values.TEXT), (b"\xff", values.BYTES), (b"", values.TEXT), (b"x\r\ny", values.TEXT))
    ]


def test_a_row_of_sets_that_is_not_committed_fails_for_each() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(pack("SET", "a", "1") * 3 + pack("GET", "a"))
    client.send(pack("SET", "a", "1"))
    store.failure = NoLeader("no leader")
    while store.release():
        pass
    assert client.replies() == b"-CLUSTERDOWN no leader\r\n" * 3 + b"$-1\r\n" + b"-CLUSTERDOWN no leader\r\n"


def test_what_is_too_large_for_the_cache_fails_alone_in_its_row() -> None:
    client = connect(FakeStore(max_bytes=1024))
    answers = client.send(pack("SET", "a", "1") + pack("SET", "b", "x" * 2000) + pack("SET", "c", "1")).split(b"\r\n")
    assert answers[0] == answers[2] == b"+OK" and answers[1].startswith(b"-") and answers[3:] == [b""]


def test_a_row_of_sets_counts_as_what_it_is() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(pack("SET", "a", "1") * 1000)
    client.send(pack("SET", "a", "1") * 1000)
    assert sum(map(len, store.proposed)) == REQUESTS_MAX
    reading = [client.transport.reading]
    while store.release():
        reading.append(client.transport.reading)
    assert client.replies() == b"+OK\r\n" * 2000 and not reading[0] and reading[-1]
    client.send(pack("SET", "a", "1") * (REQUESTS_MAX + 1))
    assert len(store.proposed[-1]) == REQUESTS_MAX


@pytest.mark.parametrize("length", [VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1])
def test_a_value_in_a_row_may_be_as_long_as_any(length: int) -> None:
    client = connect(FakeStore())
    answers = [client.send(pack("SET", "k", b"x" * length) * count) for count in (1, 2)]
    ok = length <= VALUE_BYTES_MAX
    assert answers == [b"+OK\r\n", b"+OK\r\n" * 2] if ok else all(each.startswith(b"-ERR") for each in answers)


class Round:
    """Several clients of one port, and what comes from all of them at once."""

    def __init__(self, store: FakeStore, count: int) -> None:
        self.store = store
        self.service = service(store)
        self.clients = [Client(self.service.connection(ignore)) for _ in range(count)]

    def say(self, *said: bytes) -> list[bytes]:
        """What each is answered; who is left over gets its bytes as from the loop."""
        arrived: list[Arrival] = [
            (client.protocol, data, client.transport) for client, data in zip(self.clients, said, strict=True)
        ]
        for connection, data, _ in answer_gets(self.store, self.service.times, arrived):
            connection.data_received(data)
        return [client.replies() for client in self.clients]


@settings(max_examples=200, deadline=None)
@given(said=st.lists(ROWS, min_size=3, max_size=3))
@example(said=[b"", pack("SET", "k", "k"), pack("GET", "k")])
def test_what_comes_together_is_answered_as_if_it_came_apart(said: list[bytes]) -> None:
    store, other = FakeStore(), FakeStore()
    for each in (store, other):
        each.apply([commands.set_("k", b"1", 0), commands.set_("kk", b"22", 0)])
        # A write takes effect later than the round that brought it: what others ask in that round does not see it.
        each.held = True
    together, apart = Round(store, 3), Round(other, 3)
    wanted = []
    for client, data in zip(apart.clients, said, strict=True):
        client.protocol.data_received(data)
        wanted.append(client.replies())
    assert together.say(*said) == wanted
    while store.release():
        assert other.release()
    assert [client.replies() for client in together.clients] == [client.replies() for client in apart.clients]
    assert (store.hits, store.misses) == (other.hits, other.misses)
    requests = [[client.protocol.requests for client in each.clients] for each in (together, apart)]
    assert requests[0] == requests[1]


def test_many_are_answered_at_once_and_each_in_its_own_protocol() -> None:
    store = FakeStore()
    store.apply([commands.set_("k", b"1", 0), commands.set_("l", b"22", 0)])
    here = Round(store, 4)
    here.clients[1].send(pack("HELLO", "3"))
    get = {key: pack("GET", key) for key in ("k", "l", "none")}
    assert here.say(get["k"], get["none"], get["none"], get["l"]) == [
        *(b"$1\r\n1\r\n", b"_\r\n", b"$-1\r\n", b"$2\r\n22\r\n")
    ]
    assert here.say(get["k"] + get["l"], pack("PING"), get["l"] * 3, get["none"] + get["k"]) == [
        *(b"$1\r\n1\r\n$2\r\n22\r\n", b"+PONG\r\n", b"$2\r\n22\r\n" * 3, b"$-1\r\n$1\r\n1\r\n")
    ]


def test_who_has_something_under_way_is_not_answered_with_the_others() -> None:
    store = FakeStore()
    here = Round(store, 3)
    store.held = True
    here.clients[0].send(pack("SET", "k", "1"))
    here.clients[1].send(pack("GET", "k")[:-4])
    here.clients[2].send(pack("READWRITE"))
    get = pack("GET", "k")
    assert here.say(get, get[-4:], get) == [b"", b"$-1\r\n", b""]
    while store.release():
        pass
    assert [client.replies() for client in here.clients] == [b"+OK\r\n$1\r\n1\r\n", b"", b"$1\r\n1\r\n"]


def test_a_node_that_may_not_be_read_says_so_to_each() -> None:
    store = FakeStore()
    here = Round(store, 2)
    store.readable = False
    assert all(answer.startswith(b"-LOADING ") for answer in here.say(pack("GET", "a"), pack("GET", "b") * 2))


def test_large_values_are_not_in_memory_for_all_at_once() -> None:
    store = FakeStore()
    store.apply([commands.set_("large", b"x" * 700_000, 0)])
    here = Round(store, 3)
    arrived: list[Arrival] = [(each.protocol, pack("GET", "large"), each.transport) for each in here.clients]
    assert answer_gets(store, here.service.times, arrived) == arrived
    count = MANY_BYTES_MAX // 50
    arrived = [(each.protocol, pack("GET", "k") * count, each.transport) for each in here.clients]
    assert answer_gets(store, here.service.times, arrived) == arrived


def test_a_length_of_too_many_digits_is_left_to_the_parser() -> None:
    assert lone_set(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$" + b"9" * 5000 + b"\r\nx\r\n") is None
