"""CLIENT TRACKING: what a client with a local cache is told, where between its replies, and how it chooses."""

from __future__ import annotations

import gc
import weakref
from typing import cast

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import ignore, line, lines, pack, service
from wire.script_client import InlineRunner

from cacheflow.access.roles import Role, User
from cacheflow.machine.language import commands as c
from cacheflow.node import tracking
from cacheflow.wire.promises import Promise
from cacheflow.wire.resp import mailbox
from cacheflow.wire.resp.connection import RespConnection
from cacheflow.wire.resp.scripting.scripts import Scripts

OK = b"+OK\r\n"


def invalidate(*keys: str) -> bytes:
    """The pushes that tell a client of RESP3 of keys, one each."""
    return b"".join([b">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%b\r\n" % (len(key), key.encode()) for key in keys])


EVERYTHING = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


class Conversation:
    """A node with clients of RESP3. The first tracks, with the given options."""

    def __init__(self, options: str = "", tracks: bool = True) -> None:
        self.store = FakeStore()
        self.shared = service(self.store, slices=self.store.next_turn.slices)
        self.client = self.another()
        self.other = self.another()
        if tracks:
            assert self.say(f"CLIENT TRACKING ON {options}") == OK

    def another(self, protocol: int = 3) -> Client:
        client = Client(self.shared.connection(ignore))
        if protocol == 3:
            client.send(line("HELLO 3"))
        return client

    def say(self, *words: str, client: Client | None = None) -> bytes:
        """What the client gets for a pipeline, in this turn and the next ones."""
        client = client or self.client
        answer = client.send(b"".join([line(each) for each in words]))
        self.store.next_turn.run()
        return answer + client.replies()

    def set(self, *keys: str) -> bytes:
        """Let the other client change keys; what the first one is told."""
        for key in keys:
            self.say(f"SET {key} 1", client=self.other)
        return self.client.replies()


# Reads that are noted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ("GET a", ["a"]),
        ("MGET a b c", ["a", "b", "c"]),
        ("STRLEN a", ["a"]),
        ("EXISTS a b", ["a", "b"]),
        ("TTL a", ["a"]),
        ("HGETALL b", ["b"]),
        ("SMISMEMBER c x", ["c"]),
        ("SUNION c b", ["b", "c"]),
        ("OBJECT ENCODING a", ["a"]),
        ("SET a 1", []),
        ("INCR a", []),
        ("GETEX b", []),
        ("KEYS *", []),
        ("PING", []),
    ],
)
def test_what_a_command_has_read_is_told_once_when_it_changes(read: str, told: list[str]) -> None:
    conversation = Conversation()
    conversation.say(read)
    assert conversation.set("a", "b", "c", "d") == invalidate(*told)
    assert conversation.set("a", "b", "c", "d") == b""


@pytest.mark.parametrize("reads", [b"GET a", b"get a", b"GET a\r\nGET b"])
def test_no_way_of_reading_is_too_fast_to_be_noted(reads: bytes) -> None:
    conversation = Conversation()
    for request in (lines(reads.decode().replace("\r\n", "\n")), reads + b"\r\n"):
        conversation.client.send(request)
        assert conversation.set("a").startswith(invalidate("a"))
    # Also together with others, in the same turn.
    conversation.say("SELECT 3")
    conversation.client.send(line("GET a"))
    conversation.say("SELECT 3", client=conversation.other)
    assert conversation.set("a") == invalidate("a")


def test_a_database_is_one_of_sixteen() -> None:
    conversation = Conversation()
    conversation.say("SELECT 2", "GET a")
    assert conversation.set("a") == b""
    conversation.say("SELECT 2", client=conversation.other)
    assert conversation.set("a") == invalidate("a")


def test_a_flush_makes_all_forget_everything() -> None:
    for flush in ("FLUSHALL", "FLUSHDB"):
        conversation = Conversation()
        conversation.say("GET a", "GET b")
        conversation.say(flush, client=conversation.other)
        assert conversation.client.replies() == EVERYTHING
        assert conversation.set("a") == b""


