"""Subscribers on real nodes: the client that most people use, all nodes, a thousand subscribers, and one that does not read."""

from __future__ import annotations

import asyncio
import queue
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from fakes.embedded import three_nodes, wait_for
from flask import Flask, Response
from redis.backoff import NoBackoff
from redis.retry import Retry
from wire.resp_client import pack

from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.mailbox import UNREAD_BYTES_MAX
from cacheflow.wire.resp.service import resp_port

AT_ONCE = Retry(NoBackoff(), 0)
DEADLINE_S = 20.0
SUBSCRIBERS = 1000
MEGABYTE = 1024 * 1024


def serve(store: ReplicatedStore) -> int:
    """The port on which ``store`` speaks RESP now."""
    port = resp_port(store, value_bytes_max=2 * MEGABYTE, access=None, connections_max=2 * SUBSCRIBERS)
    return store.serve(port, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[ReplicatedStore, int]]]:
    with three_nodes(tmp_path_factory.mktemp("channels")) as stores:
        yield [(store, serve(store)) for store in stores]


@pytest.fixture
def ports(trio: list[tuple[ReplicatedStore, int]]) -> list[int]:
    return [port for _, port in trio]


def messages(pubsub: redis.client.PubSub, count: int) -> list[dict[str, object]]:
    """The next so many messages, without the answers to subscriptions."""
    found: list[dict[str, object]] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < deadline, found
        message = pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
        if message is not None:
            found.append(message)
    return found


def subscribed(pubsub: redis.client.PubSub, count: int) -> None:
    """Return when so many subscriptions are answered."""
    answers = 0
    while answers < count:
        answers += pubsub.get_message(timeout=DEADLINE_S) is not None


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_one_node_is_given_comes_to_the_subscribers_of_all(ports: list[int], protocol: int) -> None:
    clients = [redis.Redis(port=port, protocol=protocol, retry=AT_ONCE, decode_responses=True) for port in ports]
    listeners = [client.pubsub() for client in clients]  # type: ignore[no-untyped-call]
    for listener in listeners:
        listener.subscribe("news", "other")
        listener.psubscribe("n*s")
        listener.ssubscribe("news")
        subscribed(listener, 4)
    for at, client in enumerate(clients):
        assert client.publish("news", f"from {at}") == 2
        assert client.spublish("news", f"shard {at}") == 1
    assert clients[0].publish("nobody", "x") == 0
    for listener in listeners:
        came = messages(listener, 9)
        for at in range(3):
            mine = [(m["type"], m["pattern"], m["channel"]) for m in came if m["data"] == f"from {at}"]
            assert mine == [("message", None, "news"), ("pmessage", "n*s", "news")]
            assert [m["type"] for m in came if m["data"] == f"shard {at}"] == ["smessage"]
    assert clients[1].pubsub_channels() == ["news", "other"]
    assert clients[1].pubsub_numsub("news", "no") == [("news", 1), ("no", 0)]
    assert clients[1].pubsub_numpat() == 1
    assert clients[1].pubsub_shardchannels() == ["news"]
    listeners[0].ping()
    listeners[0].unsubscribe()
    listeners[0].punsubscribe()
    listeners[0].sunsubscribe()
    for listener, client in zip(listeners, clients, strict=True):
        listener.close()
        client.close()


@pytest.mark.parametrize("size", [0, 100, 40_000, MEGABYTE])
def test_messages_of_any_size_keep_their_order_on_other_nodes(ports: list[int], size: int) -> None:
    # Together less than a subscriber may leave unread.
    count = 200 if size < 1000 else 6
    with redis.Redis(port=ports[0]) as one, redis.Redis(port=ports[1]) as other, one.pubsub() as listener:
        listener.subscribe("sizes")
        subscribed(listener, 1)
        for number in range(count):
            other.publish("sizes", b"%04d" % number + bytes(max(0, size - 4)))
        data = [message["data"] for message in messages(listener, count)]
        assert [int(each[:4]) for each in data] == list(range(count))  # type: ignore[index]
        assert {len(each) for each in data} == {max(4, size)}  # type: ignore[arg-type]


