"""EVAL: a script sees memory and its own writes, and takes place in one guarded entry, or again."""

from __future__ import annotations

import gc
import hashlib

import pytest
from fakes.users import MemoryAccess
from wire.fake_transport import Client
from wire.resp_client import line, lines
from wire.script_client import ScriptClients, evaluate, proposed

from cacheflow.access.roles import Role
from cacheflow.contract import Entry
from cacheflow.errors import NotCommitted, OutcomeUnknown
from cacheflow.machine.language import commands as c
from cacheflow.values import TEXT
from cacheflow.wire.optimistic import ATTEMPTS_MAX
from cacheflow.wire.resp.overlay import Overlay
from cacheflow.wire.resp.scripting import caller
from cacheflow.wire.resp.scripting.caller import Caller
from cacheflow.wire.resp.scripting.running import ScriptRun

COUNT = "local n = redis.call('GET', KEYS[1]) or 0 n = n + 1 redis.call('SET', KEYS[1], n) return n"


@pytest.fixture
def clients() -> ScriptClients:
    return ScriptClients()


@pytest.fixture
def client(clients: ScriptClients) -> Client:
    return clients.connect()


# What cannot be taken back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PUBLISH", "SPUBLISH"])
def test_nothing_is_published_by_a_script_that_may_begin_again(
    clients: ScriptClients, client: Client, name: str
) -> None:
    listener = clients.connect()
    listener.send(lines("SUBSCRIBE a\nSSUBSCRIBE a"))
    refused = f"ERR {name} is not served in scripts".encode()
    assert refused in evaluate(client, f"return redis.call('{name}', 'a', '1')")
    clients.store.next_turn.run()
    assert not listener.replies()
    # In a transaction, once the script has taken place.
    told = client.send(lines(f"MULTI\nEVAL 'return 1' 0\n{name} a 1\nEXEC"))
    assert told.endswith(b"*2\r\n:1\r\n:1\r\n")
    clients.store.next_turn.run()
    assert listener.replies()


@pytest.mark.parametrize("words", ["'SUBSCRIBE', 'a'", "'UNSUBSCRIBE'", "'PUBSUB', 'NUMPAT'"])
def test_a_script_subscribes_to_nothing(client: Client, words: str) -> None:
    assert caller.NOT_ALLOWED.encode() in evaluate(client, f"return redis.call({words})")


# Effects --------------------------------------------------------------------------------------------------------------


def test_the_writes_of_a_script_are_one_entry_guarded_by_what_it_has_read(
    clients: ScriptClients, client: Client
) -> None:
    client.send(lines("SET a 1\nSET b 2 PX 500"))
    ends_at_ms = clients.store.clock_ms + 500
    script = "local a = redis.call('GET', 'a') redis.call('GET', 'none') redis.call('PTTL', 'b') return redis.call('SET', 'c', a)"
    assert evaluate(client, script) == b"+OK\r\n"
    assert proposed(clients)[2:] == [
        (c.GUARDED, [("a", 1, 0), ("none", 0, 0), ("b", 2, ends_at_ms)], [c.set_("c", b"1", TEXT)], True)
    ]


def test_many_writes_of_one_key_are_one_command_and_keys_keep_the_order_of_their_last_writes(
    clients: ScriptClients, client: Client
) -> None:
    script = """
        for i = 1, 50 do redis.call('INCR', 'n') end
        redis.call('SET', 'x', '1') redis.call('SET', 'y', '1') redis.call('APPEND', 'x', '2')
        return redis.call('GET', 'n')
    """
    assert evaluate(client, script) == b"$2\r\n50\r\n"
    _, conditions, commands, _ = proposed(clients)[0]
    assert conditions == [("n", 0, 0)]
    assert [(command[1], command[2]) for command in commands] == [("n", b"50"), ("y", b"1"), ("x", b"12")]