# The place between replies --------------------------------------------------------------------------------------------


def test_what_an_own_write_has_changed_is_told_before_it_is_answered() -> None:
    conversation = Conversation()
    conversation.say("GET a")
    assert conversation.say("SET a 1") == invalidate("a") + OK
    assert conversation.say("GET a", "SET a 2", "GET a") == b"$1\r\n1\r\n" + invalidate("a") + OK + b"$1\r\n2\r\n"
    assert conversation.set("a") == invalidate("a")


def test_a_change_comes_behind_the_read_that_it_makes_wrong_and_before_the_next_one() -> None:
    conversation = Conversation()
    store, client = conversation.store, conversation.client
    store.held = True
    # The second read waits for the write before it.
    assert client.send(lines("GET a\nSET b 1\nGET b")) == b"_\r\n"
    store.apply([c.set_("a", b"x", 0), c.set_("b", b"x", 0)])
    store.next_turn.run()
    assert client.replies() == invalidate("a")
    store.release()
    assert client.replies() == OK + b"$1\r\n1\r\n"
    store.held = False
    assert conversation.set("b") == invalidate("b")


def test_a_read_and_what_changes_at_once_keep_their_order_on_a_node_that_commits_at_once() -> None:
    # The write is applied while the replies to the reads before it are not written yet.
    conversation = Conversation()
    conversation.set("a")
    assert conversation.say("GET a", "SET a 5") == b"$1\r\n1\r\n" + invalidate("a") + OK


def test_nothing_comes_inside_of_a_long_reply() -> None:
    conversation = Conversation()
    store = conversation.store
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    store.next_turn.time = clock
    keys = [f"k{number}" for number in range(1000)]
    store.apply([c.set_(key, bytes(2000), 0) for key in keys])
    came = conversation.client.send(pack("MGET", *keys))
    store.next_turn.run(1)
    # Its old value is on the way: so the change comes behind it.
    store.apply([c.set_("k0", b"new", 0)])
    store.next_turn.run()
    came += conversation.client.replies()
    assert came == b"*1000\r\n" + (b"$2000\r\n" + bytes(2000) + b"\r\n") * 1000 + invalidate("k0")


def test_a_client_that_does_not_read_gets_everything_in_order_later() -> None:
    conversation = Conversation()
    client, store = conversation.client, conversation.store
    conversation.set("a")
    client.transport.takes = False
    came = client.send(line("GET a"))
    client.send(line("GET b"))
    store.apply([c.set_("a", b"x", 0)])
    store.next_turn.run()
    client.transport.take_all()
    store.next_turn.run()
    came += client.replies()
    assert came == b"$1\r\n1\r\n" + invalidate("a") + b"_\r\n"


def test_a_reply_that_is_made_and_waits_for_the_client_comes_before_what_has_changed_since() -> None:
    conversation = Conversation()
    client, store = conversation.client, conversation.store
    conversation.set("a")
    store.held = True
    # A transaction with a condition: its answer is known as a whole before it is sent.
    came = client.send(lines("WATCH z\nMULTI\nGET a\nSET z 1\nEXEC"))
    client.transport.takes = False
    client.protocol.pause_writing()
    store.release()
    store.apply([c.set_("a", b"x", 0)])
    store.next_turn.run()
    client.transport.take_all()
    store.next_turn.run()
    came += client.replies()
    assert came.endswith(b"*2\r\n$1\r\n1\r\n+OK\r\n" + invalidate("a"))


def test_what_waits_for_a_reply_is_told_also_when_tracking_ends_meanwhile() -> None:
    conversation = Conversation()
    client, store = conversation.client, conversation.store
    conversation.say("SUBSCRIBE ch")
    session = cast(RespConnection, client.protocol)
    made = Promise(b"+OK\r\n")
    session._promises.append(made)
    store.channels.publish(b"ch", b"m")
    store.next_turn.run()
    session._promises.clear()
    session.end_tracking()
    store.next_turn.run()
    assert client.replies().startswith(b">3\r\n$7\r\nmessage")


