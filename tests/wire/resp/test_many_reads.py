"""Many keys that are read by one request, or by one transaction: at one moment, while what is said of them is made in slices."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, pack, service
from wire.turns import Turns

from cacheflow.machine.language import commands
from cacheflow.wire.resp.commands import strings, transaction

MANY = 2000
NAMES = [f"k{number}" for number in range(MANY)]
ALL = b"".join([b"$1\r\n1\r\n" for _ in NAMES])


def filled() -> FakeStore:
    store = FakeStore()
    store.apply([commands.set_(name, b"1", 0) for name in NAMES])
    return store


@pytest.mark.parametrize("in_multi", [False, True], ids=["MGET", "EXEC"])
def test_what_is_written_while_the_reply_is_made_is_not_in_it(in_multi: bool) -> None:
    store, turns = filled(), Turns()
    client = Client(service(store, slices=turns.slices).connection(ignore))
    if in_multi:
        client.send(line("MULTI") + b"".join([pack("GET", name) for name in NAMES]))
        turns.until_idle()
        client.replies()
    said: list[bytes] = []
    turns.turn(lambda: said.append(client.send(line("EXEC") if in_multi else pack("MGET", *NAMES))))
    assert turns._waiting, "the reply is not whole yet"
    store.apply([commands.set_(name, b"2", 0) for name in NAMES])
    turns.until_idle()
    assert said[0] + client.replies() == b"*%d\r\n" % MANY + ALL
    # What the client asks behind it is answered by what is there then.
    assert client.send(line("GET k0")) == b"$1\r\n2\r\n"


def test_the_reads_of_a_transaction_count_as_uses_and_their_errors_stay_theirs() -> None:
    store = filled()
    client = connect(store)
    client.send(line("MULTI") + pack("GET", b"\xff") + b"".join([pack("STRLEN", name) for name in NAMES[:100]]))
    found = client.send(line("EXEC"))
    assert found.startswith(b"*101\r\n-ERR invalid key") and found.endswith(b":1\r\n" * 100)
    assert store.noted == NAMES[:100]
    # In another database they are other keys.
    found = client.send(line("SELECT 1") + line("MULTI") + pack("GET", "k1") * 100 + line("EXEC"))
    assert found.endswith(b"*100\r\n" + b"$-1\r\n" * 100)


def test_a_transactions_reads_are_no_longer_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "ANSWER_BYTES_MAX", 70 * 7)
    client = connect(filled())
    said = client.send(line("MULTI") + b"".join([pack("GET", name) for name in NAMES[:80]]) + line("EXEC"))
    assert said.count(b"$1\r\n1\r\n") == 70


def test_a_node_that_may_not_be_read_says_so_once() -> None:
    store = filled()
    client = connect(store)
    client.send(line("MULTI") + b"".join([pack("GET", name) for name in NAMES[:80]]))
    store.readable = False
    assert client.send(line("EXEC")).startswith(b"-LOADING")


def test_a_reply_of_several_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_WHOLE_ENTRIES", 3)
    client = connect(filled())
    said = client.send(line("HSET h f 1") + line("MGET k0 none k1 h k2 k3 none"))
    assert said == b":1\r\n*7\r\n$1\r\n1\r\n$-1\r\n$1\r\n1\r\n$-1\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n"


@pytest.mark.parametrize("wrong", [b"", b"a\nb", b"\xff", b"a\x00", b"x" * 1025, "ü".encode() * 513])
def test_a_key_that_is_none_is_found_among_many(wrong: bytes) -> None:
    client = connect(filled())
    said = client.send(pack("MGET", *NAMES[:50], wrong, *NAMES[:50]))
    assert said.startswith(b"-ERR invalid key")


@pytest.mark.parametrize("odd", ["ü", "two words", "x" * 1024, "\u00a0"])
def test_any_key_is_found_among_many(odd: str) -> None:
    store = filled()
    store.apply([commands.set_(odd, b"2", 0)])
    client = connect(store)
    said = client.send(pack("MGET", *NAMES[:9], odd))
    assert said == b"*10\r\n" + b"$1\r\n1\r\n" * 9 + b"$1\r\n2\r\n"
