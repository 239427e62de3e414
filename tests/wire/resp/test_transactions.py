"""MULTI, EXEC, WATCH, and commands of several steps: one entry of the log, or nothing."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, lines, pack, service

from cacheflow.errors import NoLeader, OutcomeUnknown
from cacheflow.machine.deciding import batches
from cacheflow.machine.language import commands
from cacheflow.wire.resp.session import WATCHED_MAX


def both(store: FakeStore) -> tuple[Client, Client]:
    """Two clients of one node."""
    shared = service(store)
    return Client(shared.connection(ignore)), Client(shared.connection(ignore))


def test_a_transaction_is_one_entry() -> None:
    store = FakeStore()
    client = connect(store)
    assert (
        client.send(lines("MULTI\nSET a 1\nINCR a\nGET a\nDEL b\nMSET c 1 d 2\nEXPIRE c 10"))
        == b"+OK\r\n" + b"+QUEUED\r\n" * 6
    )
    before = store.machine.applied_index
    assert client.send(line("EXEC")) == b"*6\r\n+OK\r\n:2\r\n$1\r\n2\r\n:0\r\n+OK\r\n:1\r\n"
    assert store.machine.applied_index == before + 1


def test_its_reads_see_its_writes_and_are_no_later_than_they() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(
        lines("SET k 1\nMULTI\nGET k\nSET k 22\nMGET k nope\nSTRLEN k\nEXISTS k nope\nTYPE k\nTTL k\nDEL k\nGET k")
    )
    assert client.send(line("EXEC")).startswith(
        b"*9\r\n$1\r\n1\r\n+OK\r\n*2\r\n$2\r\n22\r\n$-1\r\n:2\r\n:1\r\n+string\r\n:-1\r\n:1\r\n$-1\r\n"
    )


def test_one_that_only_reads_is_memory_at_one_moment() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(lines("MSET a 1 b 2\nMULTI\nGET a\nGET b\nPING\nDBSIZE"))
    proposed = len(store.proposed)
    assert client.send(line("EXEC")) == b"*4\r\n$1\r\n1\r\n$1\r\n2\r\n+PONG\r\n:2\r\n"
    assert len(store.proposed) == proposed


def test_a_read_that_is_too_large_for_the_entrys_answer_says_so_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "READ_PER_BATCH_BYTES_MAX", 2 * 66)
    client = connect()
    client.send(
        lines("SET a 1\nSET b 2\nSET c 3\nMULTI\nGET a\nGETSET b 9\nGET c\nMGET a b\nGETDEL c\nSET a 5 GET\nSTRLEN a")
    )
    refused = b"-OOM a batch reads at most 132 bytes; read this key by itself\r\n"
    assert client.send(line("EXEC")) == b"*7\r\n$1\r\n1\r\n$1\r\n2\r\n" + refused * 5
    assert client.send(line("MGET a b")) == b"*2\r\n$1\r\n5\r\n$1\r\n9\r\n"


def test_a_command_that_fails_does_not_stop_the_others() -> None:
    client = connect()
    client.send(lines("SET t text\nMULTI\nINCR t\nSET a 1\nRENAME nope x\nINCRBYFLOAT t 1\nPING\nGETRANGE t x 1"))
    assert client.send(line("EXEC")) == (
        b"*6\r\n-ERR value is not an integer or out of range\r\n+OK\r\n-ERR no such key\r\n"
        b"-ERR value is not a valid float\r\n+PONG\r\n-ERR value is not an integer or out of range\r\n"
    )
    assert client.send(line("GET a")) == b"$1\r\n1\r\n"


def test_commands_of_several_steps_see_what_those_before_them_leave() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(lines("SET a 1\nMULTI\nINCRBYFLOAT a 0.5\nINCRBYFLOAT a 0.5\nAPPEND a 0\nRENAME a b"))
    client.send(lines("SETRANGE b 1 xyz\nCOPY b c\nGET c\nGET a"))
    before = store.machine.applied_index
    assert client.send(line("EXEC")) == (
        b"*8\r\n$3\r\n1.5\r\n$1\r\n2\r\n:2\r\n+OK\r\n:4\r\n:1\r\n$4\r\n2xyz\r\n$-1\r\n"
    )
    assert store.machine.applied_index == before + 1


@pytest.mark.parametrize("wrong", ["FOO", "GET", "HELLO 3", "AUTH x", "FLUSHALL", "UNWATCH", "CLIENT"])
def test_what_cannot_be_queued_discards_the_transaction(wrong: str) -> None:
    store = FakeStore()
    client = connect(store)
    client.send(lines("MULTI\nSET a 1"))
    assert client.send(line(wrong)).startswith(b"-ERR ")
    assert client.send(line("EXEC")) == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert client.send(lines("GET a\nMULTI\nPING\nEXEC")) == b"$-1\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"


def test_a_transaction_has_an_end() -> None:
    client = connect()
    client.send(line("MULTI"))
    assert client.send(line("PING") * 2001).endswith(
        b"-ERR a transaction has at most 2000 commands and 5242880 bytes\r\n"
    )
    assert client.send(line("EXEC")).startswith(b"-EXECABORT ")
    client.send(line("MULTI"))
    value = b"x" * 1_000_000
    assert client.send(pack("SET", "k", value) * 6).endswith(
        b"-ERR a transaction has at most 2000 commands and 5242880 bytes\r\n"
    )
    client.send(line("DISCARD"))
    client.send(line("MULTI") + pack("MGET", *["k"] * 4000) * 2)
    assert client.send(line("EXEC")) == b"-ERR a transaction reads at most 5000 keys\r\n"
    client.send(line("MULTI") + pack("MGET", *["k"] * 1000) + line("SET a 1"))
    assert client.send(line("EXEC")) == (
        b"-ERR a transaction that writes or watches changes and reads at most 1000 keys\r\n"
    )


def test_what_was_discarded_did_not_happen() -> None:
    store = FakeStore()
    client = connect(store)
    assert client.send(lines("MULTI\nSET a 1\nDISCARD\nGET a\nDISCARD")).endswith(
        b"+OK\r\n$-1\r\n-ERR DISCARD without MULTI\r\n"
    )
    client.send(lines("MULTI\nSET a 1"))
    assert client.send(line("RESET")) == b"+RESET\r\n"
    assert client.send(line("EXEC")) == b"-ERR EXEC without MULTI\r\n"


def test_one_that_failed_on_the_way_says_so_once() -> None:
    store = FakeStore()
    client = connect(store)
    for queued in ("SET a 1", "INCRBYFLOAT a 1"):
        client.send(lines(f"MULTI\n{queued}"))
        store.failure = OutcomeUnknown("sent, and no answer")
        assert client.send(line("EXEC")) == b"-OUTCOMEUNKNOWN sent, and no answer\r\n"
        store.failure = None


# WATCH ----------------------------------------------------------------------------------------------------------------


CHANGES = [
    "SET k 2",
    "DEL k",
    "APPEND k x",
    "INCR k",
    "RENAME k l",
    "FLUSHALL",
    "GETDEL k",
    "EXPIRE k 10",
    "GETEX k EX 10",
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("protocol", [2, 3])
def test_nothing_happens_if_a_watched_key_has_changed(change: str, protocol: int) -> None:
    store = FakeStore()
    client, other = both(store)
    client.send(lines(f"HELLO {protocol}\nSET k 1\nWATCH k\nMULTI\nSET a 1\nGET a"))
    other.send(line(change))
    assert client.send(line("EXEC")) == (b"*-1\r\n" if protocol == 2 else b"_\r\n")
    assert client.send(line("EXISTS a")) == b":0\r\n"
    assert client.send(lines("MULTI\nSET a 1\nEXEC")).endswith(b"*1\r\n+OK\r\n")


@pytest.mark.parametrize("change", ["SET other 2", "GET k", "TTL k", "DEL nope"])
def test_it_happens_if_none_has(change: str) -> None:
    store = FakeStore()
    client, other = both(store)
    client.send(lines("SET k 1\nWATCH k nope\nWATCH k\nMULTI\nSET k 2\nGET k"))
    other.send(line(change))
    assert client.send(line("EXEC")) == b"*2\r\n+OK\r\n$1\r\n2\r\n"


def test_a_key_that_came_or_ended_has_changed() -> None:
    store = FakeStore()
    client, other = both(store)
    client.send(lines("WATCH k\nMULTI\nPING"))
    other.send(line("SET k 1 PX 10"))
    assert client.send(line("EXEC")) == b"*-1\r\n"
    client.send(lines("WATCH k\nMULTI\nPING"))
    store.clock_ms += 10
    assert client.send(line("EXEC")) == b"*-1\r\n"


@pytest.mark.parametrize("words", ["UNWATCH", "RESET", "MULTI\nDISCARD", "MULTI\nEXEC"])
def test_watching_ends(words: str) -> None:
    store = FakeStore()
    client, other = both(store)
    client.send(lines(f"WATCH k\n{words}\nMULTI\nSET a 1"))
    other.send(line("SET k 1"))
    assert client.send(line("EXEC")) == b"*1\r\n+OK\r\n"


def test_in_a_pipeline_a_key_is_watched_from_its_turn_on() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    client.send(lines("SET k 1\nWATCH k\nMULTI\nINCR k\nEXEC\nWATCH k\nSET k 5\nMULTI\nINCR k\nEXEC\nGET k"))
    while store.release():
        pass
    assert client.replies().endswith(b"+QUEUED\r\n*1\r\n:2\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n$1\r\n5\r\n")


# Several steps, and others in between -----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_multi", [False, True])
def test_a_command_of_several_steps_looks_again_when_another_was_faster(in_multi: bool) -> None:
    store = FakeStore()
    client = connect(store)
    client.send(line("SET k 1"))
    store.held = True
    client.send(lines("MULTI\nINCRBYFLOAT k 0.5\nEXEC") if in_multi else line("INCRBYFLOAT k 0.5"))
    client.replies()
    for rival in (b"10", b"20"):
        store.apply([commands.set_("k", rival, 0)])
        store.release()
        assert client.replies() == b""
    store.release()
    assert client.replies() == (b"*1\r\n" if in_multi else b"") + b"$4\r\n20.5\r\n"
    assert len(store.proposed) == 4


def test_a_refusal_too_rests_on_what_is_true_in_the_log() -> None:
    store = FakeStore()
    client = connect(store)
    store.held = True
    client.send(lines("RENAME k l\nMSETNX a 1 b 2"))
    store.apply([commands.set_("k", b"1", 0)])
    while store.release():
        pass
    assert client.replies() == b"+OK\r\n:1\r\n"


def test_it_gives_up_when_others_are_always_faster() -> None:
    store = FakeStore()
    client = connect(store)
    store.held = True
    client.send(lines("INCRBYFLOAT k 1\nPING"))
    rounds = 0
    while store.waiting:
        store.apply([commands.set_("k", b"%d" % rounds, 0)])
        store.release()
        rounds += 1
    assert rounds == 100
    assert client.replies().startswith(b"-TRYAGAIN not committed: ")


def test_a_watched_key_that_changed_is_not_tried_again() -> None:
    store = FakeStore()
    client, other = both(store)
    client.send(lines("SET k 1\nWATCH k\nMULTI\nINCRBYFLOAT k 1"))
    other.send(line("SET k 2"))
    proposed = len(store.proposed)
    assert client.send(line("EXEC")) == b"*-1\r\n"
    assert len(store.proposed) == proposed + 1


def test_no_leader_ends_the_steps() -> None:
    store = FakeStore()
    client = connect(store)
    store.held = True
    client.send(line("INCRBYFLOAT k 1"))
    store.failure = NoLeader("no leader")
    store.release()
    assert client.replies() == b"-CLUSTERDOWN no leader\r\n"


def test_more_keys_than_one_entry_compares_are_not_watched() -> None:
    store = FakeStore()
    client = connect(store)
    keys = [f"k{number}" for number in range(WATCHED_MAX)]
    assert client.send(pack("WATCH", *keys)) == b"+OK\r\n"
    assert client.send(pack("WATCH", "k1", "k2")) == b"+OK\r\n"
    assert client.send(pack("WATCH", "one more")).startswith(b"-ERR at most 1000 keys can be watched")
    assert client.send(lines("MULTI\nSET a 1\nEXEC")).endswith(b"*1\r\n+OK\r\n")
    assert batches.BATCH_COMMANDS_MAX >= WATCHED_MAX