@pytest.mark.parametrize(("tracks", "value_bytes"), [(True, 1), (True, 900_000), (False, 900_000)])
def test_a_message_that_is_begun_is_finished_before_a_reply_that_was_made_since(tracks: bool, value_bytes: int) -> None:
    conversation = Conversation(tracks=tracks)
    client, store = conversation.client, conversation.store
    # With the longer ones the reply is one of pieces.
    store.apply([c.set_(key, b"v" * value_bytes, 0) for key in ("a", "b")])
    conversation.say("SUBSCRIBE ch")
    store.held = True
    client.send(lines("WATCH z\nMULTI\nGET a\nGET b\nSET z 1\nEXEC"))
    client.replies()
    client.transport.takes = False
    store.channels.publish(b"ch", b"m" * 200_000)
    store.next_turn.run()
    came = client.replies()
    assert 0 < len(came) < 200_000
    store.channels.publish(b"ch", b"n")
    store.release()
    client.transport.take_all()
    store.next_turn.run()
    came += client.replies()
    push = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$%d\r\n%b\r\n"
    value = b"$%d\r\n%b\r\n" % (value_bytes, b"v" * value_bytes)
    reply = b"*3\r\n" + 2 * value + OK
    assert came == push % (200_000, b"m" * 200_000) + reply + push % (1, b"n")
    assert client.transport.reading


def test_a_client_that_takes_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "UNREAD_BYTES_MAX", 10_000)
    conversation = Conversation("BCAST")
    conversation.client.transport.takes = False
    for number in range(100):
        conversation.store.apply([c.set_(f"k{number}", b"", 0)])
        conversation.store.next_turn.run()
    assert conversation.client.transport.aborted and not conversation.other.closed
    assert conversation.store.channels.metrics()["subscribers_ended_total"] == 1


# Transactions and scripts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ["", "SET z 1", "SETRANGE z 0 1"])
def test_what_a_transaction_has_read_is_noted(others: str) -> None:
    conversation = Conversation()
    conversation.say("MULTI", "GET a", "MGET b c", *([others] if others else []), "EXEC")
    assert conversation.set("a", "b", "c") == invalidate("a", "b", "c")


@pytest.mark.parametrize("options", ["", "BCAST PREFIX a"])
def test_what_has_changed_before_a_transaction_is_answered_is_told_behind_it(options: str) -> None:
    conversation = Conversation(options)
    store, client = conversation.store, conversation.client
    conversation.set("a")
    store.held = True
    client.send(lines("MULTI\nGET a\nSET z 1\nEXEC"))
    client.replies()
    # The transaction has taken place, and its answer is made when a later entry is applied as well.
    ((commands, done),) = store._waiting
    store._waiting.clear()
    wake = done(store._apply(commands))
    store.apply([c.set_("a", b"x", 0)])
    wake()
    store.next_turn.run()
    # A client of prefixes was told before it as well: it did not know this answer by then.
    before = invalidate("a") if options else b""
    assert client.replies() == before + b"*2\r\n$1\r\n1\r\n+OK\r\n" + invalidate("a")


def test_a_new_expiry_before_a_transaction_is_answered_is_told_behind_it() -> None:
    conversation = Conversation()
    store, client = conversation.store, conversation.client
    conversation.say("SET a 1 PX 100000", client=conversation.other)
    store.held = True
    client.send(lines("MULTI\nPTTL a\nSET z 1\nEXEC"))
    client.replies()
    ((commands, done),) = store._waiting
    store._waiting.clear()
    wake = done(store._apply(commands))
    store.apply([c.touch("a", 5000)])
    wake()
    store.next_turn.run()
    assert client.replies() == b"*2\r\n:100000\r\n+OK\r\n" + invalidate("a")


