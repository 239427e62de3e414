"""RESP's commands: requests and the bytes that answer them."""

from __future__ import annotations

import pytest
from wire.channel_conversations import CHANNEL_CONVERSATIONS
from wire.database_conversations import DATABASE_CONVERSATIONS
from wire.fake_store import START_MS, FakeStore
from wire.field_conversations import FIELD_CONVERSATIONS
from wire.resp_client import VALUE_BYTES_MAX, connect, line, lines, pack
from wire.resp_conversations import CONVERSATIONS

from cacheflow import values
from cacheflow.errors import NoLeader, NotCommitted, NotReady, OutcomeUnknown, Overloaded, ReplicationError
from cacheflow.machine.language import commands
from cacheflow.wire.resp.table import TABLE

LARGE = b"x" * VALUE_BYTES_MAX


ALL = CONVERSATIONS | CHANNEL_CONVERSATIONS | DATABASE_CONVERSATIONS | FIELD_CONVERSATIONS


@pytest.mark.parametrize("name", ALL)
def test_it_answers_as_redis_does(name: str) -> None:
    client = connect()
    for said, answered in ALL[name]:
        assert client.send(line(said)) == answered, said


def test_every_command_is_in_some_conversation_or_has_a_test_of_its_own() -> None:
    said = {words.split()[0].lower() for conversation in ALL.values() for words, _ in conversation}
    assert {name.decode() for name in TABLE} - said == {
        *("time", "info", "latency", "slowlog", "readonly", "readwrite"),
        *("eval", "evalsha", "eval_ro", "evalsha_ro", "script"),
    }


@pytest.mark.parametrize("spelling", ["GET", "get", "Get", "gET"])
def test_names_are_spelt_in_any_case(spelling: str) -> None:
    client = connect()
    client.send(line("SET k v"))
    assert client.send(pack(spelling, "k")) == b"$1\r\nv\r\n"


@pytest.mark.parametrize("data", [b"", b"text", "größer".encode(), b"\xff\x00\r\n", b"-5", b"*3\r\n$"])
def test_a_value_is_any_bytes_and_text_if_it_is_utf8(data: bytes) -> None:
    store = FakeStore()
    client = connect(store)
    assert client.send(pack("SET", "k", data)) == b"+OK\r\n"
    assert client.send(pack("GET", "k")) == b"$%d\r\n%b\r\n" % (len(data), data)
    entry = store.entry("k")
    assert entry is not None
    try:
        data.decode()
    except UnicodeDecodeError:
        assert entry[1] == values.BYTES
    else:
        assert entry[1] == values.TEXT


def test_what_other_fronts_wrote_is_read_as_bytes() -> None:
    store = FakeStore()
    store.apply([commands.set_("j", b'{"a":1}', values.JSON), commands.set_("t", b"x", values.BYTES, "image/png")])
    client = connect(store)
    assert client.send(line("MGET j t")) == b'*2\r\n$7\r\n{"a":1}\r\n$1\r\nx\r\n'
    assert client.send(line("APPEND j x")) == b":8\r\n"


@pytest.mark.parametrize(
    "words", [("GET",), ("SET", "v"), ("INCR",), ("DEL",), ("TTL",), ("MSET", "v"), ("APPEND", "v")]
)
@pytest.mark.parametrize("key", [b"", b"\xff", b"a\nb", b"x" * 1025])
def test_a_key_that_no_entry_may_have_is_an_error(words: tuple[str, ...], key: bytes) -> None:
    store = FakeStore()
    answered = connect(store).send(pack(words[0], key, *words[1:]))
    assert answered.startswith(b"-ERR invalid key: ") and answered.endswith(b"\r\n") and answered.count(b"\n") == 1
    assert store.proposed == []


