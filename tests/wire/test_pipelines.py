"""What one connection may count on whatever it sends: order, its own writes, and bounds. (Spoken in memcached's words.)"""

from __future__ import annotations

import itertools
import logging
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.memcached_client import VALUE_BYTES_MAX, connect

from cacheflow.machine.language import commands
from cacheflow.wire import connection as base
from cacheflow.wire.connection import REPLY_BYTES_MAX, REQUESTS_MAX
from cacheflow.wire.memcached.text import version_text


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.held = True
    return store


def test_a_read_sees_the_writes_before_it_and_none_behind_it(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"set a 0 0 1\r\n1\r\nget a\r\nincr a 5\r\nget a\r\nmg a v\r\nset a 0 0 1\r\n9\r\nget a\r\n")
    while store.waiting:
        assert store.release(1)
    one, six, nine = (b"VALUE a 0 1\r\n%d\r\nEND\r\n" % number for number in (1, 6, 9))
    assert client.replies() == b"STORED\r\n" + one + b"6\r\n" + six + b"VA 1\r\n6\r\nSTORED\r\n" + nine


def test_a_read_behind_a_write_sees_what_others_wrote_before_it(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"set a 0 0 1\r\n1\r\nget a b\r\n")
    store.apply([commands.set_("b", b"2", 0)])
    store.release()
    assert client.replies() == b"STORED\r\nVALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n2\r\nEND\r\n"


def test_the_writes_of_one_piece_of_input_are_one_proposal(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"set a 0 0 1\r\n1\r\nincr a 1\r\ntouch a 5\r\ndelete b\r\n")
    client.send(b"delete a\r\n")
    assert [len(proposal) for proposal in store.proposed] == [4, 1]
    store.release()
    assert client.replies() == b"STORED\r\n2\r\nTOUCHED\r\nNOT_FOUND\r\nDELETED\r\n"


def test_known_replies_wait_for_those_before_them(store: FakeStore) -> None:
    client = connect(store)
    assert client.send(b"set a 0 0 1\r\n1\r\nversion\r\nbogus\r\n") == b""
    store.release()
    assert client.replies() == b"STORED\r\nVERSION %b\r\nERROR\r\n" % version_text().encode()


def test_requests_under_way_are_bounded_and_all_are_answered(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"incr n 1\r\n" * (3 * REQUESTS_MAX))
    assert len(store.proposed[0]) == REQUESTS_MAX and not client.transport.reading
    store.apply([commands.set_("n", b"0", 0)])
    while store.waiting:
        store.release(1)
    assert client.replies() == b"".join(b"%d\r\n" % (number + 1) for number in range(3 * REQUESTS_MAX))
    assert client.transport.reading


def test_a_client_that_does_not_read_is_not_read_nor_answered_further() -> None:
    store = FakeStore()
    client = connect(store)
    value = b"v" * VALUE_BYTES_MAX
    client.send(b"set k 0 0 %d\r\n%b\r\n" % (len(value), value))
    client.transport.takes = False
    said = b"get k\r\n" * 5_000 + b"get " + b"k " * 5_000 + b"\r\n"
    written = len(client.send(said))
    assert written < 2 * REPLY_BYTES_MAX and not client.transport.reading
    client.transport.take_all()
    assert written + len(client.replies()) == 10_000 * len(b"VALUE k 0 1000\r\n%b\r\n" % value) + 5_001 * len(
        b"END\r\n"
    )
    assert client.transport.reading


def test_answers_to_a_client_that_does_not_read_are_not_made_when_they_come_late(store: FakeStore) -> None:
    store.apply([commands.set_("k", b"v" * 100_000, 0)])
    client = connect(store)
    client.send(b"incr n 1\r\n" + b"get k\r\n" * 500)
    client.transport.takes = False
    store.release()
    assert len(client.replies()) < 2 * REPLY_BYTES_MAX
    client.transport.take_all()
    assert len(client.replies()) > 47_000_000


def test_a_value_that_comes_in_small_pieces_costs_no_more_than_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    client = connect(store)
    looks: list[int] = []
    take = client.protocol.take

    def counted(data: bytes) -> int:
        looks.append(len(data))
        return take(data)

    monkeypatch.setattr(client.protocol, "take", counted)
    client.send(b"set k 0 0 1000\r\n")
    for _ in range(1000):
        client.send(b"x")
    assert client.send(b"\r\n") == b"STORED\r\n"
    assert len(looks) == 2


