"""What subscribers of the RESP port are sent: what, when, in which order, and how much of it may wait."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, lines, pack, service

from cacheflow.contract import CHANNEL, Published
from cacheflow.machine.language import commands as c
from cacheflow.net.slices import SLICE_S
from cacheflow.node import channels as node_channels
from cacheflow.wire.resp import mailbox
from cacheflow.wire.resp.commands import channels

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
UNSUBSCRIBED = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"


def two(store: FakeStore | None = None) -> tuple[FakeStore, Client, Client]:
    """A store, a client that will subscribe, and one that publishes."""
    store = FakeStore() if store is None else store
    shared = service(store, slices=store.next_turn.slices)
    return store, Client(shared.connection(ignore)), Client(shared.connection(ignore))


def message(data: bytes, channel: bytes = b"a", head: bytes = b"*3") -> bytes:
    """What a subscriber of the channel is sent."""
    return b"%b\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (head, len(channel), channel, len(data), data)


def speak_3(client: Client) -> None:
    """Have a client speak RESP3."""
    assert client.send(line("HELLO 3")).startswith(b"%7")


def test_a_message_comes_to_each_subscription_that_it_is_for() -> None:
    store, listener, publisher = two()
    listener.send(lines("SUBSCRIBE a\nPSUBSCRIBE a* [b] ?"))
    assert publisher.send(pack("PUBLISH", "a", b"\xff\r\n")) == b":3\r\n"
    assert not listener.replies()
    store.next_turn.run()
    assert listener.replies() == (
        message(b"\xff\r\n")
        + b"*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$3\r\n\xff\r\n\r\n"
        + b"*4\r\n$8\r\npmessage\r\n$1\r\n?\r\n$1\r\na\r\n$3\r\n\xff\r\n\r\n"
    )
    assert publisher.send(lines("PUBLISH b 1\nPUBLISH no 1\nSPUBLISH a 1")) == b":2\r\n:0\r\n:0\r\n"


def test_shard_channels_have_names_and_subscribers_of_their_own() -> None:
    store, listener, publisher = two()
    listener.send(lines("SSUBSCRIBE a\nPSUBSCRIBE *"))
    assert publisher.send(lines("SPUBLISH a s\nPUBLISH a m")) == b":1\r\n:1\r\n"
    store.next_turn.run()
    assert listener.replies() == (
        b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\ns\r\n" + b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\nm\r\n"
    )
    assert publisher.send(lines("PUBSUB SHARDCHANNELS\nPUBSUB SHARDNUMSUB a b\nPUBSUB CHANNELS\nPUBSUB NUMPAT")) == (
        b"*1\r\n$1\r\na\r\n*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n*0\r\n:1\r\n"
    )


def test_in_resp3_messages_are_pushes_and_all_commands_go_on() -> None:
    store, listener, publisher = two()
    speak_3(listener)
    assert listener.send(lines("SUBSCRIBE a\nSET k v\nGET k\nPING")) == (
        b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+OK\r\n$1\r\nv\r\n+PONG\r\n"
    )
    publisher.send(line("PUBLISH a 1"))
    # What is asked for meanwhile is answered, and the answer of PUBLISH comes before the message.
    assert listener.send(line("PUBLISH a 2")) == b":1\r\n"
    store.next_turn.run()
    assert listener.replies() == message(b"1", head=b">3") + message(b"2", head=b">3")
    assert listener.send(line("UNSUBSCRIBE")) == b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"
    assert listener.send(line("UNSUBSCRIBE")) == b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"


def test_a_client_that_goes_back_to_resp2_is_confined_and_one_that_leaves_it_is_not() -> None:
    store, listener, publisher = two()
    speak_3(listener)
    listener.send(line("SUBSCRIBE a"))
    publisher.send(line("PUBLISH a 1"))
    answer = listener.send(line("HELLO 2"))
    assert answer.startswith(message(b"1", head=b">3") + b"*14\r\n")
    assert listener.send(line("GET k")).startswith(b"-ERR Can't execute 'get': only ")
    publisher.send(line("PUBLISH a 2"))
    store.next_turn.run()
    assert listener.replies() == message(b"2")


@pytest.mark.parametrize("end", ["UNSUBSCRIBE", "UNSUBSCRIBE a"])
def test_what_waits_comes_before_the_end_of_the_subscription(end: str) -> None:
    store, listener, publisher = two()
    listener.send(line("SUBSCRIBE a"))
    publisher.send(line("PUBLISH a 1"))
    assert listener.send(line(end)) == message(b"1") + UNSUBSCRIBED
    publisher.send(line("PUBLISH a 2"))
    store.next_turn.run()
    assert not listener.replies() and listener.send(line("GET k")) == b"$-1\r\n"


def test_a_client_that_is_reset_or_gone_has_no_subscriptions() -> None:
    store, listener, publisher = two()
    speak_3(listener)
    listener.send(lines("SUBSCRIBE a b\nPSUBSCRIBE *\nSSUBSCRIBE s"))
    publisher.send(line("PUBLISH a 1"))
    assert listener.send(line("RESET")) == b"+RESET\r\n"
    store.next_turn.run()
    assert not listener.replies()
    listener.send(lines("SUBSCRIBE a b\nPSUBSCRIBE *"))
    publisher.send(line("PUBLISH a 1"))
    listener.protocol.connection_lost(None)
    assert publisher.send(lines("PUBLISH a 1\nPUBSUB CHANNELS\nPUBSUB NUMPAT")) == b":0\r\n*0\r\n:0\r\n"
    store.next_turn.run()
    figures = store.channels.metrics()
    assert figures["subscriptions"] == figures["subscribers_unread_bytes"] == figures["subscribers_ended_total"] == 0


def test_a_client_that_has_gone_takes_no_memory_until_a_pass_of_the_collector() -> None:
    store, listener, publisher = two()
    listener.send(lines("SUBSCRIBE a\nPSUBSCRIBE *"))
    listener.transport.takes = False
    publisher.send(line("PUBLISH a 1"))
    kept = weakref.ref(listener.protocol)
    gc.disable()
    try:
        listener.protocol.connection_lost(None)
        store.next_turn.run()
        del listener.transport._protocol, listener.protocol, listener
        assert kept() is None
    finally:
        gc.enable()


def test_publishing_and_subscribing_keep_their_places_in_a_pipeline() -> None:
    store = FakeStore()
    store.held = True
    _, listener, publisher = two(store)
    listener.send(line("SUBSCRIBE a"))
    assert publisher.send(lines("SET k 1\nPUBLISH a 1\nSUBSCRIBE b\nGET k")) == b""
    store.next_turn.run()
    assert not listener.replies()
    store.release()
    assert publisher.replies().startswith(
        b"+OK\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n-ERR Can't execute 'get'"
    )
    store.next_turn.run()
    assert listener.replies() == message(b"1")


def test_a_transaction_publishes_when_it_has_taken_place() -> None:
    store, listener, publisher = two()
    listener.send(line("SUBSCRIBE a"))
    publisher.send(lines("MULTI\nPUBLISH a 1\nSET k v\nPUBLISH a 2"))
    store.next_turn.run()
    assert not listener.replies()
    assert publisher.send(line("EXEC")) == b"*3\r\n:1\r\n+OK\r\n:1\r\n"
    store.next_turn.run()
    assert listener.replies() == message(b"1") + message(b"2")
    assert publisher.send(lines("WATCH k\nSET k w\nMULTI\nPUBLISH a 3\nEXEC")).endswith(b"*-1\r\n")
    store.next_turn.run()
    assert not listener.replies()
    assert publisher.send(lines("MULTI\nPUBSUB CHANNELS\nDISCARD")) == (
        b"+OK\r\n-ERR PUBSUB is not served inside MULTI\r\n+OK\r\n"
    )
    refused = b"-ERR SUBSCRIBE is not served inside MULTI\r\n"
    assert publisher.send(lines("MULTI\nSUBSCRIBE a\nEXEC")) == (
        b"+OK\r\n" + refused + b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    )


def test_who_has_not_authenticated_is_told_so() -> None:
    client = connect(token=b"secret")
    for words in ("SUBSCRIBE a", "PUBLISH a b", "PUBSUB CHANNELS", "UNSUBSCRIBE"):
        assert client.send(line(words)) == b"-NOAUTH Authentication required.\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("failing", ["AUTH wrong", "AUTH default wrong", "AUTH a b c", "HELLO 3 AUTH default wrong"])
def test_a_failed_auth_ends_the_subscriptions(failing: str, protocol: int) -> None:
    store = FakeStore()
    shared = service(store, b"secret")
    listener, publisher = (Client(shared.connection(ignore)) for _ in range(2))
    for client in (listener, publisher):
        client.send(lines(f"HELLO {protocol} AUTH default secret"))
    listener.send(lines("SUBSCRIBE a\nPSUBSCRIBE *\nSSUBSCRIBE a"))
    # What waits belongs to nobody any more, either.
    assert publisher.send(lines("PUBLISH a 1\nSPUBLISH a 1")) == b":2\r\n:1\r\n"
    if protocol == 2 and failing.startswith("HELLO"):
        # A command that was not served at all: nobody was to be let in by it.
        assert listener.send(line(failing)).startswith(b"-ERR Can't execute 'hello'")
        return
    assert listener.send(line(failing)).startswith(b"-")
    store.next_turn.run()
    assert not listener.replies() and not any(store.channels.subscribed.values())
    assert publisher.send(lines("PUBLISH a 2\nSPUBLISH a 2")) == b":0\r\n:0\r\n"
    assert listener.send(line("SUBSCRIBE a")) == b"-NOAUTH Authentication required.\r\n"
    assert listener.send(lines("AUTH secret\nGET k\nSUBSCRIBE a")).startswith(b"+OK\r\n")
    publisher.send(line("PUBLISH a 3"))
    store.next_turn.run()
    assert listener.replies() == message(b"3", head=b"*3" if protocol == 2 else b">3")


def test_another_user_keeps_the_subscriptions() -> None:
    store = FakeStore()
    listener = Client(service(store, b"secret").connection(ignore))
    listener.send(lines("HELLO 3 AUTH default secret\nSUBSCRIBE a"))
    assert listener.send(line("AUTH secret")) == b"+OK\r\n"
    assert b"a" in store.channels.subscribed[CHANNEL]


def test_who_was_taken_out_is_told_nothing_more_while_its_connection_ends() -> None:
    store = FakeStore()
    shared = service(store, b"secret")
    listener, publisher = (Client(shared.connection(ignore)) for _ in range(2))
    for client in (listener, publisher):
        client.send(lines("HELLO 3 AUTH default secret\nSUBSCRIBE a"))
    store.held = True
    listener.send(line("SET k v"))
    publisher.send(line("PUBLISH a before"))
    listener.protocol.finish()
    assert not listener.transport.is_closing()
    assert publisher.send(line("PUBLISH a 1")) == b":1\r\n"
    store.next_turn.run()
    store.release()
    assert listener.closed and listener.replies() == message(b"before", head=b">3") + b"+OK\r\n"


@pytest.mark.parametrize("how", ["TYPE pubsub", "TYPE PUBSUB SKIPME no", "TYPE pubsub USER default"])
def test_subscribers_are_ended_and_nobody_else(how: str) -> None:
    store, listener, publisher = two()
    listener.send(line("SUBSCRIBE a"))
    assert publisher.send(lines("CLIENT KILL TYPE normal\nCLIENT KILL TYPE replica")) == b":0\r\n:0\r\n"
    assert publisher.send(line(f"CLIENT KILL {how}")) == b":1\r\n"
    assert (listener.closed, publisher.closed) == (True, False)
    listener.protocol.connection_lost(None)
    assert publisher.send(line("PUBLISH a 1")) == b":0\r\n" and not any(store.channels.subscribed.values())


def test_who_ends_its_own_subscribed_connection_has_the_answer_first() -> None:
    _, listener, _ = two()
    speak_3(listener)
    listener.send(line("SUBSCRIBE a"))
    assert listener.send(line("CLIENT KILL TYPE pubsub SKIPME no")) == b":1\r\n" and listener.closed


@pytest.mark.parametrize("database", [0, 3])
def test_a_confined_client_goes_no_fast_way(database: int) -> None:
    _, listener, _ = two()
    listener.send(lines(f"SELECT {database}\nSUBSCRIBE a"))
    for said in ("GET k", "SET k v", "INCR k", "DEL k", "OBJECT ENCODING k", "SELECT 1"):
        for times in (1, 2):
            told = listener.send(line(said) * times)
            assert told.count(b"-ERR Can't execute '") == told.count(b"\r\n") == times
    listener.send(lines("UNSUBSCRIBE\nSELECT 3"))
    assert listener.send(pack("GET", "k")) == b"$-1\r\n"


@pytest.mark.parametrize("database", ["3", "16"])
def test_channels_are_in_no_database(database: str) -> None:
    store, listener, publisher = two()
    listener.send(lines(f"SELECT {database}\nSUBSCRIBE a"))
    assert publisher.send(lines("PUBLISH a 1\nPUBSUB CHANNELS")) == b":1\r\n*1\r\n$1\r\na\r\n"
    store.next_turn.run()
    assert listener.replies().endswith(message(b"1"))


def test_the_list_of_clients_shows_who_has_subscribed() -> None:
    _, listener, other = two()
    listener.send(lines("SUBSCRIBE a b\nPSUBSCRIBE *\nSSUBSCRIBE x y z"))
    assert b" sub=2 psub=1 ssub=3 " in other.send(line("CLIENT LIST TYPE pubsub"))
    assert b" sub=0 psub=0 ssub=0 " in other.send(line("CLIENT LIST TYPE normal"))
    assert b"pubsub_channels:2\r\npubsub_patterns:1\r\npubsubshard_channels:3\r\n" in other.send(line("INFO stats"))


def test_names_messages_and_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SUBSCRIPTIONS_MAX", 3)
    monkeypatch.setattr(node_channels, "SUBSCRIPTIONS_MAX", 4)
    monkeypatch.setattr(node_channels, "PATTERNS_MAX", 1)
    _, one, other = two()
    long = "x" * 1025
    # As long as the channel of the longest key's changes.
    assert one.send(line(f"SUBSCRIBE {long}{'x' * 16}")) == b"-ERR a channel's name has at most 1040 bytes\r\n"
    assert one.send(line(f"PSUBSCRIBE {long}")) == b"-ERR a pattern has at most 1024 bytes\r\n"
    assert one.send(line(f"PUBLISH {long} 1")) == b"-ERR a channel's name has at most 1024 bytes\r\n"
    large = pack("PUBLISH", "a", bytes(node_channels.MESSAGE_BYTES_MAX + 1))
    assert one.send(large) == b"-ERR a message has at most 1048576 bytes\r\n"
    assert one.send(pack("PUBSUB", "NUMSUB", *["a"] * 5000)).startswith(b"*10000\r\n")
    for words in (["PUBSUB", "NUMSUB"], ["SUBSCRIBE"], ["PSUBSCRIBE"], ["SUNSUBSCRIBE"]):
        told = one.send(pack(*words, *["a"] * 5001))
        assert told == f"-ERR a request of {words[0]} has at most 5000 channels\r\n".encode()
    # None of these has made a subscription.
    assert one.send(line("GET k")) == b"$-1\r\n"
    assert one.send(line("SUBSCRIBE a b c d")) == b"-ERR a client has at most 3 subscriptions\r\n"
    assert one.send(line("SUBSCRIBE a b a a b")).endswith(b":2\r\n")
    assert one.send(line("PSUBSCRIBE *")).endswith(b":3\r\n")
    assert one.send(line("SUBSCRIBE a b")).endswith(b":3\r\n")
    assert other.send(line("PSUBSCRIBE ?")) == b"-ERR a node has at most 1 patterns of subscribers\r\n"
    assert other.send(line("SUBSCRIBE a b")) == (SUBSCRIBED + b"-ERR a node has at most 4 subscriptions\r\n")


def test_all_messages_of_a_turn_are_one_write_and_a_message_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[object] = []
    render = mailbox._render

    def counted(published: Published, *form: object) -> bytes:
        rendered.append(form)
        return render(published, *form)  # type: ignore[arg-type]

    monkeypatch.setattr(mailbox, "_render", counted)
    store = FakeStore()
    shared = service(store)
    clients = [Client(shared.connection(ignore)) for _ in range(20)]
    for client in clients:
        client.send(line("SUBSCRIBE a"))
    writes: list[bytes] = []
    monkeypatch.setattr(clients[7].transport, "write", writes.append)
    Client(shared.connection(ignore)).send(b"".join([pack("PUBLISH", "a", b"%d" % number) for number in range(30)]))
    store.next_turn.run()
    everything = b"".join([message(b"%d" % number) for number in range(30)])
    assert writes == [everything] and clients[8].replies().endswith(everything)
    assert len(rendered) == 30


# Who does not read ----------------------------------------------------------------------------------------------------


def test_a_client_that_reads_again_gets_everything_in_order_and_no_reply_in_between() -> None:
    store, listener, publisher = two()
    speak_3(listener)
    listener.send(line("SUBSCRIBE a"))
    listener.transport.takes = False
    large = bytes(3 * mailbox.CHUNK_BYTES)
    sent = [large, b"1", large, b"2"]
    for data in sent:
        publisher.send(pack("PUBLISH", "a", data))
    store.next_turn.run()
    # The socket has a chunk, and the rest waits here.
    first = listener.replies()
    assert len(first) == mailbox.CHUNK_BYTES
    listener.send(line("PING"))
    came = first + listener.replies()
    while len(came) < sum(map(len, sent)):
        listener.transport.take_all()
        listener.transport.takes = False
        store.next_turn.run()
        new = listener.replies()
        assert new
        came += new
    listener.transport.take_all()
    store.next_turn.run()
    came += listener.replies()
    assert came.count(b"+PONG\r\n") == 1
    pushes = [message(data, head=b">3") for data in sent]
    assert came.replace(b"+PONG\r\n", b"") == b"".join(pushes)
    at = came.index(b"+PONG\r\n")
    assert at in (len(b"".join(pushes[:number])) for number in range(5)), "a reply stands inside of a message"
    assert store.channels.metrics()["subscribers_unread_bytes"] == 0


def test_no_message_comes_inside_of_a_long_reply() -> None:
    store = FakeStore()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    # Every slice is over soon: a long reply takes many turns.
    store.next_turn.time = clock
    keys = [f"k{number}" for number in range(1000)]
    store.apply([c.set_(key, bytes(2000), 0) for key in keys])
    shared = service(store, slices=store.next_turn.slices)
    listener, publisher = (Client(shared.connection(ignore)) for _ in range(2))
    speak_3(listener)
    listener.send(line("SUBSCRIBE a"))
    store.next_turn.run()
    listener.replies()
    came = listener.send(pack("MGET", *keys) + pack("MGET", *keys))
    store.next_turn.run(1)
    publisher.send(line("PUBLISH a 1"))
    store.next_turn.run()
    reply = b"*1000\r\n" + (b"$2000\r\n" + bytes(2000) + b"\r\n") * 1000
    came += listener.replies()
    assert came == reply + message(b"1", head=b">3") + reply


def test_a_slow_subscriber_is_ended_with_one_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mailbox, "UNREAD_BYTES_MAX", 100_000)
    store, slow, publisher = two()
    reader = Client(service(store).connection(ignore))
    for client in (slow, reader):
        client.send(line("SUBSCRIBE a"))
    slow.transport.takes = False
    with caplog.at_level(logging.WARNING, "cacheflow.wire"):
        for _ in range(20):
            publisher.send(pack("PUBLISH", "a", bytes(10_000)))
            store.next_turn.run()
    assert slow.transport.aborted and not reader.closed
    assert len(reader.replies()) > 200_000
    assert len(caplog.records) == 1 and "does not take what is published" in caplog.text
    figures = store.channels.metrics()
    assert figures["subscribers_ended_total"] == 1 and figures["subscribers_unread_bytes"] == 0
    slow.protocol.connection_lost(None)
    assert publisher.send(line("PUBSUB NUMSUB a")) == b"*2\r\n$1\r\na\r\n:1\r\n"


def test_the_slowest_are_ended_when_too_much_waits_for_all_of_them() -> None:
    store, slowest, publisher = two()
    store.next_turn.unsent.bytes_max = 100_000
    slow = Client(service(store).connection(ignore))
    slowest.send(line("SUBSCRIBE a b"))
    slow.send(line("SUBSCRIBE a"))
    slowest.transport.takes = slow.transport.takes = False
    for number in range(20):
        publisher.send(pack("PUBLISH", "ab"[number % 2], bytes(10_000)))
        store.next_turn.run()
        assert store.channels.metrics()["subscribers_unread_bytes"] <= 100_000
    assert slowest.closed and not slow.closed


def test_what_many_wait_for_counts_once() -> None:
    store = FakeStore()
    shared = service(store)
    clients = [Client(shared.connection(ignore)) for _ in range(100)]
    for client in clients:
        client.send(line("SUBSCRIBE a"))
        client.transport.takes = False
    publisher = Client(shared.connection(ignore))
    for _ in range(4):
        publisher.send(pack("PUBLISH", "a", bytes(500_000)))
        store.next_turn.run()
    assert 2_000_000 < store.channels.metrics()["subscribers_unread_bytes"] < 2_100_000
    assert not any(client.closed for client in clients)


def test_what_waits_is_in_the_budget_of_all_clients() -> None:
    store, listener, publisher = two()
    budget = store.next_turn.unsent
    listener.send(line("SUBSCRIBE a"))
    listener.transport.takes = False
    for _ in range(3):
        publisher.send(pack("PUBLISH", "a", bytes(500_000)))
        store.next_turn.run()
    waiting = store.channels.metrics()["subscribers_unread_bytes"]
    assert 1_500_000 < waiting == budget.bytes
    # What others keep waiting ends no subscriber at once: it may be taking what it is sent.
    budget.bytes_max = 1_600_000
    budget.bytes += 10_000_000
    publisher.send(pack("PUBLISH", "a", b"1"))
    store.next_turn.run()
    budget.bytes -= 10_000_000
    assert not listener.closed
    listener.protocol.connection_lost(None)
    store.next_turn.run()
    assert budget.bytes == 0


# Many ------------------------------------------------------------------------------------------------------------------


def test_who_publishes_faster_than_is_handed_out_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_channels, "HANDED_OUT_MAX", 10)
    store, listener, publisher = two()
    listener.send(line("SUBSCRIBE a"))
    listener.replies()
    answered = publisher.send(b"".join([pack("PUBLISH", "a", b"%d" % number) for number in range(40)]))
    # Five are handed out, and the next one waits.
    assert answered == b":1\r\n" * 5
    store.next_turn.run()
    assert publisher.replies() == b":1\r\n" * 35
    assert listener.replies() == b"".join([message(b"%d" % number) for number in range(40)])


@pytest.mark.parametrize("protocol", [2, 3])
def test_many_subscriptions_are_made_in_slices_and_no_message_comes_in_between(
    protocol: int,
) -> None:
    store, listener, _ = two()
    if protocol == 3:
        speak_3(listener)
    listener.send(line("SUBSCRIBE first"))
    store.next_turn.run()
    listener.replies()
    names = [f"c{number}" for number in range(20)]
    publisher = Client(service(store).connection(ignore))
    # A message that is about to be written when the subscriptions begin.
    publisher.send(line("PUBLISH first early"))
    # The request begins in this slice, and from then on one is over whenever somebody asks; the publisher never does.
    store.next_turn.time = itertools.chain([1.0], itertools.count(2.0)).__next__
    head = b"*3" if protocol == 2 else b">3"
    assert listener.send(line("SUBSCRIBE " + " ".join(names))) == b""
    assert publisher.send(lines("PUBLISH c0 a\nPUBLISH first b\nPUBLISH c19 no")) == b":1\r\n:1\r\n:0\r\n"
    store.next_turn.run()
    came = listener.replies()
    assert came.count(b"subscribe") == 20
    waited = message(b"early", b"first", head) + message(b"a", b"c0", head) + message(b"b", b"first", head)
    assert came.endswith(b":21\r\n" + waited)
    assert listener.send(line("UNSUBSCRIBE")) == b""
    assert publisher.send(lines("PUBLISH c19 a\nPUBLISH c18 b\nPUBLISH first no")) == b":1\r\n:1\r\n:0\r\n"
    store.next_turn.run()
    came = listener.replies()
    assert came.startswith(message(b"a", b"c19", head) + message(b"b", b"c18", head)) and came.endswith(b":0\r\n")
    assert came.count(b"unsubscribe") == 21
    assert publisher.send(line("PUBSUB CHANNELS")) == b"*0\r\n"
    assert listener.send(line("PSUBSCRIBE " + " ".join(names))) == b""
    listener.protocol.connection_lost(None)
    listener.transport.closed = True
    store.next_turn.run()
    assert store.channels.metrics()["subscriptions"] == 0


def test_patterns_that_match_nothing_cost_their_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store, listener, publisher = two()
    listener.send(line("PSUBSCRIBE " + " ".join(f"p{number}" for number in range(500))))
    assert publisher.send(pack("PUBLISH", "a", "1") * 40) == b":0\r\n" * 4
    monkeypatch.setattr(store.next_turn, "time", iter(range(1000)).__next__)
    # Four in each slice, of which the clock says that it is over.
    assert store.next_turn.run() >= 9
    assert publisher.replies() == b":0\r\n" * 36


def test_a_transaction_that_publishes_too_much_is_told_so_and_publishes_the_rest() -> None:
    store, listener, publisher = two()
    listener.send(line("PSUBSCRIBE " + " ".join(f"p{number}" for number in range(500))))
    publisher.send(b"".join([pack("MULTI"), pack("PUBLISH", "p7", "1") * 100, pack("SET", "k", "v")]))
    answer = publisher.send(line("EXEC"))
    assert answer.startswith(b"*101\r\n") and answer.endswith(b"+OK\r\n")
    assert answer.count(b":1\r\n") == 40 and answer.count(b"-TRYAGAIN not published: ") == 60
    listener.replies()
    store.next_turn.run()
    assert listener.replies().count(b"pmessage") == 40


def test_work_for_many_is_done_in_slices() -> None:
    store = FakeStore()
    shared = service(store)
    clients = [Client(shared.connection(ignore)) for _ in range(300)]
    for client in clients:
        client.send(line("SUBSCRIBE a"))
        client.replies()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0001
        return now

    store.next_turn.time = clock
    Client(shared.connection(ignore)).send(line("PUBLISH a 1"))
    turns = store.next_turn.run()
    # The step behind which a turn's time is up is done, and the first one of a turn in any case.
    assert turns >= 300 / (SLICE_S / 0.0001 + 2)
    assert all(client.replies() == message(b"1") for client in clients)
