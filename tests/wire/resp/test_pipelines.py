"""Answers in the order of the requests, whenever they come."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.resp_client import connect, line, lines, pack

from cacheflow.errors import NoLeader, NotReady
from cacheflow.machine.language import commands

MEGABYTE = b"x" * (1024 * 1024)


def held_store() -> FakeStore:
    """Writes wait until they are released."""
    store = FakeStore()
    store.held = True
    return store


def release_all(store: FakeStore) -> None:
    """Also what is proposed after the first answers."""
    while store.release():
        pass


def test_what_comes_behind_a_write_waits_for_its_answer() -> None:
    store = held_store()
    client = connect(store)
    assert client.send(lines("PING\nSET k 1\nGET k\nINCR k\nGET k\nPING\nnope\nTTL k\nKEYS *\nDBSIZE")) == b"+PONG\r\n"
    release_all(store)
    assert client.replies() == (
        b"+OK\r\n$1\r\n1\r\n:2\r\n$1\r\n2\r\n+PONG\r\n"
        b"-ERR unknown command 'nope', with args beginning with: \r\n:-1\r\n*1\r\n$1\r\nk\r\n:1\r\n"
    )


def test_the_writes_of_a_piece_of_input_are_one_proposal() -> None:
    store = held_store()
    client = connect(store)
    client.send(lines("SET a 1\nSET b 2\nDEL a\nINCR c"))
    assert [len(proposal) for proposal in store.proposed] == [4]
    release_all(store)
    assert client.replies() == b"+OK\r\n+OK\r\n:1\r\n:1\r\n"


def test_a_read_does_not_see_a_later_write_of_its_pipeline() -> None:
    store = held_store()
    client = connect(store)
    client.send(lines("SET k 1\nGET k\nSET k 2\nMGET k\nSET k 3"))
    release_all(store)
    assert client.replies() == b"+OK\r\n$1\r\n1\r\n+OK\r\n*1\r\n$1\r\n2\r\n+OK\r\n"


@pytest.mark.parametrize("words", ["RENAME k l", "INCRBYFLOAT k 1.5", "SETRANGE k 1 x", "COPY k l", "MSETNX l 1 m 2"])
def test_a_command_of_several_steps_begins_when_all_before_it_is_answered(words: str) -> None:
    store = held_store()
    client = connect(store)
    client.send(line("SET k 1") + line(words) + lines("GET k\nPING"))
    assert len(store.proposed) == 1
    store.release()
    assert client.replies() == b"+OK\r\n" and len(store.proposed) == 2
    release_all(store)
    assert client.replies().endswith(b"+PONG\r\n")
    assert store.waiting == 0


def test_a_thousand_commands_of_several_steps_may_come_at_once() -> None:
    client = connect()
    assert client.send(line("SET k 0") + line("INCRBYFLOAT k 0.5") * 2000 + line("GET k")).endswith(
        b"$4\r\n1000\r\n$4\r\n1000\r\n"
    )


def test_a_change_of_protocol_takes_its_turn() -> None:
    store = held_store()
    client = connect(store)
    client.send(lines("SET k 1\nGET nope\nGETDEL nope\nHELLO 3\nGET nope\nGETDEL nope\nRESET\nGET nope"))
    release_all(store)
    answered = client.replies()
    assert answered.startswith(b"+OK\r\n$-1\r\n$-1\r\n%7\r\n")
    assert answered.endswith(b"*0\r\n_\r\n_\r\n+RESET\r\n$-1\r\n")


def test_quit_is_answered_behind_all_before_it_and_nothing_behind_it_is_done() -> None:
    store = held_store()
    client = connect(store)
    assert client.send(lines("SET k 1\nQUIT\nSET k 2")) == b"" and not client.transport.closed
    release_all(store)
    assert client.replies() == b"+OK\r\n+OK\r\n" and client.closed
    entry = store.entry("k")
    assert entry is not None and entry[0] == b"1"


def test_a_write_that_fails_fails_alone() -> None:
    store = held_store()
    client = connect(store)
    client.send(lines("SET k 1\nGET k"))
    store.failure = NoLeader("no leader")
    store.release()
    store.failure = None
    assert client.replies() == b"-CLUSTERDOWN no leader\r\n$-1\r\n"


def test_a_client_that_does_not_read_is_not_read_from_memory_either() -> None:
    store = held_store()
    store.apply([commands.set_("k", MEGABYTE, 0)])
    client, other = connect(store), connect(store)
    client.transport.takes = False
    client.send(line("SET a 1") + line("GET k") * 500)
    release_all(store)
    assert len(client.transport.written) < 4 * len(MEGABYTE)
    assert other.send(line("PING")) == b"+PONG\r\n"
    client.transport.take_all()
    assert client.replies() == b"+OK\r\n" + b"$1048576\r\n%b\r\n" % MEGABYTE * 500


def test_what_a_client_sends_in_advance_is_read_as_fast_as_it_is_answered() -> None:
    store = held_store()
    client = connect(store)
    client.send(line("INCR k") * 3000)
    paused = not client.transport.reading
    assert paused
    assert sum(map(len, store.proposed)) == 1024
    release_all(store)
    assert client.transport.reading
    assert client.replies().endswith(b":2999\r\n:3000\r\n")


def test_whoever_goes_away_leaves_nothing_behind() -> None:
    store = held_store()
    client, other = connect(store), connect(store)
    client.send(lines("SET k 1\nGET k\nRENAME k l"))
    client.transport.close()
    client.protocol.connection_lost(None)
    assert other.send(line("GET k")) == b"$-1\r\n"
    release_all(store)
    assert client.replies() == b""
    assert len(store.proposed) == 1


# Reads that see everything acknowledged before --------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["READWRITE", "CLIENT CONSISTENCY linearizable"])
@pytest.mark.parametrize("words", ["GET k", "MGET k", "TTL k", "KEYS *", "SCAN 0", "DBSIZE"])
def test_a_connection_may_ask_for_linearizable_reads(switch: str, words: str) -> None:
    store = held_store()
    client = connect(store)
    assert client.send(line(switch)) == b"+OK\r\n"
    assert client.send(line(words)) == b"" and store.proposed == [[]]
    # What another client is told now must be seen.
    store.apply([commands.set_("k", b"new", 0, None, 5000)])
    store.release()
    assert client.replies() in (
        *(b"$3\r\nnew\r\n", b"*1\r\n$3\r\nnew\r\n", b":5\r\n"),
        *(b"*1\r\n$1\r\nk\r\n", b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n", b":1\r\n"),
    )


@pytest.mark.parametrize("switch", ["READONLY", "CLIENT CONSISTENCY LOCAL", "RESET"])
def test_and_go_back_to_reading_memory(switch: str) -> None:
    store = held_store()
    client = connect(store)
    client.send(line("READWRITE"))
    client.send(line(switch))
    assert client.send(line("GET k")) == b"$-1\r\n" and store.proposed == []


def test_one_round_is_enough_for_all_reads_of_a_piece_of_input() -> None:
    store = held_store()
    client = connect(store)
    client.send(line("READWRITE"))
    client.send(line("GET k") * 10)
    assert store.proposed == [[]]
    release_all(store)
    assert client.replies() == b"$-1\r\n" * 10


@pytest.mark.parametrize("words", ["GET k", "KEYS *"])
def test_a_linearizable_read_without_a_leader_is_an_error(words: str) -> None:
    store = FakeStore()
    client = connect(store)
    client.send(line("READWRITE"))
    store.failure = NoLeader("no leader")
    assert client.send(line(words)) == b"-CLUSTERDOWN no leader\r\n"


def test_no_other_level_is_known() -> None:
    assert (
        connect().send(line("CLIENT CONSISTENCY eventual")) == b"-ERR CLIENT CONSISTENCY is LOCAL or LINEARIZABLE\r\n"
    )


def test_a_node_that_stops_being_ready_says_so_at_each_read_s_turn() -> None:
    store = held_store()
    client = connect(store)
    client.send(lines("SET k 1\nGET k\nMGET k\nMULTI\nGET k\nEXEC\nPING"))
    store.readable = False
    store.release()
    answered = client.replies()
    assert answered.startswith(b"+OK\r\n-LOADING ") and answered.count(b"-LOADING ") == 3
    assert answered.endswith(b"+PONG\r\n")


def test_a_write_that_no_node_takes_now_is_refused_at_once_many_times_over() -> None:
    store = FakeStore()
    store.failure = NotReady("this node is stopped")
    client = connect(store)
    assert client.send(pack("RENAME", "a", "b") * 2000) == b"-LOADING this node is stopped\r\n" * 2000


def test_a_row_of_gets_is_answered_as_one_by_one() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(pack("SET", "a", "1") + pack("SET", "b", "x\r\ny"))
    asked: list[bytes | str] = ["a", "b", "none", "a\x01b", "long" * 80, "a\r\nb", "ä", b"\xff", "b"]
    each = [client.send(pack("GET", key)) for key in asked]
    assert client.send(b"".join(pack("GET", key) for key in asked)) == b"".join(each)
    for keys in (["a", "b"], ["a", "none", "b"], ["none"] * 3, ["a", "a\x01b"]):
        store.hits = store.misses = 0
        store.noted.clear()
        told = client.send(b"".join(pack("GET", key) for key in keys))
        assert told == b"".join(each[asked.index(key)] for key in keys)
        assert store.noted == [key for key in keys if key in ("a", "b")]
        assert (store.hits, store.misses) == (len(store.noted), len(keys) - len(store.noted))


def test_a_row_of_gets_of_large_values_is_not_in_memory_at_once() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(pack("SET", "large", MEGABYTE))
    assert client.send(pack("GET", "large") * 5) == (b"$1048576\r\n" + MEGABYTE + b"\r\n") * 5
    assert store.hits == 5
