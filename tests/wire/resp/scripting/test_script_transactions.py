"""Transactions with scripts: all of one runs in the scripts' thread, but for what the connection answers by itself."""

from __future__ import annotations

import pytest
from wire.fake_transport import Client
from wire.resp_client import line, lines
from wire.script_client import ScriptClients, evaluate, proposed

from cacheflow.machine.language import commands as c
from cacheflow.values import TEXT
from cacheflow.wire.resp.commands import scripts
from cacheflow.wire.resp.replies import error


@pytest.fixture
def clients() -> ScriptClients:
    return ScriptClients()


@pytest.fixture
def client(clients: ScriptClients) -> Client:
    return clients.connect()


def test_a_transaction_may_have_scripts_among_its_commands(clients: ScriptClients, client: Client) -> None:
    assert client.send(line("MULTI")) == b"+OK\r\n"
    for words in (
        "SET k 5",
        "EVAL \"return redis.call('INCR', KEYS[1])\" 1 k",
        "INCR k",
        "EVALSHA nope 0",
        "GET k",
        "GET none",
    ):
        assert client.send(line(words)) == b"+QUEUED\r\n"
    assert client.send(line("EXEC")) == (
        b"*6\r\n+OK\r\n:6\r\n:7\r\n-NOSCRIPT No matching script. Please use EVAL.\r\n$1\r\n7\r\n$-1\r\n"
    )
    assert proposed(clients) == [(c.GUARDED, [("none", 0, 0)], [c.set_("k", b"7", TEXT)], True)]
    assert len(clients.service.scripts.turns) == 0


def test_a_transaction_with_a_script_does_nothing_if_a_watched_key_has_changed(clients: ScriptClients) -> None:
    client, other = clients.connect(), clients.connect()
    client.send(lines("SET w 1\nWATCH w\nMULTI\nEVAL \"return redis.call('SET', 'k', 1)\" 0"))
    other.send(line("SET w 2"))
    assert client.send(lines("EXEC\nEXISTS k")) == b"*-1\r\n:0\r\n"


def test_in_resp3_a_transactions_own_commands_are_answered_in_resp3(client: Client) -> None:
    client.send(line("HELLO 3"))
    client.send(
        lines("MULTI\nGET none\nEVAL \"return {redis.call('GET', 'none'), redis.call('GET', 'none') == false}\" 0")
    )
    assert client.send(line("EXEC")) == b"*2\r\n_\r\n*2\r\n_\r\n:1\r\n"


def test_in_a_transaction_with_a_script_the_connections_own_commands_are_about_the_connection(client: Client) -> None:
    client.send(
        lines("MULTI\nCLIENT SETNAME bob\nEVAL 'return 1' 0\nCLIENT INFO\nCLIENT NONE\nCLIENT CONSISTENCY LINEARIZABLE")
    )
    reply = client.send(line("EXEC"))
    assert reply.startswith(b"*5\r\n+OK\r\n:1\r\n$") and b" name=bob " in reply
    assert reply.endswith(b"-ERR unknown subcommand 'NONE'. Try CLIENT HELP.\r\n+OK\r\n")
    assert client.send(line("CLIENT GETNAME")) == b"$3\r\nbob\r\n"
    assert client.protocol.linearizable


def test_what_the_loop_owns_is_not_touched_by_the_scripts_thread(clients: ScriptClients, client: Client) -> None:
    other = clients.connect()
    clients.runner.held = True
    number = int(other.send(line("CLIENT ID"))[1:])
    client.send(lines(f"MULTI\nEVAL 'return 1' 0\nCLIENT KILL ID {number}\nEXEC"))
    clients.runner.between = lambda: seen.append(other.transport.is_closing())
    seen: list[bool] = []
    clients.runner.run_next()
    assert seen == [False] and other.transport.is_closing()
    assert client.replies() == b"*2\r\n:1\r\n:1\r\n"


def test_large_answers_are_not_gathered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "ANSWER_BYTES_MAX", 40)
    client.send(lines(f"SET big {'x' * 20}\nMULTI\nEVAL 'return 1' 0\nGET big\nGET big\nGET none"))
    reply = b"*4\r\n:1\r\n$20\r\n%b\r\n-ERR the answers are larger than 40 bytes\r\n$-1\r\n" % (b"x" * 20)
    assert client.send(line("EXEC")) == reply


def test_a_transaction_whose_time_is_over_leaves_nothing(clients: ScriptClients, client: Client) -> None:
    clients.runner.time_over = True
    client.send(lines("MULTI\nSET k 1\nEVAL 'return 1' 0\nKEYS *"))
    assert client.send(line("EXEC")) == b"-ERR given up: its time is over\r\n"
    assert clients.store.proposed == []


def test_a_transaction_of_scripts_passes_a_barrier_on_a_linearizable_connection(
    clients: ScriptClients, client: Client
) -> None:
    client.send(lines("CLIENT CONSISTENCY LINEARIZABLE\nMULTI\nEVAL_RO \"return redis.call('DBSIZE')\" 0"))
    assert client.send(line("EXEC")) == b"*1\r\n:0\r\n"
    assert clients.store.proposed == [[]]


def test_scripts_of_one_request_name_so_many_keys_and_no_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "KEYS_MAX", 2)
    assert evaluate(client, "return 1", keys=("a", "b")) == b":1\r\n"
    assert evaluate(client, "return 1", keys=("a", "b", "c")) == error(scripts.TOO_MANY_KEYS)
    client.send(lines("MULTI\nEVAL 'return 1' 2 a b\nEVAL 'return 1' 1 c\nSET k 1"))
    assert client.send(lines("EXEC\nEXISTS k")) == error(scripts.TOO_MANY_KEYS) + b":0\r\n"


def test_a_transaction_that_only_reads_needs_no_writes_of_its_scripts(client: Client) -> None:
    client.send(lines("MULTI\nEVAL_RO \"return redis.pcall('SET', 'k', 1)\" 0\nSET k 2"))
    reply = b"*2\r\n-ERR Write commands are not allowed from read-only scripts.\r\n+OK\r\n"
    assert client.send(line("EXEC")) == reply