@pytest.mark.parametrize("wrong", [b"", b"x\ny", b"k" * 1025, b"\xff"])
def test_what_is_no_key_keeps_no_other_key_of_a_transaction_from_being_noted(wrong: bytes) -> None:
    conversation = Conversation()
    requests = [pack("GET", "a"), b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(wrong), wrong), pack("GET", "b")]
    came = conversation.client.send(pack("MULTI") + b"".join(requests) + pack("EXEC"))
    conversation.store.next_turn.run()
    assert b"-ERR invalid key" in came + conversation.client.replies()
    assert conversation.set("a", "b") == invalidate("a", "b")


@pytest.mark.parametrize("name", ["EVAL", "EVAL_RO"])
def test_what_a_script_has_read_is_noted(name: str) -> None:
    conversation = Conversation()
    runner = InlineRunner()
    conversation.shared.scripts = Scripts(runner)
    script = pack(name, "return redis.call('GET', KEYS[1])", "1", "a")
    assert conversation.client.send(script) == b"_\r\n"
    assert conversation.set("a", "b") == invalidate("a")
    # In a transaction, and when CLIENT CACHING was about it.
    conversation.say("CLIENT TRACKING OFF", "CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES", "MULTI", "GET b")
    conversation.client.send(script + pack("EXEC"))
    conversation.client.replies()
    assert conversation.set("a", "b") == invalidate("a", "b")


# Options --------------------------------------------------------------------------------------------------------------


def test_with_optin_only_what_follows_caching_yes_is_noted() -> None:
    conversation = Conversation("OPTIN")
    conversation.say("GET a", "CLIENT CACHING YES", "GET b", "GET c")
    assert conversation.set("a", "b", "c") == invalidate("b")
    conversation.say("CLIENT CACHING YES", "PING", "GET b")
    assert conversation.set("b") == b""
    conversation.say("CLIENT CACHING YES", "MULTI", "GET a", "GET b", "EXEC", "GET c")
    assert conversation.set("a", "b", "c") == invalidate("a", "b")


def test_with_optout_what_follows_caching_no_is_not_noted() -> None:
    conversation = Conversation("OPTOUT")
    conversation.say("GET a", "CLIENT CACHING NO", "GET b", "GET c")
    assert conversation.set("a", "b", "c") == invalidate("a", "c")
    # A write by its fast way is a command as any other.
    conversation.say("CLIENT CACHING NO", "SET x 1", "GET b")
    assert conversation.set("b") == invalidate("b")


def test_with_bcast_all_keys_under_its_prefixes_are_told_and_none_is_noted() -> None:
    conversation = Conversation("BCAST PREFIX a: PREFIX b:")
    conversation.say("GET c:1")
    assert conversation.set("a:1", "c:1", "b:1") == invalidate("a:1", "b:1")
    assert conversation.set("a:1") == invalidate("a:1")
    assert conversation.say("CLIENT TRACKING ON BCAST PREFIX c:") == OK
    assert conversation.set("c:1") == invalidate("c:1")
    assert conversation.say("CLIENT TRACKING OFF") == OK
    assert conversation.set("a:1") == b""