@pytest.mark.parametrize(
    ("before", "script", "commands"),
    [
        # An expiry that stays is kept to the millisecond, and one that changes is counted from the entry's time.
        ("SET k 1 PX 500", "redis.call('INCR', 'k')", [c.set_("k", b"2", TEXT, None, c.TTL_KEEP)]),
        ("SET k 1 PX 500", "redis.call('SET', 'k', 2)", [c.set_("k", b"2", TEXT)]),
        ("SET k 1 PX 500", "redis.call('SET', 'k', 2, 'PX', 900)", [c.set_("k", b"2", TEXT, None, 900)]),
        ("SET k 1 PX 500", "redis.call('PERSIST', 'k')", [c.expire("k", c.TTL_NONE)]),
        ("SET k 1", "redis.call('PEXPIRE', 'k', 700)", [c.expire("k", 700)]),
        ("SET k 1", "redis.call('PEXPIRE', 'k', 700) redis.call('INCR', 'k')", [c.set_("k", b"2", TEXT, None, 700)]),
        ("SET k 1", "redis.call('PEXPIRE', 'k', -1)", [c.delete("k")]),
        ("SET k 1", "redis.call('DEL', 'k')", [c.delete("k")]),
        ("SET k 1", "redis.call('DEL', 'k') redis.call('SET', 'k', 2)", [c.set_("k", b"2", TEXT)]),
        ("SET k 1", "redis.call('EXPIRE', 'k', 5, 'XX')", []),
        ("SET k 1", "redis.call('GET', 'k')", []),
        ("SET other 1", "redis.call('GET', 'k') redis.call('SET', 'k', 2) redis.call('DEL', 'k')", []),
        ("SET other 1", "redis.call('SET', 'k', 2) redis.call('DEL', 'k')", [c.delete("k")]),
        ("SET k 1", "redis.call('RENAME', 'k', 'l')", [c.set_("l", b"1", TEXT), c.delete("k")]),
    ],
)
def test_what_is_proposed_is_what_is_left(
    clients: ScriptClients, client: Client, before: str, script: str, commands: list[c.Command]
) -> None:
    client.send(line(before))
    assert evaluate(client, script) == b"$-1\r\n"
    guarded = proposed(clients)[1]
    assert guarded[0] == c.GUARDED
    assert guarded[2] == commands


def test_a_set_without_conditions_needs_nothing_to_stay_as_it_is(clients: ScriptClients, client: Client) -> None:
    evaluate(client, "return redis.call('SET', 'k', 'v')")
    assert proposed(clients) == [(c.GUARDED, [], [c.set_("k", b"v", TEXT)], True)]


def test_a_script_sees_its_own_writes_and_their_expiry(client: Client) -> None:
    script = """
        redis.call('SET', 'k', 'v', 'PX', 4000) redis.call('MSET', 'l:1', 1, 'l:2', 2) redis.call('DEL', 'l:2')
        local listed = redis.call('KEYS', 'l:*')
        return {redis.call('PTTL', 'k'), redis.call('EXISTS', 'l:1', 'l:2'), listed, redis.call('DBSIZE')}
    """
    assert evaluate(client, script) == b"*4\r\n:4000\r\n:1\r\n*1\r\n$3\r\nl:1\r\n:2\r\n"


def test_time_is_the_clusters_and_stands_still(clients: ScriptClients, client: Client) -> None:
    clients.store.clock_ms += 5_250
    seconds = clients.store.clock_ms // 1000
    script = "local t = redis.call('TIME') redis.call('SET', 'k', 'v', 'EXAT', t[1] + 10) return {t[1], redis.call('TTL', 'k')}"
    assert evaluate(client, script) == b"*2\r\n$10\r\n%d\r\n:10\r\n" % seconds


def test_what_a_script_needed_is_freed_at_once(clients: ScriptClients, client: Client) -> None:
    # Arguments have megabytes, and a server's garbage is seldom collected.
    gone = clients.connect()
    gc.collect()
    gc.disable()
    try:
        assert evaluate(client, COUNT, keys=("k",)) == b":1\r\n"
        assert evaluate(client, "error('x')", keys=("k",)).startswith(b"-ERR")
        client.send(lines("MULTI\nSET k 5\nEVAL 'return 1' 1 k\nCLIENT ID\nEXEC"))
        clients.runner.held = True
        evaluate(gone, COUNT, keys=("k",))
        gone.transport.close()
        gone.protocol.connection_lost(None)
        clients.runner.run_next()
        assert [each for each in gc.get_objects() if issubclass(type(each), ScriptRun | Caller | Overlay)] == []
    finally:
        gc.enable()