def test_a_value_may_be_as_long_as_the_node_says_and_no_longer() -> None:
    client = connect()
    too_long = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
    assert client.send(pack("SET", "k", LARGE)) == b"+OK\r\n"
    assert client.send(pack("SET", "k", LARGE + b"x")) == too_long
    assert client.send(pack("SET", "k", LARGE + b"x", "EX", "10")) == too_long
    assert client.send(pack("APPEND", "k", "x")) == too_long
    assert client.send(pack("SETRANGE", "k", str(VALUE_BYTES_MAX), "x")) == too_long
    assert client.send(pack("SETRANGE", "new", "9223372036854775807", "x")) == too_long
    assert client.send(line("STRLEN k")) == b":%d\r\n" % VALUE_BYTES_MAX


def test_what_no_cache_of_this_size_can_hold_is_refused() -> None:
    client = connect(FakeStore(max_bytes=1024))
    for words in (("SET", "k"), ("APPEND", "k"), ("MSET", "k"), ("SETNX", "k"), ("GETSET", "k"), ("SETEX", "k", "10")):
        assert client.send(pack(*words, b"x" * 2000)).startswith(b"-OOM ")
    assert client.send(line("EXISTS k")) == b":0\r\n"


def test_several_keys_are_written_in_one_entry_or_not_at_all() -> None:
    store = FakeStore(max_bytes=1024)
    client = connect(store)
    before = store.machine.applied_index
    assert client.send(line("MSET a 1 b 2 c 3")) == b"+OK\r\n"
    assert store.machine.applied_index == before + 1
    assert client.send(pack("MSET", "a", "2", "b", b"x" * 2000)).startswith(b"-OOM ")
    assert client.send(line("MGET a b c")) == b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"


def test_decimals_are_added_exactly() -> None:
    client = connect()
    for step, total in (("10.5", "10.5"), ("0.1", "10.6"), ("5.0e3", "5010.6"), ("-5010.6", "0"), (".5", "0.5")):
        assert client.send(line(f"INCRBYFLOAT k {step}")) == b"$%d\r\n%b\r\n" % (len(total), total.encode())
    for wrong in ("nan", "1e400", "1e-400", "0x1p3", "1_0", "1" * 300, "1e99999999"):
        assert client.send(line(f"INCRBYFLOAT k {wrong}")) == b"-ERR value is not a valid float\r\n"
    client.send(pack("SET", "k", "9e308"))
    assert client.send(line("INCRBYFLOAT k 9e308")) == b"-ERR increment would produce NaN or Infinity\r\n"


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_ttl_is_rounded_as_redis_does() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(line("SET k v PX 1500"))
    assert client.send(lines("TTL k\nPTTL k")) == b":2\r\n:1500\r\n"
    store.clock_ms += 1001
    assert client.send(lines("TTL k\nPTTL k")) == b":0\r\n:499\r\n"
    store.clock_ms += 499
    assert client.send(lines("TTL k\nGET k\nEXISTS k\nTYPE k")) == b":-2\r\n$-1\r\n:0\r\n+none\r\n"


@pytest.mark.parametrize(
    "words", ["SET k v EXAT {s}", "SET k v PXAT {ms}", "EXPIREAT k {s}", "PEXPIREAT k {ms}", "GETEX k EXAT {s}"]
)
def test_an_end_that_is_a_time_goes_by_the_nodes_wall_clock(words: str) -> None:
    store = FakeStore()
    # The cluster's clock need not be anybody's wall clock.
    store.clock_ms = START_MS + 3_600_000
    client = connect(store)
    client.send(line("SET k v"))
    end_s = START_MS // 1000 + 100
    client.send(line(words.format(s=end_s, ms=end_s * 1000)))
    assert client.send(lines("PTTL k\nEXPIRETIME k\nPEXPIRETIME k")) == b":100000\r\n:%d\r\n:%d\r\n" % (
        end_s,
        end_s * 1000,
    )


@pytest.mark.parametrize(
    "words", ["EXPIRE k 0", "EXPIRE k -5", "EXPIREAT k 1", "PEXPIREAT k 1", "SET k w EXAT 1", "GETEX k PXAT 1"]
)
def test_an_end_in_the_past_is_the_end(words: str) -> None:
    client = connect()
    client.send(line("SET k v"))
    client.send(line(words))
    assert client.send(line("GET k")) == b"$-1\r\n"