def test_a_subscriber_of_asyncio(ports: list[int]) -> None:
    async def listen() -> list[object]:
        found: list[object] = []
        async with redis.asyncio.Redis(port=ports[2], decode_responses=True) as client, client.pubsub() as listener:
            await listener.subscribe("tasks")
            await listener.psubscribe("task?")
            async with redis.asyncio.Redis(port=ports[0]) as publisher:
                async for message in listener.listen():
                    if message["type"] == "psubscribe":
                        await publisher.publish("tasks", "done")
                    elif message["type"].endswith("message"):
                        found.append((message["type"], message["data"]))
                        if len(found) == 2:
                            return found
        raise AssertionError

    assert asyncio.run(asyncio.wait_for(listen(), DEADLINE_S)) == [("message", "done"), ("pmessage", "done")]


def test_server_sent_events_of_a_web_application(ports: list[int]) -> None:
    """As Flask-SSE does it: one subscription a stream, in the thread that serves it."""
    app = Flask(__name__)

    @app.get("/stream")
    def stream() -> Response:
        pubsub = redis.Redis(port=ports[1], decode_responses=True).pubsub()  # type: ignore[no-untyped-call]
        pubsub.subscribe("sse")

        def events() -> Iterator[str]:
            for message in pubsub.listen():
                if message["data"] == "end":
                    pubsub.close()
                    return
                yield "subscribed" if message["type"] == "subscribe" else f"data: {message['data']}\n\n"

        return Response(events(), mimetype="text/event-stream")

    came: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for chunk in app.test_client().get("/stream", buffered=False).iter_encoded():
            came.put(chunk.decode())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert came.get(timeout=DEADLINE_S) == "subscribed"
    with redis.Redis(port=ports[0]) as publisher:
        for number in range(3):
            publisher.publish("sse", f"event {number}")
        publisher.publish("sse", "end")
    reader.join(DEADLINE_S)
    assert [came.get(timeout=DEADLINE_S) for _ in range(3)] == [f"data: event {number}\n\n" for number in range(3)]


def test_a_thousand_subscribers_and_one_that_does_not_read(
    trio: list[tuple[ReplicatedStore, int]], caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * SUBSCRIBERS:
        pytest.skip("too few file descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * SUBSCRIBERS), hard))
    (store, port), (_, other) = trio[0], trio[1]
    ended = store.metrics()["subscribers_ended_total"]
    readers = [socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(SUBSCRIBERS)]
    slow = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    try:
        for sock in (*readers, slow):
            sock.sendall(pack("SUBSCRIBE", "all"))
        for sock in (*readers, slow):
            assert _read(sock, len(b"*3\r\n$9\r\nsubscribe\r\n$3\r\nall\r\n:1\r\n")).endswith(b":1\r\n")
        with redis.Redis(port=other) as publisher, redis.Redis(port=port) as near:
            for number in range(10):
                publisher.publish("all", f"message {number}")
                assert near.publish("all", f"near {number:4}") == SUBSCRIBERS + 1
            for sock in readers:
                came = _read(sock, 20 * len(b"*3\r\n$7\r\nmessage\r\n$3\r\nall\r\n$9\r\nmessage 0\r\n"))
                for words in (b"message %d", b"near %4d"):
                    places = [came.index(words % number) for number in range(10)]
                    assert places == sorted(places)
            # One goes on reading, one does not, and the others leave.
            for sock in readers[1:]:
                sock.close()
            wait_for(lambda: near.pubsub_numsub("all") == [(b"all", 2)])
            large = bytes(MEGABYTE)
            sent = 0
            while store.metrics()["subscribers_ended_total"] == ended:
                sent += 1
                near.publish("all", large)
                _read(readers[0], MEGABYTE)
            # A message has some bytes beside the megabyte.
            assert UNREAD_BYTES_MAX <= sent * MEGABYTE < 4 * UNREAD_BYTES_MAX
            wait_for(lambda: near.pubsub_numsub("all") == [(b"all", 1)])
            assert sum("does not take what is published" in record.message for record in caplog.records) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in (*readers, slow):
            sock.close()


def _read(sock: socket.socket, size: int) -> bytes:
    came = b""
    while len(came) < size:
        new = sock.recv(65536)
        assert new, came
        came += new
    return came