# Again, and in turn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["SET k 10", "DEL k", "EXPIRE k 100", "APPEND k 0"])
def test_it_runs_again_when_somebody_was_faster(clients: ScriptClients, client: Client, change: str) -> None:
    other = clients.connect()
    client.send(line("SET k 1"))
    changes = [change]
    clients.runner.between = lambda: changes and other.send(line(changes.pop()))
    before = evaluate(
        client,
        "local v = redis.call('GET', 'k') local t = redis.call('TTL', 'k') redis.call('SET', 's', 1) return {v, t}",
    )
    assert clients.runner.runs == 2
    now = evaluate(client, "return {redis.call('GET', 'k'), redis.call('TTL', 'k')}")
    assert before == now


def test_it_runs_again_when_nothing_was_written_but_something_read(clients: ScriptClients, client: Client) -> None:
    other = clients.connect()
    client.send(line("SET lock me"))
    changes = ["SET lock you"]
    clients.runner.between = lambda: changes and other.send(line(changes.pop()))
    assert evaluate(client, "return redis.call('GET', 'lock')") == b"$3\r\nyou\r\n"


def test_it_is_given_up_after_many_attempts(clients: ScriptClients, client: Client) -> None:
    other = clients.connect()
    clients.runner.between = lambda: other.send(line("INCR k"))
    assert evaluate(client, COUNT, keys=("k",)).startswith(b"-TRYAGAIN not committed: others changed")
    assert clients.runner.runs == ATTEMPTS_MAX
    assert client.send(line("GET k")) == b"$3\r\n%d\r\n" % ATTEMPTS_MAX
    clients.runner.between = lambda: None
    assert evaluate(client, COUNT, keys=("k",)) == b":101\r\n"


def test_scripts_of_one_key_run_one_after_the_other_until_their_entries_are_applied(clients: ScriptClients) -> None:
    first, second, third = (clients.connect() for _ in range(3))
    clients.store.held = True
    assert evaluate(first, COUNT, keys=("k",)) == b""
    assert evaluate(second, COUNT, keys=("other", "k")) == b""
    assert evaluate(third, COUNT, keys=("apart",)) == b""
    assert clients.runner.runs == 2
    clients.store.release()
    assert (first.replies(), third.replies(), second.replies()) == (b":1\r\n", b":1\r\n", b"")
    clients.store.release()
    assert second.replies() == b":1\r\n"
    assert clients.runner.runs == 3
    assert len(clients.service.scripts.turns) == 0


def test_a_client_that_goes_gives_its_turn_away(clients: ScriptClients) -> None:
    first, second, third = (clients.connect() for _ in range(3))
    clients.store.held = True
    evaluate(first, COUNT, keys=("k",))
    evaluate(second, COUNT, keys=("k",))
    evaluate(third, COUNT, keys=("k",))
    for gone in (first, second):
        gone.transport.close()
        gone.protocol.connection_lost(None)
    clients.store.release()
    clients.store.release()
    # The first one's entry was on its way; the second has attempted nothing.
    assert third.replies() == b":2\r\n"
    assert len(clients.service.scripts.turns) == 0


def test_any_number_of_clients_that_have_gone_give_their_turns_away(clients: ScriptClients) -> None:
    first, last = clients.connect(), clients.connect()
    clients.store.held = True
    evaluate(first, COUNT, keys=("k",))
    for _ in range(1000):
        gone = clients.connect()
        evaluate(gone, COUNT, keys=("k",))
        gone.transport.close()
        gone.protocol.connection_lost(None)
    evaluate(last, COUNT, keys=("k",))
    clients.store.release()
    clients.store.release()
    assert (first.replies(), last.replies()) == (b":1\r\n", b":2\r\n")
    assert len(clients.service.scripts.turns) == 0


def test_a_script_that_waits_for_two_others_runs_behind_both(clients: ScriptClients) -> None:
    first, second, third = (clients.connect() for _ in range(3))
    clients.store.held = True
    evaluate(first, COUNT, keys=("a",))
    evaluate(second, COUNT, keys=("b",))
    evaluate(third, COUNT, keys=("b", "a", "b"))
    clients.store.release(1)
    assert first.replies() == b":1\r\n"
    assert (clients.runner.runs, third.replies()) == (2, b"")
    clients.store.release(1)
    clients.store.release(1)
    assert third.replies() == b":2\r\n"
    assert len(clients.service.scripts.turns) == 0