def test_an_end_in_the_past_is_the_end_under_a_condition_too() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(lines("SET k v EX 10\nSET a v"))
    assert (
        client.send(lines("EXPIRE k -1 NX\nEXPIRE k -1 GT\nEXPIRE a -1 XX\nEXPIRE k -1 LT\nEXISTS k a"))
        == b":0\r\n:0\r\n:0\r\n:1\r\n:1\r\n"
    )
    # A SET that is to end at once lives for a millisecond: the machine's takes no less.
    assert client.send(line("SET new v NX PXAT 1")) == b"+OK\r\n"
    store.clock_ms += 1
    assert client.send(line("EXISTS new")) == b":0\r\n"


@pytest.mark.parametrize(
    "words",
    [
        "SET k w PX 9223372036854775807",
        "SET k w EX 9223372036854775",
        "PEXPIREAT k 9223372036854775807",
        "EXPIRE k 9223370399119966",
        f"PEXPIRE k {commands.TTL_MS_MAX + 1}",
        "GETEX k EX 9223370399119966",
        "EXPIRE k -9223372036854775807",
    ],
)
def test_an_end_beyond_all_reason_is_refused_and_never_shortened(words: str) -> None:
    client = connect()
    client.send(line("SET k v"))
    assert b"ERR invalid expire time" in client.send(line(words))
    assert client.send(lines("PTTL k\nGET k")) == b":-1\r\n$1\r\nv\r\n"
    assert client.send(line(f"PEXPIRE k {commands.TTL_MS_MAX}")) == b":1\r\n"


def test_an_end_before_all_time_has_come() -> None:
    client = connect()
    client.send(line("SET k v"))
    assert b"ERR invalid expire time" in client.send(line("EXPIREAT k -9223372036854776"))
    assert client.send(lines("PEXPIREAT k -9223372036854775808\nEXISTS k")) == b":1\r\n:0\r\n"


def test_the_rest_of_its_life_goes_with_a_renamed_value() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(line("SET k v PX 5000"))
    store.clock_ms += 1000
    assert client.send(lines("RENAME k l\nCOPY l m\nPTTL l\nPTTL m")) == b"+OK\r\n:1\r\n:4000\r\n:4000\r\n"


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (OutcomeUnknown("sent, and no answer"), b"-OUTCOMEUNKNOWN "),
        (NoLeader("no leader"), b"-CLUSTERDOWN "),
        (Overloaded("too many"), b"-TRYAGAIN not committed: "),
        (NotCommitted("no"), b"-TRYAGAIN not committed: "),
        (NotReady("starting"), b"-LOADING "),
    ],
)
@pytest.mark.parametrize("words", ["SET k v", "RENAME k l", "MSET a 1 b 2", "FLUSHALL", "INCRBYFLOAT k 1"])
def test_a_write_that_failed_says_whether_it_may_be_sent_again(
    words: str, failed: ReplicationError, code: bytes
) -> None:
    store = FakeStore()
    client = connect(store)
    store.failure = failed
    assert client.send(line(words)).startswith(code)
    store.failure = None
    assert client.send(line("PING")) == b"+PONG\r\n"


@pytest.mark.parametrize(
    "words",
    [
        "GET k",
        "MGET k l",
        "TTL k",
        "EXISTS k",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "STRLEN k",
        "RENAME k l",
        "WATCH k",
        "APPEND k v",
    ],
)
def test_a_node_that_may_not_answer_reads_says_that_it_is_loading(words: str) -> None:
    store = FakeStore()
    client = connect(store)
    store.readable = False
    assert client.send(line(words)).startswith(b"-LOADING ")
    store.readable = True
    assert client.send(line("PING")) == b"+PONG\r\n"


