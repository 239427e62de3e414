"""memcached's meta commands: request bytes and reply bytes, as memcached 1.6 answers them."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.memcached_client import VALUE_BYTES_MAX, connect, talk

from cacheflow import values
from cacheflow.errors import NotCommitted
from cacheflow.machine.language import commands

BAD = b"CLIENT_ERROR bad command line format\r\n"
CONVERSATIONS: dict[str, list[tuple[bytes, bytes]]] = {
    "mg": [
        (b"mg k\r\n", b"EN\r\n"),
        (b"mg k v k Oq1\r\n", b"EN kk Oq1\r\n"),
        (b"mg k v q k\r\n", b""),
        (b"set k 5 100 5\r\nhello\r\n", b"STORED\r\n"),
        (b"mg k\r\n", b"HD\r\n"),
        (b"mg k v\r\n", b"VA 5\r\nhello\r\n"),
        (b"mg k s v q\r\n", b"VA 5 s5\r\nhello\r\n"),
        (b"mg k t c f k s Oopaque v\r\n", b"VA 5 t100 c1 f5 kk s5 Oopaque\r\nhello\r\n"),
        (b"mg k v C1 c\r\n", b"HD c1\r\n"),
        (b"mg k v C2 c\r\n", b"VA 5 c1\r\nhello\r\n"),
        (b"mg k v Phint L/path\r\n", b"VA 5\r\nhello\r\n"),
        # Before and after T are two TTLs.
        (b"mg k t T30\r\n", b"HD t100\r\n"),
        (b"mg k T0 t c\r\n", b"HD t-1 c1\r\n"),
        (b"mg k t T-1 v\r\n", b"VA 5 t-1\r\nhello\r\n"),
        (b"mg k\r\n", b"EN\r\n"),
        (b"mg k T30\r\n", b"EN\r\n"),
    ],
    "flags that are none": [
        (b"mg\r\n", BAD),
        (b"mg %b v\r\n" % (b"k" * 251), BAD),
        (b"mg k v v\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
        (b"mg k !\r\n", b"CLIENT_ERROR invalid flag\r\n"),
        (b"mg k \xff\r\n", b"CLIENT_ERROR invalid flag\r\n"),
        (b"mg k Tx\r\n", b"CLIENT_ERROR bad token in command line format\r\n"),
        (b"mg k N\r\n", b"CLIENT_ERROR bad token in command line format\r\n"),
        (b"mg k C-1\r\n", b"CLIENT_ERROR bad token in command line format\r\n"),
        (b"mg k O%b\r\n" % (b"o" * 31), b"EN O%b\r\n" % (b"o" * 31)),
        (b"mg k O%b\r\n" % (b"o" * 32), b"CLIENT_ERROR opaque token too long\r\n"),
        (b"mg k a" + b" a" * 18 + b"\r\n", b"CLIENT_ERROR options flags are too long\r\n"),
        (b"mg k h\r\n", b"CLIENT_ERROR flag h is not served\r\n"),
        (b"mg k l\r\n", b"CLIENT_ERROR flag l is not served\r\n"),
        (b"ms k 1 E5\r\n1\r\n", b"CLIENT_ERROR flag E is not served\r\n"),
        (b"ma k v v\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n"),
        (b"ma k Dx\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n"),
        (b"ma k MX\r\n", b"CLIENT_ERROR invalid mode for ma M token\r\n"),
        (b"ms k 1 MZ\r\n1\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n"),
        (b"ms k 1 M\r\n1\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n"),
        (b"ms k 1 F4294967296\r\n1\r\n", BAD),
        (b"ms k\r\n", BAD),
        (b"ms k x\r\n", BAD),
        (b"ms k -1\r\n", BAD),
        (b"ms k 1 T1 T2\r\n1\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
        (b"ms k 1\r\n123", b"CLIENT_ERROR bad data chunk\r\n"),
        (b"mg k\r\n", b"EN\r\n"),
    ],
    "keys in base64": [
        (b"ms 44OG44K544OI 2 b\r\npo\r\n", b"HD\r\n"),
        (b"mg 44OG44K544OI v\r\n", b"EN\r\n"),
        (b"mg 44OG44K544OI b k v\r\n", b"VA 2 k44OG44K544OI b\r\npo\r\n"),
        ("get テスト\r\n".encode(), "VALUE テスト 0 2\r\npo\r\nEND\r\n".encode()),
        (b"me 44OG44K544OI b\r\n", b"ME 44OG44K544OI exp=-1 cas=1 size=2\r\n"),
        (b"ms YSBi 1 b k\r\n1\r\n", b"HD kYSBi b\r\n"),
        (b"mg YSBi b v\r\n", b"VA 1\r\n1\r\n"),
        (b"mg YSB b v\r\n", b"CLIENT_ERROR error decoding key\r\n"),
        (b"mg *** b v\r\n", b"CLIENT_ERROR error decoding key\r\n"),
        (b"mg /w== b v\r\n", b"CLIENT_ERROR the decoded key is not UTF-8 without control characters\r\n"),
        (b"mg AA== b v\r\n", b"CLIENT_ERROR the decoded key is not UTF-8 without control characters\r\n"),
    ],
    "ms": [
        (b"ms k 1\r\n1\r\n", b"HD\r\n"),
        (b"ms k 1 k c s Oo F7 T90\r\n2\r\n", b"HD kk c2 s1 Oo\r\n"),
        (b"mg k v f t\r\n", b"VA 1 f7 t90\r\n2\r\n"),
        (b"ms k 1 q\r\n3\r\n", b""),
        (b"mg k v f t\r\n", b"VA 1 f0 t-1\r\n3\r\n"),
        (b"ms k 1 ME\r\n4\r\n", b"NS\r\n"),
        (b"ms k 1 ME c q\r\n4\r\n", b"NS c0\r\n"),
        (b"ms new 1 ME\r\n4\r\n", b"HD\r\n"),
        (b"ms none 1 MR\r\n4\r\n", b"NS\r\n"),
        (b"ms k 1 MR\r\n4\r\n", b"HD\r\n"),
        (b"ms k 1 MS\r\n5\r\n", b"HD\r\n"),
        (b"ms k 1 C99 c\r\n6\r\n", b"EX c0\r\n"),
        (b"ms k 1 C0\r\n6\r\n", b"EX\r\n"),
        (b"ms none 1 C9\r\n6\r\n", b"NF\r\n"),
        (b"ms none 1 C9 MR\r\n6\r\n", b"NF\r\n"),
        (b"ms k 1 C6 c\r\n6\r\n", b"HD c7\r\n"),
        (b"ms k 1 T-1\r\n6\r\n", b"HD\r\n"),
        (b"mg k v\r\n", b"EN\r\n"),
    ],
    "ms that appends and prepends": [
        (b"ms k 1 MA\r\n1\r\n", b"NS\r\n"),
        (b"ms k 1 MA C5\r\n1\r\n", b"NS\r\n"),
        (b"ms k 1 MA N30 F3 c s\r\n1\r\n", b"HD c1 s1\r\n"),
        (b"mg k v t f\r\n", b"VA 1 t30 f3\r\n1\r\n"),
        (b"ms k 1 MA N60 s\r\n2\r\n", b"HD s2\r\n"),
        (b"ms k 1 MP s q\r\n0\r\n", b""),
        (b"mg k v t f c\r\n", b"VA 3 t30 f3 c3\r\n012\r\n"),
        (b"ms k 1 MA C1\r\n3\r\n", b"EX\r\n"),
        (b"ms k 1 MA C3 c s\r\n3\r\n", b"HD c4 s4\r\n"),
        (b"ms k 1 MA C0\r\n4\r\n", b"HD\r\n"),
        (b"mg k v\r\n", b"VA 5\r\n01234\r\n"),
    ],
    "md": [
        (b"md k\r\n", b"NF\r\n"),
        (b"md k k Oo q\r\n", b"NF kk Oo\r\n"),
        (b"ms k 1\r\n1\r\n", b"HD\r\n"),
        (b"md k C9\r\n", b"EX\r\n"),
        (b"md k C0\r\n", b"EX\r\n"),
        (b"md k C1 k\r\n", b"HD kk\r\n"),
        (b"md k C1\r\n", b"NF\r\n"),
        (b"md k C0\r\n", b"NF\r\n"),
        (b"ms k 1\r\n1\r\n", b"HD\r\n"),
        (b"md k q\r\n", b""),
        (b"mg k\r\n", b"EN\r\n"),
    ],
    "md that leaves an empty entry": [
        (b"ms k 2 T50 F5\r\nmx\r\n", b"HD\r\n"),
        (b"md k x\r\n", b"HD\r\n"),
        (b"mg k t v f\r\n", b"VA 0 t-1 f0\r\n\r\n"),
        (b"ms k 2 T50\r\nmz\r\n", b"HD\r\n"),
        (b"md k x I T20\r\n", b"HD\r\n"),
        (b"mg k v t\r\n", b"VA 0 t20 X W\r\n\r\n"),
        (b"md k x T-1\r\n", b"HD\r\n"),
        (b"mg k\r\n", b"EN\r\n"),
    ],
    "ma": [
        (b"ma n\r\n", b"NF\r\n"),
        (b"ma n D1 k Oo T5\r\n", b"NF kk Oo\r\n".replace(b"kk", b"kn")),
        (b"ma n N90\r\n", b"HD\r\n"),
        (b"mg n v t\r\n", b"VA 1 t90\r\n0\r\n"),
        (b"ma n T300 v t\r\n", b"VA 1 t300\r\n1\r\n"),
        (b"ma n t T10 v\r\n", b"VA 1 t300\r\n2\r\n"),
        (b"ma n N0 J13 v D30\r\n", b"VA 2\r\n32\r\n"),
        (b"ma m N0 J13 v t c\r\n", b"VA 2 t-1 c5\r\n13\r\n"),
        (b"ma m MD D22 v\r\n", b"VA 1\r\n0\r\n"),
        (b"ma m D18446744073709551615 v M+\r\n", b"VA 20\r\n18446744073709551615\r\n"),
        (b"ma m MI v\r\n", b"VA 1\r\n0\r\n"),
        (b"ma m M-\r\n", b"HD\r\n"),
        (b"ma m q v\r\n", b""),
        (b"ma m C1 v\r\n", b"EX\r\n"),
        (b"ma m C10 v c\r\n", b"VA 1 c11\r\n2\r\n"),
        (b"ma m C0 v\r\n", b"VA 1\r\n3\r\n"),
        (b"ma none C5 k\r\n", b"NF knone\r\n"),
        (b"ma made C5 N0 J7 v\r\n", b"VA 1\r\n7\r\n"),
        (b"ma m T-1 v\r\n", b"VA 1\r\n4\r\n"),
        (b"mg m\r\n", b"EN\r\n"),
        (b"ma short N-1 J5 v\r\n", b"VA 1\r\n5\r\n"),
        (b"mg short\r\n", b"EN\r\n"),
        (b"set t 0 100 2\r\nhi\r\n", b"STORED\r\n"),
        (b"ma t\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (b"ma t T5 q\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (b"mg t t\r\n", b"HD t100\r\n"),
    ],
    "me and mn": [
        (b"me k\r\n", b"EN\r\n"),
        (b"set k 0 60 2\r\nhi\r\n", b"STORED\r\n"),
        (b"me k\r\n", b"ME k exp=60 cas=1 size=2\r\n"),
        (b"me\r\n", BAD),
        (b"mn\r\n", b"MN\r\n"),
    ],
    "who is to fill what is missing: N": [
        (b"mg k s c v N30 t\r\n", b"VA 0 s0 c1 t30 W\r\n\r\n"),
        (b"mg k s c v N30 t\r\n", b"VA 0 s0 c1 t30 Z\r\n\r\n"),
        (b"mg k v q\r\n", b"VA 0 Z\r\n\r\n"),
        (b"get k\r\n", b"VALUE k 0 0\r\n\r\nEND\r\n"),
        (b"ms k 2 C9 T120\r\nnu\r\n", b"EX\r\n"),
        (b"ms k 2 C1 T120\r\nmu\r\n", b"HD\r\n"),
        (b"mg k s v N30 t\r\n", b"VA 2 s2 t120\r\nmu\r\n"),
        (b"mg gone v N-1 q\r\n", b"VA 0 W\r\n\r\n"),
        (b"mg gone\r\n", b"EN\r\n"),
    ],
    "who is to fill again what ends soon: R": [
        (b"ms k 2 T120 F5\r\nmu\r\n", b"HD\r\n"),
        (b"mg k t c v R100\r\n", b"VA 2 t120 c1\r\nmu\r\n"),
        (b"mg k t c v f R130\r\n", b"VA 2 t120 c2 f5 W\r\nmu\r\n"),
        (b"mg k t c v f R130\r\n", b"VA 2 t120 c2 f5 Z\r\nmu\r\n"),
        (b"ms k 4 C2 T300\r\nzuuu\r\n", b"HD\r\n"),
        (b"mg k t R130\r\n", b"HD t300\r\n"),
        (b"mg k R301 T20 t\r\n", b"HD t20 W\r\n"),
        (b"ms k 1 T100\r\n1\r\n", b"HD\r\n"),
        (b"mg k T20 R30 t\r\n", b"HD t20 W\r\n"),
        (b"ms k 1\r\n1\r\n", b"HD\r\n"),
        (b"mg k R30\r\n", b"HD\r\n"),
        (b"mg k T-1 R30 v\r\n", b"VA 1 W\r\n1\r\n"),
        (b"mg k\r\n", b"EN\r\n"),
    ],
    "what is stale may be served while one fills it again: I": [
        (b"md k I\r\n", b"NF\r\n"),
        (b"set k 5 0 3\r\nmoo\r\n", b"STORED\r\n"),
        (b"md k I C9\r\n", b"EX\r\n"),
        (b"md k I T30 C1 q\r\n", b""),
        (b"mg k t c v f\r\n", b"VA 3 t30 c3 f5 X W\r\nmoo\r\n"),
        (b"mg k t c v\r\n", b"VA 3 t30 c3 Z X\r\nmoo\r\n"),
        (b"get k\r\n", b"VALUE k 5 3\r\nmoo\r\nEND\r\n"),
        (b"ms k 1 T90 C0\r\nf\r\n", b"EX\r\n"),
        (b"ms k 1 I T90 C9\r\nf\r\n", b"EX\r\n"),
        (b"ms k 1 I T90 C0\r\nf\r\n", b"EX\r\n"),
        (b"ms none 1 I T90 C1\r\nf\r\n", b"NF\r\n"),
        # Too late, and better than nothing.
        (b"ms k 1 I T90 C1\r\nf\r\n", b"HD\r\n"),
        (b"mg k t c v\r\n", b"VA 1 t30 c4 Z X\r\nf\r\n"),
        (b"ms k 1 I T90 C4\r\ng\r\n", b"HD\r\n"),
        (b"mg k t c v\r\n", b"VA 1 t90 c5\r\ng\r\n"),
        (b"md k I T-1\r\n", b"HD\r\n"),
        (b"mg k\r\n", b"EN\r\n"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_memcached_s(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    assert talk(*said) == list(expected)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_the_same_byte_by_byte_and_late(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    store = FakeStore()
    store.held = True
    client = connect(store)
    for number, byte in enumerate(b"".join(said)):
        client.protocol.data_received(bytes([byte]))
        if store.waiting and number % 37 == 0:
            store.release(1)
    while store.waiting:
        store.release(1)
    assert client.replies() == b"".join(expected)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_replies_are_the_same_for_linearizable_reads(name: str) -> None:
    said, expected = zip(*CONVERSATIONS[name], strict=True)
    assert talk(b"consistency linearizable\r\n", *said) == [b"OK\r\n", *expected]


def test_a_value_over_the_limit_is_refused_and_what_it_should_have_replaced_is_gone() -> None:
    store = FakeStore()
    large = b"x" * (VALUE_BYTES_MAX + 1)
    said = (
        b"ms k 1\r\n1\r\n",
        b"ms k 1001 ME\r\n%b\r\n" % large,
        b"mg k\r\n",
        b"ms k 1001 q\r\n%b\r\n" % large,
        b"mg k\r\n",
    )
    too_large = b"SERVER_ERROR object too large for cache\r\n"
    assert talk(*said, store=store) == [b"HD\r\n", too_large, b"HD\r\n", too_large, b"EN\r\n"]


def test_u_does_not_count_as_a_use() -> None:
    store = FakeStore()
    talk(b"ms k 1\r\n1\r\n", b"mg k v u\r\n", b"mg k v\r\n", b"me k\r\n", store=store)
    assert store.noted == ["k"]


def test_reads_that_change_nothing_are_no_proposals() -> None:
    store = FakeStore()
    talk(b"mg k v t\r\n", b"ms k 1 T90\r\n1\r\n", b"mg k v t\r\n", b"mg k v R30 N30\r\n", b"mg k C1\r\n", store=store)
    assert len(store.proposed) == 1


def test_two_clients_that_race_for_a_missing_value_have_one_winner() -> None:
    store = FakeStore()
    store.held = True
    first, second = connect(store), connect(store)
    first.send(b"mg k v N30\r\n")
    second.send(b"mg k v N30\r\n")
    assert store.waiting == 2
    store.release(1)
    assert first.replies() == b"VA 0 W\r\n\r\n"
    store.release(1)
    assert second.replies() == b"VA 0 Z\r\n\r\n"


def test_two_clients_that_race_for_a_stale_value_have_one_winner() -> None:
    store = FakeStore()
    talk(b"ms k 1\r\n1\r\n", b"md k I\r\n", store=store)
    store.held = True
    first, second = connect(store), connect(store)
    first.send(b"mg k v\r\n")
    second.send(b"mg k v\r\n")
    store.release(2)
    assert first.replies() == b"VA 1 X W\r\n1\r\n"
    store.release()
    assert second.replies() == b"VA 1 Z X\r\n1\r\n"


def test_what_this_node_does_not_know_yet_is_no_reason_to_refuse() -> None:
    """Its memory may be behind: what is decided from it holds only if the log agrees."""
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(b"ma n T60 v t\r\n")
    store.apply([commands.set_("n", b"5", values.TEXT)])
    store.release()
    assert client.replies() == b""
    store.release()
    assert client.replies() == b"VA 1 t60\r\n6\r\n"


def test_a_key_that_others_change_all_the_time_is_given_up_in_the_end() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(b"ma n N0 T60 v\r\nmn\r\n")
    for turn in range(200):
        store.apply([commands.set_("n", b"%d" % turn, values.TEXT)])
        if not store.release():
            break
    assert client.replies() == b"SERVER_ERROR not committed: others changed the same keys again and again\r\nMN\r\n"
    assert len(store.proposed) == 100


def test_a_request_of_several_steps_tells_its_failure_and_the_next_one_goes_on() -> None:
    store = FakeStore()
    store.failure = NotCommitted("no leader")
    failure = b"SERVER_ERROR not committed: no leader\r\n"
    assert talk(b"mg k N30\r\nmd k I\r\nms k 1 MA N5\r\n1\r\nmn\r\n", store=store) == [failure * 3 + b"MN\r\n"]
    linearizable = b"consistency linearizable\r\nmg k v\r\nmn\r\n"
    assert talk(linearizable, store=store) == [b"OK\r\n" + failure + b"MN\r\n"]


def test_marks_and_flags_live_side_by_side_and_a_content_type_gives_way() -> None:
    store = FakeStore()
    store.apply([commands.set_("h", b"<p>", values.BYTES, "text/html")])
    assert talk(b"mg h f v\r\n", b"md h I\r\n", b"mg h f v\r\n", store=store)[2] == b"VA 3 f0 X W\r\n<p>\r\n"
    entry = store.entry("h")
    assert entry is not None and entry[1:3] == (values.BYTES, 3 << 32)