def test_nothing_is_run_for_a_client_that_has_gone(clients: ScriptClients, client: Client) -> None:
    clients.runner.held = True
    evaluate(client, COUNT, keys=("k",))
    client.transport.close()
    client.protocol.connection_lost(None)
    clients.runner.run_next()
    assert clients.store.misses == 0
    assert len(clients.service.scripts.turns) == 0


def test_a_script_that_waits_too_long_for_its_turn_is_told_and_gives_it_away(clients: ScriptClients) -> None:
    first, second, third = (clients.connect() for _ in range(3))
    clients.store.held = True
    evaluate(first, COUNT, keys=("k",))
    evaluate(second, COUNT, keys=("k",))
    clients.runner.pass_time()
    # The first one's entry is on its way, and has its own deadline.
    assert first.replies() == b""
    assert second.replies().startswith(b"-TRYAGAIN not committed: too many scripts wait")
    evaluate(third, COUNT, keys=("k",))
    clients.store.release()
    clients.store.release()
    assert (first.replies(), third.replies()) == (b":1\r\n", b":2\r\n")
    assert len(clients.service.scripts.turns) == 0 and clients.runner.timers == []


def test_a_script_that_waits_too_long_for_the_thread_leaves_nothing(clients: ScriptClients, client: Client) -> None:
    clients.runner.held = True
    evaluate(client, COUNT, keys=("k",))
    clients.runner.pass_time()
    assert client.replies().startswith(b"-TRYAGAIN")
    clients.runner.run_next()
    assert client.replies() == b"" and clients.store.proposed == []
    # On a node with more scripts than it can run, what is late costs those that wait nothing.
    assert clients.store.misses == 0


def test_behind_its_time_a_script_begins_no_further_attempt(clients: ScriptClients, client: Client) -> None:
    other = clients.connect()
    clients.store.held = True
    evaluate(client, COUNT, keys=("k",))
    clients.store.apply([c.set_("k", b"9", TEXT)])
    clients.runner.pass_time()
    clients.store.release()
    assert client.replies().startswith(b"-TRYAGAIN")
    assert clients.runner.runs == 1
    clients.store.held = False
    assert other.send(line("GET k")) == b"$1\r\n9\r\n"


@pytest.mark.parametrize("error", [NotCommitted("no"), OutcomeUnknown("who knows")])
def test_what_becomes_of_its_entry_is_told_and_its_turn_ends(
    clients: ScriptClients, client: Client, error: NotCommitted | OutcomeUnknown
) -> None:
    clients.store.failure = error
    assert evaluate(client, COUNT, keys=("k",)) == client.protocol.failure(error)
    clients.store.failure = None
    assert evaluate(client, COUNT, keys=("k",)) == b":1\r\n"


def test_the_connection_handles_nothing_until_the_script_is_answered(clients: ScriptClients, client: Client) -> None:
    clients.store.held = True
    script = b"*3\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n$1\r\n0\r\n" % (30, b"return redis.call('INCR', 'k')")
    assert client.send(line("SET k 5") + script + lines("GET k\nPING")) == b""
    clients.store.release()
    assert client.replies() == b"+OK\r\n"
    clients.store.release()
    assert client.replies() == b":6\r\n$1\r\n6\r\n+PONG\r\n"


def test_a_linearizable_connection_passes_a_barrier_first(clients: ScriptClients, client: Client) -> None:
    client.send(line("READWRITE"))
    assert evaluate(client, "return 1") == b":1\r\n"
    assert clients.store.proposed == [[]]


def test_a_script_that_looks_at_nothing_costs_no_entry(clients: ScriptClients, client: Client) -> None:
    assert evaluate(client, "return ARGV[1]", "x") == b"$1\r\nx\r\n"
    assert clients.store.proposed == []


# Errors and what is not allowed -----------------------------------------------------------------------------------------


def test_an_error_undoes_nothing(client: Client) -> None:
    assert evaluate(client, "redis.call('SET', 'a', 1) error('no')").startswith(b"-ERR user_script:1: no")
    assert client.send(line("GET a")) == b"$1\r\n1\r\n"


