"""RESP's sixteen databases: no command leaves the one that is selected, and no client is in another one than it believes."""

from __future__ import annotations

import hiredis
import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, lines, pack, service

from cacheflow import values
from cacheflow.contract import Entry
from cacheflow.errors import NotCommitted
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.databases import DATABASES, PREFIXES, database_of
from cacheflow.wire.resp import scans
from cacheflow.wire.resp.commands.keys import OTHER_DATABASE
from cacheflow.wire.resp.table import TABLE

OURS = 3
# For every command with keys, or on all keys, requests that do something where ``a`` is 5 and ``b`` is 7.
REQUESTS: dict[str, str] = {
    "append": "APPEND a x",
    "copy": "COPY a c\nCOPY a b REPLACE\nCOPY a d DB {db}",
    "dbsize": "DBSIZE",
    "decr": "DECR a",
    "decrby": "DECRBY a 2",
    "del": "DEL a\nDEL a b nope",
    "exists": "EXISTS a b nope",
    "expire": "EXPIRE a 100",
    "expireat": "EXPIREAT a 1800000000",
    "expiretime": "EXPIRETIME a",
    "flushdb": "FLUSHDB",
    "get": "GET a\nGET nope",
    "getdel": "GETDEL a",
    "getex": "GETEX a EX 100",
    "getrange": "GETRANGE a 0 0",
    "getset": "GETSET a 9",
    "hdel": "HSET h f 1\nHDEL h f",
    "hexists": "HSET h f 1\nHEXISTS h f",
    "hget": "HSET h f 1\nHGET h f",
    "hgetall": "HSET h f 1\nHGETALL h",
    "hincrby": "HSET h f 1\nHINCRBY h f 2",
    "hincrbyfloat": "HSET h f 1\nHINCRBYFLOAT h f 0.5",
    "hkeys": "HSET h f 1\nHKEYS h",
    "hlen": "HSET h f 1\nHLEN h",
    "hmget": "HSET h f 1\nHMGET h f g",
    "hmset": "HSET h f 1\nHMSET h f 2 g 3",
    "hrandfield": "HSET h f 1\nHRANDFIELD h",
    "hscan": "HSET h f 1\nHSCAN h 0",
    "hset": "HSET h f 1\nHSET h f 2 g 3\nHSET n f 1",
    "hsetnx": "HSET h f 1\nHSETNX h f 2\nHSETNX h g 2",
    "hstrlen": "HSET h f 1\nHSTRLEN h f",
    "hvals": "HSET h f 1\nHVALS h",
    "incr": "INCR a",
    "incrby": "INCRBY a 2",
    "incrbyfloat": "INCRBYFLOAT a 0.5",
    "keys": "KEYS *",
    "memory": "MEMORY USAGE nope",
    "mget": "MGET a b nope",
    "mset": "MSET a 1 c 2",
    "msetnx": "MSETNX a 1 c 2\nMSETNX c 1 d 2",
    "object": "OBJECT ENCODING a\nOBJECT REFCOUNT nope\nOBJECT FREQ a\nOBJECT IDLETIME a",
    "persist": "PERSIST a",
    "pexpire": "PEXPIRE a 100",
    "pexpireat": "PEXPIREAT a 1800000000000",
    "pexpiretime": "PEXPIRETIME a",
    "psetex": "PSETEX a 100 x",
    "pttl": "PTTL a",
    "randomkey": "DEL b\nRANDOMKEY",
    "rename": "RENAME a c",
    "renamenx": "RENAMENX a c\nRENAMENX b c",
    "sadd": "SADD s m\nSADD s m n",
    "scan": "SCAN 0\nSCAN 0 MATCH a*",
    "scard": "SADD s m\nSCARD s",
    "sdiff": "SADD s m\nSDIFF s nope",
    "set": "SET a 1\nSET a 2 GET\nSET c 1 EX 10",
    "setex": "SETEX a 100 x",
    "setnx": "SETNX a 1\nSETNX c 1",
    "setrange": "SETRANGE a 1 x",
    "sintercard": "SADD s m\nSINTERCARD 2 s s LIMIT 1",
    "sinter": "SADD s m\nSINTER s s",
    "sismember": "SADD s m\nSISMEMBER s m",
    "sdiffstore": "SADD s m\nSDIFFSTORE t s nope",
    "sinterstore": "SADD s m\nSINTERSTORE t s s",
    "smove": "SADD s m\nSMOVE s t m",
    "sunionstore": "SADD s m\nSUNIONSTORE t s nope",
    "smembers": "SADD s m\nSMEMBERS s",
    "smismember": "SADD s m\nSMISMEMBER s m n",
    "spop": "SADD s m\nSPOP s",
    "srandmember": "SADD s m\nSRANDMEMBER s",
    "srem": "SADD s m\nSREM s m",
    "sscan": "SADD s m\nSSCAN s 0",
    "strlen": "STRLEN a",
    "substr": "SUBSTR a 0 0",
    "sunion": "SADD s m\nSUNION s nope",
    "touch": "TOUCH a nope",
    "ttl": "TTL a",
    "type": "TYPE a",
    "unlink": "UNLINK a b",
    "watch": "WATCH a\nSET a 1\nMULTI\nSET b 9\nEXEC",
}
# Those that are about no key, and the one that is about all databases.
ABOUT_NO_KEY = {
    *("auth", "client", "command", "config", "discard", "echo", "exec", "hello", "info", "multi", "ping", "quit"),
    *("latency", "readonly", "readwrite", "reset", "select", "slowlog", "time", "unwatch", "wait"),
    *("publish", "pubsub", "spublish"),
    *("subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"),
}
ABOUT_ALL = {"flushall"}