@pytest.mark.parametrize(
    "said",
    [
        b"set k 0 0 1073741824\r\n",
        b"ms k 1073741824\r\n",
        b"append k 0 0 2147483645 noreply\r\n",
    ],
)
def test_a_gigabyte_is_refused_and_thrown_away_as_it_comes(said: bytes) -> None:
    client = connect(FakeStore())
    client.send(said)
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    try:
        for _ in range(50):
            client.send(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000 and not client.closed


@pytest.mark.parametrize("said", [b"x", b"set ", b"get k ", b"mg ", b"\x81"])
def test_a_line_without_an_end_is_the_end_of_its_connection(said: bytes) -> None:
    client = connect(FakeStore())
    replies = b""
    for _ in range(3_000_000 // (100 * len(said))):
        replies += client.send(said * 100)
        if client.closed:
            break
    assert replies == b"CLIENT_ERROR line too long\r\n" and client.closed


def test_a_line_that_is_too_long_is_that_also_when_it_comes_whole() -> None:
    client = connect(FakeStore())
    assert client.send(b"delete " + b"k" * 3000 + b"\r\nmn\r\n") == b"CLIENT_ERROR line too long\r\n"
    assert client.closed


def test_a_request_that_stumbles_takes_only_its_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    first, second = connect(store), connect(store)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as context:
        context.setattr(store, "submit", broken)
        first.send(b"delete k\r\n")
    assert first.transport.aborted and "a bug" in caplog.text
    assert second.send(b"delete k\r\n") == b"NOT_FOUND\r\n"


def test_an_answer_that_stumbles_late_is_no_connection_that_hangs(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(store)
    client.send(b"delete k\r\nget k\r\n")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(store, "lookup", broken)
    with caplog.at_level(logging.ERROR, logger=base.logger.name):
        store.release()
    assert client.transport.aborted and "a bug" in caplog.text


def test_who_has_said_all_still_gets_the_answers(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"delete k\r\n")
    assert client.protocol.eof_received()
    assert not client.closed
    store.release()
    assert client.replies() == b"NOT_FOUND\r\n" and client.closed


def test_answers_to_a_client_that_has_gone_are_nothing(store: FakeStore) -> None:
    client = connect(store)
    client.send(b"delete k\r\nget k\r\nmg k N5\r\n")
    client.transport.close()
    client.protocol.connection_lost(None)
    store.release()
    assert client.replies() == b""


WORDS = st.sampled_from(
    [
        *(b"get", b"gets", b"gat", b"gats", b"set", b"add", b"cas", b"append", b"incr", b"decr", b"touch", b"delete"),
        *(
            b"mg",
            b"ms",
            b"md",
            b"ma",
            b"me",
            b"mn",
            b"stats",
            b"flush_all",
            b"verbosity",
            b"consistency",
            b"linearizable",
        ),
        *(
            b"k",
            b"n",
            b"0",
            b"1",
            b"5",
            b"-1",
            b"99999999999999999999",
            b"noreply",
            b"v",
            b"t",
            b"T5",
            b"N5",
            b"R5",
            b"I",
        ),
        *(b"x", b"b", b"YQ==", b"q", b"C1", b"MA", b"MD", b"J5", b"D5", b"Ox", b"\r\n", b"\n", b"\r\n\r\n", b"hello"),
    ]
)
NOISE = st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=60).map(b" ".join)


@settings(max_examples=300, deadline=None)
@given(noise=NOISE, cuts=st.lists(st.integers(0, 400), max_size=8), held=st.booleans())
def test_noise_is_answered_the_same_however_it_is_cut(noise: bytes, cuts: list[int], held: bool) -> None:
    whole, pieces = connect(FakeStore()), connect(store := FakeStore())
    store.held = held
    expected = whole.send(noise + b"\r\n")
    replies = b""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(noise)), len(noise)]
    for start, end in itertools.pairwise(edges):
        replies += pieces.send(noise[start:end])
        if start % 2 and store.waiting:
            store.release(1)
    replies += pieces.send(b"\r\n")
    while store.waiting:
        store.release(1)
    replies += pieces.replies()
    assert _without_figures(replies) == _without_figures(expected)
    assert not whole.transport.aborted and not pieces.transport.aborted
    assert whole.closed == pieces.closed


def _without_figures(replies: bytes) -> list[bytes]:
    """Without what the clock decides, or how often somebody looked."""
    return [line for line in replies.split(b"\r\n") if not line.startswith(b"STAT ")]