def test_a_script_whose_time_is_over_leaves_nothing(clients: ScriptClients, client: Client) -> None:
    clients.runner.time_over = True
    assert evaluate(client, "redis.call('SET', 'a', 1) while true do end") == b"-ERR given up: its time is over\r\n"
    assert clients.store.proposed == []


def test_a_script_without_memory_leaves_nothing(clients: ScriptClients, client: Client) -> None:
    script = "redis.call('SET', 'a', 1) local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end"
    assert evaluate(client, script).startswith(b"-ERR given up: it used more than")
    assert clients.store.proposed == []


def test_writes_of_which_one_is_refused_leave_nothing(client: Client, clients: ScriptClients) -> None:
    clients.store.apply([c.configure({"max_bytes": 2048})])
    reply = evaluate(client, "redis.call('SET', 'a', 1) return redis.call('SET', 'b', string.rep('x', 5000))")
    assert reply.startswith(b"-OOM the item is larger than the whole cache")
    assert client.send(line("EXISTS a b")) == b":0\r\n"


def test_a_node_that_may_not_be_read_says_so(clients: ScriptClients, client: Client) -> None:
    clients.store.readable = False
    reply = evaluate(client, "redis.call('SET', 'a', 1) pcall(redis.call, 'GET', 'a2') return 1")
    assert reply.startswith(b"-LOADING")
    assert clients.store.proposed == []


@pytest.mark.parametrize(
    "words",
    [
        *("'AUTH', 'x'", "'HELLO'", "'MULTI'", "'EXEC'", "'WATCH', 'k'", "'EVAL', 'return 1', 0", "'SCRIPT', 'FLUSH'"),
        *("'CLIENT', 'ID'", "'CONFIG', 'GET', 'x'", "'WAIT', 0, 0", "'QUIT'", "'RESET'", "'EVALSHA_RO', 'x', 0"),
    ],
)
def test_commands_of_the_connection_are_not_allowed(client: Client, words: str) -> None:
    assert evaluate(client, f"return redis.call({words})").startswith(
        b"-ERR This Redis command is not allowed from script"
    )


def test_what_is_no_command_of_keys_is_refused(client: Client) -> None:
    assert evaluate(client, "return redis.call('FLUSHALL')").startswith(b"-ERR FLUSHALL is not served in scripts")
    assert evaluate(client, "return redis.call('NOPE')").startswith(b"-ERR Unknown Redis command called from script")
    assert evaluate(client, "return redis.call('GET')").startswith(b"-ERR Wrong number of args calling Redis command")


@pytest.mark.parametrize("command", ["EVAL_RO", "EVAL"])
def test_a_script_that_only_reads_is_answered_by_memory(clients: ScriptClients, client: Client, command: str) -> None:
    client.send(line("SET k v"))
    head = "#!lua flags=no-writes\n" if command == "EVAL" else ""
    assert evaluate(client, head + "return redis.call('GET', 'k')", command=command) == b"$1\r\nv\r\n"
    reply = evaluate(client, head + "return redis.call('SET', 'k', 1)", command=command)
    assert reply.startswith(b"-ERR Write commands are not allowed from read-only scripts.")
    assert len(clients.store.proposed) == 1


def test_what_it_has_read_of_memory_was_there_at_one_moment(clients: ScriptClients, client: Client) -> None:
    other = clients.connect()
    changes = ["MSET a 2 b 2"]
    client.send(line("MSET a 1 b 1"))
    clients.runner.between = lambda: changes and other.send(line(changes.pop()))
    assert evaluate(client, "return redis.call('MGET', 'a', 'b')", command="EVAL_RO") == b"*2\r\n$1\r\n2\r\n$1\r\n2\r\n"


def test_too_much_is_refused_as_a_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "KEYS_MAX", 10)
    monkeypatch.setattr(caller, "CHANGED_MAX", 9)
    assert (
        evaluate(client, "for i = 1, 10 do redis.call('SET', i, i) end")
        == b"-ERR a script reads at most 10 keys, and changes at most 9\r\n"
    )
    for script in (
        "for i = 1, 12 do pcall(redis.call, 'GET', i) end redis.call('SET', 'k', 1)",
        "for i = 1, 9 do redis.call('SETRANGE', i, 1000000, 'x') end",
    ):
        assert evaluate(client, script).startswith(b"-ERR a script ")
    assert client.send(line("DBSIZE")) == b":0\r\n"


