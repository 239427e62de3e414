"""How many calls of our own code one write takes, and one heartbeat at rest: what a node does, without any clock's noise."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from cacheflow.config import NodeConfig
from cacheflow.node.engine import Engine
from cacheflow.rest import HttpServer, RestConfig, at_once, body_bytes_max, create_app, turn_away
from cacheflow.store import ReplicatedStore
from cacheflow.wire.resp.service import resp_port
from scripts.bench.harness import Verdict

MUST = "own calls of a RESP SET <= 135, of a PUT <= 195, of an idle heartbeat <= 80"
LIMIT_S = 60
WHAT = "calls of own functions: RESP SET, PUT, idle heartbeat"
# The poll of the HTTP server is ours, since waitress' own looked at every connection; a heartbeat looks for events, too.
MOST = {"set": 135, "put": 195, "heartbeat": 80}
OURS = str(Path(Engine.start.__code__.co_filename).parents[1])
SET = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
IDLE_S = 3.0


class Counting:
    """Counts calls of functions in cacheflow/ while it is on, in every thread that begins after it was made."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.on = False
        threading.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if self.on and event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.calls[frame.f_code.co_qualname] += 1

    def during(self, work: Callable[[], object]) -> int:
        """Calls while ``work`` runs."""
        self.calls.clear()
        self.on = True
        work()
        self.on = False
        return self.calls.total()


def run(writes: int = 400) -> Verdict:
    """One node with HTTP and RESP in this process; what its heartbeats take in the same time is taken off."""
    counting = Counting()
    try:
        with tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder, contextlib.ExitStack() as stack:
            found = _measure(counting, writes, Path(folder), stack)
    finally:
        threading.setprofile(None)
    told = f"a RESP SET {found['set']:.0f}, a PUT {found['put']:.0f}, an idle heartbeat {found['heartbeat']:.0f}"
    return Verdict(told, all(found[name] <= most for name, most in MOST.items()), found)


def shown(figures: dict[str, Any]) -> str:
    """The three numbers."""
    return f"{figures['set']:.0f}, {figures['put']:.0f}, {figures['heartbeat']:.0f}"


def _measure(counting: Counting, writes: int, folder: Path, stack: contextlib.ExitStack) -> dict[str, float]:
    store = ReplicatedStore(NodeConfig(node_id="node", port=0, raft_port=0, bootstrap=True, data_dir=folder))
    rest = RestConfig(access=None, threads=4)
    app = create_app(store, rest)
    server = HttpServer(
        app,
        "127.0.0.1",
        0,
        threads=rest.threads,
        body_bytes_max=body_bytes_max(store.value_bytes_max),
        refusal_headers=app.services.raft_headers,
        turn_away=functools.partial(turn_away, app.services),
        at_once=at_once,
    )
    store.start(f"127.0.0.1:{server.port}")
    stack.callback(store.close)
    server.start()
    stack.callback(server.stop)
    store.wait_ready(20)
    port = store.serve(
        resp_port(store, value_bytes_max=store.value_bytes_max, access=None, connections_max=4), "127.0.0.1", 0
    )
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    web = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)))

    def set_() -> None:
        client.sendall(SET)
        assert client.recv(100) == b"+OK\r\n"

    def put() -> None:
        web.request("PUT", "/cache/k", b'{"value":"v"}', {"Content-Type": "application/json"})
        answer = web.getresponse()
        answer.read()
        assert answer.status in (200, 201)

    beats_a_second = 1 / store.config.heartbeat_s
    for write in (set_, put):
        write()
    idle = counting.during(lambda: time.sleep(IDLE_S)) / IDLE_S
    return {
        "set": _of_one(counting, set_, writes, idle),
        "put": _of_one(counting, put, writes, idle),
        "heartbeat": round(idle / beats_a_second, 1),
    }


def _of_one(counting: Counting, write: Callable[[], None], writes: int, idle_a_second: float) -> float:
    def all_of_them() -> None:
        for _ in range(writes):
            write()

    began = time.monotonic()
    calls = counting.during(all_of_them)
    return round((calls - idle_a_second * (time.monotonic() - began)) / writes, 1)