def test_an_answer_has_an_end() -> None:
    client = connect()
    client.send(pack("SET", "k", LARGE))
    assert client.send(pack("MGET", *["k"] * 1000)) == b"-ERR the answer is larger than 134217728 bytes\r\n"


# What the node says of itself -----------------------------------------------------------------------------------------


def test_info_tells_what_is_asked_for() -> None:
    client = connect()
    client.send(lines("SET k v\nGET k\nGET nope"))
    everything = client.send(line("INFO"))
    for part in (
        b"# Server\r\nredis_version:7.0.15\r\n",
        b"keyspace_hits:1\r\n",
        b"keyspace_misses:1\r\n",
        b"db0:keys=1,expires=0,avg_ttl=0\r\n",
    ):
        assert part in everything
    clients = b"# Clients\r\nconnected_clients:1\r\nblocked_clients:0\r\ntracking_clients:0\r\n"
    assert client.send(line("INFO clients")) == b"$%d\r\n%b\r\n" % (len(clients), clients)
    assert client.send(line("INFO nope")) == b"$0\r\n\r\n"
    assert client.send(lines("HELLO 3\nINFO clients")).endswith(b"=%d\r\ntxt:%b\r\n" % (len(clients) + 4, clients))


def test_command_tells_what_there_is() -> None:
    client = connect()
    assert client.send(line("COMMAND COUNT")) == b":%d\r\n" % len(TABLE)
    assert client.send(line("COMMAND LIST")).startswith(b"*%d\r\n$6\r\nappend\r\n" % len(TABLE))
    assert client.send(line("COMMAND")).startswith(b"*%d\r\n*10\r\n$6\r\nappend\r\n:3\r\n" % len(TABLE))
    get = (
        b"*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+fast\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"
        b"*3\r\n+@fast\r\n+@read\r\n+@string\r\n*0\r\n*0\r\n*0\r\n"
    )
    assert client.send(line("COMMAND INFO GET")) == get
    assert client.send(line("COMMAND DOCS get nope")).startswith(b"*2\r\n$3\r\nget\r\n*6\r\n$7\r\nsummary\r\n")
    client.send(line("HELLO 3"))
    assert client.send(line("COMMAND DOCS get")).startswith(b"%1\r\n$3\r\nget\r\n%3\r\n$7\r\nsummary\r\n")
    assert client.send(line("COMMAND INFO get")) == get.replace(b"*2", b"~2").replace(b"*3", b"~3")


def test_a_client_is_known_by_what_it_says_of_itself() -> None:
    client = connect()
    assert (
        client.send(lines("CLIENT SETNAME me\nCLIENT SETINFO LIB-NAME lib\nCLIENT SETINFO LIB-VER 1")) == b"+OK\r\n" * 3
    )
    told = client.send(line("CLIENT INFO"))
    assert b"id=1 " in told and b" name=me " in told and b" lib-name=lib lib-ver=1\n" in told
    assert client.send(line("CLIENT LIST")) == told.replace(b"cmd=client|info", b"cmd=client|list")
    assert client.send(line("CLIENT LIST ID 7")) == b"$0\r\n\r\n"
    assert client.send(line("CLIENT LIST TYPE pubsub")) == b"$0\r\n\r\n"
    assert client.send(line("CLIENT SETINFO foo x")) == b"-ERR Unrecognized option 'foo'\r\n"
    assert client.send(line("CLIENT ID")) == b":1\r\n"


def test_time_is_the_nodes_wall_clock() -> None:
    assert connect().send(line("TIME")) == b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n"


def test_wait_tells_on_how_many_other_nodes_every_answered_write_is(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    client = connect(store)
    for voters, others in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
        monkeypatch.setattr(store, "metrics", lambda voters=voters: {"voters": voters})
        assert client.send(line("WAIT 9 100")) == b":%d\r\n" % others


def test_what_a_page_makes_a_browser_say_closes_the_connection() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n")
    assert client.closed and store.entry("k") is None