def test_a_script_that_has_read_too_much_reads_no_more(
    clients: ScriptClients, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "KEYS_MAX", 10)
    assert evaluate(client, "for i = 1, 100 do pcall(redis.call, 'GET', i) end").startswith(b"-ERR a script reads")
    assert clients.store.misses == 11


def test_a_large_value_may_be_written_again_and_again(client: Client) -> None:
    script = "local v = string.rep('x', 1000000) for i = 1, 20 do redis.call('SET', KEYS[1], v) end return 'done'"
    assert evaluate(client, script, keys=("k",)) == b"$4\r\ndone\r\n"


def test_what_a_script_has_read_stays_so_while_it_runs(clients: ScriptClients, client: Client) -> None:
    client.send(line("SET k 1"))
    looked_up = clients.store.lookup
    changes = [c.set_("k", b"2", TEXT)]

    def lookup(key: str, *, count: bool = True) -> Entry | None:
        entry = looked_up(key, count=count)
        if changes:
            clients.store.apply([changes.pop()])
        return entry

    clients.store.lookup = lookup  # type: ignore[method-assign]
    script = "local a = redis.call('GET', 'k') local b = redis.call('GET', 'k') redis.call('SET', 's', 1) return {a, b}"
    assert evaluate(client, script) == b"*2\r\n$1\r\n2\r\n$1\r\n2\r\n"
    assert clients.runner.runs == 2


# Scripts by their digests -----------------------------------------------------------------------------------------------


def test_scripts_are_known_by_their_digests(client: Client) -> None:
    sha = hashlib.sha1(b"return 7").hexdigest()
    assert evaluate(client, sha, command="EVALSHA") == b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
    assert client.send(line("SCRIPT LOAD 'return 7'")) == b"$40\r\n%b\r\n" % sha.encode()
    assert evaluate(client, sha.upper(), command="EVALSHA") == b":7\r\n"
    assert evaluate(client, sha, command="EVALSHA_RO") == b":7\r\n"
    assert client.send(line(f"SCRIPT EXISTS {sha} nope {sha.upper()}")) == b"*3\r\n:1\r\n:0\r\n:1\r\n"
    assert client.send(line("SCRIPT FLUSH ASYNC")) == b"+OK\r\n"
    assert evaluate(client, sha, command="EVALSHA").startswith(b"-NOSCRIPT")
    evaluate(client, "return 7")
    assert evaluate(client, sha, command="EVALSHA") == b":7\r\n"
    assert client.send(line("SCRIPT KILL")) == b"-NOTBUSY No scripts in execution right now.\r\n"


def test_a_wrong_request_is_told(client: Client) -> None:
    for words, reply in (
        ("EVAL 'return 1' 1", b"-ERR Number of keys can't be greater than number of args\r\n"),
        ("EVAL 'return 1' -1", b"-ERR Number of keys can't be negative\r\n"),
        ("EVAL 'return 1' x", b"-ERR value is not an integer or out of range\r\n"),
        ("SCRIPT LOAD 'return ('", b"-ERR Error compiling script (new function): user_script:1: "),
        ("SCRIPT LOAD", b"-ERR wrong number of arguments for 'script|load' command\r\n"),
        ("SCRIPT NOPE", b"-ERR unknown subcommand 'NOPE'"),
        ("SCRIPT FLUSH NOPE", b"-ERR syntax error\r\n"),
        ("EVAL 'return (' 0", b"-ERR Error compiling script (new function): user_script:1: "),
        ("EVAL '#!lua' 0", b"-ERR Invalid script shebang\r\n"),
    ):
        assert client.send(line(words)).startswith(reply), words
    assert evaluate(client, "#!lua flags=nope\nreturn 1") == b"-ERR Unexpected flag in script shebang: nope\r\n"
    assert evaluate(client, "#!lua\nreturn 1", command="EVAL_RO").startswith(
        b"-ERR Can not execute a script with write flag"
    )
    assert evaluate(client, "x" * 300_000).startswith(b"-ERR a script has at most")


