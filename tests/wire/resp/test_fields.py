"""Hashes and sets over RESP: large ones, their bounds, what is proposed, and drawing at random."""

from __future__ import annotations

import gc
import math
import tracemalloc
from typing import Any

import hiredis
import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import VALUE_BYTES_MAX, connect, ignore, line, lines, pack, service

from cacheflow import values
from cacheflow.errors import NotReady
from cacheflow.machine.deciding.field_decisions import searched_bytes
from cacheflow.machine.language import commands as c
from cacheflow.machine.language import fields
from cacheflow.machine.language.fields import with_fields
from cacheflow.net.slices import Slices
from cacheflow.wire import connection
from cacheflow.wire.resp import field_replies
from cacheflow.wire.resp.commands import transaction
from cacheflow.wire.resp.connection import RespConnection

WRONG = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


def ask(client: Client, *words: str | bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(client.send(pack(*words)))
    told = reader.gets()
    return str(told) if isinstance(told, Exception) else told


@pytest.fixture
def large() -> tuple[Client, dict[bytes, bytes]]:
    """A client of a store with a hash ``h`` and a set ``s`` of 5,000 fields each, which take several slices to show."""
    pairs = {b"field:%d" % number: b"%d\xfe" % number for number in range(5000)}
    store = FakeStore()
    data, _ = with_fields(b"", [part for pair in pairs.items() for part in pair])
    members, _ = with_fields(b"", [part for name in pairs for part in (name, b"")])
    store.apply([c.set_("h", data, values.HASH), c.set_("s", members, values.SET)])
    return connect(store), pairs


def test_a_large_hash_is_shown_whole(large: tuple[Client, dict[bytes, bytes]]) -> None:
    client, pairs = large
    told = ask(client, "HGETALL", "h")
    assert list(zip(told[::2], told[1::2], strict=True)) == list(pairs.items())
    assert ask(client, "HKEYS", "h") == ask(client, "SMEMBERS", "s") == list(pairs)
    assert ask(client, "HVALS", "h") == list(pairs.values())
    names = [b"field:%d" % number for number in range(0, 9000, 10)]
    assert ask(client, "HMGET", "h", *names) == [pairs.get(name) for name in names]
    assert ask(client, "SMISMEMBER", "s", *names) == [int(name in pairs) for name in names]
    cursor, told = ask(client, "HSCAN", "h", "0", "MATCH", "*99*", "COUNT", "3")
    assert cursor == b"0" and dict(zip(told[::2], told[1::2], strict=True)) == {
        name: value for name, value in pairs.items() if b"99" in name
    }
    assert ask(client, "HSCAN", "h", "0", "NOVALUES") == ask(client, "SSCAN", "s", "0") == [b"0", list(pairs)]


def test_large_sets_are_combined(large: tuple[Client, dict[bytes, bytes]]) -> None:
    client, pairs = large
    assert ask(client, "SADD", "t", "field:7", "other") == 2
    assert {*ask(client, "SUNION", "s", "t", "none")} == {*pairs, b"other"}
    assert ask(client, "SINTER", "s", "t") == [b"field:7"]
    assert ask(client, "SINTERCARD", "2", "s", "t") == 1 and ask(client, "SINTERCARD", "1", "s") == len(pairs)
    assert {*ask(client, "SDIFF", "s", "t")} == {*pairs} - {b"field:7"}
    assert ask(client, "SINTERCARD", "2", "s", "t") == 1
    assert ask(client, "SINTERCARD", "2", "s", "s") == len(pairs)
    assert ask(client, "SINTERCARD", "2", "s", "s", "LIMIT", "7") == 7


def test_fields_are_drawn_from_all_of_them(large: tuple[Client, dict[bytes, bytes]]) -> None:
    client, pairs = large
    told = ask(client, "HRANDFIELD", "h", "700", "WITHVALUES")
    some = dict(zip(told[::2], told[1::2], strict=True))
    assert len(some) == 700 and some.items() <= pairs.items()
    assert {*ask(client, "SRANDMEMBER", "s", "9000")} == {*pairs}
    often = ask(client, "SRANDMEMBER", "s", "-10000")
    assert len(often) == 10_000 and 4000 < len({*often}) < 4700 and often != sorted(often, key=list(pairs).index)
    assert ask(client, "HRANDFIELD", "h") in pairs
    assert ask(client, "HRANDFIELD", "h", "-10001") == "ERR value is out of range"
    taken = ask(client, "SPOP", "s", "1000")
    assert len({*taken}) == 1000 and {*taken} < {*pairs} and ask(client, "SCARD", "s") == 4000
    assert ask(client, "SPOP", "s", "1001") == "ERR at most 1000 members are taken at once"
    assert ask(client, "SPOP", "s") not in taken and ask(client, "SCARD", "s") == 3999


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("HSET h f 1", c.set_fields("h", values.HASH, [b"f", b"1"], VALUE_BYTES_MAX)),
        ("HSETNX h f 1", c.set_fields("h", values.HASH, [b"f", b"1"], VALUE_BYTES_MAX, only_absent=True)),
        ("HDEL h f g", c.remove_fields("h", values.HASH, [b"f", b"g"])),
        ("HINCRBY h f 5", c.count_field("h", b"f", 5, VALUE_BYTES_MAX)),
        ("SADD s m n", c.set_fields("s", values.SET, [b"m", b"", b"n", b""], VALUE_BYTES_MAX)),
        ("SREM s m", c.remove_fields("s", values.SET, [b"m"])),
    ],
)
def test_a_change_is_one_command_that_nobody_else_can_make_start_again(said: str, command: c.Command) -> None:
    store = FakeStore()
    connect(store).send(line(said))
    assert store.proposed == [[command]]