class LookedAt(FakeStore):
    """Notes every key that was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        self.keys.add(key)
        return super().lookup(key, count=count)

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        self.keys.update(keys)
        return super().lookup_all(keys, bytes_max)


def filled(*databases: int) -> LookedAt:
    """A store that has the keys ``a`` and ``b`` in each of ``databases``."""
    store = LookedAt()
    for prefix in (PREFIXES[database] for database in databases):
        store.apply([c.set_(f"{prefix}a", b"5", 0), c.set_(f"{prefix}b", b"7", 0, None, 50_000)])
    return store


def contents(store: FakeStore, database: int) -> dict[str, Entry]:
    return {key: entry for key, entry in store.machine.contents.raw.items() if database_of(key) == database}


def values_of(store: FakeStore, database: int) -> dict[str, tuple[bytes, int]]:
    """What a client of the database can see: versions differ."""
    size = len(PREFIXES[database])
    return {key[size:]: (entry[0], entry[4]) for key, entry in contents(store, database).items()}


def named(command: c.Command) -> list[str]:
    """The keys of a command of the machine."""
    if command[0] in (c.BATCH, c.GUARDED):
        conditions = [key for key, *_ in command[1]] if command[0] == c.GUARDED else []
        return [*conditions, *(key for inner in command[2] for key in named(inner))]
    return [command[1]]


def test_every_command_is_tried() -> None:
    # Scripts have tests of their own, in the folder beside.
    scripts = {name for name, spec in TABLE.items() if spec.group == "scripting"}
    assert {name.decode() for name in TABLE.keys() - scripts} == REQUESTS.keys() | ABOUT_NO_KEY | ABOUT_ALL
    assert {spec.name for spec in TABLE.values() if spec.keys[0] and not spec.script} <= REQUESTS.keys()


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_command_is_about_the_selected_database_alone(name: str, in_transaction: bool) -> None:
    if in_transaction and name in ("flushdb", "watch"):
        pytest.skip("not served in a transaction")
    store, alone = filled(0, 2, OURS), filled(0)
    client, other = connect(store), connect(alone)
    client.send(pack("SELECT", str(OURS)))
    store.keys.clear()
    before = {database: contents(store, database) for database in (0, 2)}
    proposed = len(store.proposed)
    replies = []
    for each, database in ((client, OURS), (other, 0)):
        said = REQUESTS[name].format(db=database)
        replies.append(each.send(lines(f"MULTI\n{said}\nEXEC" if in_transaction else said)))
    # Nothing of the others is changed or even looked at, and everything is as if ours were the only one.
    assert {database: contents(store, database) for database in (0, 2)} == before
    touched = [key for batch in store.proposed[proposed:] for command in batch for key in named(command)]
    assert {database_of(key) for key in {*touched, *store.keys}} <= {OURS}
    assert replies[0] == replies[1]
    assert values_of(store, OURS) == values_of(alone, 0)
    if TABLE[name.encode()].keys[0]:
        assert touched or store.keys


@pytest.mark.parametrize("database", [0, OURS])
@pytest.mark.parametrize("name", [name for name in REQUESTS if TABLE[name.encode()].keys[0]])
def test_no_client_can_spell_a_key_of_another_database(name: str, database: int) -> None:
    store = filled(0, 2, OURS)
    client = connect(store)
    client.send(pack("SELECT", str(database)))
    before = dict(store.machine.contents.raw)
    spec = TABLE[name.encode()]
    for said in REQUESTS[name].format(db=database).splitlines():
        words = line(said).split(b"\r\n")[2::2]
        if words[0].lower() != name.encode():
            continue
        hostile = [b"\x012" + word if word in spec.keys_in(words) else word for word in words]
        assert client.send(pack(*hostile)) == b"-ERR invalid key: the key has a control character (U+0001)\r\n"
    assert store.machine.contents.raw == before


def test_the_fast_ways_know_no_other_database() -> None:
    store = filled(0, 2)
    client = connect(store)
    refused = b"-ERR invalid key: the key has a control character (U+0001)\r\n"
    assert client.send(pack("GET", b"\x012a")) == refused
    assert client.send(pack("GET", b"\x012a") + pack("GET", "a")) == refused + b"$1\r\n5\r\n"
    assert client.send(pack("SET", b"\x012a", "x")) == refused
    assert client.send(pack("SET", b"\x012a", "x") + pack("SET", "a", "6")) == refused + b"+OK\r\n"
    assert client.send(pack("READWRITE") + pack("GET", b"\x012a")) == b"+OK\r\n" + refused
    assert client.send(pack("GET", b"\x012a")) == refused
    assert values_of(store, 2)["a"] == (b"5", 0)


@pytest.mark.parametrize("held", [False, True])
def test_rows_of_a_database_are_rows_of_that_one(held: bool) -> None:
    store = filled(0, OURS)
    client = connect(store)
    client.send(pack("SELECT", str(OURS)))
    store.held = held

    def answer(said: bytes) -> bytes:
        told = client.send(said)
        while store.release():
            told += client.replies()
        return told

    sets, gets = (pack("SET", "a", "1") + pack("SET", "c", "2")), pack("GET", "a") + pack("GET", "c")
    for said, told in (
        (pack("GET", "a"), b"$1\r\n5\r\n"),
        (pack("SET", "a", "6"), b"+OK\r\n"),
        (pack("GET", "a"), b"$1\r\n6\r\n"),
        (sets, b"+OK\r\n" * 2),
        (gets, b"$1\r\n1\r\n$1\r\n2\r\n"),
        (sets + pack("GET", "a"), b"+OK\r\n" * 2 + b"$1\r\n1\r\n"),
        (gets + pack("SET", "b", "9"), b"$1\r\n1\r\n$1\r\n2\r\n+OK\r\n"),
    ):
        assert answer(said) == told
        assert answer(said[:-5]) + answer(said[-5:]) == told
    assert values_of(store, 0) == {"a": (b"5", 0), "b": (b"7", values_of(store, 0)["b"][1])}
    assert {key: value for key, (value, _) in values_of(store, OURS).items()} == {"a": b"1", "b": b"9", "c": b"2"}


@pytest.mark.parametrize("database", [0, 1, 15])
def test_a_key_has_up_to_1024_bytes_in_every_database(database: int) -> None:
    store = FakeStore()
    client = connect(store)
    client.send(pack("SELECT", str(database)))
    for longest in ("k" * values.KEY_BYTES_MAX, "ü" * (values.KEY_BYTES_MAX // 2)):
        assert client.send(pack("SET", longest, "v")) == b"+OK\r\n"
        assert client.send(pack("GET", longest)) == b"$1\r\nv\r\n"
        assert client.send(pack("INCR", longest + "x")).startswith(b"-ERR invalid key: the key is longer")
        assert client.send(pack("SCAN", "0", "MATCH", longest[:1] + "*")).endswith(longest.encode() + b"\r\n")
        assert client.send(pack("APPEND", longest, "w") + pack("DEL", longest)) == b":2\r\n:1\r\n"


def test_every_database_is_its_own() -> None:
    client = connect()
    for database in range(DATABASES):
        assert client.send(lines(f"SELECT {database}\nSET k {database}\nSET only:{database} v EX 50")) == b"+OK\r\n" * 3
    for database in range(DATABASES):
        told = client.send(lines(f"SELECT {database}\nGET k\nDBSIZE\nKEYS only*"))
        only, number = f"only:{database}", str(database)
        assert told == f"+OK\r\n${len(number)}\r\n{number}\r\n:2\r\n*1\r\n${len(only)}\r\n{only}\r\n".encode()
    keyspace = client.send(line("INFO keyspace"))
    for database in range(DATABASES):
        assert b"\r\ndb%d:keys=2,expires=1,avg_ttl=50000\r\n" % database in keyspace
    client.send(line("FLUSHDB"))
    assert client.send(lines("DBSIZE\nSELECT 14\nDBSIZE")) == b":0\r\n+OK\r\n:2\r\n"
    assert b"db15" not in client.send(line("INFO keyspace"))
    assert client.send(lines("FLUSHALL\nDBSIZE\nSELECT 0\nDBSIZE")) == b"+OK\r\n:0\r\n+OK\r\n:0\r\n"
    assert client.send(line("INFO keyspace")) == (b"$12\r\n# Keyspace\r\n\r\n")


def test_a_pipeline_goes_from_database_to_database() -> None:
    store = filled(0, 2)
    client = connect(store)
    store.held = True
    said = "INCR a\nGET a\nDBSIZE\nSELECT 2\nGET a\nINCRBY a 3\nGET a\nKEYS a\nSELECT 5\nDBSIZE\nGET a\nSELECT 0\nGET a"
    answered = client.send(lines(said))
    while store.release():
        answered += client.replies()
    assert (
        answered
        == b":6\r\n$1\r\n6\r\n:2\r\n+OK\r\n$1\r\n5\r\n:8\r\n$1\r\n8\r\n*1\r\n$1\r\na\r\n+OK\r\n:0\r\n$-1\r\n+OK\r\n$1\r\n6\r\n"
    )


# Who does not get the database that it asks for, gets none -----------------------------------------------------------


NONE = b"-ERR no database is selected, because the last SELECT failed: send SELECT with 0 to 15, or RESET\r\n"


@pytest.mark.parametrize("failing", ["SELECT 16", "SELECT -1", "SELECT x", "SELECT", "SELECT 1 2", "SELECT 01"])
@pytest.mark.parametrize("before", [0, 3])
def test_behind_a_failed_select_no_key_is_touched_until_one_succeeds(failing: str, before: int) -> None:
    store = filled(0, 3)
    client = connect(store)
    client.send(line(f"SELECT {before}"))
    was = dict(store.machine.contents.raw)
    told = client.send(lines(f"{failing}\nSET a 1\nGET a\nFLUSHALL\nFLUSHDB\nKEYS *\nDBSIZE\nWATCH a\nPING\nDEL a"))
    first, _, rest = told.partition(b"\r\n")
    assert first.startswith(b"-ERR ") and rest == NONE * 7 + b"+PONG\r\n" + NONE
    # Input that is a row of its own comes a faster way.
    assert client.send(pack("GET", "a")) == client.send(pack("SET", "a", "1")) == NONE
    assert client.send(pack("GET", "a") * 2) == client.send(pack("SET", "a", "1") * 2) == NONE * 2
    assert store.machine.contents.raw == was
    assert client.send(lines("SELECT 3\nGET a")) == b"+OK\r\n$1\r\n5\r\n"
    assert client.send(lines(f"{failing}\nRESET\nGET a\nDBSIZE")).endswith(b"+RESET\r\n$1\r\n5\r\n:2\r\n")


def test_a_select_that_fails_in_a_transaction_ends_it_and_leaves_no_database() -> None:
    client = connect(filled(0))
    told = client.send(lines("MULTI\nSET a 1\nSELECT 16\nSET a 2\nEXEC\nGET a\nSELECT 0\nGET a"))
    assert told == (
        b"+OK\r\n+QUEUED\r\n-ERR DB index is out of range\r\n%b"
        b"-EXECABORT Transaction discarded because of previous errors.\r\n%b+OK\r\n$1\r\n5\r\n" % (NONE, NONE)
    )
    assert client.send(lines("MULTI\nSELECT 16\nDISCARD\nGET a")).endswith(b"+OK\r\n" + NONE)


def test_a_transaction_with_a_select_that_does_not_take_place_leaves_no_database() -> None:
    store = filled(0, 2)
    client = connect(store)
    store.failure = NotCommitted("no majority")
    said = lines("MULTI\nSELECT 2\nSET a 1\nEXEC\nGET a\nSET a 9")
    assert client.send(said).endswith(b"-TRYAGAIN not committed: no majority\r\n" + NONE * 2)
    store.failure = None
    assert client.send(lines("SELECT 2\nGET a")) == b"+OK\r\n$1\r\n5\r\n"
    # One that only reads.
    client.send(lines("SELECT 0\nREADWRITE"))
    store.failure = NotCommitted("no majority")
    assert client.send(lines("MULTI\nSELECT 2\nGET a\nEXEC\nGET a")).endswith(
        b"-TRYAGAIN not committed: no majority\r\n" + NONE
    )


def test_what_is_sent_behind_a_transaction_waits_for_its_select() -> None:
    store = filled(0, 2)
    client = connect(store)
    store.held = True
    assert client.send(lines("MULTI\nSELECT 2\nINCR a\nEXEC\nGET a\nINCR a")) == b"+OK\r\n+QUEUED\r\n+QUEUED\r\n"
    answered = b""
    while store.release():
        answered += client.replies()
    assert answered == b"*2\r\n+OK\r\n:6\r\n$1\r\n6\r\n:7\r\n"
    assert values_of(store, 0)["a"] == (b"5", 0)


def test_a_transaction_reads_and_writes_where_its_selects_lead() -> None:
    client = connect(filled(0, 2))
    said = "MULTI\nINCRBYFLOAT a 1\nSELECT 2\nINCRBYFLOAT a 2\nRENAME b c\nDBSIZE\nKEYS a\nSELECT 7\nDBSIZE\nSETNX n 1\nEXEC"
    assert client.send(lines(said)).endswith(
        b"*9\r\n$1\r\n6\r\n+OK\r\n$1\r\n7\r\n+OK\r\n:2\r\n*1\r\n$1\r\na\r\n+OK\r\n:1\r\n:1\r\n"
    )
    assert client.send(lines("GET n\nSELECT 0\nGET a\nSELECT 2\nGET c")) == (
        b"$1\r\n1\r\n+OK\r\n$1\r\n6\r\n+OK\r\n$1\r\n7\r\n"
    )


def test_a_watched_key_is_one_of_the_database_that_was_selected_then() -> None:
    store = filled(0, 2)
    client, other = connect(store), connect(store)
    for disturbed, done in ((0, False), (2, True)):
        client.send(lines("SELECT 0\nWATCH a\nSELECT 2\nMULTI\nSET a 9"))
        other.send(lines(f"SELECT {disturbed}\nINCR a"))
        assert client.send(line("EXEC")) == (b"*1\r\n+OK\r\n" if done else b"*-1\r\n")
    assert values_of(store, 2)["a"] == (b"9", 0)


def test_hello_keeps_the_database_and_reset_goes_back() -> None:
    client = connect(filled(0, 2))
    client.send(lines("SELECT 2\nHELLO 3\nSET a 8"))
    assert client.send(lines("GET a")) == b"$1\r\n8\r\n"
    assert b" db=2 " in client.send(line("CLIENT LIST"))
    assert client.send(lines("RESET\nGET a")) == b"+RESET\r\n$1\r\n5\r\n"
    assert b" db=0 " in client.send(line("CLIENT LIST"))


@pytest.mark.parametrize("failing", ["AUTH wrong", "AUTH default wrong", "AUTH other secret", "AUTH", "AUTH a b c"])
def test_a_failed_auth_leaves_nobody(failing: str) -> None:
    store = filled(0)
    client = connect(store, token=b"secret")
    assert client.send(lines("AUTH secret\nGET a")) == b"+OK\r\n$1\r\n5\r\n"
    first, _, rest = client.send(lines(f"{failing}\nGET a\nSET a 1")).partition(b"\r\n")
    assert first.startswith(b"-") and rest == b"-NOAUTH Authentication required.\r\n" * 2
    assert client.send(pack("GET", "a")) == b"-NOAUTH Authentication required.\r\n"
    assert client.send(lines("AUTH secret\nGET a")) == b"+OK\r\n$1\r\n5\r\n"
    assert client.send(lines("HELLO 3 AUTH default wrong\nGET a")).endswith(b"-NOAUTH Authentication required.\r\n")


def test_a_select_before_authentication_has_failed() -> None:
    client = connect(filled(0), token=b"secret")
    told = client.send(lines("SELECT 2\nAUTH secret\nSET a 1\nSELECT 2\nSET a 1"))
    assert told == b"-NOAUTH Authentication required.\r\n+OK\r\n" + NONE + b"+OK\r\n+OK\r\n"


def test_where_no_password_is_wanted_a_wrong_one_takes_nothing_away() -> None:
    assert connect(filled(0)).send(lines("AUTH secret\nGET a")).endswith(b"configuration is correct?\r\n$1\r\n5\r\n")


# All keys of a database ----------------------------------------------------------------------------------------------


def pages(client: Client, *options: str) -> list[str]:
    """All pages of a SCAN."""
    found: list[str] = []
    cursor = "0"
    while True:
        reader = hiredis.Reader(encoding="utf-8")
        reader.feed(client.send(pack("SCAN", cursor, *options)))
        cursor, keys = reader.gets()
        found += keys
        if cursor == "0":
            return found


def test_a_scan_finds_few_keys_among_many_of_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "SEARCHED_MIN", 20)
    store = FakeStore()
    store.apply([c.batch([c.set_(f"many:{number}", b"v", 0) for number in range(1000)])])
    store.apply([c.batch([c.set_(f"\x014few:{number}", b"v", 0) for number in range(10)])])
    store.apply([c.batch([c.set_(f"more:{number}", b"v", 0) for number in range(1000)])])
    client = connect(store)
    client.send(line("SELECT 4"))
    assert sorted(pages(client)) == sorted(pages(client, "COUNT", "3")) == [f"few:{number}" for number in range(10)]
    assert {client.send(line("RANDOMKEY"))[4:-2] for _ in range(200)} == {b"few:%d" % number for number in range(10)}
    client.send(line("SELECT 0"))
    assert len(pages(client)) == len(set(pages(client, "COUNT", "7"))) == 2000


def test_a_cursor_is_of_the_database_where_the_scan_began() -> None:
    store = filled(0, 2)
    shared = service(store)
    client = Client(shared.connection(ignore))
    cursor = client.send(pack("SCAN", "0", "COUNT", "1")).split(b"\r\n")[2].decode()
    assert cursor != "0"
    assert client.send(line("SELECT 2") + pack("SCAN", cursor)).startswith(b"+OK\r\n-ERR invalid cursor")


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("MOVE a 2", OTHER_DATABASE),
        ("COPY a b DB 2", OTHER_DATABASE),
        ("SWAPDB 0 1", "ERR SWAPDB is not served: no command changes the number of a database"),
        ("COPY a b DB 16", "ERR DB index is out of range"),
    ],
)
def test_nothing_goes_from_one_database_to_another(said: str, answered: str) -> None:
    store = filled(0, 2)
    was = dict(store.machine.contents.raw)
    assert connect(store).send(line(said)) == f"-{answered}\r\n".encode()
    assert f"-{answered}\r\n".encode() in connect(store).send(lines(f"MULTI\n{said}\nEXEC"))
    assert store.machine.contents.raw == was