def test_without_lupa_the_error_says_what_to_install(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheflow.wire.resp.commands.scripts.is_available", lambda: False)
    for words in ("EVAL 'return 1' 0", "EVALSHA x 0", "EVAL_RO x 0", "SCRIPT LOAD x"):
        assert client.send(line(words)) == (
            b"-ERR scripts need lupa, which is not installed on this node: pip install 'cacheflow[lua]'\r\n"
        )
    assert client.send(line("SCRIPT EXISTS x")) == b"*1\r\n:0\r\n"


def test_nothing_of_resp3_is_in_a_script_but_its_reply(client: Client) -> None:
    client.send(line("HELLO 3"))
    assert (
        evaluate(client, "local v = redis.call('GET', 'none') return {v == false, v, 1}") == b"*3\r\n:1\r\n_\r\n:1\r\n"
    )


# Databases and roles ------------------------------------------------------------------------------------------------------


def test_a_script_is_about_the_database_of_its_client(clients: ScriptClients, client: Client) -> None:
    client.send(lines("SET k zero\nSELECT 3\nSET k three"))
    script = (
        "redis.call('SET', 'new', redis.call('GET', KEYS[1])) return {redis.call('DBSIZE'), redis.call('KEYS', '*')[2]}"
    )
    assert evaluate(client, script, keys=("k",)).startswith(b"*2\r\n:2\r\n$")
    assert client.send(lines("GET new\nSELECT 0\nEXISTS new")) == b"$5\r\nthree\r\n+OK\r\n:0\r\n"


def test_a_select_in_a_script_is_the_scripts_own(client: Client) -> None:
    script = "redis.call('SELECT', 5) redis.call('SET', 'k', 'five') redis.call('SELECT', 0) return redis.call('EXISTS', 'k')"
    assert evaluate(client, script) == b":0\r\n"
    assert client.send(lines("EXISTS k\nSELECT 5\nGET k")) == b":0\r\n+OK\r\n$4\r\nfive\r\n"
    assert evaluate(client, "return redis.call('SELECT', 16)").startswith(b"-ERR DB index is out of range")


def test_without_a_database_no_script_runs(client: Client) -> None:
    client.send(line("SELECT 99"))
    assert evaluate(client, "return 1").startswith(b"-ERR no database is selected")


def test_scripts_of_one_key_in_two_databases_do_not_wait_for_each_other(clients: ScriptClients) -> None:
    first, second = clients.connect(), clients.connect()
    second.send(line("SELECT 1"))
    clients.store.held = True
    evaluate(first, COUNT, keys=("k",))
    evaluate(second, COUNT, keys=("k",))
    assert clients.runner.runs == 2


def test_in_a_transaction_each_script_is_about_the_database_that_was_selected(client: Client) -> None:
    set_ = "EVAL \"return redis.call('SET', 'k', ARGV[1])\" 0"
    client.send(lines(f"MULTI\n{set_} a\nSELECT 2\n{set_} b\nGET k"))
    assert client.send(line("EXEC")) == b"*4\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nb\r\n"
    assert client.send(lines("GET k\nSELECT 0\nGET k")) == b"$1\r\nb\r\n+OK\r\n$1\r\na\r\n"


def test_who_may_only_read_has_scripts_that_only_read() -> None:
    clients = ScriptClients(access=MemoryAccess(("reader", Role.READ, b"r" * 40), ("writer", Role.WRITE, b"w" * 40)))
    client = clients.connect()
    client.send(line("AUTH reader " + "r" * 40))
    write = "return redis.call('SET', 'k', 'v')"
    assert evaluate(client, write).startswith(b"-NOPERM")
    assert evaluate(client, "0" * 40, command="EVALSHA").startswith(b"-NOPERM")
    assert client.send(line("SCRIPT FLUSH")).startswith(b"-NOPERM")
    assert evaluate(client, write, command="EVAL_RO").startswith(b"-NOPERM")
    assert evaluate(client, "return redis.call('GET', 'k')", command="EVAL_RO") == b"$-1\r\n"
    assert client.send(line("AUTH writer " + "w" * 40)) == b"+OK\r\n"
    assert evaluate(client, write) == b"+OK\r\n"