@pytest.mark.parametrize("words", [("HSET", "h", "f"), ("SADD", "h"), ("HSETNX", "h", "f")])
def test_a_hash_has_at_most_what_a_value_may_have(words: tuple[str, ...]) -> None:
    client = connect()
    value = b"x" * VALUE_BYTES_MAX
    assert ask(client, *words, value) == f"OOM a hash or set has at most {VALUE_BYTES_MAX} bytes"
    assert ask(client, "EXISTS", "h") == 0
    # The marks of a field take four bytes.
    assert ask(client, *words, value[5:]) == 1


@pytest.mark.parametrize("name", ["HSET", "HMGET", "HDEL", "SADD", "SREM", "SMISMEMBER"])
def test_a_request_has_at_most_so_many_fields(name: str) -> None:
    client = connect()
    each = 2 if name == "HSET" else 1
    assert b"has at most" not in client.send(pack(name, "k", *["f"] * (1000 * each)))
    assert client.send(pack(name, "k", *["f"] * (1001 * each))) == (
        f"-ERR a request of {name} has at most 1000 fields\r\n".encode()
    )


def test_an_answer_that_names_a_large_value_often_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_replies, "ANSWER_BYTES_MAX", 10_000)
    client = connect()
    assert ask(client, "HSET", "h", "f", b"x" * 990) == 1
    told = "ERR the answer is larger than 10000 bytes"
    for name, member in (("HMGET", "h"), ("HRANDFIELD", "h")):
        assert len(ask(client, name, member, *(["f"] * 9 if name == "HMGET" else ["-9"]))) == 9
        assert ask(client, name, member, *(["f"] * 11 if name == "HMGET" else ["-11"])) == told


def test_gets_in_a_row_tell_the_wrong_type_where_it_is() -> None:
    client = connect()
    client.send(lines("SET t 1\nHSET h f 1\nSADD s m"))
    assert client.send(line("GET t") + line("GET h") + line("GET t") + line("GET s")) == (
        b"$1\r\n1\r\n" + WRONG + b"$1\r\n1\r\n" + WRONG
    )
    client.send(pack("SET", "long", b"x" * 2000))
    row = line("GET long") + line("GET h")
    assert client.send(row) == b"$2000\r\n%b\r\n" % (b"x" * 2000) + WRONG
    assert client.send(line("READWRITE") + line("GET h")) == b"+OK\r\n" + WRONG