@pytest.mark.parametrize("prefix", ["a\u00a0b", "\U0001f469\u200d\U0001f52c", "\u2028"])
def test_any_beginning_of_a_key_is_a_prefix(prefix: str) -> None:
    conversation = Conversation(tracks=False)
    assert conversation.client.send(pack("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)) == OK


def test_inside_of_a_transaction_tracking_does_not_change() -> None:
    conversation = Conversation("OPTIN")
    refused = b"-ERR CLIENT %b is not served inside MULTI\r\n"
    assert refused % b"CACHING" in conversation.say("MULTI", "CLIENT CACHING YES")
    assert refused % b"TRACKING" in conversation.say("CLIENT TRACKING OFF")
    assert b"-EXECABORT" in conversation.say("EXEC")


def test_with_bcast_reads_go_the_fast_ways() -> None:
    conversation = Conversation("BCAST")
    assert conversation.client.protocol.at_rest
    conversation.set("a")
    assert conversation.say("GET a") == b"$1\r\n1\r\n"


@pytest.mark.parametrize("options", ["NOLOOP", "NOLOOP BCAST"])
@pytest.mark.parametrize(
    "write",
    [
        *("SET a 1", "INCR a", "APPEND a 1", "DEL a", "MSET a 1 z 1", "HSET a f 1", "SETRANGE a 0 x", "GETDEL a"),
        *("EXPIRE a -1", "SADD a x"),
    ],
)
def test_with_noloop_own_writes_are_not_told_and_those_of_others_are(options: str, write: str) -> None:
    conversation = Conversation(options)
    if not write.startswith(("HSET", "SADD")):
        conversation.set("a")
    conversation.say("GET a")
    assert b"invalidate" not in conversation.say(write)
    # The next change is told: the client may keep what it has written.
    assert conversation.set("a") == invalidate("a")


@pytest.mark.parametrize("options", ["NOLOOP", "NOLOOP BCAST"])
def test_with_noloop_what_others_write_behind_an_own_write_is_told_behind_its_answer(options: str) -> None:
    conversation = Conversation(options)
    store, client = conversation.store, conversation.client
    conversation.say("GET a")
    store.held = True
    client.send(lines("SET a mine"))
    ((commands, done),) = store._waiting
    store._waiting.clear()
    wake = done(store._apply(commands))
    store.apply([c.set_("a", b"x", 0)])
    wake()
    store.next_turn.run()
    # A client of prefixes is told of it when it happens, too.
    assert client.replies() == b"+OK\r\n" + invalidate("a") * (2 if "BCAST" in options else 1)


@pytest.mark.parametrize("options", ["NOLOOP", "NOLOOP BCAST"])
def test_with_noloop_it_comes_behind_the_answer_also_to_a_client_that_did_not_read(options: str) -> None:
    conversation = Conversation(options)
    store, client = conversation.store, conversation.client
    conversation.say("GET a")
    store.held = True
    client.send(lines("SET a mine"))
    client.transport.takes = False
    client.protocol.pause_writing()
    store.release()
    store.held = False
    store.next_turn.run()
    conversation.set("a")
    client.transport.take_all()
    store.next_turn.run()
    assert client.replies() == b"+OK\r\n" + invalidate("a")


def test_with_noloop_a_key_of_another_database_hides_no_change() -> None:
    conversation = Conversation("NOLOOP BCAST")
    store, client = conversation.store, conversation.client
    store.held = True
    client.send(lines("SET a mine"))
    client.send(lines("SELECT 1\nSET a mine"))
    (first, first_done), (second, second_done) = store._waiting
    store._waiting.clear()
    wakes = [first_done(store._apply(first))]
    store._apply([c.set_("a", b"x", 0)])
    wakes.append(second_done(store._apply(second)))
    store._end_turn()
    for wake in wakes:
        wake()
    store.next_turn.run()
    assert client.replies().endswith(invalidate("a"))


def test_with_noloop_a_transactions_writes_are_its_own() -> None:
    conversation = Conversation("NOLOOP")
    conversation.say("GET a", "GET b")
    assert b"invalidate" not in conversation.say("MULTI", "SET a 1", "DEL b", "SET b 2", "EXEC")
    assert conversation.set("a", "b") == invalidate("a", "b")
    # In a pipeline as well, which is one proposal.
    conversation.say("GET a")
    assert b"invalidate" not in conversation.say("SET a 1", "SET a 2")


def test_keys_of_before_another_mode_are_not_told() -> None:
    conversation = Conversation()
    conversation.say("GET a", "CLIENT TRACKING OFF", "CLIENT TRACKING ON BCAST")
    assert conversation.set("a") == invalidate("a")
    conversation.say("CLIENT TRACKING OFF", "CLIENT TRACKING ON")
    assert conversation.set("a") == b""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("CLIENT TRACKING ON PREFIX a", b"-ERR PREFIX option requires BCAST mode to be enabled\r\n"),
        ("CLIENT TRACKING ON BCAST OPTIN", b"-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n"),
        ("CLIENT TRACKING ON OPTOUT OPTIN", b"-ERR You can't use both OPTIN and OPTOUT\r\n"),
        ("CLIENT TRACKING ON BCAST PREFIX FOOBAR PREFIX FOO", b"-ERR Prefix 'FOOBAR' overlaps with another provided "),
        ("CLIENT TRACKING ON REDIRECT 99", b"-ERR The client ID you want redirect to does not exist\r\n"),
        ("CLIENT TRACKING ON REDIRECT 1 REDIRECT 2", b"-ERR A client can only redirect to a single other client\r\n"),
        ("CLIENT TRACKING ON REDIRECT x", b"-ERR value is not an integer or out of range\r\n"),
        ("CLIENT TRACKING ON PREFIX", b"-ERR syntax error\r\n"),
        ("CLIENT TRACKING MAYBE", b"-ERR syntax error\r\n"),
        ("CLIENT TRACKING", b"-ERR wrong number of arguments for 'client|tracking' command\r\n"),
        (
            "CLIENT CACHING YES",
            b"-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN",
        ),
        ("CLIENT TRACKING ON BCAST PREFIX 'a\nb'", b"-ERR a prefix is the beginning of a key: at most 1024 bytes of"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_tracked(words: str, answer: bytes) -> None:
    conversation = Conversation(tracks=False)
    assert conversation.say(words).startswith(answer)
    assert conversation.store.tracking.metrics()["tracking_clients"] == 0


@pytest.mark.parametrize(
    ("before", "words", "answer"),
    [
        (
            "",
            "CLIENT TRACKING ON BCAST",
            b"-ERR You can't switch BCAST mode on/off before disabling tracking for this ",
        ),
        ("OPTIN", "CLIENT TRACKING ON OPTOUT", b"-ERR You can't switch OPTIN/OPTOUT mode before disabling tracking "),
        (
            "OPTIN",
            "CLIENT CACHING NO",
            b"-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        ("OPTOUT", "CLIENT CACHING YES", b"-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN "),
        ("OPTOUT", "CLIENT CACHING MAYBE", b"-ERR syntax error\r\n"),
        (
            "BCAST PREFIX FOO",
            "CLIENT TRACKING ON BCAST PREFIX FO",
            b"-ERR Prefix 'FO' overlaps with an existing prefix 'FOO'. Prefixes for a single client must not overlap.\r\n",
        ),
        ("BCAST PREFIX FOO", "CLIENT TRACKING ON BCAST PREFIX FOO", OK),
    ],
)
def test_what_does_not_go_with_the_present_options_is_refused(before: str, words: str, answer: bytes) -> None:
    conversation = Conversation(before)
    assert conversation.say(words).startswith(answer)
    assert conversation.store.tracking.metrics()["tracking_clients"] == 1


def test_a_node_without_room_for_a_prefix_says_so_and_tracks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PREFIXES_MAX", 1)
    conversation = Conversation(tracks=False)
    answer = conversation.say("CLIENT TRACKING ON BCAST PREFIX a PREFIX b")
    assert answer == b"-ERR a node has at most 1 prefixes of tracking clients; tracking is off\r\n"
    metrics = conversation.store.tracking.metrics()
    assert metrics["tracking_clients"] == metrics["tracking_prefixes"] == 0


def test_info_tells_the_options() -> None:
    conversation = Conversation(tracks=False)
    assert conversation.say("CLIENT TRACKINGINFO", client=conversation.another(2)) == (
        b"*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n"
    )
    assert conversation.say("CLIENT GETREDIR") == b":-1\r\n"
    two = conversation.another(2)
    conversation.say("CLIENT TRACKING ON OPTIN NOLOOP", "CLIENT CACHING YES", client=two)
    answer = conversation.say("CLIENT TRACKINGINFO", client=two)
    assert b"*4\r\n$2\r\non\r\n$5\r\noptin\r\n$11\r\ncaching-yes\r\n$6\r\nnoloop\r\n" in answer and b":0\r\n" in answer
    conversation.say("CLIENT TRACKING ON BCAST PREFIX a")
    answer = conversation.say("CLIENT TRACKINGINFO")
    assert b"~2\r\n$2\r\non\r\n$5\r\nbcast\r\n" in answer and answer.endswith(b"*1\r\n$1\r\na\r\n")
    conversation.say("GET a", client=two)
    info = conversation.say("INFO")
    assert b"\r\ntracking_clients:0\r\n" in info  # the store of these tests tells no such metrics


# Redirection ----------------------------------------------------------------------------------------------------------


def redirected(protocol: int = 2) -> tuple[Conversation, Client, Client]:
    """A client of RESP2 that has its invalidations sent to another one, which has subscribed."""
    conversation = Conversation(tracks=False)
    reader, listener = conversation.another(protocol), conversation.another(2)
    conversation.say("SUBSCRIBE __redis__:invalidate", client=listener)
    answer = conversation.say(f"CLIENT TRACKING ON REDIRECT {listener.protocol.id}", client=reader)  # type: ignore[attr-defined]
    assert answer == OK
    conversation.say("GET a", client=reader)
    return conversation, reader, listener


def test_in_resp2_another_connection_is_told_as_on_a_channel() -> None:
    conversation, reader, listener = redirected()
    assert conversation.say("CLIENT GETREDIR", client=reader) == b":%d\r\n" % listener.protocol.id  # type: ignore[attr-defined]
    conversation.set("a")
    head = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"
    assert listener.replies() == head + b"*1\r\n$1\r\na\r\n" and reader.replies() == b""
    conversation.say("FLUSHALL", client=conversation.other)
    assert listener.replies() == head + b"$-1\r\n"


def test_a_redirection_that_is_broken_is_told_once() -> None:
    conversation, reader, listener = redirected(3)
    number = listener.protocol.id  # type: ignore[attr-defined]
    listener.protocol.connection_lost(None)
    conversation.say("GET b", client=reader)
    conversation.set("a", "b")
    assert reader.replies() == b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number
    assert b"broken_redirect" in conversation.say("CLIENT TRACKINGINFO", client=reader)
    conversation.say("CLIENT TRACKING ON", client=reader)
    assert b"broken_redirect" not in conversation.say("CLIENT TRACKINGINFO", client=reader)


# The end --------------------------------------------------------------------------------------------------------------


def test_a_connection_of_another_user_by_now_is_told_nothing() -> None:
    conversation, reader, listener = redirected()
    listener.protocol.user = User("other", Role.READ, b"")  # type: ignore[attr-defined]
    conversation.set("a")
    assert b"invalidate" not in listener.replies()
    assert b"broken_redirect" in conversation.say("CLIENT TRACKINGINFO", client=reader)


@pytest.mark.parametrize("end", ["RESET", "CLIENT TRACKING OFF"])
def test_who_ends_it_is_told_nothing_more(end: str) -> None:
    for options in ("", "BCAST", "NOLOOP"):
        conversation = Conversation(options)
        conversation.say("GET a", end)
        assert conversation.set("a") == b""
        assert conversation.store.tracking.metrics()["tracking_clients"] == 0
        assert conversation.client.protocol.store is conversation.store
        assert conversation.client.protocol.at_rest


def test_a_failed_auth_ends_it() -> None:
    store = FakeStore()
    shared = service(store, b"secret-of-everybody", slices=store.next_turn.slices)
    client = Client(shared.connection(ignore))
    client.send(lines("AUTH secret-of-everybody\nHELLO 3\nCLIENT TRACKING ON\nGET a\nAUTH wrong"))
    store.next_turn.run()
    assert store.tracking.metrics()["tracking_clients"] == 0


def test_a_client_that_has_gone_takes_no_memory_until_a_pass_of_the_collector() -> None:
    conversation = Conversation("NOLOOP")
    conversation.say("GET a", "SET b 1")
    connection = conversation.client.protocol
    gone = weakref.ref(connection)
    gc.disable()
    try:
        connection.connection_lost(None)
        conversation.client.transport.__dict__.clear()
        conversation.client.__dict__.clear()
        del connection
        conversation.store.next_turn.run()
        assert gone() is None
    finally:
        gc.enable()
    conversation.store.apply([c.set_("a", b"", 0)])
