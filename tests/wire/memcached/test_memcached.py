"""memcached's text commands: request bytes and reply bytes, as memcached 1.6 answers them."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.memcached_client import VALUE_BYTES_MAX, connect, talk

from cacheflow import values
from cacheflow.errors import NotCommitted, OutcomeUnknown
from cacheflow.machine.deciding import batches
from cacheflow.machine.language import commands
from cacheflow.wire.memcached.text import version_text

MAX = b"x" * VALUE_BYTES_MAX
CONVERSATIONS: dict[str, list[tuple[bytes, bytes]]] = {
    "set and get": [
        (b"get k\r\n", b"END\r\n"),
        (b"set k 0 0 5\r\nhello\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 0 5\r\nhello\r\nEND\r\n"),
        (b"set k 4294967295 0 0\r\n\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 4294967295 0\r\n\r\nEND\r\n"),
        (b"gets k\r\n", b"VALUE k 4294967295 0 2\r\n\r\nEND\r\n"),
    ],
    "several keys": [
        (b"set a 1 0 1\r\nA\r\n", b"STORED\r\n"),
        (b"set c 2 0 1\r\nC\r\n", b"STORED\r\n"),
        (b"get a b  c a\r\n", b"VALUE a 1 1\r\nA\r\nVALUE c 2 1\r\nC\r\nVALUE a 1 1\r\nA\r\nEND\r\n"),
        (b"gets a c\r\n", b"VALUE a 1 1 1\r\nA\r\nVALUE c 2 1 2\r\nC\r\nEND\r\n"),
        (b"get b d\r\n", b"END\r\n"),
    ],
    "the ends of lines may be a bare newline, but not those of values": [
        (b"set k 0 0 1\n1\r\n", b"STORED\r\n"),
        (b"get k\n", b"VALUE k 0 1\r\n1\r\nEND\r\n"),
        (b"set k 0 0 1\r\n2\n\n", b"CLIENT_ERROR bad data chunk\r\n"),
        (b"get k\r\n", b"VALUE k 0 1\r\n1\r\nEND\r\n"),
    ],
    "values hold any byte": [
        (b"set k 0 0 6\r\na\r\nb\x00\xff\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 0 6\r\na\r\nb\x00\xff\r\nEND\r\n"),
    ],
    "add and replace": [
        (b"replace k 0 0 1\r\n1\r\n", b"NOT_STORED\r\n"),
        (b"add k 0 0 1\r\n2\r\n", b"STORED\r\n"),
        (b"add k 0 0 1\r\n3\r\n", b"NOT_STORED\r\n"),
        (b"replace k 0 0 1\r\n4\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 0 1\r\n4\r\nEND\r\n"),
    ],
    "append and prepend keep flags and ignore theirs": [
        (b"append k 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
        (b"prepend k 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
        (b"set k 7 0 1\r\nb\r\n", b"STORED\r\n"),
        (b"append k 9 -1 1\r\nc\r\n", b"STORED\r\n"),
        (b"prepend k 9 -1 1\r\na\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 7 3\r\nabc\r\nEND\r\n"),
    ],
    "cas": [
        (b"cas k 0 0 1 1\r\nx\r\n", b"NOT_FOUND\r\n"),
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"cas k 0 0 1 9\r\n2\r\n", b"EXISTS\r\n"),
        (b"cas k 0 0 1 0\r\n2\r\n", b"EXISTS\r\n"),
        (b"cas k 0 0 1 18446744073709551615\r\n2\r\n", b"EXISTS\r\n"),
        (b"cas k 5 0 1 1\r\n2\r\n", b"STORED\r\n"),
        (b"gets k\r\n", b"VALUE k 5 1 2\r\n2\r\nEND\r\n"),
        (b"cas k 0 0 1\r\n3\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"cas k 0 0 1 x\r\n3\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"cas k 0 0 1 18446744073709551616\r\n3\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    ],
    "delete": [
        (b"delete k\r\n", b"NOT_FOUND\r\n"),
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"delete k 0\r\n", b"DELETED\r\n"),
        (b"get k\r\n", b"END\r\n"),
        (b"delete\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    ],
    "incr and decr": [
        (b"incr n 1\r\n", b"NOT_FOUND\r\n"),
        (b"set n 3 0 19\r\n9223372036854775807\r\n", b"STORED\r\n"),
        (b"incr n 1\r\n", b"9223372036854775808\r\n"),
        (b"decr n 9223372036854775808\r\n", b"0\r\n"),
        (b"incr n 18446744073709551615\r\n", b"18446744073709551615\r\n"),
        (b"incr n 2\r\n", b"1\r\n"),
        (b"decr n 18446744073709551615\r\n", b"0\r\n"),
        (b"get n\r\n", b"VALUE n 3 1\r\n0\r\nEND\r\n"),
        (b"incr n 18446744073709551616\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n"),
        (b"incr n -1\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n"),
        (b"incr n\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set t 0 0 2\r\nhi\r\n", b"STORED\r\n"),
        (b"incr t 1\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    ],
    "touch and gat": [
        (b"touch k 10\r\n", b"NOT_FOUND\r\n"),
        (b"set k 2 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"touch k 10\r\n", b"TOUCHED\r\n"),
        (b"mg k t\r\n", b"HD t10\r\n"),
        (b"gat 20 nil k\r\n", b"VALUE k 2 1\r\n1\r\nEND\r\n"),
        (b"mg k t\r\n", b"HD t20\r\n"),
        (b"gats 0 k\r\n", b"VALUE k 2 1 1\r\n1\r\nEND\r\n"),
        (b"mg k t\r\n", b"HD t-1\r\n"),
        (b"touch k x\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"),
        (b"gat x k\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"),
        (b"gat 10\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"touch k\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    ],
    "what is over at once": [
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"set k 0 -1 1\r\n2\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"END\r\n"),
        (b"add k 0 -1 1\r\n1\r\n", b"STORED\r\n"),
        (b"replace k 0 -1 1\r\n1\r\n", b"NOT_STORED\r\n"),
        (b"cas k 0 -1 1 1\r\n1\r\n", b"NOT_FOUND\r\n"),
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"add k 0 -1 1\r\n2\r\n", b"NOT_STORED\r\n"),
        (b"cas k 0 -1 1 1\r\n2\r\n", b"EXISTS\r\n"),
        (b"get k\r\n", b"VALUE k 0 1\r\n1\r\nEND\r\n"),
        (b"gat -1 k\r\n", b"VALUE k 0 1\r\n1\r\nEND\r\n"),
        (b"get k\r\n", b"END\r\n"),
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"touch k -5\r\n", b"TOUCHED\r\n"),
        (b"touch k -5\r\n", b"NOT_FOUND\r\n"),
    ],
    "flush_all": [
        (b"set k 0 0 1\r\n1\r\n", b"STORED\r\n"),
        (b"flush_all 10\r\n", b"CLIENT_ERROR flush_all with a delay is not served\r\n"),
        (b"flush_all x\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"),
        (b"get k\r\n", b"VALUE k 0 1\r\n1\r\nEND\r\n"),
        (b"flush_all\r\n", b"OK\r\n"),
        (b"get k\r\n", b"END\r\n"),
        (b"flush_all 0\r\n", b"OK\r\n"),
    ],
    "the rest": [
        (b"version\r\n", b"VERSION %b\r\n" % version_text().encode()),
        (b"verbosity 1\r\n", b"OK\r\n"),
        (b"verbosity\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"bogus command\r\n", b"ERROR\r\n"),
        (b"GET k\r\n", b"ERROR\r\n"),
        (b"slabs reassign 1 2\r\n", b"ERROR\r\n"),
        (b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"get\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"get \r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"stats nonsense\r\n", b"ERROR\r\n"),
    ],
    "keys that are none": [
        (b"get %b\r\n" % (b"k" * 250), b"END\r\n"),
        (b"get %b\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        (b"get k %b\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        (b"get a\tb\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"get \xff\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set %b 0 0 1\r\n1\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        (b"set a\x00 0 0 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"delete %b\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        (b"incr %b 1\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        (b"touch %b 1\r\n" % (b"k" * 251), b"CLIENT_ERROR bad command line format\r\n"),
        ("set ключ 0 0 1\r\n1\r\n".encode(), b"STORED\r\n"),
        ("get ключ\r\n".encode(), "VALUE ключ 0 1\r\n1\r\nEND\r\n".encode()),
        # NEXT LINE, a control character of Latin-1, in UTF-8.
        (b"get a\xc2\x85\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    ],
    "command lines that are none": [
        (b"set k 0 0\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 0 x\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 0 -1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 0 2147483647\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k -1 0 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 4294967296 0 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 1.5 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 2147483648 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 1_0 1\r\n1\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"get k\r\n", b"END\r\n"),
    ],
    "a value of another length than was said": [
        (b"set k 0 0 1\r\nabc\r\n", b"CLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line format\r\n"),
        (b"set k 0 0 1\r\n12345\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        (b"get k\r\n", b"END\r\n"),
    ],
    "values over the limit, which replace what they should have replaced by nothing": [
        (b"set k 0 0 1000\r\n%b\r\n" % MAX, b"STORED\r\n"),
        (b"add k 0 0 1001\r\n%bx\r\n" % MAX, b"SERVER_ERROR object too large for cache\r\n"),
        (b"get k\r\n", b"VALUE k 0 1000\r\n%b\r\nEND\r\n" % MAX),
        (b"set k 0 0 1001\r\n%bx\r\n" % MAX, b"SERVER_ERROR object too large for cache\r\n"),
        (b"get k\r\n", b"END\r\n"),
    ],
    "noreply": [
        (b"set k 0 0 1 noreply\r\n1\r\n", b""),
        (b"add k 0 0 1 noreply\r\n2\r\n", b""),
        (b"replace k 0 0 1 noreply\r\n3\r\n", b""),
        (b"append k 0 0 1 noreply\r\n4\r\n", b""),
        (b"prepend k 0 0 1 noreply\r\n5\r\n", b""),
        (b"gets k\r\n", b"VALUE k 0 3 4\r\n534\r\nEND\r\n"),
        (b"cas k 0 0 1 4 noreply\r\n6\r\n", b""),
        (b"incr k 3 noreply\r\n", b""),
        (b"decr k 1 noreply\r\n", b""),
        (b"touch k 10 noreply\r\n", b""),
        (b"get k\r\n", b"VALUE k 0 1\r\n8\r\nEND\r\n"),
        (b"delete k noreply\r\n", b""),
        (b"get k\r\n", b"END\r\n"),
        (b"flush_all noreply\r\n", b""),
        (b"flush_all 0 noreply\r\n", b""),
        (b"verbosity 1 noreply\r\n", b""),
        (b"bogus noreply\r\n", b""),
        (b"set k 0 0 1001 noreply\r\n%bx\r\n" % MAX, b""),
        (b"set k 0 0 1 noreply\r\n12\r", b""),
        (b"mn\r\n", b"MN\r\n"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_memcached_s(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    assert talk(*said) == list(expected)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_the_same_when_all_is_sent_at_once(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    assert talk(b"".join(said)) == [b"".join(expected)]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_the_same_byte_by_byte(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    client = connect(FakeStore())
    for byte in b"".join(said):
        client.protocol.data_received(bytes([byte]))
    assert client.replies() == b"".join(expected)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_the_same_when_they_come_late(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    store = FakeStore()
    store.held = True
    client = connect(store)
    replies = client.send(b"".join(said))
    while store.waiting:
        store.release(1)
        replies += client.replies()
    assert replies == b"".join(expected)


def test_what_is_text_is_kept_as_text_and_the_rest_as_bytes() -> None:
    store = FakeStore()
    talk(b"set t 0 0 2\r\n\xc3\xa9\r\nset b 0 0 1\r\n\xc3\r\nset f 9 0 1\r\n1\r\n", store=store)
    assert store.entry("t") == ("é".encode(), values.TEXT, None, 1, 0)
    assert store.entry("b") == (b"\xc3", values.BYTES, None, 2, 0)
    assert store.entry("f") == (b"1", values.TEXT, 9, 3, 0)


def test_what_others_wrote_is_read_as_it_is_kept() -> None:
    store = FakeStore()
    store.apply(
        [commands.set_("j", b'{"a":1}', values.JSON, None), commands.set_("h", b"<p>", values.BYTES, "text/html")]
    )
    assert talk(b"get j h\r\n", store=store) == [b'VALUE j 0 7\r\n{"a":1}\r\nVALUE h 0 3\r\n<p>\r\nEND\r\n']


def test_rows_of_gets_tell_that_a_hash_is_none_of_memcacheds_kinds() -> None:
    store = FakeStore()
    store.apply([commands.set_("t", b"1", values.TEXT), commands.set_fields("h", values.HASH, [b"f", b"1"], 99)])
    found, wrong = b"VALUE t 0 1\r\n1\r\n", b"SERVER_ERROR wrong kind\r\n"
    said = (b"get h\r\n", b"get t h\r\n", b"get t\r\nget h\r\nget t\r\n", b"gets h\r\n")
    assert talk(*said, store=store) == [wrong, found + wrong, found + b"END\r\n" + wrong + found + b"END\r\n", wrong]


def test_a_key_with_a_blank_is_not_found_by_a_request_for_two() -> None:
    store = FakeStore()
    store.apply([commands.set_("a b", b"1", values.TEXT)])
    assert talk(b"get a b\r\n", store=store) == [b"END\r\n"]


def test_reads_count_as_uses() -> None:
    store = FakeStore()
    talk(b"set a 0 0 1\r\n1\r\n", b"get a\r\n", b"get a b a\r\n", store=store)
    assert store.noted == ["a", "a", "a"]


def test_a_write_that_was_not_committed_says_so() -> None:
    store = FakeStore()
    store.failure = NotCommitted("no leader\r\nis known")
    answers = [b"SERVER_ERROR not committed: no leader is known\r\n"]
    for request in (b"set k 0 0 1\r\n1\r\n", b"incr k 1\r\n", b"delete k\r\n", b"gat 1 k\r\n", b"flush_all\r\n"):
        assert talk(request, store=store) == answers
    store.failure = OutcomeUnknown("no answer came in time")
    assert talk(b"set k 0 0 1\r\n1\r\n", store=store) == [b"SERVER_ERROR outcome unknown: no answer came in time\r\n"]


def test_a_failure_is_not_told_to_who_wants_no_reply() -> None:
    store = FakeStore()
    store.failure = NotCommitted("no leader")
    said = b"set k 0 0 1 noreply\r\n1\r\nincr k 1 noreply\r\ndelete k\r\n"
    assert talk(said, store=store) == [b"SERVER_ERROR not committed: no leader\r\n"]


def test_a_node_that_has_not_caught_up_answers_one_error_a_request() -> None:
    store = FakeStore()
    store.readable = False
    (error,) = talk(b"get a\r\n", store=store)
    assert error.startswith(b"SERVER_ERROR not ready: ") and error.count(b"\r\n") == 1
    assert talk(b"get a b c\r\n", b"mg a v\r\n", b"me a\r\n", store=store) == [error, error, error]


def test_linearizable_reads_wait_for_a_barrier_and_fail_with_it() -> None:
    store = FakeStore()
    client = connect(store)
    assert client.send(b"consistency linearizable\r\n") == b"OK\r\n"
    store.held = True
    assert client.send(b"get a\r\nget a b\r\n") == b""
    store.apply([commands.set_("a", b"1", values.TEXT)])
    store.release()
    value = b"VALUE a 0 1\r\n1\r\n"
    assert client.replies() == value + b"END\r\n" + value + b"END\r\n"
    assert store.proposed == [[]]
    store.failure = NotCommitted("no leader")
    client.send(b"get a\r\nget a b\r\n")
    store.release()
    assert client.replies() == b"SERVER_ERROR not committed: no leader\r\n" * 2
    assert client.send(b"consistency local\r\nget a b\r\n") == b"OK\r\n" + value + b"END\r\n"
    assert client.send(b"consistency strong\r\n") == b"CLIENT_ERROR usage: consistency local|linearizable\r\n"


def test_gat_is_one_entry_for_all_its_keys_and_they_are_not_too_many() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(b"gat 5 " + b"k " * 500 + b"\r\n")
    assert len(store.proposed) == 1
    assert client.send(b"gat 5 " + b"k " * 501 + b"\r\n") == b"CLIENT_ERROR at most 500 keys in one gat\r\n"


def test_a_gat_of_more_than_one_entry_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "READ_PER_BATCH_BYTES_MAX", 200)
    client = connect(FakeStore())
    client.send(b"set a 0 0 1\r\n1\r\nset b 0 0 80\r\n%b\r\n" % bytes(80))
    assert client.send(b"gat 5 a\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
    assert client.send(b"gat 5 a b\r\n") == b"SERVER_ERROR out of memory writing get response\r\n"


def test_an_item_larger_than_the_whole_cache_is_too_large() -> None:
    store = FakeStore(max_bytes=1024)
    said = b"set k 0 0 1000\r\n%b\r\n" % MAX
    assert talk(said, store=store) == [b"SERVER_ERROR object too large for cache\r\n"]


def test_stats_are_those_of_the_store() -> None:
    store = FakeStore(max_items=10, max_bytes=5000)
    client = connect(store)
    client.send(b"set a 0 0 1\r\n1\r\nget a\r\nget b\r\n")
    general = dict(line.split()[1:] for line in client.send(b"stats\r\n").decode().splitlines()[:-1])
    expected = {"curr_items": "1", "get_hits": "1", "get_misses": "1", "total_items": "1", "limit_maxbytes": "5000"}
    assert {name: general[name] for name in expected} == expected
    assert general["curr_connections"] == "1" and general["requests"] == "3"
    assert b"STAT item_size_max 1000\r\n" in client.send(b"stats settings\r\n")
    assert client.send(b"stats items\r\n") == b"STAT items:1:number 1\r\nSTAT items:1:evicted 0\r\nEND\r\n"


def test_stats_leave_out_what_the_node_does_not_know_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    known = {name: value for name, value in store.metrics().items() if name in ("hits_total", "misses_total")}
    monkeypatch.setattr(store, "metrics", lambda: known)
    client = connect(store)
    for section in ("", " settings"):
        told = client.send(f"stats{section}\r\n".encode()).decode()
        assert told.endswith("END\r\n") and "None" not in told
    assert "STAT get_hits 0\r\n" in client.send(b"stats\r\n").decode()


def test_quit_closes_when_all_before_is_answered() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(b"set k 0 0 1\r\n1\r\nquit\r\nget k\r\n")
    assert not client.closed
    store.release()
    assert client.replies() == b"STORED\r\n" and client.closed


def test_a_browser_is_hung_up_on() -> None:
    client = connect(FakeStore())
    assert client.send(b"POST / HTTP/1.1\r\nset k 0 0 1\r\n1\r\n") == b"" and client.closed


@pytest.mark.parametrize("grow", [b"append k 0 0 1\r\nx\r\n", b"prepend k 0 0 1\r\nx\r\n", b"ms k 1 MA\r\nx\r\n"])
def test_a_value_does_not_grow_over_the_limit_by_additions(grow: bytes) -> None:
    store = FakeStore()
    client = connect(store)
    client.send(b"set k 0 0 %d\r\n%b\r\n" % (VALUE_BYTES_MAX - 1, b"v" * (VALUE_BYTES_MAX - 1)))
    assert client.send(grow) in (b"STORED\r\n", b"HD\r\n")
    assert client.send(grow) == b"SERVER_ERROR object too large for cache\r\n"
    entry = store.entry("k")
    assert entry is not None and len(entry[0]) == VALUE_BYTES_MAX


@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\x00" * 23, b"\n" * 23])
@pytest.mark.parametrize("token", [None, b"a token of many letters"])
def test_a_request_of_the_binary_protocol_is_told_so_and_ends_its_connection(
    behind: bytes, token: bytes | None
) -> None:
    client = connect(FakeStore(), token)
    # A get in the binary protocol begins with 0x80 0x00; this client would wait for its answer for ever.
    assert client.send(b"\x80\x00\x00\x01" + behind) == b"ERROR\r\n"
    assert client.closed
    client = connect(FakeStore())
    assert client.send(b"set k 0 0 1\r\n\x80\r\nget k\r\n") == b"STORED\r\nVALUE k 0 1\r\n\x80\r\nEND\r\n"