def test_a_move_to_a_full_set_takes_nothing_away() -> None:
    client = connect()
    ask(client, "SADD", "full", b"x" * (VALUE_BYTES_MAX - 10))
    ask(client, "SADD", "s", "a member that is long")
    assert ask(client, "SMOVE", "s", "full", "a member that is long").startswith("OOM")
    assert ask(client, "SCARD", "s") == 1


@pytest.mark.parametrize("fields_each", [1, 2, 20])
def test_a_pipeline_on_a_large_hash_goes_into_several_entries(fields_each: int) -> None:
    store = FakeStore()
    data, _ = with_fields(b"", [part for number in range(9000) for part in (b"%d" % number, bytes(80))])
    store.apply([c.set_("h", data, values.HASH)])
    store.held = True
    client = connect(store)
    words = [part for number in range(fields_each) for part in (b"%d" % number, b"1")]
    client.send(pack("HSET", "h", *words) * 200)
    told = b""
    entries = 0
    while store.waiting:
        [proposed] = store.proposed[-1:]
        searched = [searched_bytes(store.entry("h"), list(command)) for command in proposed]
        assert sum(searched) < 5 * 1024 * 1024 or len(searched) == 1
        entries += 1
        store.release()
        told += client.replies()
    assert told == b":0\r\n" * 200 and entries > 2
    client.send(pack("HSET", "small", *words) * 20)
    assert len(store.proposed[-1]) == 20


def test_only_what_is_under_way_counts_as_growth_of_a_hash_also_if_something_always_is() -> None:
    store = FakeStore()
    store.held = True
    client = RespConnection(service(store), 1, ignore)
    said = Client(client)
    said.send(pack("HSET", "h", "f", bytes(1000)) * 2)
    for number in range(200):
        # The oldest of two is answered, so that there is never none.
        said.send(pack("HSET", "h", "f", bytes(1000)) + pack("HSET", f"h{number}", "f", bytes(1000)))
        store.release(1)
    assert max(store.works) <= 2
    assert len(client._growth) <= 3
    store.failure = NotReady("this node is stopped")
    store.release()
    assert not client._growth


