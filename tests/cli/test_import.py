"""The command ``import``, from a server that speaks Redis' protocol: our own, and ones that lie."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rest.fake_store import FakeStore

from cacheflow.cli import main
from cacheflow.machine.language import commands as c
from cacheflow.rest import HttpServer, RestConfig, create_app
from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.service import resp_port


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.value_bytes_max = 1000
    return store


@pytest.fixture(autouse=True)
def server(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    with HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0) as server:
        monkeypatch.setenv("CACHEFLOW_URL", f"http://127.0.0.1:{server.port}")
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ReplicatedStore]:
    with ReplicatedStore(
        raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path, replicas=0, max_items=None
    ) as made:
        made.wait_ready(10.0)
        yield made


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_strings_come_with_their_ttls_and_the_rest_is_counted(
    capfd: pytest.CaptureFixture[str], store: FakeStore, source: ReplicatedStore
) -> None:
    front = resp_port(source, value_bytes_max=1 << 20, access=None, connections_max=10, slices=source.slices)
    port = source.serve(front, "127.0.0.1", 0)
    source.set_many({f"k{number}": f"v{number}" for number in range(1200)})
    source.set("bytes", b"\xff\x00")
    source.set("ends", "x", ttl=500)
    source.set("large", "x" * 1001)
    source.run([c.set_fields("hash", 3, [b"f", b"1"], 1000), c.set_("\x013other", b"x", 0)])
    code, out, _ = run(capfd, "import", f"redis://127.0.0.1:{port}", "--json")
    assert (code, json.loads(out)) == (1, {"imported": 1202, "left_out": {"hash": 1, "too large": 1}})
    assert len(store.entries) == 1202
    assert store.entries["k7"][:2] == (b"v7", 0)
    assert store.entries["bytes"][:2] == (b"\xff\x00", 1)
    assert 490_000 < store.entries["ends"][4] - store.clock_ms <= 500_000
    code, out, _ = run(capfd, "import", f"redis://127.0.0.1:{port}/3")
    assert (code, out) == (0, "1 imported\n")
    assert store.entries["other"][0] == b"x"


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://h:x", "redis://h/x", "rediss://h", "nothing"])
def test_a_url_that_is_none(capfd: pytest.CaptureFixture[str], url: str) -> None:
    code, _, err = run(capfd, "import", url)
    assert (code, "redis://host:port/database" in err) == (2, True)


def test_nobody_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "import", "redis://127.0.0.1:1")[0] == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad\r\n",
        b"$9999999999\r\n",
        b"*99999999\r\n",
        b"$x\r\n",
        b"*1\r\n" * 20,
        b"-ERR no\r\n",
        b"$5\r\nab",
    ],
)
def test_a_server_that_is_none(capfd: pytest.CaptureFixture[str], store: FakeStore, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, _, err = run(capfd, "import", f"redis://:secret@127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert code in (1, 3)
    assert "secret" not in err
    assert store.entries == {}


def test_a_key_that_changes_meanwhile_is_counted_and_one_that_goes_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    # What is asked for: DBSIZE; SCAN; TYPE and STRLEN of both keys; GET and PTTL of both.
    answers = (
        b":2\r\n",
        b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"+string\r\n:1\r\n" * 2,
        b"-WRONGTYPE no string\r\n:-1\r\n$-1\r\n:-2\r\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                for answer in answers:
                    client.recv(1000)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, out, _ = run(capfd, "import", f"redis://127.0.0.1:{listening.getsockname()[1]}", "--json")
        thread.join()
    assert (code, json.loads(out)) == (1, {"imported": 0, "left_out": {"changed meanwhile": 1}})
