"""The same scripts on redis-server, where there is one, and here: equal replies, but for where an error says it was raised."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire.resp.scripting.compared import COMPARED
from wire.resp_client import pack
from wire.script_client import ScriptClients

# Where an error was raised: a call in a return statement leaves no trace of its place here.
PLACE = re.compile(rb"(user_script:\d+: )|( script: [0-9a-f]{40}.*)|(, on @user_script:\d+\.)")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=20)
                break
            assert time.monotonic() < until
            time.sleep(0.02)
        with connection:
            yield connection
    finally:
        process.terminate()
        process.wait(20)


def asked(connection: socket.socket, request: bytes) -> bytes:
    """The one reply to a request, with an ECHO behind it to see its end."""
    end = b"$3\r\nend\r\n"
    connection.sendall(request + pack("ECHO", "end"))
    received = b""
    while not received.endswith(end):
        part = connection.recv(65536)
        assert part, "the server has closed the connection"
        received += part
    return received[: -len(end)]


def told(reply: bytes) -> bytes:
    """A reply without the places of its errors; of nested ones the lengths go too."""
    return re.sub(rb"\$\d+", b"$", PLACE.sub(b"", reply))


def test_scripts_answer_as_on_redis(redis_server: socket.socket) -> None:
    client = ScriptClients().connect()
    for request in (pack("FLUSHALL"), pack("SET", "k", "v0")):
        client.send(request)
        asked(redis_server, request)
    different = []
    for each in COMPARED:
        script, keys, arguments = each if isinstance(each, tuple) else (each, [], [])
        request = pack("EVAL", script, str(len(keys)), *keys, *arguments)
        ours, theirs = told(client.send(request)), told(asked(redis_server, request))
        if ours != theirs:
            different.append(f"{script!r}\n  here:  {ours!r}\n  Redis: {theirs!r}")
    if different:
        pytest.fail("\n".join(different), pytrace=False)
