"""The load generator in C, and who leads, against servers that only pretend."""

from __future__ import annotations

import contextlib
import json
import shutil
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hiredis
import pytest

from scripts.bench.loadgen import LoadGenerator, Measured, percentile_us
from scripts.bench.peers.compare import ETCD_CONNECTIONS
from scripts.bench.peers.servers import Served, etcd_led_by

Command = list[bytes]
OK = b"+OK\r\n"
MEMBERS = ("11", "22", "33")


@pytest.fixture(scope="module")
def load() -> Iterator[LoadGenerator]:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    with contextlib.closing(LoadGenerator(drain_s=0.5)) as generator:
        yield generator


@contextlib.contextmanager
def listening(server: socketserver.TCPServer) -> Iterator[int]:
    """Its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def resp(answer: Callable[[Command], bytes], read_bytes: int = 65536) -> contextlib.AbstractContextManager[int]:
    """A server with an answer for each command."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            reader = hiredis.Reader()
            with contextlib.suppress(ConnectionError):
                while data := self.request.recv(read_bytes):
                    reader.feed(data)
                    while (command := reader.gets()) is not False:
                        self.request.sendall(answer(command))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    return listening(Server(("127.0.0.1", 0), Connection))


def gateway(answer: Callable[[str, dict[str, Any]], bytes]) -> contextlib.AbstractContextManager[int]:
    """etcd's, with an answer for each path and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            # In one piece: what waits for an acknowledgement takes 40 ms.
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler))


def test_a_fill_writes_each_key_once_and_in_order(load: LoadGenerator) -> None:
    seen: list[Command] = []

    def answer(command: Command) -> bytes:
        seen.append(command)
        return OK

    with resp(answer) as port:
        filled = load.run("resp", "fill", [port], connections=1, pipeline=4, seconds=30, keys=500, value_bytes=7)
    assert seen == [[b"SET", b"key:%012d" % number, b"xxxxxxx"] for number in range(500)]
    assert filled.replies == 500
    assert filled.per_s > 0


def test_a_fill_that_takes_too_long_fails(load: LoadGenerator) -> None:
    def answer(command: Command) -> bytes:
        time.sleep(0.02)
        return OK

    with resp(answer) as port, pytest.raises(RuntimeError, match=r"of 1000 keys were written in 0\.1 s"):
        load.run("resp", "fill", [port], connections=1, seconds=0.1, keys=1000)


def test_an_answer_after_the_window_counts_with_its_latency_and_not_for_the_rate(load: LoadGenerator) -> None:
    def answer(command: Command) -> bytes:
        time.sleep(0.1)
        return OK

    with resp(answer) as port:
        measured = load.run("resp", "set", [port], connections=2, seconds=0.02)
    assert (measured.replies, measured.per_s) == (2, 0)
    assert measured.max_us >= measured.p50_us >= 0.99 * 100_000


def test_a_latency_is_told_within_a_hundredth(load: LoadGenerator) -> None:
    def answer(command: Command) -> bytes:
        time.sleep(0.031)
        return OK

    with resp(answer) as port:
        measured = load.run("resp", "set", [port], connections=1, seconds=0.01)
    ((middle_us, count),) = measured.buckets
    assert count == 1
    assert middle_us == pytest.approx(measured.max_us, rel=0.008)


def test_answers_that_never_come_fail_the_run(load: LoadGenerator) -> None:
    answers = iter([OK] * 5)
    with (
        resp(lambda command: next(answers, b"")) as port,
        pytest.raises(RuntimeError, match="3 of 8 answers are missing"),
    ):
        load.run("resp", "set", [port], connections=1, pipeline=3, seconds=0.5)


def test_a_run_without_any_answer_fails(load: LoadGenerator) -> None:
    with resp(lambda command: b"") as port, pytest.raises(RuntimeError, match="4 of 4 answers are missing"):
        load.run("resp", "get", [port], connections=4, seconds=0.05)


def test_all_that_was_due_within_the_window_is_asked_and_answered(load: LoadGenerator) -> None:
    with resp(lambda command: OK) as port:
        measured = load.run("resp", "set", [port], connections=2, pipeline=64, seconds=0.3, rate=200)
    assert measured.replies == pytest.approx(60, abs=1)


def test_a_server_that_reads_large_values_slowly_gets_them_whole(load: LoadGenerator) -> None:
    sizes: set[int] = set()

    def answer(command: Command) -> bytes:
        sizes.add(len(command[2]))
        time.sleep(0.001)
        return OK

    with resp(answer, read_bytes=30_000) as port:
        measured = load.run("resp", "set", [port], connections=1, pipeline=64, seconds=1, value_bytes=100_000)
    assert measured.replies > 2 * 64  # what there is room for
    assert sizes == {100_000}


@pytest.mark.parametrize("value_bytes", [10, 50_000])
def test_a_range_of_etcd_that_finds_nothing_is_a_miss(load: LoadGenerator, value_bytes: int) -> None:
    header = {"cluster_id": "1" * 20, "member_id": "2" * 20, "revision": "3" * 19, "raft_term": "4" * 19}
    empty = json.dumps({"header": header}).encode()
    found = json.dumps({"header": header, "kvs": [{"value": "a" * value_bytes}]}).encode()
    answers = iter([empty, found, empty])
    with gateway(lambda path, body: next(answers, found)) as port:
        measured = load.run("etcd", "get", [port], connections=1, seconds=0.5)
    assert measured.replies > 3
    assert measured.misses == 2


def test_the_answer_to_a_put_is_no_miss(load: LoadGenerator) -> None:
    with gateway(lambda path, body: b'{"header":{}}') as port:
        measured = load.run("etcd", "fill", [port], connections=1, seconds=10, keys=20)
    assert (measured.replies, measured.misses) == (20, 0)


def test_the_percentile_of_several_runs_is_of_all_their_answers() -> None:
    def run(*buckets: tuple[float, int]) -> Measured:
        return Measured(0, 0, 0, 0, 0, 0, 0, buckets)

    calm, bad = run((1.0, 990), (2.0, 10)), run((1.0, 50), (9.0, 50))
    assert percentile_us([calm], 0.99) == 1
    assert percentile_us([bad], 0.99) == 9
    assert percentile_us([*[calm] * 6, bad], 0.99) == 2
    assert percentile_us([calm, bad], 1) == 9
    assert "buckets" not in calm.figures()


@contextlib.contextmanager
def etcd(leaders: list[str]) -> Iterator[list[int]]:
    """Three gateways; ``leaders`` is whom each takes for the leader."""

    def member(number: int) -> Callable[[str, dict[str, Any]], bytes]:
        def answer(path: str, body: dict[str, Any]) -> bytes:
            assert path == "/v3/maintenance/status"
            return json.dumps({"header": {"member_id": MEMBERS[number]}, "leader": leaders[number]}).encode()

        return answer

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(gateway(member(number))) for number in range(len(MEMBERS))]


def test_the_leader_of_etcd_is_the_one_that_says_so_itself() -> None:
    with etcd(["22", "22", "22"]) as ports:
        assert etcd_led_by(ports) == ports[1]


def test_a_leader_that_another_one_followed_is_noticed() -> None:
    leaders = ["33", "33", "33"]
    with etcd(leaders) as ports:
        served = Served("etcd", "etcd", (ports[2], ports[0], ports[1]), lambda: etcd_led_by(ports))
        assert served.still_led()
        leaders[:] = ["11", "11", "11"]
        assert not served.still_led()
    assert Served("redis", "resp", (1,)).still_led()


def test_etcd_is_offered_as_many_at_once_as_ours_has_under_way() -> None:
    assert max(ETCD_CONNECTIONS) == 64 * 16