@pytest.mark.parametrize("behind", ["", "GET s"], ids=["at once", "behind a read"])
def test_a_pipeline_on_a_large_hash_that_is_refused_at_once_is_answered_in_order(behind: str) -> None:
    store = FakeStore()
    store.apply([c.set_("h", with_fields(b"", [b"f", bytes(195_000)])[0], values.HASH)])
    store.failure = NotReady("this node is stopped")
    client = connect(store)
    store.held = bool(behind)
    first = line("SET s 1") + line(behind) if behind else b""
    told = client.send(
        first + b"".join([pack("HINCRBY", "h", "n", "1") + line(f"ECHO {number}") for number in range(50)])
    )
    store.held = False
    store.release()
    told += client.replies()
    refusal = b"-LOADING this node is stopped\r\n"
    begin = refusal + b"$-1\r\n" if behind else b""
    assert told == begin + b"".join([refusal + b"$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(50)])


@pytest.mark.parametrize("name", ["RENAME", "RENAMENX"])
def test_what_finds_no_place_under_its_new_key_stays_under_the_old_one(name: str) -> None:
    store = FakeStore(max_bytes=1024)
    client = connect(store)
    ask(client, "SET", "a", "v" * 900)
    assert str(ask(client, name, "a", "b" * 200)).startswith("OOM")
    assert store.entry("a") is not None


def test_a_msetnx_of_which_one_value_finds_no_place_writes_none() -> None:
    store = FakeStore(max_bytes=1024)
    assert str(ask(connect(store), "MSETNX", "p", "1", "q", "2" * 1000)).startswith("OOM")
    assert store.entry("p") is None


@pytest.mark.parametrize("words", ["HLEN h", "HGET h none", "HEXISTS h none", "HMGET h none", "SCARD s"])
@pytest.mark.parametrize("before", ["", "SET other 1"])
def test_a_transaction_searches_large_hashes_in_slices(
    monkeypatch: pytest.MonkeyPatch, words: str, before: str
) -> None:
    now_s = 1.0
    made: list[int] = []
    waiting: list[Any] = []

    def slow(search: Any) -> Any:
        def searched(*arguments: Any) -> Any:
            nonlocal now_s
            now_s += 0.001
            made[-1] += 1
            return search(*arguments)

        return searched

    store = FakeStore()
    data, _ = with_fields(b"", [part for number in range(5000) for part in (b"%d" % number, b"")])
    store.apply([c.set_("h", data, values.HASH), c.set_("s", data, values.SET)])
    for name in ("count", "value_in", "has"):
        monkeypatch.setattr(fields, name, slow(getattr(fields, name)))
    slices = Slices(lambda: now_s, waiting.append, lambda: math.inf)
    client = Client(service(store, slices=slices).connection(ignore))
    requests = [line("MULTI"), *[line(before)] * bool(before), *[line(words)] * 100, line("EXEC")]
    reader = hiredis.Reader()
    for request in requests:
        made.append(0)
        reader.feed(client.send(request))
        while waiting:
            made.append(0)
            waiting.pop(0)()
    reader.feed(client.replies())
    told = [reader.gets() for _ in requests]
    assert len(told[-1]) == len(requests) - 2
    assert sum(made) >= 100 and max(made) <= 10


@pytest.mark.parametrize("words", ["COPY h h{}", "SUNIONSTORE s{} s", "SINTERSTORE s{} s none"])
def test_a_transaction_copies_only_so_much(words: str) -> None:
    store = FakeStore()
    data, _ = with_fields(b"", [part for number in range(9000) for part in (b"%d" % number, b"")])
    store.apply([c.set_("h", data * 12, values.HASH), c.set_("s", data, values.SET)])
    client = connect(store)
    for count, is_too_much in ((2, False), (50, True)):
        transaction = line("MULTI") + b"".join(line(words.format(number)) for number in range(count)) + line("EXEC")
        proposed = len(store.proposed)
        reader = hiredis.Reader()
        reader.feed(client.send(transaction))
        told = [reader.gets() for _ in range(count + 2)][-1]
        if is_too_much:
            assert "too often" in str(told) and len(store.proposed) == proposed
        else:
            assert len(told) == count and not any(isinstance(each, Exception) for each in told)


def test_the_replies_of_a_transaction_are_bounded_where_one_large_hash_is_searched_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transaction, "ANSWER_BYTES_MAX", 100_000)
    client = connect()
    ask(client, "HSET", "h", "f", "x" * 30_000)
    reader = hiredis.Reader()
    reader.feed(client.send(line("MULTI") + line("HGET h f") * 5 + line("HLEN h") * 9 + line("EXEC")))
    told = [reader.gets() for _ in range(16)][-1]
    assert told[:3] == [b"x" * 30_000] * 3 and "are larger than" in str(told[3]) and told[5:] == [1] * 9


@pytest.mark.parametrize(
    "words", ["SUNION s s", "SDIFF s none", "SSCAN s 0", "SRANDMEMBER s 100000", "HRANDFIELD h 90000"]
)
def test_a_reply_that_nobody_takes_keeps_about_its_bytes(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(connection, "REPLY_BYTES_MAX", 16 * 1024)
    store = FakeStore()
    data, _ = with_fields(b"", [part for number in range(50_000) for part in (b"%x" % number, b"")])
    store.apply([c.set_("s", data, values.SET), c.set_("h", data, values.HASH)])
    client = connect(store)
    size = len(client.send(line(words)))
    client.transport.takes = False
    gc.collect()
    tracemalloc.start()
    try:
        told = len(client.send(line(words)))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 1.5 * size + 100_000
    client.transport.take_all()
    assert 0 < told < 50_000 and told + len(client.replies()) == size
